//! Primary-backup with an in-sync set, after PacificA (Lin, Yang, Zhang, Zhou: *PacificA: Replication in Log-Based
//! Distributed Storage Systems*, MSR-TR-2008-25).
//!
//! One **primary** orders the writes and ships its log to **backups**. A write is acknowledged when every member of the
//! *in-sync set* has it. A member that fails is dropped from the set **before** anything is acknowledged without it;
//! one that returns catches up and is added again. When the primary fails, a member of the set takes over. Who may be
//! primary, and with which set, is a [`Configuration`](crate::Configuration), changed only through the [`Authority`]:
//! a witness (safe under partitions), or the group alone (right when replicas only crash and restart).
//!
//! A group chooses who must have a write, who takes over, what may be read: [`policy`](crate::policy) has the choices, and the
//! table of what each legal combination promises. Where the primary is fixed (`Takeover::Never`) and comes back without its
//! log, the member with the most advanced one rules as a *regent*: it ships what it has and serves nobody, and resigns
//! once the fixed primary has everything; among equals that one takes office.
//!
//! **Repair.** The hash chained over the log is part of every place (index, term, hash) that an append or a heartbeat names, so a log
//! that differs in one byte is found with the next message and shipped anew. States are compared too, where the state
//! machine has a digest ([`Limits::digest_every_entries`](crate::Limits::digest_every_entries)): a replica that differs from
//! most is dropped and repaired by transfer, also if it is the primary. With two replicas it can only be reported.
//!
//! A file for each part: `primary` with `shipping`, `decision`, `blocked`, `reads` and `reconfigure`, `backup`, `takeover` (who becomes primary: a pure
//! function), `succession` (from role to role), `awake` (after a sleep), `dispatch` (messages), `authority` (how a configuration is changed), `register` (whether the witness still knows it),
//! `members` (who belongs), `departed` (who does not, and does not know it), `anew` (two groups of one name), `handover` (planned), `transfer` (snapshots), `repair` (states that differ), `progress` (one peer's copy), `local` (what
//! every role has).

mod anew;
mod authority;
mod awake;
mod backup;
mod blocked;
mod decision;
#[cfg(feature = "testing")]
pub(crate) mod decoders;
mod departed;
mod dispatch;
mod durable;
mod encoded;
mod handover;
mod hard_state;
mod lease;
mod local;
mod log;
mod members;
mod message;
#[cfg(feature = "sim")]
mod mutation;
mod parting;
mod primary;
mod progress;
mod reads;
mod reconfigure;
mod register;
mod repair;
mod repeated;
mod shipping;
mod succession;
mod takeover;
mod transfer;

pub use crate::config::Authority;
pub use members::Join;
pub(crate) use message::is_plausible;
pub use message::{Course, Message, Posture, Standing, describe};
#[cfg(feature = "sim")]
pub use mutation::Mutation;
pub use repair::Health;

use super::{Action, Outbox, Protocol, ProtocolStatus, SnapshotPiece};
use crate::config::{GroupConfig, Read, Takeover, Visibility};
use crate::detector::{FailureDetector, fixed::FixedDetector};
use crate::entry::Run;
use crate::error::{ProposeError, ReadError};
use crate::id::{Index, LogPoint, Nonce, PersistToken, ReplicaId, Ticket};
use crate::manage::Manage;
use crate::membership::{Membership, dynamic::DynamicMembership};
use crate::random::Rng;
use crate::state_machine::Malformed;
use crate::storage::{Recovered, SnapshotMeta};
use crate::time::{Time, Timestamp};
use crate::transport::{Hint, Shipment};
use crate::wire::Envelope;
use authority::Change;
use awake::Awake;
use backup::{Again, Backup};
use bytes::Bytes;
use dispatch::Behind;
use durable::Durable;
use hard_state::HardState;
use local::Local;
use log::Log;
use primary::Primary;
use repair::Digests;
use repeated::Repeated;
use std::collections::{BTreeMap, BTreeSet};
use succession::Rest;
use takeover::Seeking;

/// Whether a replica obeys the rules when it starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Start {
    /// It does.
    #[default]
    Normal,
    /// The operator says that whoever is missing never returns: this replica becomes primary with what it has.
    /// Writes that only the missing had are lost, and if they return after all, their history is refuted.
    Forced,
    /// It does not belong yet: it asks the members that [`Options::group`] names to let it in. Once its storage holds a
    /// configuration that names it, a start is a normal one; and if it hears then that it was removed while it was away, it asks
    /// again to be let in. (Whoever is removed while it runs stays outside.)
    Join(Join),
}

