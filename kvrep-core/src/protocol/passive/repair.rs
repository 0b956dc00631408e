//! Finding a replica whose *state* is not that of the others, and repairing it.
//!
//! That logs are equal is known all the time: every append and every heartbeat names a place by (index, term, hash), and
//! the hash is chained over all that came before, so a log that differs in one byte does not meet the primary's and is
//! shipped anew. What was made of the log in memory is another matter: a flipped bit, or a state machine that is not
//! deterministic, changes the state behind the log's back. So where the machine has a digest, every replica takes it
//! after the same entries (`Limits::digest_every_entries`) and tells the primary.
//!
//! Most decide ([`judge`]):
//!
//! * a backup that differs from the primary, with which most of the in-sync set agree, is **dropped first**, by a change of
//!   the configuration like any other; then it is ordered to throw away state and log, and is shipped everything anew;
//!   then it joins again as anybody does;
//! * a primary that differs from most, or from all others of which two agree, resigns. It does not run again: it says that
//!   it is unfit, so the others pass it over; following, it confesses, and is repaired like the first;
//! * two replicas that differ cannot tell who is right, and where nobody may take over a primary cannot resign: that is an
//!   event, and nothing else.
//!
//! Invariants:
//!
//! * a replica throws away what it holds only after a configuration without it counts: until then it is one of those that
//!   what was acknowledged lives on;
//! * what it acknowledged before it threw it away never counts afterwards: its orders and its new acknowledgements are
//!   told apart by the read round, which the primary raises when it hears that all is thrown away;
//! * with `Ack::All` nothing is acknowledged from the moment at which a backup is found wrong until it has everything anew;
//! * digests are compared at equal places of the log only, by (index, term, hash).
//!
//! Where the primary is fixed (`Takeover::Never`) and it is the one that differs, nobody can repair it while it serves: it
//! reports (`Event::StatesDiffer`) and goes on. Its operator stops it and starts it with an empty storage, under the same id:
//! then the others give it what they have, through a regent, before it serves again. (With `Ack::Primary` that loses what
//! it alone had acknowledged.)
//!
//! Caveats: between the fault and the next comparison clients may be answered from a wrong state. If most replicas are wrong
//! in the same way, the right one is "repaired". An unfit replica serves again after a restart, from its disk. The digest is
//! the state machine's: the table of sessions is not compared, for that would cost the fold of every session at each place;
//! it is compared by whoever takes `Node::digest` of all replicas.

use super::backup::Backup;
use super::local::Local;
use super::message::Message;
#[cfg(feature = "sim")]
use super::mutation::Mutation;
use super::primary::Primary;
use super::succession::Rest;
use super::takeover::Seeking;
use super::{Part, Passive};
use crate::config::Takeover;
use crate::id::{Configuration, Index, LogPoint, Nonce, ReplicaId, StoreId, Term};
use crate::protocol::{Action, Event, Outbox};
use crate::storage::{StorageOp, Tail};
use crate::time::Time;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// What a replica knows of its own state.
#[derive(Debug, Default)]
pub(super) struct Digests {
    own: Marks,
    pub(super) health: Health,
    /// Repairs in this life, each soon after the one before.
    repairs: u32,
    /// When the last of them was.
    repaired_at: Option<Time>,
}

/// Repairs in a row before a replica gives up.
const REPAIRS_MAX: u32 = 3;
/// Repairs are in a row when not more than so many times `suspect_after` lie between two of them.
const SOON_TIMES: u32 = 5;

/// The last few places, and the state's digest there.
#[derive(Debug, Default)]
struct Marks(VecDeque<(LogPoint, u64)>);

impl Marks {
    fn note(&mut self, at: LogPoint, digest: u64) {
        if self.at(at).is_some() {
            return; // told again
        }
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back((at, digest));
    }

    fn at(&self, place: LogPoint) -> Option<u64> {
        let (_, digest) = self.0.iter().find(|(at, _)| *at == place)?;
        Some(*digest)
    }
}

/// Whether a replica's state may be believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Health {
    /// As far as anybody knows.
    #[default]
    Fit,
    /// As primary it differed from all others.
    Unfit,
}

impl Digests {
    pub(super) fn is_fit(&self) -> bool {
        self.health == Health::Fit
    }

    /// The state was replaced by one that somebody else vouches for.
    pub(super) fn forget(&mut self) {
        *self = Self {
            repairs: self.repairs,
            repaired_at: self.repaired_at,
            ..Self::default()
        };
    }

