//! Who belongs to the group: joining, leaving, being removed, and what is said to strangers.
//!
//! Who belongs is a part of the [`Configuration`] and changes only with it, through the authority, one change at a
//! time. A member that is added counts for nothing; it is shipped to, and enters the in-sync set like anybody who
//! comes back. A member that is removed leaves the in-sync set in the same step.
//!
//! Invariants:
//! * the in-sync set is a part of the full members; a learner is shipped to and never counts;
//! * messages of those who do not belong are not admitted, but for `Join`, and for those that show a newer
//!   configuration in which both ends belong: that is how one who was away hears of members that are new to it;
//! * a replica that wants to join promotes itself never, and follows a primary only in a configuration that names it;
//! * whoever was removed hears so from any member that it asks, and without a witness from whoever reigns, who tells the latest that were removed now and then;
//!   it remembers it, stays outside, and reports what it took alone meanwhile.
//!
//! Caveat: a replica in memory forgets that it was removed when it restarts. If *all* founders were removed, restart with
//! nothing and hear each other, they are a new group (with a witness they are not: its register knows better). And
//! under `Alone` the halves of a parted group may each remove the other: they are two groups then, for good.

use super::authority::Change;
use super::handover::Afterwards;
use super::local::Local;
use super::message::{Course, MEMBERS_MAX, Message, is_plausible};
#[cfg(feature = "sim")]
use super::mutation::Mutation;
use super::primary::Primary;
use super::succession::Rest;
use super::{Part, Passive};
use crate::id::{Configuration, Incarnation, LogPoint, MemberKind, ReplicaId, Ticket};
use crate::manage::{Manage, Managed};
use crate::membership::Membership as _;
use crate::protocol::{Action, Event, Outbox};
use crate::time::Time;
use crate::wire::Envelope;

/// How a replica that does not belong yet wants to.
///
/// ```
/// use kvrep_core::protocol::passive::Join;
/// use kvrep_core::{MemberKind, ReplicaId};
///
/// let newcomer = Join::full().in_place_of(ReplicaId(3)); // whose machine is gone
/// assert_eq!((newcomer.kind, newcomer.replaces), (MemberKind::Full, Some(ReplicaId(3))));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Join {
    /// As what.
    pub kind: MemberKind,
    /// In whose place: a member that is dead. The group refuses while it lives.
    pub replaces: Option<ReplicaId>,
}

impl Join {
    /// As a member that counts and may become primary.
    #[must_use]
    pub fn full() -> Self {
        Self {
            kind: MemberKind::Full,
            replaces: None,
        }
    }

    /// As a learner.
    #[must_use]
    pub fn learner() -> Self {
        Self {
            kind: MemberKind::Learner,
            replaces: None,
        }
    }

    /// In the place of a member that never returns.
    #[must_use]
    pub fn in_place_of(mut self, dead: ReplicaId) -> Self {
        self.replaces = Some(dead);
        self
    }
}

/// What is asked of the primary about members.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum MemberChange {
    Add(ReplicaId, MemberKind),
    Remove(ReplicaId),
    /// The dead one, who takes its place, and as what (without it: as what the dead one was).
    Replace(ReplicaId, ReplicaId, Option<MemberKind>),
}

impl Local {
    pub(super) fn is_member(&self, id: ReplicaId) -> bool {
        self.membership.view().members.contains(&id)
    }

    /// It knows a configuration, and does not belong to it.
    pub(super) fn is_outside(&self) -> bool {
        let known = self.hard.configuration.as_ref();
        known.is_some_and(|c| !c.members.contains_key(&self.me))
    }

    /// Takes over who belongs from the configuration that is known.
    pub(super) fn sync_members(&mut self, now: Time) {
        let known = self.hard.configuration.as_ref();
        let rank = known.map(Configuration::rank);
        if rank == self.synced_with {
            return;
        }
        self.synced_with = rank;
        #[cfg(feature = "sim")]
        if self.mutated(Mutation::MembersFromArguments) {
            return;
        }
        let Some(known) = known else {
            return;
        };
        if known.members.contains_key(&self.me) {
            self.joining = None;
        }
        let mut members: Vec<ReplicaId> = known.members.keys().copied().collect();
        if self.joining.is_some() {
            members.extend(self.group.members.iter().copied());
        }
        self.set_members(now, members);
    }