/// What a replica does that finds that writes which it knows to be acknowledged are not in the history that counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum OnDivergence {
    /// It reports the loss, changes nothing and serves nothing, also after a restart, until the operator has looked and starts
    /// it with [`SaveAndRejoin`](Self::SaveAndRejoin).
    Stop,
    /// It reports the loss, saves its history aside and takes over the one that counts.
    #[default]
    SaveAndRejoin,
}

/// What one replica needs to know.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Which member it is.
    pub replica: ReplicaId,
    /// What the group agrees on.
    pub group: GroupConfig,
    /// For entries' seeds and for jitter. From a random source in production.
    pub seed: u64,
    /// See [`Start`].
    pub start: Start,
    /// See [`OnDivergence`]. A node's own choice.
    pub on_divergence: OnDivergence,
    /// A planted bug, for tests of the tests.
    #[cfg(feature = "sim")]
    pub mutation: Option<Mutation>,
}

impl Options {
    /// The options of member `replica` of `group`, with this seed and a normal start.
    #[must_use]
    pub fn new(replica: ReplicaId, group: GroupConfig, seed: u64) -> Self {
        Self {
            replica,
            group,
            seed,
            start: Start::Normal,
            on_divergence: OnDivergence::default(),
            #[cfg(feature = "sim")]
            mutation: None,
        }
    }
}

/// One replica under the passive scheme.
///
/// A scheme like any other: see [`Protocol`] for how it is driven, and an example. `Node` runs it by default.
pub struct Passive {
    local: Local,
    role: Part,
    forced: bool,
    /// How the appends of the one who reigns begin.
    heard: Repeated,
}

/// The role with its state.
enum Part {
    Seeking(Seeking),
    Candidate(Candidate),
    Primary(Box<Primary>),
    Backup(Backup),
}

/// Trying to become primary.
struct Candidate {
    change: Change,
    /// What was heard in the round that led here.
    standings: BTreeMap<ReplicaId, Standing>,
    deadline: Time,
}

impl std::fmt::Debug for Passive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Passive({}, {:?})", self.local.me, self.status())
    }
}

impl Passive {
    /// A replica with what its storage held. Its state machine holds the recovered snapshot.
    ///
    /// # Errors
    /// [`Malformed`] when the hard state is not one of this scheme: the storage belongs to something else.
    pub fn new(options: Options, recovered: Recovered) -> Result<Self, Malformed> {
        let detector = FixedDetector::new(options.group.timing.suspect_after);
        Self::with_detector(options, recovered, Box::new(detector))
    }