    /// Counts a repair; whether there were so many, so close to each other, that one more would not help.
    fn is_hopeless(&mut self, now: Time, soon: Duration) -> bool {
        let in_a_row = self.repaired_at.is_some_and(|at| now - at <= soon);
        self.repairs = if in_a_row { self.repairs + 1 } else { 1 };
        self.repaired_at = Some(now);
        self.repairs > REPAIRS_MAX
    }
}

/// What a primary knows of the states of the others.
#[derive(Debug, Default)]
pub(super) struct Suspicions {
    /// What each has told.
    told: BTreeMap<ReplicaId, Marks>,
    /// To be dropped, and to throw everything away; since which round.
    faulty: BTreeMap<ReplicaId, (StoreId, Nonce)>,
    /// The last place at which nobody could tell who is right.
    undecided: Index,
}

impl Suspicions {
    /// Whether this replica, with this storage, must not count.
    pub(super) fn is_faulty(&self, id: ReplicaId, store: StoreId) -> bool {
        self.faulty.get(&id).is_some_and(|(of, _)| *of == store)
    }
}

/// What the digests at one place say.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// All that are known are equal, or more must be heard.
    Open,
    /// These differ from the primary, and most do not.
    Faulty(Vec<ReplicaId>),
    /// Most agree on something else; or all others differ from the primary, and two of those agree.
    PrimaryFaulty,
    /// All were heard; they differ, and nobody can tell who is right.
    Undecided,
}

/// Compares the primary's digest with those of the others: in-sync members (`None`: not heard yet) and `guests`, who have no
/// say.
fn judge(
    own: u64,
    members: &BTreeMap<ReplicaId, Option<u64>>,
    guests: &BTreeMap<ReplicaId, u64>,
) -> Verdict {
    let heard: BTreeMap<ReplicaId, u64> = members
        .iter()
        .filter_map(|(id, digest)| Some((*id, (*digest)?)))
        .collect();
    let agree = heard.values().filter(|digest| **digest == own).count();
    let differ = |them: &BTreeMap<ReplicaId, u64>| -> Vec<ReplicaId> {
        let other = them.iter().filter(|(_, digest)| **digest != own);
        other.map(|(id, _)| *id).collect()
    };
    let mut wrong = differ(&heard);
    if agree > 0 && (agree + 1) * 2 > members.len() + 1 {
        wrong.extend(differ(guests));
        return match wrong.is_empty() {
            true => Verdict::Open,
            false => Verdict::Faulty(wrong),
        };
    }
    let shared = |digest: &u64| heard.values().filter(|other| *other == digest).count();
    let against = wrong.iter().map(|id| shared(&heard[id])).max().unwrap_or(0);
    let all_heard = heard.len() == members.len();
    if against * 2 > members.len() + 1 || (all_heard && agree == 0 && against >= 2) {
        return Verdict::PrimaryFaulty;
    }
    if wrong.is_empty() || !all_heard {
        return Verdict::Open;
    }
    Verdict::Undecided
}

impl Passive {
    /// The state machine's digest after the entry at this place.
    pub(super) fn on_own_digest(&mut self, now: Time, at: LogPoint, digest: u64, out: &mut Outbox) {
        self.local.digests.own.note(at, digest);
        match &mut self.role {
            Part::Backup(backup) => backup.tell_digest(&self.local, out),
            Part::Primary(_) => self.compare_digests(now, at, out),
            Part::Seeking(_) | Part::Candidate(_) => {}
        }
    }

    /// A backup tells of its state.
    pub(super) fn on_digest_told(
        &mut self,
        now: Time,
        from: ReplicaId,
        (term, at, digest): (Term, LogPoint, u64),
        health: Health,
        out: &mut Outbox,
    ) {
        let Some((primary, local)) = self.reigning(term) else {
            return;
        };
        #[cfg(feature = "sim")]
        if local.mutated(Mutation::DigestNotCompared) {
            return;
        }
        let told = primary.suspicions.told.entry(from).or_default();
        told.note(at, digest);
        match health {
            Health::Fit => self.compare_digests(now, at, out),
            Health::Unfit => {
                primary.find_faulty(local, from, at.index, out);
            }
        }
    }