    /// These belong, as far as this replica knows. Whoever is new is watched from now on: whoever is not watched counts as
    /// dead for ever.
    fn set_members(&mut self, now: Time, members: impl IntoIterator<Item = ReplicaId>) {
        let before = self.membership.view().members.clone();
        if self.membership.set_members(members) {
            let after = self.membership.view().members.clone();
            for gone in before.difference(&after).filter(|id| **id != self.me) {
                self.detector.forget(*gone);
                self.gone.remove(gone);
            }
            for new in after.difference(&before).filter(|id| **id != self.me) {
                self.detector.watch(now, *new);
            }
        }
    }
}

impl Primary {
    /// The configuration that a change leads to; `None` when nothing would change.
    fn changed(
        &self,
        local: &Local,
        change: MemberChange,
    ) -> Result<Option<Configuration>, String> {
        let mut new = (*self.configuration).clone();
        let unknown = |id: ReplicaId| format!("{id} is not a member of {}", self.configuration);
        match change {
            MemberChange::Add(id, _) | MemberChange::Replace(_, id, _) if is_reserved(id) => {
                return Err(format!("replica id {} is reserved", id.0));
            }
            MemberChange::Add(id, MemberKind::Learner) if id == local.me => {
                return Err(format!("{id} is primary: hand over first"));
            }
            MemberChange::Add(id, kind) => {
                if new.members.insert(id, kind) == Some(kind) {
                    return Ok(None);
                }
                new.departed.returns(id);
                if kind == MemberKind::Learner {
                    new.in_sync.remove(&id);
                }
            }
            MemberChange::Remove(ReplicaId::WITNESS) => {
                return Err("the witness is no member, and cannot be removed".into());
            }
            MemberChange::Remove(id) => {
                if new.members.remove(&id).is_none() {
                    return Err(unknown(id));
                }
                new.in_sync.remove(&id);
                new.departed.leaves(id);
            }
            MemberChange::Replace(dead, by, kind) => {
                let Some(was) = new.members.remove(&dead) else {
                    return Err(unknown(dead));
                };
                if local.is_live(dead) {
                    return Err(format!("{dead} lives: stop it, or remove it first"));
                }
                new.in_sync.remove(&dead);
                if new.members.insert(by, kind.unwrap_or(was)).is_some() {
                    return Err(format!("{by} is a member already: remove {dead} instead"));
                }
                new.departed.leaves(dead);
                new.departed.returns(by);
            }
        }
        let members_max = local.group.limits.members_max;
        if new.members.len() > members_max && new.members.len() > self.configuration.members.len() {
            return Err(format!(
                "the group has {members_max} members, as many as allowed; remove or replace one first"
            ));
        }
        new.version = new.version.next();
        Ok(Some(new))
    }

    /// Proposes a change of the members. `None`: it is under way (and answered when it counts), if it was asked for with
    /// a ticket.
    pub(super) fn change_members(
        &mut self,
        local: &mut Local,
        now: Time,
        change: MemberChange,
        ticket: Option<Ticket>,
        out: &mut Outbox,
    ) -> Option<Managed> {
        let settled = self.changes.is_empty() && self.handover.is_none();
        if !settled || !self.serving(local) {
            return Some(Managed::Busy);
        }
        match self.changed(local, change) {
            Err(why) => Some(Managed::Refused(why)),
            Ok(None) => Some(Managed::Done((*self.configuration).clone())),
            Ok(Some(new)) => {
                self.asked = ticket.map(|ticket| (ticket, new.rank()));
                let old = self.configuration.clone();
                let change = Change::begin(local, now, Some(&old), &mut [], new, out);
                self.changes.push(change);
                None
            }
        }
    }