    /// The same with a detector of one's own.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_detector(
        options: Options,
        recovered: Recovered,
        detector: Box<dyn FailureDetector>,
    ) -> Result<Self, Malformed> {
        let mut hard = match &recovered.hard_state {
            Some(bytes) => HardState::from_bytes(bytes)?,
            None => HardState::default(),
        };
        let log = Log::new(recovered.base, recovered.entries);
        let begin = recovered
            .snapshot
            .map_or(log.base().index, |s| s.last.index)
            .max(log.base().index);
        let joining = match options.start {
            Start::Join(join) => Some(join),
            Start::Normal | Start::Forced => None,
        };
        let members = options.group.members.clone();
        let refuted = match options.on_divergence {
            OnDivergence::Stop => hard.refuted,
            OnDivergence::SaveAndRejoin => {
                hard.refuted = None;
                None
            }
        };
        Ok(Self {
            forced: options.start == Start::Forced,
            role: Part::Seeking(Seeking::idle()),
            heard: Repeated::default(),
            local: Local {
                me: options.replica,
                store: hard.renewed.unwrap_or(recovered.store),
                incarnation: recovered.incarnation,
                durable: Durable::new(log.last().index),
                log,
                seen: hard.promised,
                hard,
                hard_token: PersistToken(0),
                commit: begin,
                applied: begin,
                visible: begin,
                asked: false,
                granted_until: Time::ZERO,
                on_divergence: options.on_divergence,
                stopped: refuted.is_some(),
                restarting: true,
                snapshot: recovered.snapshot,
                snapshotting: false,
                sending_until: Time::ZERO,
                restoring: false,
                lives: BTreeMap::new(),
                gone: BTreeSet::new(),
                detector,
                membership: DynamicMembership::new(members),
                synced_with: None,
                founders: options.group.founders(),
                joining,
                rejoining: joining,
                leaving: None,
                removed: false,
                rng: Rng::new(options.seed),
                nonce: Nonce(0),
                dropped: 0,
                waiting_for: refuted.map(local::stopped_words).unwrap_or_default(),
                behind: BTreeMap::new(),
                chosen: false,
                rival: None,
                strangers: BTreeMap::new(),
                yielded: None,
                digests: Digests::default(),
                awake: Awake::default(),
                group: options.group,
                #[cfg(feature = "sim")]
                mutation: options.mutation,
            },
        })
    }

    /// What follows from any event: a primary that is gone, members to drop or to add, reads to confirm.
    fn pump(&mut self, now: Time, out: &mut Outbox) {
        self.local.sync_members(now);
        self.notice_removal(now, out);
        match &mut self.role {
            Part::Primary(primary) => {
                primary.reconfigure(&mut self.local, now, out);
                primary.pump_reads(&mut self.local, now, out);
                if primary.has_restored(&self.local) {
                    // Among equals the fixed primary is the one to take office.
                    self.seek(now, Rest::None, out);
                }
            }
            Part::Backup(backup) => {
                if !self.local.is_live(backup.primary) {
                    self.seek(now, Rest::None, out);
                }
            }
            Part::Seeking(_) | Part::Candidate(_) => {}
        }
        self.pump_handover(now, out);
    }

    /// Where a client should go that came to the wrong one.
    fn whom_to_ask(&self) -> Option<ReplicaId> {
        match &self.role {
            // The fixed primary, even while a regent rules.
            Part::Primary(_) => self.local.regent_for(),
            Part::Backup(backup) => Some(self.local.home().unwrap_or(backup.primary)),
            Part::Seeking(_) | Part::Candidate(_) => self.local.successor(),
        }
    }

    /// A client asked this replica for what only a primary does. Where a takeover waits for that, this is it; but while this
    /// replica follows a primary it first asks whether that one lives.
    fn on_asked(&mut self, now: Time, out: &mut Outbox) {
        if self.local.group.takeover != Takeover::OnClientRequest {
            return;
        }
        match &mut self.role {
            Part::Primary(_) | Part::Candidate(_) => {}
            Part::Seeking(_) => {
                self.local.asked = true;
                self.consider(now, out);
            }
            Part::Backup(backup) => {
                self.local.asked = true;
                if backup.may_probe(&self.local, now) {
                    let primary = backup.primary;
                    self.local.report_to(primary, out);
                }
            }
        }
    }

    /// A message came, with its raw part behind it or with entries of this process's memory.
    fn on_received(
        &mut self,
        now: Time,
        envelope: &Envelope,
        (mut body, shared): (Bytes, Option<Run>),
        out: &mut Outbox,
    ) {
        self.notice_sleep(now, out);
        let Ok(message) = self.heard.decode(&mut body) else {
            self.local.dropped += 1;
            return;
        };
        match self.screen(now, envelope, message, out) {
            Some(message) if self.admit(now, envelope, &message, out) => {
                self.dispatch(
                    now,
                    envelope.from,
                    message,
                    Behind { raw: body, shared },
                    out,
                );
                self.pump(now, out);
            }
            Some(_) => self.local.dropped += 1,
            None => self.pump(now, out),
        }
    }

    fn on_view_changed(&mut self, now: Time, out: &mut Outbox) {
        self.local.refresh_view(now);
        self.consider(now, out);
    }
}

impl Protocol for Passive {
    fn start(&mut self, now: Time, out: &mut Outbox) {
        self.local.awake.begin(now);
        self.local.sync_members(now);
        self.local.removed = self.local.is_outside() && self.local.joining.is_none();
        for peer in self.local.others() {
            self.local.detector.watch(now, peer);
        }
        // What it has granted in an earlier life it does not know.
        self.local.grant(now);
        #[cfg(feature = "sim")]
        if self.local.mutated(Mutation::GrantForgotten) {
            self.local.granted_until = Time::ZERO;
        }
        #[cfg(feature = "sim")]
        if self.start_as_planted(now, out) {
            return;
        }
        self.seek(now, Rest::None, out);
    }

