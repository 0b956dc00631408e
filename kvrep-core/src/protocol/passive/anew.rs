//! Two groups of one name: what a replica does that began anew, and what those do who knew the group from before.
//!
//! Without a witness, a replica that is started with an empty storage and told of nobody (another working directory, or the primary's address left out, is enough)
//! begins a group, and serves: it knows nobody who could tell it that there is one. Others may know: they named it, or counted it with the storage that it had.
//! So every group has an [`Origin`](crate::Origin), made of the storage that began it and kept in each configuration after that; two of one name are told apart by it.
//!
//! Invariants:
//! * whoever knows another origin is not followed, promises nothing here, and is not believed about who belongs: what it shows is not taken over, and it counts
//!   as a member that has come back with nothing. It is reported, once ([`Event::OtherGroup`]);
//! * of two such groups at most one yields to the other. The operator's last word counts first: one that was forced later goes on. (It was forced over what was not
//!   heard, and what it has acknowledged since is not given up.) Else, one that names a replica which does not name it was begun before that one was, or by others whom that
//!   one forgot. Where each names the other (a list of founders) the one with writes goes on, then the one of the higher rank;
//! * who has writes of its own yields only to a replica that has all that its group had; who has none, to anybody. Two groups with writes of which neither knows
//!   the other go on, both reported: no data are given up unasked;
//! * who is not named by the one that was forced has no place to yield to: it stops, and what it has stays where it is;
//! * whoever yields throws its own history away (set aside and reported as lost, where there are writes in it; or it stops, with
//!   [`OnDivergence::Stop`]) before it takes the other configuration over, and draws another identity: it has promised nothing in the other group, and counts for nothing.
//!
//! So the holders of the older state go on, by the ordinary rules of a takeover. Those who reign tell silent members who belongs
//! ([`Message::Members`]): a member that began anew has no reason to speak to anybody. To all others that message means nothing, not even a sign of life: whatever
//! makes up for a member that was not told of something would also hide that.
//!
//! With a witness its register decides alone who reigns, and nobody begins beside it. A replica of another origin than the register's yields to the register if that ranks
//! higher, and waits if not: then the register is an old one.
//!
//! Caveat: it takes somebody who knows. Until the first of them is heard, whoever begins anew serves an empty state.

use super::local::Local;
use super::message::{Course, MEMBERS_MAX, Message, Posture, Standing, is_plausible};
#[cfg(feature = "sim")]
use super::mutation::Mutation;
use super::primary::Primary;
use super::succession::Rest;
use super::takeover::{Seeking, forced_reign};
use super::{OnDivergence, Part, Passive};
use crate::id::{Configuration, Incarnation, Index, LogPoint, Origin, ReplicaId};
use crate::manage::Managed;
use crate::protocol::{Action, Event, Outbox};
use crate::time::Time;
use crate::wire::Envelope;
use std::cmp::Ordering;
use std::fmt;

/// A replica of another group of this name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stranger {
    origin: Origin,
    asked_at: Option<Time>,
}

/// To whom a replica yields.
enum Yields {
    /// Who knows a group of this name from before; as a noun.
    ToKnowing(String),
    /// Who was forced to begin it anew.
    ToForced(ReplicaId),
}

impl fmt::Display for Yields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ToKnowing(who) => write!(
                f,
                "{who} knows this group as one to which this replica belonged before, with another storage: this replica began it anew, with nothing, and serves no more. Whoever has what the \
                 group had goes on with it; what was written here since is given up then. If the directory that this replica had is there still, stop it and start it with that one"
            ),
            Self::ToForced(who) => write!(
                f,
                "{who} was forced to begin this group anew, without what this replica has. That is given up, and this replica gets a copy of what is there now"
            ),
        }
    }
}

impl Yields {
    /// Why a replica stops that is not to give up what it has.
    fn stopping(&self) -> String {
        match self {
            Self::ToKnowing(who) => format!(
                "stopped: {who} knows a group of this name to which this replica belonged before, with another storage than this one, in which another group was begun since; both have data. If the \
                 directory that this replica had is there still, start it with that one; to give up what is in this one (it is saved aside), start it with OnDivergence::SaveAndRejoin"
            ),
            Self::ToForced(who) => format!(
                "stopped: {who} was forced to begin this group anew, without what this replica has. To give that up (it is saved aside), start this replica with OnDivergence::SaveAndRejoin; to go on with it \
                 instead, stop that one, and start this one with force"
            ),
        }
    }
}

