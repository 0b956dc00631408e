//! What a replica is, whatever its role: its log, its promises, what it knows of its peers.

use super::OnDivergence;
use super::anew::Stranger;
use super::awake::Awake;
use super::durable::Durable;
use super::handover::Yielded;
use super::hard_state::HardState;
use super::log::{Log, is_write};
use super::members::Join;
use super::message::{Message, Posture, Standing, is_plausible};
#[cfg(feature = "sim")]
use super::mutation::Mutation;
use super::repair::Digests;
use crate::config::{Ack, Authority, Confirm, GroupConfig, Takeover, Token, Visibility};
use crate::detector::FailureDetector;
use crate::error::ReadError;
use crate::id::{
    Configuration, Incarnation, Index, Nonce, PersistToken, ReplicaId, StoreId, Term, Ticket,
    Version,
};
use crate::membership::{Membership, dynamic::DynamicMembership};
use crate::protocol::{Acknowledged, Action, Event, Outbox};
use crate::random::Rng;
use crate::storage::{SnapshotMeta, StorageOp, Tail};
use crate::time::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub(super) struct Local {
    pub(super) me: ReplicaId,
    pub(super) group: GroupConfig,
    pub(super) store: StoreId,
    pub(super) incarnation: Incarnation,
    pub(super) log: Log,
    pub(super) durable: Durable,
    pub(super) hard: HardState,
    /// The last write of the hard state.
    pub(super) hard_token: PersistToken,
    /// The highest term heard of; a promise of one's own goes beyond it.
    pub(super) seen: Term,
    pub(super) commit: Index,
    pub(super) applied: Index,
    /// With [`Visibility::OnAppend`]: up to here entries may be applied.
    pub(super) visible: Index,
    /// A client asked for what only a primary does, since the primary was last heard.
    pub(super) asked: bool,
    /// Until then this replica has promised to put nobody in the place of a primary that holds a lease.
    pub(super) granted_until: Time,
    pub(super) on_divergence: OnDivergence,
    /// Its history was refuted, and it waits for the operator.
    pub(super) stopped: bool,
    /// Started, and heard no primary since.
    pub(super) restarting: bool,
    pub(super) snapshot: Option<SnapshotMeta>,
    pub(super) snapshotting: bool,
    /// As primary: at least until then a peer is being sent a snapshot.
    pub(super) sending_until: Time,
    /// A snapshot is being installed: the state machine is behind the log.
    pub(super) restoring: bool,
    pub(super) lives: BTreeMap<ReplicaId, Incarnation>,
    /// Seen to be gone, and not heard since.
    pub(super) gone: BTreeSet<ReplicaId>,
    pub(super) detector: Box<dyn FailureDetector>,
    pub(super) membership: DynamicMembership,
    /// The rank of the configuration that `membership` has its members from.
    pub(super) synced_with: Option<(Term, Version)>,
    /// Hash of the founding members.
    pub(super) founders: u64,
    /// It does not belong yet, and wants to.
    pub(super) joining: Option<Join>,
    /// How its operator wants it to belong, should it turn out while it restarts that it was removed meanwhile.
    pub(super) rejoining: Option<Join>,
    /// It wants to leave; who asked.
    pub(super) leaving: Option<Ticket>,
    /// It belonged, and does not any more.
    pub(super) removed: bool,
    pub(super) rng: Rng,
    pub(super) nonce: Nonce,
    pub(super) dropped: u64,
    pub(super) waiting_for: String,
    /// Reads that wait for the log, with their deadline.
    pub(super) behind: BTreeMap<(Index, Ticket), Time>,
    /// The last primary chose this replica to succeed it, and nobody has reigned since.
    pub(super) chosen: bool,
    /// The newest term of another primary that this one refused, as primary of a newer one.
    pub(super) rival: Option<Term>,
    /// Who was heard that is of another group of this name.
    pub(super) strangers: BTreeMap<ReplicaId, Stranger>,
    /// This replica was primary and handed over, and nobody has reigned since.
    pub(super) yielded: Option<Yielded>,
    /// Of this replica's state, at the last few places where it is compared.
    pub(super) digests: Digests,
    pub(super) awake: Awake,
    #[cfg(feature = "sim")]
    pub(super) mutation: Option<Mutation>,
}