    fn on_message(&mut self, now: Time, envelope: &Envelope, body: Bytes, out: &mut Outbox) {
        self.on_received(now, envelope, (body, None), out);
    }

    fn on_shipment(
        &mut self,
        now: Time,
        envelope: &Envelope,
        shipment: Shipment,
        out: &mut Outbox,
    ) {
        let (head, entries) = shipment.into_parts();
        self.on_received(now, envelope, (head, Some(entries)), out);
    }

    fn on_tick(&mut self, now: Time, out: &mut Outbox) {
        self.notice_sleep(now, out);
        self.local.detector.tick(now);
        self.local.refresh_view(now);
        self.local.expire_reads(now, out);
        match &mut self.role {
            Part::Primary(primary) => primary.tick(&mut self.local, now, out),
            Part::Seeking(_) if self.local.stopped => {}
            Part::Seeking(seeking) => {
                if now >= seeking.deadline {
                    self.consider(now, out);
                    if matches!(self.role, Part::Seeking(_)) {
                        self.ask_around(now, out);
                    }
                } else {
                    self.consider(now, out);
                }
            }
            Part::Candidate(candidate) => {
                if now >= candidate.deadline {
                    self.seek(now, Rest::AfterDefeat, out);
                } else {
                    candidate.change.resend(&mut self.local, now, out);
                }
            }
            Part::Backup(_) => {}
        }
        self.pump(now, out);
    }

    fn on_hint(&mut self, now: Time, peer: ReplicaId, hint: Hint, out: &mut Outbox) {
        self.notice_sleep(now, out);
        if hint == Hint::Superseded {
            self.on_superseded(peer, out);
            return;
        }
        if hint == Hint::Unheard {
            self.on_unheard(peer, out);
            return;
        }
        if self.local.is_member(peer) {
            self.local.detector.on_hint(now, peer, hint);
            if hint == Hint::Gone {
                self.local.gone.insert(peer);
            }
            self.on_view_changed(now, out);
            self.pump(now, out);
        }
    }

    fn on_persisted(&mut self, now: Time, token: PersistToken, out: &mut Outbox) {
        self.notice_sleep(now, out);
        self.local.durable.persisted(token);
        if !self.local.restoring {
            self.local.maybe_snapshot(now, out);
        }
        match &mut self.role {
            Part::Primary(primary) => {
                if self.local.shows_early() {
                    // First applied, then shipped.
                    let durable = self.local.durable.index();
                    self.local.show(durable, now, out);
                    primary.ship(&mut self.local, now, out);
                }
                let mut ended = None;
                for (at, change) in primary.changes.iter_mut().enumerate() {
                    if let Some(settled) = change.on_persisted(&self.local, now, token, out) {
                        ended = Some((at, settled));
                    }
                }
                primary.advance(&mut self.local, now, out);
                self.settle_reign(ended, now, out);
            }
            Part::Candidate(candidate) => {
                let settled = candidate.change.on_persisted(&self.local, now, token, out);
                self.settle_candidate(settled, now, out);
            }
            Part::Backup(backup) => backup.acknowledge(&mut self.local, Again::No, now, out),
            Part::Seeking(_) => {}
        }
        self.pump(now, out);
    }

    fn on_snapshot_ready(&mut self, now: Time, meta: SnapshotMeta, out: &mut Outbox) {
        let floor = match &self.role {
            Part::Primary(primary) => primary.needed_from(&self.local),
            Part::Seeking(_) | Part::Candidate(_) | Part::Backup(_) => None,
        };
        self.local.snapshot_ready(meta, floor, out);
        if !self.local.restoring {
            // Enough may have come while it was written.
            self.local.maybe_snapshot(now, out);
        }
    }

    fn on_snapshot_dropped(&mut self, _: Time, _: &mut Outbox) {
        self.local.snapshotting = false;
    }

    fn on_snapshot_piece(
        &mut self,
        now: Time,
        peer: ReplicaId,
        piece: Option<SnapshotPiece>,
        out: &mut Outbox,
    ) {
        if let Part::Primary(primary) = &mut self.role {
            primary.on_snapshot_piece(&self.local, now, peer, piece.as_ref(), out);
        }
    }