/// What a replica of another group says of itself, as it is to be taken here.
fn taken(standing: Standing) -> Standing {
    Standing {
        configuration: None,
        intent: None,
        last: LogPoint::ZERO,
        posture: Posture::Restarting,
        writes: false,
        ..standing
    }
}

/// Whether the group `own` yields to the one that `from` belongs to.
fn yields(
    own: &Configuration,
    me: ReplicaId,
    writes: bool,
    from: ReplicaId,
    of: &Standing,
) -> bool {
    let Some(shown) = of
        .configuration
        .as_ref()
        .filter(|c| c.members.contains_key(&me))
    else {
        return false;
    };
    let elder = match forced_reign(shown).cmp(&forced_reign(own)) {
        Ordering::Less => false,
        Ordering::Greater => true,
        Ordering::Equal if own.members.contains_key(&from) => {
            let claim = |c: &Configuration, writes: bool| (writes, c.rank(), c.origin);
            claim(shown, of.writes) > claim(own, writes)
        }
        Ordering::Equal => of.writes || !writes,
    };
    elder && (!writes || shown.has(from, of.store))
}

/// Whether `from`, which `own` names, was forced later to begin anew, without this replica.
fn is_left_out(own: &Configuration, me: ReplicaId, from: ReplicaId, of: &Standing) -> bool {
    own.members.contains_key(&from)
        && of.configuration.as_ref().is_some_and(|shown| {
            forced_reign(shown) > forced_reign(own)
                && !shown.members.contains_key(&me)
                && shown.has(from, of.store)
        })
}

impl Local {
    /// Whether this is of another group of this name than the one that this replica knows.
    pub(super) fn is_foreign(&self, shown: &Configuration) -> bool {
        #[cfg(feature = "sim")]
        if self.mutated(Mutation::OriginIgnored) {
            return false;
        }
        let known = self.hard.configuration.as_ref();
        known.is_some_and(|known| known.origin != shown.origin)
    }

    /// Tells of it, once. `None`: there are too many to be remembered.
    fn note_stranger(
        &mut self,
        from: ReplicaId,
        origin: Origin,
        out: &mut Outbox,
    ) -> Option<&mut Stranger> {
        if !self.strangers.contains_key(&from) && self.strangers.len() >= 2 * MEMBERS_MAX {
            return None;
        }
        let news = Stranger {
            origin,
            asked_at: None,
        };
        let known = self.strangers.get(&from).map(|known| known.origin);
        if known != Some(origin) {
            self.strangers.insert(from, news);
            let own = self.hard.configuration.as_ref();
            let ours = own.map_or(Origin::default(), |own| own.origin);
            out.push(Action::Event(Event::OtherGroup {
                replica: from,
                ours,
                theirs: origin,
            }));
        }
        self.strangers.get_mut(&from)
    }
}

impl Primary {
    /// Tells a silent member who belongs: it may be there in another life, and not know this group any more.
    pub(super) fn tell_who_belongs(&self, local: &Local, id: ReplicaId, out: &mut Outbox) {
        if local.is_alone() && !local.is_live(id) {
            let configuration = (*self.configuration).clone();
            let message = Message::Members {
                configuration,
                // Who has another history learns of it from whoever ships to it.
                course: Course::default(),
            };
            local.send_to_any_life(id, &message, out);
        }
    }
}

impl Passive {
    /// What is left of a message after a look at which group it is of. `None`: nothing, it is dealt with.
    pub(super) fn screen(
        &mut self,
        now: Time,
        envelope: &Envelope,
        message: Message,
        out: &mut Outbox,
    ) -> Option<Message> {
        let Some(shown) = message.shown() else {
            return Some(message);
        };
        let named = shown.members.contains_key(&self.local.me);
        if !self.local.is_foreign(shown) {
            let told = matches!(message, Message::Members { .. }) && named;
            return (!told || self.local.joining.is_some()).then_some(message);
        }
        let from = envelope.from;
        let late = envelope.incarnation < self.local.life(from)
            || envelope.incarnation == Incarnation::UNKNOWN
            || envelope.to_incarnation != self.local.incarnation && !message.may_be_unaddressed();
        if late || from == ReplicaId::WITNESS || from == self.local.me || !is_plausible(shown) {
            self.local.dropped += 1;
            return None;
        }
        let (origin, every) = (shown.origin, self.local.group.timing.resend_every);
        let Some(stranger) = self.local.note_stranger(from, origin, out) else {
            self.local.dropped += 1;
            return None;
        };
        let ask = stranger.asked_at.is_none_or(|at| now >= at);
        if let Message::Probe { nonce, standing } = message {
            if self.has_yielded(now, from, &standing, out) {
                return None;
            }
            if !self.local.is_member(from) {
                // It may be the one to yield.
                let standing = self.local.standing(self.posture());
                let answer = Message::Standing { nonce, standing };
                self.local.send_to_any_life(from, &answer, out);
                return None;
            }
            let standing = taken(standing);
            return Some(Message::Probe { nonce, standing });
        }
        if let Message::Standing { nonce, standing } = message {
            if self.has_yielded(now, from, &standing, out) || !self.local.is_member(from) {
                return None;
            }
            let standing = taken(standing);
            return Some(Message::Standing { nonce, standing });
        }
        // Who it is, and what it has, decides; not what it wants.
        if named && ask {
            stranger.asked_at = Some(now + every);
            let nonce = self.local.next_nonce();
            let standing = self.local.standing(self.posture());
            let probe = Message::Probe { nonce, standing };
            self.local.send_to_any_life(from, &probe, out);
        }
        None
    }