    /// A configuration counts: tells those who asked for it, and those who do not belong any more.
    pub(super) fn members_adopted(&mut self, local: &Local, old: &Configuration, out: &mut Outbox) {
        let new = &*self.configuration;
        for removed in old
            .members
            .keys()
            .filter(|id| !new.members.contains_key(id))
        {
            self.tell_removed(local, *removed, out);
        }
        self.peers.retain(|id, _| new.members.contains_key(id));
        if let Some((ticket, rank)) = self.asked
            && new.rank() >= rank
        {
            self.asked = None;
            let outcome = Managed::Done(new.clone());
            out.push(Action::Managed { ticket, outcome });
        }
    }
}

impl Passive {
    /// Whether `from` may say this.
    pub(super) fn may_speak(&self, from: ReplicaId, message: &Message) -> bool {
        let local = &self.local;
        if from == ReplicaId::WITNESS || local.is_member(from) {
            return true;
        }
        let known = local.hard.configuration.as_ref().map(Configuration::rank);
        message.configuration().is_some_and(|shown| {
            let tells = matches!(message, Message::Members { .. });
            (Some(shown.rank()) > known || tells && local.is_outlived_by(from, shown))
                && is_plausible(shown)
                && shown.members.contains_key(&from)
                && (shown.members.contains_key(&local.me)
                    || matches!(message, Message::Members { .. }))
        })
    }

    /// One who does not belong speaks.
    pub(super) fn on_stranger(
        &mut self,
        now: Time,
        envelope: &Envelope,
        message: &Message,
        out: &mut Outbox,
    ) {
        match (message, &self.local.hard.configuration) {
            (Message::Join { kind, replaces }, _) => {
                let join = Join {
                    kind: *kind,
                    replaces: *replaces,
                };
                self.on_join(now, (envelope.from, envelope.incarnation), join, out);
            }
            (Message::Probe { standing, .. }, Some(known))
                if standing.configuration.as_ref().map(Configuration::rank)
                    < Some(known.rank()) =>
            {
                let message = Message::Members {
                    configuration: known.clone(),
                    course: Course::default(),
                };
                out.send(envelope.from, envelope.incarnation, |body| {
                    message.encode(body);
                });
            }
            _ => self.local.dropped += 1,
        }
    }

    /// A replica asks to join. Who is not primary says who belongs: the asker asks everybody that it knows, again and again.
    pub(super) fn on_join(
        &mut self,
        now: Time,
        (from, life): (ReplicaId, Incarnation),
        join: Join,
        out: &mut Outbox,
    ) {
        let Part::Primary(primary) = &mut self.role else {
            // It may not know everybody: the primary is among those who belong.
            if let Some(configuration) = self.local.hard.configuration.clone() {
                let message = Message::Members {
                    configuration,
                    course: Course::default(),
                };
                out.send(from, life, |body| message.encode(body));
            }
            return;
        };
        let local = &mut self.local;
        if primary.configuration.members.contains_key(&from) {
            // It belongs, and does not know it yet.
            local.introduce(from, out);
            return;
        }
        let change = match join.replaces {
            Some(dead) if primary.configuration.members.contains_key(&dead) => {
                MemberChange::Replace(dead, from, Some(join.kind))
            }
            // Whom it is to replace is removed already.
            Some(_) | None => MemberChange::Add(from, join.kind),
        };
        match primary.change_members(local, now, change, None, out) {
            Some(Managed::Refused(why)) => {
                let message = Message::NotAdmitted { why };
                out.send(from, life, |body| message.encode(body));
            }
            // It asks again.
            Some(
                Managed::Done(_) | Managed::NotPrimary { .. } | Managed::Unknown | Managed::Busy,
            )
            | None => {}
        }
    }

    /// The primary cannot let this replica in.
    pub(super) fn on_not_admitted(&mut self, why: String, out: &mut Outbox) {
        if self.local.joining.is_some() && why.len() <= WHY_BYTES_MAX {
            self.wait_for(format!("the group does not let it in: {why}"), out);
        }
    }

    /// One who is asked hears this replica, and cannot reach it to answer. That is more than that nobody has answered.
    pub(super) fn on_unheard(&mut self, peer: ReplicaId, out: &mut Outbox) {
        if self.local.joining.is_some() && matches!(self.role, Part::Seeking(_)) {
            self.wait_for(
                format!("{peer} hears this replica, and cannot reach it to answer: correct the address that this replica tells the others, or open the way to it"),
                out,
            );
        }
    }