    fn on_restored(&mut self, now: Time, meta: SnapshotMeta, out: &mut Outbox) {
        self.notice_sleep(now, out);
        self.local.restoring = false;
        self.local.digests.forget();
        self.local.applied = meta.last.index;
        self.local.commit = self.local.commit.max(meta.last.index);
        self.local.visible = self.local.visible.max(meta.last.index);
        if let Part::Backup(backup) = &mut self.role {
            backup.on_restored(&mut self.local, now, meta, out);
        }
        self.local.apply(now, out);
        self.consider(now, out);
    }

    fn on_digest(&mut self, now: Time, at: LogPoint, digest: u64, out: &mut Outbox) {
        self.notice_sleep(now, out);
        self.on_own_digest(now, at, digest, out);
    }

    fn propose(
        &mut self,
        now: Time,
        wall: Timestamp,
        commands: Vec<Bytes>,
        out: &mut Outbox,
    ) -> Result<Index, ProposeError> {
        self.notice_sleep(now, out);
        match &mut self.role {
            Part::Primary(primary) if self.local.regent_for().is_none() => {
                primary.propose(&mut self.local, now, wall, commands, out)
            }
            Part::Primary(_) | Part::Backup(_) | Part::Seeking(_) | Part::Candidate(_) => {
                self.on_asked(now, out);
                Err(ProposeError::NotPrimary {
                    primary: self.whom_to_ask(),
                })
            }
        }
    }

    fn read(&mut self, now: Time, ticket: Ticket, read: Read, out: &mut Outbox) {
        self.notice_sleep(now, out);
        let at_least = match read {
            Read::Local => Index::ZERO,
            Read::AtLeast(token) => token.index,
            Read::Linearizable if self.local.shows_early() => {
                let error = ReadError::NotPromised;
                out.push(Action::ReadFailed { ticket, error });
                return;
            }
            Read::Linearizable => {
                match &mut self.role {
                    Part::Primary(primary) if self.local.regent_for().is_none() => {
                        primary.read(&mut self.local, now, ticket, out);
                    }
                    #[cfg(feature = "sim")]
                    Part::Seeking(_)
                        if self.local.mutated(Mutation::ReadsAfterHandover)
                            && self.local.yielded.is_some() =>
                    {
                        let token = self.local.token();
                        out.push(Action::ReadReady { ticket, token });
                    }
                    Part::Primary(_) | Part::Backup(_) | Part::Seeking(_) | Part::Candidate(_) => {
                        self.on_asked(now, out);
                        let error = ReadError::NotPrimary {
                            primary: self.whom_to_ask(),
                        };
                        out.push(Action::ReadFailed { ticket, error });
                    }
                }
                return;
            }
        };
        // A storage that the group does not count yet, and that began with nothing, is being filled: what it holds is a state of long ago.
        let filled = self.local.is_mistaken() && self.local.snapshot.is_none();
        let lacks_state = self.local.restoring || filled;
        if lacks_state || self.local.stopped || self.local.is_outside() {
            out.push(Action::ReadFailed {
                ticket,
                error: ReadError::Behind,
            });
        } else if at_least <= self.local.applied {
            let token = self.local.token();
            out.push(Action::ReadReady { ticket, token });
        } else if self.local.behind.len() >= self.local.group.limits.pending_reads_max {
            out.push(Action::ReadFailed {
                ticket,
                error: ReadError::Busy,
            });
        } else {
            let deadline = now + self.local.read_patience();
            self.local.behind.insert((at_least, ticket), deadline);
            if let Part::Backup(backup) = &mut self.role {
                backup.ask_commit(&self.local, out);
            }
        }
    }

    fn manage(&mut self, now: Time, ticket: Ticket, manage: Manage, out: &mut Outbox) {
        self.notice_sleep(now, out);
        if let Some(outcome) = self.manage_members(now, ticket, &manage, out) {
            out.push(Action::Managed { ticket, outcome });
        }
        self.pump(now, out);
    }