    fn compare_digests(&mut self, now: Time, at: LogPoint, out: &mut Outbox) {
        let Part::Primary(primary) = &mut self.role else {
            return;
        };
        let local = &mut self.local;
        let Some(own) = local.digests.own.at(at) else {
            return;
        };
        let told = |id: &ReplicaId| primary.suspicions.told.get(id)?.at(at);
        let in_sync = &primary.configuration.in_sync;
        let others = in_sync.keys().filter(|id| **id != local.me);
        let members = others.map(|id| (*id, told(id))).collect();
        let guests = primary.suspicions.told.keys();
        let guests = guests.filter(|id| !in_sync.contains_key(id));
        let guests = guests.filter_map(|id| Some((*id, told(id)?))).collect();
        match judge(own, &members, &guests) {
            Verdict::Open => {}
            Verdict::Faulty(ids) => {
                for id in ids {
                    primary.find_faulty(local, id, at.index, out);
                }
            }
            Verdict::PrimaryFaulty if !matches!(local.group.takeover, Takeover::Never { .. }) => {
                #[cfg(feature = "sim")]
                if local.mutated(Mutation::FaultyPrimaryStays) {
                    return;
                }
                let (replica, index) = (local.me, at.index);
                out.push(Action::Event(Event::StateDiffers { replica, index }));
                local.digests.health = Health::Unfit;
                local.waiting_for = "as primary this replica's state differed from that of all others; \
                     it waits to be repaired by the next primary. Restarted, it serves from its disk"
                    .into();
                self.seek(now, Rest::AfterDefeat, out);
            }
            Verdict::Undecided | Verdict::PrimaryFaulty => {
                if primary.suspicions.undecided < at.index {
                    primary.suspicions.undecided = at.index;
                    out.push(Action::Event(Event::StatesDiffer { index: at.index }));
                }
            }
        }
    }

    /// The primary says that this replica's state is wrong, and that it does not count any more.
    pub(super) fn on_repair(
        &mut self,
        now: Time,
        from: ReplicaId,
        (term, round): (Term, Nonce),
        configuration: &Configuration,
        out: &mut Outbox,
    ) {
        if !self.heed(from, term, configuration, out) {
            return;
        }
        let Part::Backup(backup) = &mut self.role else {
            return;
        };
        let local = &mut self.local;
        let counts = configuration.has(local.me, local.store);
        #[cfg(feature = "sim")]
        let counts = counts && !local.mutated(Mutation::RepairedBeforeDropped);
        // An order that comes late, when it was obeyed long ago, has an older round.
        if counts || local.restoring || round < backup.round() {
            local.dropped += 1;
            return;
        }
        if backup.has_discarded(round) {
            local.persist(Vec::new(), out);
        } else {
            let upto = local.commit;
            let soon = local.group.timing.suspect_after * SOON_TIMES;
            let repeated = local.log.last() == LogPoint::ZERO;
            if !repeated && local.digests.is_hopeless(now, soon) {
                local.stopped = true;
                let why = format!(
                    "stopped: the state of this replica was repaired {REPAIRS_MAX} times in a row and is wrong again at {upto}. Look for a state machine that is not deterministic, another version of it, or bad memory; then start this replica again"
                );
                self.wait_for(why, out);
                self.change_role(Part::Seeking(Seeking::idle()), out);
                return;
            }
            out.push(Action::Event(Event::StateDiscarded { upto }));
            discard(local, out);
            backup.discarded(round);
        }
        // Behind the write; an answer that was lost is sent again.
        local.answer(from, &Message::Discarded { term, round }, out);
    }
}

impl Primary {
    fn find_faulty(&mut self, local: &Local, id: ReplicaId, index: Index, out: &mut Outbox) {
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        if self.suspicions.is_faulty(id, peer.store) || peer.incarnation != local.life(id) {
            return;
        }
        let since = self.round;
        self.suspicions.faulty.insert(id, (peer.store, since));
        out.push(Action::Event(Event::StateDiffers { replica: id, index }));
    }

    /// Orders whoever is faulty and does not count any more to throw its state away.
    pub(super) fn order_repairs(&self, local: &Local, out: &mut Outbox) {
        for (&id, &(store, _)) in &self.suspicions.faulty {
            let counts = |c: &Configuration| c.has(id, store);
            let may_count =
                counts(&self.configuration) || self.changes.iter().any(|c| counts(&c.new));
            #[cfg(feature = "sim")]
            let may_count = may_count && !local.mutated(Mutation::RepairedBeforeDropped);
            if !may_count {
                let message = Message::Repair {
                    term: self.term,
                    configuration: (*self.configuration).clone(),
                    round: self.round,
                };
                local.send(id, &message, out);
            }
        }
    }