    /// Yields to the group of a replica that says this of itself, if this one's is the younger. Whether it was.
    fn has_yielded(
        &mut self,
        now: Time,
        from: ReplicaId,
        standing: &Standing,
        out: &mut Outbox,
    ) -> bool {
        let local = &self.local;
        let (Some(own), Some(shown)) = (&local.hard.configuration, &standing.configuration) else {
            return false;
        };
        let writes = local.log.has_writes();
        if !local.is_alone() || !self.may_yield() {
            return false;
        }
        if is_left_out(own, local.me, from, standing) {
            let why = format!(
                "stopped: {from} was forced to begin this group anew, without this replica, whose data are those from before. They stay where they are; to join that group, start this replica with an empty storage"
            );
            self.stop_serving(why, out);
            return true;
        }
        if !yields(own, local.me, writes, from, standing) {
            return false;
        }
        let why = if forced_reign(shown) > forced_reign(own) {
            Yields::ToForced(from)
        } else {
            Yields::ToKnowing(from.to_string())
        };
        let shown = shown.clone();
        self.yield_to(now, &why, shown, out);
        true
    }

    /// With a witness: its register is of another group.
    pub(super) fn yields_to_register(
        &mut self,
        now: Time,
        register: &Configuration,
        out: &mut Outbox,
    ) -> bool {
        let own = self.local.hard.configuration.as_ref();
        let newer = own.is_some_and(|own| own.rank() < register.rank());
        let named = register.members.contains_key(&self.local.me);
        if !newer || !named || self.forced || !self.may_yield() {
            return false;
        }
        let why = Yields::ToKnowing("the witness".into());
        self.yield_to(now, &why, register.clone(), out);
        true
    }

    fn may_yield(&self) -> bool {
        // What is being installed must come to its end first; it will be told again.
        !self.local.stopped && !self.local.restoring
    }

    /// It serves no more, and keeps what it has.
    fn stop_serving(&mut self, why: String, out: &mut Outbox) {
        self.abdicate(out);
        let local = &mut self.local;
        let (first, commit) = (Index::ZERO.next(), local.commit);
        let writes = local.log.writes(first, commit);
        local.stop(first, writes, why, out);
        self.change_role(Part::Seeking(Seeking::idle()), out);
    }

    fn abdicate(&mut self, out: &mut Outbox) {
        let before = std::mem::replace(&mut self.role, Part::Seeking(Seeking::idle()));
        if let Part::Primary(primary) = before {
            primary.abdicate(out);
        }
    }