    fn next_deadline(&self, now: Time) -> Option<Time> {
        let role = match &self.role {
            Part::Primary(primary) => Some(primary.next_deadline(&self.local)),
            Part::Seeking(_) if self.local.stopped => None,
            Part::Seeking(seeking) => {
                let lies_ahead = |at: &Time| *at > now;
                let waits = [seeking.not_before, self.local.granted_until];
                let waits = waits.into_iter().filter(lies_ahead);
                waits.chain([seeking.deadline]).min()
            }
            Part::Candidate(candidate) => {
                let resend = candidate.change.deadline(&self.local);
                Some(resend.map_or(candidate.deadline, |r| r.min(candidate.deadline)))
            }
            Part::Backup(_) => None,
        };
        let reads = self.local.behind.values().min().copied();
        let detector = self.local.detector.next_deadline(now);
        [role, reads, detector].into_iter().flatten().min()
    }

    fn visibility(&self) -> Visibility {
        self.local.group.visibility
    }

    fn status(&self) -> ProtocolStatus {
        let local = &self.local;
        let (primary, serving) = match &self.role {
            Part::Primary(primary) => (
                Some(local.me),
                primary.serving(local) && local.regent_for().is_none(),
            ),
            Part::Backup(backup) => (Some(backup.primary), false),
            Part::Seeking(_) | Part::Candidate(_) => (None, false),
        };
        let (replicated, awaited) = match &self.role {
            Part::Primary(primary) => (Some(primary.replicated(local)), primary.awaits(local)),
            Part::Seeking(_) | Part::Candidate(_) | Part::Backup(_) => (None, BTreeSet::new()),
        };
        ProtocolStatus {
            role: self.role_name(),
            store: local.store,
            term: local.hard.promised,
            primary,
            serving,
            configuration: local.hard.configuration.clone(),
            view: local.membership.view().number,
            last: local.log.last(),
            durable: local.durable.index(),
            commit: local.commit,
            applied: local.applied,
            replicated,
            awaited,
            log_start: local.log.base().index,
            waiting_for: local.waiting_for.clone(),
            dropped: local.dropped,
        }
    }

    fn hard_state_for_copy(&self) -> Option<Bytes> {
        let configuration = self.local.hard.configuration.clone();
        let counted = configuration.as_ref().map(|c| c.term).unwrap_or_default();
        let hard = HardState {
            // Not what this replica merely promised to somebody who may never have reigned.
            promised: counted.max(self.local.log.last().term),
            configuration,
            intent: None,
            refuted: None,
            renewed: None,
        };
        Some(hard.to_bytes())
    }

    fn check_invariants(&self) {
        let local = &self.local;
        assert!(
            local.commit <= local.log.last().index,
            "only what is in the log is committed"
        );
        assert!(
            local.applied <= local.commit
                || local.restoring
                || local.shows_early() && local.applied <= local.visible,
            "only what is committed is applied, or shown"
        );
        assert!(
            local.durable.index() <= local.log.last().index,
            "only what is in the log is durable"
        );
        match &self.role {
            Part::Primary(primary) => primary.check_invariants(local),
            Part::Backup(backup) => backup.check_invariants(local),
            Part::Seeking(_) | Part::Candidate(_) => {}
        }
    }
}

#[cfg(feature = "sim")]
impl Passive {
    /// Planted bugs of the start: a role from the arguments, a term resumed.
    fn start_as_planted(&mut self, now: Time, out: &mut Outbox) -> bool {
        use crate::id::{Configuration, Departed, MemberKind, Origin, Version};
        let resumes = self.local.mutated(Mutation::TermResumed);
        let from_arguments = self.local.mutated(Mutation::RoleFromArguments);
        let me = self.local.me;
        let planted = match self.local.hard.configuration.clone() {
            Some(c) if resumes && c.term.replica == me && c.term == self.local.hard.promised => {
                Some(c)
            }
            known if from_arguments && self.local.group.members.first() == Some(&me) => {
                let term = self.local.hard.promised.next_for(me);
                self.local.hard.promised = term;
                let founders = self.local.group.members.iter();
                let fresh = Origin::of(self.local.store);
                Some(Configuration {
                    origin: known.as_ref().map_or(fresh, |c| c.origin),
                    term,
                    version: known.map_or(Version(1), |c| c.version.next()),
                    in_sync: [(me, self.local.store)].into(),
                    members: founders.map(|m| (*m, MemberKind::Full)).collect(),
                    departed: Departed::default(),
                })
            }
            Some(_) | None => None,
        };
        let Some(configuration) = planted else {
            return false;
        };
        self.reign(configuration, &BTreeMap::new(), now, out);
        true
    }
}

#[cfg(test)]
mod tests;