    /// A faulty one has thrown everything away, durably: it begins anew.
    pub(super) fn on_discarded(
        &mut self,
        local: &mut Local,
        now: Time,
        (from, round): (ReplicaId, Nonce),
        out: &mut Outbox,
    ) {
        let life = local.life(from);
        let faulty = self.suspicions.faulty.get(&from);
        // One that comes twice, and late, tells of an earlier fault.
        if faulty.is_none_or(|(_, since)| round < *since) {
            return;
        }
        self.suspicions.faulty.remove(&from);
        self.suspicions.told.remove(&from);
        // What it acknowledged before carries an older round.
        self.round = self.round.next();
        let round = self.round;
        #[cfg(feature = "sim")]
        let round = if local.mutated(Mutation::RepairNotFenced) {
            Nonce(0)
        } else {
            round
        };
        if let Some(peer) = self.peers.get_mut(&from).filter(|p| p.incarnation == life) {
            peer.begin_anew(round, now);
        }
        self.ship(local, now, out);
    }
}

impl Backup {
    /// Tells the primary of the last place with a digest.
    pub(super) fn tell_digest(&mut self, local: &Local, out: &mut Outbox) {
        let Some(&(at, digest)) = local.digests.own.0.back() else {
            return;
        };
        let health = local.digests.health;
        if self.told_digest == Some(at) && health == Health::Fit {
            return;
        }
        self.told_digest = Some(at);
        let message = Message::Digest {
            term: self.term,
            at,
            digest,
            health,
        };
        local.send(self.primary, &message, out);
    }
}

/// Throws state, log and snapshot away, kept aside for whoever wants to know what went wrong.
fn discard(local: &mut Local, out: &mut Outbox) {
    local.begin_anew(out);
    let tail = Tail::SaveAside;
    local.persist(vec![StorageOp::Reset { tail }], out);
}

/// Places that a replica remembers its digest at: a backup is rarely further behind.
const KEPT: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const B1: ReplicaId = ReplicaId(2);
    const B2: ReplicaId = ReplicaId(3);
    const GUEST: ReplicaId = ReplicaId(9);

    fn members<const N: usize>(digests: [Option<u64>; N]) -> BTreeMap<ReplicaId, Option<u64>> {
        (2..).map(ReplicaId).zip(digests).collect()
    }

    fn verdict<const N: usize>(digests: [Option<u64>; N]) -> Verdict {
        judge(7, &members(digests), &BTreeMap::new())
    }

    #[test]
    fn most_decide_who_is_wrong() {
        assert_eq!(verdict([Some(7), Some(7)]), Verdict::Open);
        assert_eq!(verdict([Some(7), Some(1)]), Verdict::Faulty(vec![B2]));
        assert_eq!(verdict([Some(1), Some(7)]), Verdict::Faulty(vec![B1]));
        assert_eq!(verdict([Some(1), Some(1)]), Verdict::PrimaryFaulty);
        assert_eq!(verdict([Some(1), Some(2)]), Verdict::Undecided);
        let five = verdict([Some(1), Some(1), Some(7), Some(7)]);
        assert_eq!(five, Verdict::Faulty(vec![B1, B2]));
        let against = verdict([Some(1), Some(1), Some(1), Some(7)]);
        assert_eq!(against, Verdict::PrimaryFaulty);
        let split = verdict([Some(1), Some(1), Some(2), Some(7)]);
        assert_eq!(split, Verdict::Undecided);
        let all_others = verdict([Some(1), Some(1), Some(2), Some(2)]);
        assert_eq!(all_others, Verdict::PrimaryFaulty);
    }

    #[test]
    fn two_replicas_cannot_tell_and_one_alone_has_nobody_to_ask() {
        assert_eq!(verdict([Some(1)]), Verdict::Undecided);
        assert_eq!(verdict([Some(7)]), Verdict::Open);
        assert_eq!(verdict([]), Verdict::Open);
    }

    #[test]
    fn nobody_is_wrong_before_enough_were_heard() {
        assert_eq!(verdict([Some(1), None]), Verdict::Open);
        assert_eq!(verdict([Some(1), Some(7), None, None]), Verdict::Open);
        let most = verdict([Some(1), Some(7), Some(7), None]);
        assert_eq!(most, Verdict::Faulty(vec![B1]));
    }

    #[test]
    fn who_is_not_in_sync_has_no_say_but_may_be_wrong() {
        let guests = BTreeMap::from([(GUEST, 1)]);
        let judged = |digests| judge(7, &members(digests), &guests);
        assert_eq!(judged([Some(7), None]), Verdict::Faulty(vec![GUEST]));
        assert_eq!(judged([Some(1), None]), Verdict::Open);
        assert_eq!(judge(7, &members([]), &guests), Verdict::Open);
    }
}