    /// Somebody shows a newer configuration without this replica.
    pub(super) fn on_members(
        &mut self,
        now: Time,
        from: ReplicaId,
        configuration: &Configuration,
        course: &Course,
        out: &mut Outbox,
    ) {
        let outlived = self.local.is_outlived_by(from, configuration);
        let known = self.local.hard.configuration.as_ref();
        let news = outlived || known.is_none_or(|known| known.rank() < configuration.rank());
        let named = configuration.members.contains_key(&self.local.me);
        let joins = self.local.joining.is_some();
        if !news || (named && !joins) {
            return;
        }
        if self.forced && self.local.log.last() == LogPoint::ZERO {
            // It holds nothing of this group: there is nothing that force could save.
            let why = format!(
                "stopped: nothing is forced, for the group lives: it is {configuration}, and this replica neither belongs to it nor holds anything of it. Start it to join; if that group is to be given up, stop its members first"
            );
            self.forced = false;
            self.local.stopped = true;
            self.wait_for(why, out);
            return;
        }
        if joins {
            // It asks all of them from now on. (Where it is named already, an earlier life of it, without its storage, was let
            // in; the primary must hear of this one, and may be none of those whom it knows.)
            let mut asked = self.local.membership.view().members.clone();
            asked.extend(configuration.members.keys());
            asked.remove(&self.local.me);
            if asked.len() <= 2 * MEMBERS_MAX {
                self.local.set_members(now, asked);
            }
        } else {
            self.report_what_was_taken_alone(course, out);
            if outlived {
                // It may have taken over since, and knows a configuration of its own that ranks higher.
                self.local.hard.configuration = Some(configuration.clone());
                self.local.hard.intent = None;
                self.local.persist_hard(out);
            } else {
                self.local.learn(Some(configuration), out);
            }
        }
    }

    /// A member wants to leave.
    pub(super) fn on_leave(&mut self, now: Time, from: ReplicaId, out: &mut Outbox) {
        if let Part::Primary(primary) = &mut self.role
            && primary.configuration.members.contains_key(&from)
        {
            // Whatever is in the way: it asks again.
            let change = MemberChange::Remove(from);
            drop(primary.change_members(&mut self.local, now, change, None, out));
        }
    }

    /// A heartbeat of the primary: the time to repeat what it may not have heard.
    pub(super) fn on_heartbeat(&mut self, out: &mut Outbox) {
        let Part::Backup(backup) = &self.role else {
            return;
        };
        let primary = backup.primary;
        if self.local.leaving.is_some() {
            self.local.send(primary, &Message::Leave, out);
        }
        if self.local.is_mistaken() {
            self.local.report_to(primary, out);
        }
    }

    /// What the operator wants of members; to be answered now, if so.
    pub(super) fn manage_members(
        &mut self,
        now: Time,
        ticket: Ticket,
        manage: &Manage,
        out: &mut Outbox,
    ) -> Option<Managed> {
        let me = self.local.me;
        let change = match *manage {
            Manage::Handover { to } => {
                if let Part::Primary(primary) = &mut self.role {
                    let asked = (ticket, Afterwards::Stay);
                    primary.begin_handover(&self.local, now, asked, to, out);
                    return None;
                }
                return Some(self.not_primary());
            }
            Manage::Add { id, kind } => MemberChange::Add(id, kind),
            Manage::Remove(id) => MemberChange::Remove(id),
            Manage::Replace { dead, by } => MemberChange::Replace(dead, by, None),
        };
        let leaves = change == MemberChange::Remove(me);
        match &mut self.role {
            Part::Primary(primary) if leaves => {
                if primary.configuration.members.len() == 1 {
                    return Some(Managed::Refused(
                        "the last member cannot be removed; stop it instead".into(),
                    ));
                }
                let asked = (ticket, Afterwards::Leave);
                primary.begin_handover(&self.local, now, asked, None, out);
                None
            }
            Part::Primary(primary) => {
                primary.change_members(&mut self.local, now, change, Some(ticket), out)
            }
            Part::Backup(_) if leaves && self.local.leaving.is_some() => Some(Managed::Busy),
            Part::Backup(backup) if leaves => {
                self.local.leaving = Some(ticket);
                self.local.send(backup.primary, &Message::Leave, out);
                None
            }
            Part::Backup(_) | Part::Seeking(_) | Part::Candidate(_) => Some(self.not_primary()),
        }
    }