impl Local {
    #[cfg(feature = "sim")]
    pub(super) fn mutated(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    pub(super) fn is_alone(&self) -> bool {
        self.group.authority == Authority::Alone
    }

    /// The fixed primary, where there is one.
    pub(super) fn home(&self) -> Option<ReplicaId> {
        match self.group.takeover {
            Takeover::MostAdvanced | Takeover::OnClientRequest => None,
            Takeover::Never { primary } => Some(primary),
        }
    }

    /// The fixed primary, if this replica is another: as primary it is then a *regent*, who ships what it has until the
    /// fixed one has everything, and serves nobody.
    pub(super) fn regent_for(&self) -> Option<ReplicaId> {
        #[cfg(feature = "sim")]
        if self.mutated(Mutation::RegentServes) {
            return None;
        }
        self.home().filter(|home| *home != self.me)
    }

    /// Whether what was acknowledged may be refuted, by the group's choice.
    pub(super) fn may_lose(&self) -> bool {
        self.is_alone() || self.group.ack == Ack::Primary
    }

    /// Whether a tail that was not known here to be committed may have been acknowledged.
    pub(super) fn acknowledged(&self) -> Acknowledged {
        if self.may_lose() {
            Acknowledged::Perhaps
        } else {
            Acknowledged::Never
        }
    }

    pub(super) fn others(&self) -> impl Iterator<Item = ReplicaId> + use<> {
        let me = self.me;
        let members: Vec<_> = self.membership.view().members.iter().copied().collect();
        members.into_iter().filter(move |id| *id != me)
    }

    /// Who is about to reign, if this replica handed over.
    pub(super) fn successor(&self) -> Option<ReplicaId> {
        self.yielded.as_ref().map(|y| y.to)
    }

    pub(super) fn life(&self, peer: ReplicaId) -> Incarnation {
        self.lives
            .get(&peer)
            .copied()
            .unwrap_or(Incarnation::UNKNOWN)
    }

    /// This primary heard of another one, of an older term, whose writes it refuses: told once.
    pub(super) fn note_rival(&mut self, term: Term, out: &mut Outbox) {
        if self.rival < Some(term) {
            self.rival = Some(term);
            out.push(Action::Event(Event::RivalRefused { term }));
        }
    }

    /// Whether the detector counts on `peer`.
    pub(super) fn is_live(&self, peer: ReplicaId) -> bool {
        peer == self.me || self.membership.view().live.contains(&peer)
    }

    pub(super) fn refresh_view(&mut self, now: Time) {
        for peer in self.others() {
            self.membership
                .on_verdict(peer, self.detector.verdict(now, peer));
        }
    }

    pub(super) fn next_nonce(&mut self) -> Nonce {
        self.nonce = self.nonce.next();
        self.nonce
    }

    /// Up to a third more than `base`, so that rivals do not meet again and again.
    pub(super) fn jittered(&mut self, base: Duration) -> Duration {
        let third = u64::try_from(base.as_nanos() / 3).unwrap_or(u64::MAX);
        base + Duration::from_nanos(self.rng.below(third + 1))
    }

    /// Sends to the life of `to` that is known; drops the message when none is and it needs one.
    pub(super) fn send(&self, to: ReplicaId, message: &Message, out: &mut Outbox) {
        let life = self.life(to);
        if life != Incarnation::UNKNOWN {
            out.send(to, life, |body| message.encode(body));
        } else if message.may_be_unaddressed() {
            out.send(to, Incarnation::UNKNOWN, |body| message.encode(body));
        }
    }

    /// Sends what speaks for this replica's hard state: it leaves once that is durable.
    pub(super) fn answer(&mut self, to: ReplicaId, message: &Message, out: &mut Outbox) {
        if !self.hard_is_durable() {
            self.persist(Vec::new(), out);
        }
        self.send(to, message, out);
    }

    /// Sends to whatever life of `to` there is.
    pub(super) fn send_to_any_life(&self, to: ReplicaId, message: &Message, out: &mut Outbox) {
        out.send(to, Incarnation::UNKNOWN, |body| message.encode(body));
    }

    pub(super) fn standing(&self, posture: Posture) -> Standing {
        Standing {
            store: self.store,
            promised: self.hard.promised,
            configuration: self.hard.configuration.clone(),
            intent: self.hard.intent.clone(),
            last: self.log.last(),
            commit: self.commit,
            posture,
            asked: self.asked,
            founders: self.founders,
            writes: self.log.has_writes(),
        }
    }

    /// How long a grant lasts on the clock of the one who grants it, and how long its holder may count on it on its own:
    /// less, for the clocks may run at different rates.
    pub(super) fn lease(&self) -> Option<(Duration, Duration)> {
        match self.group.confirm {
            Confirm::Round => None,
            Confirm::Lease {
                length,
                drift_ppm_max,
            } => {
                let drift = drift_ppm_max.min(999_999);
                let held = length * (1_000_000 - drift) / (1_000_000 + drift);
                Some((length, held))
            }
        }
    }

    /// Promises whoever ships now to put nobody in its place for the length of a lease.
    pub(super) fn grant(&mut self, now: Time) {
        if let Some((length, _)) = self.lease() {
            self.granted_until = self.granted_until.max(now + length);
        }
    }

    /// Whether entries are applied before they are decided.
    pub(super) fn shows_early(&self) -> bool {
        self.group.visibility == Visibility::OnAppend
    }

    /// With [`Visibility::OnAppend`]: applies what is durable here.
    pub(super) fn show(&mut self, index: Index, now: Time, out: &mut Outbox) {
        if self.shows_early() && !self.restoring {
            self.visible = self.visible.max(index.min(self.log.last().index));
            self.apply(now, out);
        }
    }

    /// What may not be cut off without a word: it was decided, or shown.
    pub(super) fn settled(&self) -> Index {
        self.commit.max(self.visible)
    }

    /// Whether the group counts a member of this name with another storage than this one.
    pub(super) fn is_mistaken(&self) -> bool {
        let configuration = self.hard.configuration.as_ref();
        let counted = configuration.and_then(|c| c.in_sync.get(&self.me));
        counted.is_some_and(|store| *store != self.store)
    }

    /// Tells the primary who this is, and asks the same: it counts, or will count, another storage, or is silent.
    pub(super) fn report_to(&mut self, primary: ReplicaId, out: &mut Outbox) {
        let nonce = self.next_nonce();
        let standing = self.standing(Posture::Following);
        self.send(primary, &Message::Probe { nonce, standing }, out);
    }

    /// Tells whatever life of `to` there is that this replica is primary, and asks who that one is: it is not known here, or does not
    /// know this reign.
    pub(super) fn introduce(&mut self, to: ReplicaId, out: &mut Outbox) {
        let nonce = self.next_nonce();
        let standing = self.standing(Posture::Primary);
        self.send_to_any_life(to, &Message::Probe { nonce, standing }, out);
    }

    pub(super) fn hard_op(&self) -> StorageOp {
        StorageOp::HardState(self.hard.to_bytes())
    }

    pub(super) fn persist_hard(&mut self, out: &mut Outbox) -> PersistToken {
        let op = self.hard_op();
        let token = self.persist(vec![op], out);
        self.hard_token = token;
        token
    }

    /// Hands operations to the storage; the log is as it will be after them.
    pub(super) fn persist(&mut self, ops: Vec<StorageOp>, out: &mut Outbox) -> PersistToken {
        let token = out.persist(ops);
        self.durable.submitted(token, self.log.last().index);
        token
    }

    /// Remembers a configuration that a peer knows, if it is news.
    pub(super) fn learn(&mut self, heard: Option<&Configuration>, out: &mut Outbox) {
        let Some(heard) = heard.filter(|c| is_plausible(c) && !self.is_foreign(c)) else {
            return;
        };
        if self.hard.learn(heard) {
            self.hard.promised = self.hard.promised.max(heard.term);
            self.persist_hard(out);
        }
    }

    pub(super) fn hard_is_durable(&self) -> bool {
        #[cfg(feature = "sim")]
        if self.mutated(Mutation::TermNotDurable) {
            return true;
        }
        self.durable.done() >= self.hard_token
    }

    /// Moves the commit point and applies what is decided by it.
    pub(super) fn commit_to(&mut self, index: Index, now: Time, out: &mut Outbox) {
        self.commit = self.commit.max(index.min(self.log.last().index));
        if self.shows_early() {
            out.push(Action::Release(self.commit));
        }
        self.apply(now, out);
    }

    pub(super) fn apply(&mut self, now: Time, out: &mut Outbox) {
        let upto = if self.shows_early() {
            self.visible
        } else {
            self.commit
        };
        if self.restoring || self.applied >= upto {
            return;
        }
        for run in self.log.runs(self.applied.next(), upto, u64::MAX) {
            self.applied = run.last().map_or(self.applied, |e| e.index);
            out.push(Action::Apply(run));
        }
        self.release_reads(out);
        self.maybe_snapshot(now, out);
    }

    fn release_reads(&mut self, out: &mut Outbox) {
        while let Some((&(index, ticket), _)) = self.behind.first_key_value()
            && index <= self.applied
        {
            self.behind.pop_first();
            let token = self.token();
            out.push(Action::ReadReady { ticket, token });
        }
    }

    /// Gives up reads that have waited for too long.
    pub(super) fn expire_reads(&mut self, now: Time, out: &mut Outbox) {
        let late: Vec<_> = self
            .behind
            .iter()
            .filter(|(_, deadline)| **deadline <= now)
            .map(|(key, _)| *key)
            .collect();
        for key in late {
            self.behind.remove(&key);
            out.push(Action::ReadFailed {
                ticket: key.1,
                error: ReadError::Behind,
            });
        }
    }

    /// How long a read may wait.
    pub(super) fn read_patience(&self) -> Duration {
        self.group.timing.suspect_after * 4
    }

    /// What a client has seen that sees the state as it is now.
    pub(super) fn token(&self) -> Token {
        Token {
            term: self.log.term_at(self.applied).unwrap_or_default(),
            index: self.applied,
        }
    }

    pub(super) fn maybe_snapshot(&mut self, now: Time, out: &mut Outbox) {
        let after = self.snapshot.map_or(Index::ZERO, |s| s.last.index);
        let limits = &self.group.limits;
        // While a peer is sent a snapshot, the log behind that is kept for it: a newer one would free nothing, and writing it
        // would slow down the transfer and the writes beside it.
        let times = if now < self.sending_until {
            POSTPONED_TIMES
        } else {
            1
        };
        let entries_max = limits.snapshot_log_entries.saturating_mul(times);
        let bytes_max = (limits.snapshot_log_bytes as u64).saturating_mul(times);
        let due = self.applied.0 - after.0.min(self.applied.0) >= entries_max
            || self.log.bytes_between(after, self.applied) >= bytes_max;
        // Not before everything that is in it is durable: it must not overtake what the storage has still to do.
        let settled = self.durable.index() >= self.applied;
        if due && settled && !self.snapshotting && self.applied > after {
            self.snapshotting = true;
            out.push(Action::TakeSnapshot);
        }
    }

    /// A snapshot of one's own is durable: forget the log before it, but for what is retained and for what peers that
    /// are being brought up to date (from `floor` on) still need.
    pub(super) fn snapshot_ready(
        &mut self,
        meta: SnapshotMeta,
        floor: Option<Index>,
        out: &mut Outbox,
    ) {
        let asked = std::mem::replace(&mut self.snapshotting, false);
        if !asked || self.log.point(meta.last.index) != Some(meta.last) {
            return; // of a history that was replaced meanwhile
        }
        if self
            .snapshot
            .is_some_and(|s| s.last.index >= meta.last.index)
        {
            return;
        }
        self.snapshot = Some(meta);
        let limits = &self.group.limits;
        let by_entries = Index(meta.last.index.0.saturating_sub(limits.retained_entries));
        let by_bytes = self
            .log
            .first_within(meta.last.index, limits.retained_bytes as u64);
        let mut upto = by_entries.max(by_bytes);
        let kept = self
            .log
            .bytes_between(self.log.base().index, meta.last.index);
        if kept < KEPT_TIMES * self.group.limits.snapshot_log_bytes as u64 {
            upto = floor.map_or(upto, |f| upto.min(f));
        }
        if upto > self.log.base().index {
            self.log.purge(upto);
            self.persist(vec![StorageOp::PurgePrefix { upto }], out);
        }
    }

    /// The history was refuted from `from` on, and the operator wants to look first: nothing is changed, nothing served.
    pub(super) fn stop(&mut self, from: Index, writes: Option<u64>, why: String, out: &mut Outbox) {
        self.stopped = true;
        self.hard.refuted = Some(from);
        self.persist_hard(out);
        if self.holds_writes() {
            let commit = self.commit;
            out.push(Action::Event(Event::AcknowledgedWritesLost {
                from,
                commit,
                writes,
            }));
        }
        self.waiting_for = why;
        out.push(Action::Event(Event::Refused(self.waiting_for.clone())));
    }

    /// Tells of writes that are about to be thrown away, and were not known here to be committed.
    pub(super) fn report_tail(&self, out: &mut Outbox) {
        let (from, last) = (self.commit.next(), self.log.last().index);
        let writes = self.log.writes(from, last);
        if writes.is_some_and(|writes| writes > 0) {
            out.push(Action::Event(Event::TailTruncated {
                from,
                entries: last.0 - self.commit.0,
                writes,
                acknowledged: self.acknowledged(),
            }));
        }
    }

    /// Throws the whole history away, keeping it aside: it was refuted below the commit point. What it vouched for is gone, so
    /// from here on it is another member, as one is that lost its disk: it cannot take over before it was added again.
    pub(super) fn reset(&mut self, from: Index, writes: Option<u64>, out: &mut Outbox) {
        if self.holds_writes() {
            out.push(Action::Event(Event::AcknowledgedWritesLost {
                from,
                commit: self.commit,
                writes,
            }));
        }
        self.begin_anew(out);
        #[cfg(feature = "sim")]
        let renewed = !self.mutated(Mutation::RefutedCounts);
        #[cfg(not(feature = "sim"))]
        let renewed = true;
        if renewed {
            self.store = StoreId(self.rng.next());
            self.hard.renewed = Some(self.store);
        }
        // In this order: as another member it may still hold the old history, but not the other way round.
        let tail = Tail::SaveAside;
        self.hard_token = self.persist(vec![self.hard_op(), StorageOp::Reset { tail }], out);
    }

    /// Whether there is a write in what is committed here: a reign that took none has lost none.
    fn holds_writes(&self) -> bool {
        let holds = |index: u64| {
            let entry = self.log.get(Index(index));
            entry.is_none_or(is_write)
        };
        (1..=self.commit.0).any(holds)
    }

    /// Empty again, in memory.
    pub(super) fn begin_anew(&mut self, out: &mut Outbox) {
        self.log = Log::new(crate::id::LogPoint::ZERO, Vec::new());
        self.digests.forget();
        self.durable.restarted(Index::ZERO);
        self.commit = Index::ZERO;
        self.visible = Index::ZERO;
        self.applied = Index::ZERO;
        self.snapshot = None;
        self.snapshotting = false;
        self.restoring = false;
        for ((_, ticket), _) in std::mem::take(&mut self.behind) {
            out.push(Action::ReadFailed {
                ticket,
                error: ReadError::Behind,
            });
        }
        out.push(Action::ResetMachine);
    }
}

/// The log that is kept for peers that are being brought up to date takes less than so many times `snapshot_log_bytes`.
const KEPT_TIMES: u64 = 4;
/// While a peer is being sent a snapshot, a newer one is taken when the log has grown to so many times its usual limit: early
/// enough to be there before the log is given up.
const POSTPONED_TIMES: u64 = 3;

/// Why a stopped replica does nothing.
pub(super) fn stopped_words(from: Index) -> String {
    format!(
        "stopped: from {from} on another history than this replica's counts, though this one was acknowledged. Look at its data; to give it up (it is saved aside), start it with OnDivergence::SaveAndRejoin"
    )
}