    fn yield_to(&mut self, now: Time, to: &Yields, shown: Configuration, out: &mut Outbox) {
        self.abdicate(out);
        let local = &mut self.local;
        let (first, commit) = (Index::ZERO.next(), local.commit);
        let writes = local.log.writes(first, commit);
        if local.on_divergence == OnDivergence::Stop && local.log.has_writes() {
            self.stop_serving(to.stopping(), out);
            return;
        }
        out.push(Action::Event(Event::Refused(to.to_string())));
        local.report_tail(out);
        if let Some(ticket) = local.leaving.take() {
            let outcome = Managed::Unknown;
            out.push(Action::Managed { ticket, outcome });
        }
        // It has promised nothing there.
        local.hard.promised = shown.term;
        local.seen = shown.term;
        local.hard.configuration = Some(shown);
        local.hard.intent = None;
        local.reset(first, writes, out);
        local.restarting = true;
        local.chosen = false;
        local.rival = None;
        local.yielded = None;
        local.strangers.clear();
        self.forced = false;
        self.local.sync_members(now);
        self.seek(now, Rest::None, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Departed, MemberKind, StoreId, Term, Version};

    const ME: ReplicaId = ReplicaId(1);
    const OTHER: ReplicaId = ReplicaId(9);

    fn group(origin: u64, number: u64, members: &[ReplicaId]) -> Configuration {
        let replica = members[0];
        Configuration {
            origin: Origin(origin),
            term: Term { number, replica },
            version: Version(3),
            in_sync: [(replica, StoreId(origin))].into(),
            members: members.iter().map(|id| (*id, MemberKind::Full)).collect(),
            departed: Departed::default(),
        }
    }

    fn says(configuration: Configuration, store: u64, writes: bool) -> Standing {
        Standing {
            store: StoreId(store),
            promised: configuration.term,
            configuration: Some(configuration),
            intent: None,
            last: LogPoint::ZERO,
            commit: Index::ZERO,
            posture: Posture::Following,
            asked: false,
            founders: 0,
            writes,
        }
    }

    /// Whether n1 yields, with writes of its own or without.
    fn outcome(own: &Configuration, writes: bool, theirs: &Standing) -> bool {
        yields(own, ME, writes, OTHER, theirs)
    }

    #[test]
    fn whoever_forgot_a_group_that_names_it_yields_to_it() {
        // It reigns in a higher term than the group that it forgot.
        let own = group(11, 7, &[ME]);
        let holder = says(group(10, 1, &[OTHER, ME]), 10, true);
        assert!(outcome(&own, false, &holder));
        assert!(outcome(&own, true, &holder));
        // Nobody may be made a member of another group, and lose what it has, by one that has nothing.
        let empty = says(group(10, 1, &[OTHER, ME]), 10, false);
        assert!(outcome(&own, false, &empty));
        assert!(!outcome(&own, true, &empty));
        // Nor by one that does not have what its own group had.
        let dropped = says(group(10, 1, &[OTHER, ME]), 99, true);
        assert!(outcome(&own, false, &dropped));
        assert!(!outcome(&own, true, &dropped));
        // And not to a group that does not know it.
        let unknown = says(group(10, 1, &[OTHER]), 10, true);
        assert!(!outcome(&own, false, &unknown));
    }

    #[test]
    fn of_two_groups_that_name_each_other_at_most_one_yields() {
        for (mine, theirs) in [(false, false), (false, true), (true, false), (true, true)] {
            for number in [1, 2, 3] {
                let own = group(11, 2, &[ME, OTHER]);
                let shown = group(10, number, &[OTHER, ME]);
                let here = outcome(&own, mine, &says(shown.clone(), 10, theirs));
                let there = yields(&shown, OTHER, theirs, ME, &says(own, 11, mine));
                assert!(!(here && there), "{mine} {theirs} {number}");
                let writes_decide = mine != theirs;
                assert!(!writes_decide || here == theirs, "{mine} {theirs} {number}");
            }
        }
    }

    #[test]
    fn whoever_was_forced_later_yields_to_nobody_who_was_forced_earlier() {
        let (then, now) = (1_800_000_000_000_000, 1_803_600_000_000_000);
        for earlier in [1, 1_000, then, then + 1_000] {
            for (mine, theirs) in [(false, false), (false, true), (true, false), (true, true)] {
                for (named, names) in [(true, true), (true, false), (false, true)] {
                    let own = group(11, now, if names { &[ME, OTHER] } else { &[ME] });
                    let shown = group(10, earlier, if named { &[OTHER, ME] } else { &[OTHER] });
                    assert!(!outcome(&own, mine, &says(shown.clone(), 10, theirs)));
                    let here = says(own, 11, mine);
                    let there = yields(&shown, OTHER, theirs, ME, &here);
                    assert_eq!(there, names, "{mine} {theirs} {named}");
                    let left_out = is_left_out(&shown, OTHER, ME, &here);
                    assert_eq!(left_out, named && !names);
                }
            }
        }
    }

    #[test]
    fn whoever_is_of_another_group_is_taken_for_a_member_without_anything() {
        let mut said = says(group(10, 7, &[OTHER]), 10, true);
        said.posture = Posture::Primary;
        let found = taken(said.clone());
        assert_eq!(found.posture, Posture::Restarting);
        assert_eq!((found.configuration, found.intent), (None, None));
        assert_eq!(found.store, said.store);
    }
}