    fn not_primary(&self) -> Managed {
        Managed::NotPrimary {
            primary: match &self.role {
                Part::Backup(backup) => Some(backup.primary),
                Part::Primary(_) => Some(self.local.me),
                Part::Seeking(_) | Part::Candidate(_) => self.local.successor(),
            },
        }
    }

    /// Notices that this replica was removed, or belongs again.
    pub(super) fn notice_removal(&mut self, now: Time, out: &mut Outbox) {
        let outside = self.local.is_outside() && self.local.joining.is_none();
        if outside == self.local.removed {
            return;
        }
        if outside
            && self.local.restarting
            && let Some(join) = self.local.rejoining.take()
        {
            // It was removed while it was away, and its operator has started it to join: so be it.
            self.local.joining = Some(join);
            self.local.synced_with = None;
            self.local.sync_members(now);
            self.seek(now, Rest::None, out);
            return;
        }
        self.local.removed = outside;
        if !outside {
            return;
        }
        if let Some(configuration) = self.local.hard.configuration.clone() {
            if let Some(ticket) = self.local.leaving.take() {
                let outcome = Managed::Done(configuration.clone());
                out.push(Action::Managed { ticket, outcome });
            }
            out.push(Action::Event(Event::Removed(configuration)));
        }
        self.seek(now, Rest::None, out);
    }

    /// It was removed, and asks for nothing any more.
    pub(super) fn outside_for_good(&self) -> bool {
        #[cfg(feature = "sim")]
        if self.local.mutated(Mutation::RemovedPromotes) {
            return false;
        }
        self.local.removed && !self.forced
    }

    /// Why this replica, which does not belong, only waits.
    pub(super) fn outside(&self, rounds: u32) -> Option<String> {
        #[cfg(feature = "sim")]
        if self.local.mutated(Mutation::RemovedPromotes) {
            return None;
        }
        if self.forced {
            None
        } else if self.local.removed {
            let known = self.local.hard.configuration.as_ref();
            Some(known.map_or_else(String::new, |c| {
                format!("it was removed from the group, which is {c} now; stop it, or start it again to join")
            }))
        } else if self.local.joining.is_some() {
            // Whatever else it was told says more.
            let said = &self.local.waiting_for;
            let asks = rounds > ROUNDS_BEFORE_WORDS && (said.is_empty() || said.starts_with(ASKS));
            Some(if asks { self.asks() } else { String::new() })
        } else {
            None
        }
    }

    /// Whom this replica asks to let it join, and what is known of them.
    fn asks(&self) -> String {
        let local = &self.local;
        let asked = &local.group.members;
        let others = local.membership.view().members.iter();
        let others = others.filter(|id| **id != local.me && **id != ReplicaId::WITNESS);
        let heard = |id: &&ReplicaId| local.is_live(**id) && local.lives.contains_key(*id);
        let there: Vec<_> = others.filter(heard).collect();
        if there.is_empty() {
            format!(
                "{ASKS} {asked:?} to let it join, and no primary has answered; check their addresses, and that they run"
            )
        } else {
            format!(
                "{ASKS} {asked:?} to let it join, and no primary has answered, only {there:?}: look there for what is waited for"
            )
        }
    }

    /// Shows the operator what this replica waits for, once.
    pub(super) fn wait_for(&mut self, why: String, out: &mut Outbox) {
        if !why.is_empty() && why != self.local.waiting_for {
            self.local.waiting_for.clone_from(&why);
            out.push(Action::Event(Event::Refused(why)));
        }
    }
}

fn is_reserved(id: ReplicaId) -> bool {
    id == ReplicaId::WITNESS || id == ReplicaId::NOBODY
}

/// Longest reason that is shown.
const WHY_BYTES_MAX: usize = 4_096;
/// How the sentence begins of one that only asks.
const ASKS: &str = "it asks";
const ROUNDS_BEFORE_WORDS: u32 = 8;
