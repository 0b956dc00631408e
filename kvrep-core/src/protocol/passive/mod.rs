//! Primary-backup with an in-sync set, after PacificA (Lin, Yang, Zhang, Zhou: *PacificA: Replication in Log-Based
//! Distributed Storage Systems*, MSR-TR-2008-25).
//!
//! One **primary** orders the writes and ships its log to **backups**. A write is acknowledged when every member of the
//! *in-sync set* has it. A member that fails is dropped from the set **before** anything is acknowledged without it;
//! one that returns catches up and is added again. When the primary fails, a member of the set takes over. Who may be
//! primary, and with which set, is a [`Configuration`], changed only through the [`Authority`]:
//! a witness (safe under partitions), or the group alone (right when replicas only crash and restart).
//!
//! | cell | promise |
//! |---|---|
//! | crashes and restarts, disks intact, no false suspicion | linearizable; what was acknowledged lives as long as one member of the in-sync set does |
//! | the same with pauses, partitions, lost disks; `Witness` | linearizable; available while a member reaches the witness |
//! | the same; `Alone` | **unsafe**: two primaries are possible; on heal the divergence is found, saved aside, reported |
//!
//! A file for each part: `primary`, `backup`, `takeover` (who becomes primary), `authority` (how a configuration is
//! changed), `transfer` (snapshots), `progress` (one peer's copy), `local` (what every role has).

mod authority;
mod backup;
mod durable;
mod hard_state;
mod local;
mod log;
mod message;
#[cfg(feature = "sim")]
mod mutation;
mod primary;
mod progress;
mod takeover;
mod transfer;

pub use crate::config::Authority;
pub(crate) use message::is_plausible;
pub use message::{Message, Posture, Standing, describe};
#[cfg(feature = "sim")]
pub use mutation::Mutation;

use super::{Action, Event, Outbox, Protocol, ProtocolStatus, Role, SnapshotPiece};
use crate::config::{GroupConfig, Read};
use crate::detector::{FailureDetector, fixed::FixedDetector};
use crate::error::{ProposeError, ReadError};
use crate::id::{
    Configuration, Incarnation, Index, LogPoint, Nonce, PersistToken, ReplicaId, Term, Ticket,
    Version,
};
use crate::membership::{Membership, fixed::FixedMembership};
use crate::random::Rng;
use crate::state_machine::Malformed;
use crate::storage::{Recovered, SnapshotMeta};
use crate::time::{Time, Timestamp};
use crate::transport::Hint;
use crate::wire::Envelope;
use authority::{Change, Settled};
use backup::{Again, Append, Backup};
use bytes::Bytes;
use durable::Durable;
use hard_state::HardState;
use local::Local;
use log::Log;
use primary::{Primary, Reign};
use std::collections::{BTreeMap, BTreeSet};
use takeover::{Decision, Seeking, Situation, decide};

/// Whether a replica obeys the rules when it starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Start {
    /// It does.
    #[default]
    Normal,
    /// The operator says that whoever is missing never returns: this replica becomes primary with what it has.
    /// Writes that only the missing had are lost, and if they return after all, their history is refuted.
    Forced,
}

/// What one replica needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which member it is.
    pub replica: ReplicaId,
    /// What the group agrees on.
    pub group: GroupConfig,
    /// For entries' seeds and for jitter. From a random source in production.
    pub seed: u64,
    /// See [`Start`].
    pub start: Start,
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
        let hard = match &recovered.hard_state {
            Some(bytes) => HardState::from_bytes(bytes)?,
            None => HardState::default(),
        };
        let log = Log::new(recovered.base, recovered.entries);
        let begin = recovered
            .snapshot
            .map_or(log.base().index, |s| s.last.index)
            .max(log.base().index);
        let members = options.group.members.clone();
        Ok(Self {
            forced: options.start == Start::Forced,
            role: Part::Seeking(Seeking::idle()),
            local: Local {
                me: options.replica,
                store: recovered.store,
                incarnation: recovered.incarnation,
                durable: Durable::new(log.last().index),
                log,
                seen: hard.promised,
                hard,
                hard_token: PersistToken(0),
                commit: begin,
                applied: begin,
                restarting: true,
                snapshot: recovered.snapshot,
                snapshotting: false,
                restoring: false,
                lives: BTreeMap::new(),
                gone: BTreeSet::new(),
                detector,
                membership: FixedMembership::new(members),
                rng: Rng::new(options.seed),
                nonce: Nonce(0),
                dropped: 0,
                waiting_for: String::new(),
                behind: BTreeMap::new(),
                group: options.group,
                #[cfg(feature = "sim")]
                mutation: options.mutation,
            },
        })
    }

    // ---- changing role ------------------------------------------------------------------------------------------

    fn change_role(&mut self, role: Part, out: &mut Outbox) {
        let before = std::mem::replace(&mut self.role, role);
        if let Part::Primary(primary) = before {
            primary.abdicate(out);
        }
        out.push(Action::Event(Event::RoleChanged {
            role: self.role_name(),
            term: self.local.hard.promised,
        }));
    }

    fn role_name(&self) -> Role {
        match self.role {
            Part::Seeking(_) => Role::Seeking,
            Part::Candidate(_) => Role::Candidate,
            Part::Primary(_) => Role::Primary,
            Part::Backup(_) => Role::Backup,
        }
    }

    fn posture(&self) -> Posture {
        match self.role {
            Part::Primary(_) => Posture::Primary,
            Part::Candidate(_) if !self.local.restarting => Posture::Candidate,
            Part::Backup(_) | Part::Seeking(_) if !self.local.restarting => Posture::Following,
            Part::Candidate(_) | Part::Backup(_) | Part::Seeking(_) => Posture::Restarting,
        }
    }

    /// Begins to ask around; `rest` says how long no promotion is tried.
    fn seek(&mut self, now: Time, rest: Rest, out: &mut Outbox) {
        let window = self.local.group.timing.probe_window;
        let not_before = match rest {
            Rest::None => now,
            Rest::AfterDefeat => now + self.local.jittered(window),
        };
        if let Part::Backup(backup) = &self.role {
            // Backups do not hear each other while a primary reigns: only now their silence begins to count.
            let primary = backup.primary;
            for peer in self.local.others() {
                if peer != primary && !self.local.gone.contains(&peer) {
                    self.local.detector.watch(now, peer);
                }
            }
            self.local.refresh_view(now);
        }
        let mut seeking = Seeking::idle();
        seeking.not_before = not_before;
        self.change_role(Part::Seeking(seeking), out);
        self.ask_around(now, out);
    }

    /// Starts a round of questions.
    fn ask_around(&mut self, now: Time, out: &mut Outbox) {
        let window = self.local.group.timing.probe_window;
        let window = self.local.jittered(window);
        let nonce = self.local.next_nonce();
        let standing = self.local.standing(self.posture());
        if let Part::Seeking(seeking) = &mut self.role {
            // Longer and longer rounds, so that the network is not flooded; but short enough that whoever lives answers
            // several before it would count as dead.
            let stretched = window * (1 << seeking.rounds.min(3));
            let longest = (self.local.group.timing.suspect_after / 3).max(window);
            seeking.begin_round(nonce, now + stretched.min(longest));
        }
        for peer in self.local.others() {
            let standing = standing.clone();
            self.local
                .send_to_any_life(peer, &Message::Probe { nonce, standing }, out);
        }
        if !self.local.is_alone() {
            self.local
                .send_to_any_life(ReplicaId::WITNESS, &Message::ReadRegister { nonce }, out);
        }
        self.consider(now, out);
    }

    /// Decides from what was heard in this round.
    fn consider(&mut self, now: Time, out: &mut Outbox) {
        let Part::Seeking(seeking) = &self.role else {
            return;
        };
        if self.local.restoring || now < seeking.not_before {
            return;
        }
        #[cfg(feature = "sim")]
        let ignores_last_set = self.local.mutated(Mutation::LastManIgnored);
        #[cfg(not(feature = "sim"))]
        let ignores_last_set = false;
        let decision = decide(&Situation {
            me: self.local.me,
            store: self.local.store,
            authority: self.local.group.authority,
            members: &self.local.group.members,
            promised: self.local.hard.promised.max(self.local.seen),
            configuration: self.local.hard.configuration.as_ref(),
            intent: self.local.hard.intent.as_ref(),
            last: self.local.log.last(),
            restarting: self.local.restarting,
            heard: &seeking.heard,
            register: seeking.register.as_ref(),
            live: &self.local.membership.view().live,
            round_over: now >= seeking.deadline,
            rounds: seeking.rounds,
            forced: self.forced,
            ignores_last_set,
        });
        match decision {
            Decision::Wait(why) => {
                if !why.is_empty() && why != self.local.waiting_for {
                    self.local.waiting_for.clone_from(&why);
                    out.push(Action::Event(Event::Refused(why)));
                }
            }
            Decision::Promote { new, old } => self.run_for(new, old, now, out),
        }
    }

    fn run_for(
        &mut self,
        new: Configuration,
        old: Option<Configuration>,
        now: Time,
        out: &mut Outbox,
    ) {
        let Part::Seeking(seeking) = &mut self.role else {
            return;
        };
        let standings = std::mem::take(&mut seeking.heard);
        if self.forced {
            self.forced = false;
            out.push(Action::Event(Event::Refused(format!(
                "forced: {new:?} in place of {old:?}; what only the others had is lost"
            ))));
        }
        let patience = self.local.group.timing.resend_every * 3;
        let mut change = Change::begin(&mut self.local, now, old.as_ref(), new, out);
        // Nothing to wait for where nobody else must agree and nothing must be durable first.
        let settled = change.on_persisted(&self.local, now, self.local.durable.done(), out);
        self.change_role(
            Part::Candidate(Candidate {
                change,
                standings,
                deadline: now + patience,
            }),
            out,
        );
        self.settle_candidate(settled, now, out);
    }

    fn settle_candidate(&mut self, settled: Option<Settled>, now: Time, out: &mut Outbox) {
        match (settled, &mut self.role) {
            (Some(Settled::Counts), Part::Candidate(candidate)) => {
                let new = candidate.change.new.clone();
                let standings = std::mem::take(&mut candidate.standings);
                self.reign(new, &standings, now, out);
            }
            (Some(Settled::Overtaken), Part::Candidate(_)) => {
                self.seek(now, Rest::AfterDefeat, out);
            }
            (None, _) | (Some(_), _) => {}
        }
    }

    fn reign(
        &mut self,
        configuration: Configuration,
        standings: &BTreeMap<ReplicaId, Standing>,
        now: Time,
        out: &mut Outbox,
    ) {
        self.local.waiting_for.clear();
        if self.local.hard.learn(&configuration) {
            self.local.persist_hard(out);
        }
        out.push(Action::Event(Event::Configured(configuration.clone())));
        let primary = Primary::begin(&mut self.local, configuration, standings, now, out);
        self.change_role(Part::Primary(Box::new(primary)), out);
    }

    /// Follows the primary of `term`, if it does not already.
    fn follow(&mut self, term: Term, out: &mut Outbox) {
        self.local.waiting_for.clear();
        let already = matches!(&self.role, Part::Backup(backup) if backup.term == term);
        if !already {
            self.change_role(Part::Backup(Backup::begin(term)), out);
        }
    }

    // ---- messages -----------------------------------------------------------------------------------------------

    /// Whether a message may be looked at: from a member, of its newest life, to this one.
    fn admit(
        &mut self,
        now: Time,
        envelope: &Envelope,
        message: &Message,
        out: &mut Outbox,
    ) -> bool {
        let from = envelope.from;
        let is_member = self.local.group.members.contains(&from);
        if !is_member && from != ReplicaId::WITNESS {
            return false;
        }
        let addressed = envelope.to_incarnation == self.local.incarnation;
        let known = self.local.life(from);
        if envelope.incarnation < known
            || envelope.incarnation == Incarnation::UNKNOWN
            || !(addressed || message.may_be_unaddressed())
        {
            return false;
        }
        if envelope.incarnation > known {
            self.local.lives.insert(from, envelope.incarnation);
            if known != Incarnation::UNKNOWN {
                self.on_new_life(now, from, out);
            }
        }
        if is_member {
            self.local.gone.remove(&from);
            self.local.detector.on_heard(now, from);
            let verdict = self.local.detector.verdict(now, from);
            self.local.membership.on_verdict(from, verdict);
        }
        true
    }

    /// A peer has restarted. A restart never resumes a term, so a primary that did has ended its reign.
    fn on_new_life(&mut self, now: Time, peer: ReplicaId, out: &mut Outbox) {
        match &mut self.role {
            Part::Backup(backup) if backup.primary == peer => self.seek(now, Rest::None, out),
            // What its earlier life said of itself, its storage above all, may not be true of this one.
            Part::Seeking(seeking) => {
                seeking.heard.remove(&peer);
            }
            Part::Candidate(candidate) => {
                candidate.standings.remove(&peer);
            }
            // It is unknown again until it says who it is.
            Part::Primary(_) | Part::Backup(_) => {}
        }
    }

    fn dispatch(
        &mut self,
        now: Time,
        from: ReplicaId,
        message: Message,
        raw: Bytes,
        out: &mut Outbox,
    ) {
        match message {
            Message::Probe { nonce, standing } => {
                let own = self.local.standing(self.posture());
                let answer = Message::Standing {
                    nonce,
                    standing: own,
                };
                self.local.send(from, &answer, out);
                self.on_standing(now, from, None, standing, out);
            }
            Message::Standing { nonce, standing } => {
                self.on_standing(now, from, Some(nonce), standing, out);
            }
            Message::Append {
                term,
                configuration,
                prev,
                last,
                commit,
                round,
            } => match message::decode_entries(raw, prev) {
                Ok(entries) if entries.last().is_none_or(|e| e.term <= term) => {
                    let append = Append {
                        term,
                        prev,
                        last,
                        commit,
                        round,
                        entries,
                    };
                    if self.heed(from, term, &configuration, out)
                        && let Part::Backup(backup) = &mut self.role
                    {
                        backup.on_append(&mut self.local, now, append, out);
                    }
                }
                Ok(_) | Err(_) => self.local.dropped += 1,
            },
            Message::Chunk {
                term,
                configuration,
                meta,
                offset,
            } => {
                if self.heed(from, term, &configuration, out)
                    && let Part::Backup(backup) = &mut self.role
                {
                    backup.on_chunk(&mut self.local, (meta, offset, raw), out);
                }
            }
            Message::Appended {
                term,
                durable,
                matched,
                round,
            } => {
                if let Some((primary, local)) = self.reigning(term) {
                    primary.on_appended(local, now, from, (durable, matched, round), out);
                }
            }
            Message::Mismatch { term, hint, round } => {
                if let Some((primary, local)) = self.reigning(term) {
                    primary.on_mismatch(local, now, from, (hint, round), out);
                }
            }
            Message::ChunkTaken { term, index, upto } => {
                if let Some((primary, local)) = self.reigning(term) {
                    primary.on_chunk_taken(local, now, from, (index, upto), out);
                }
            }
            Message::AskCommit { term } => {
                if let Some((primary, local)) = self.reigning(term) {
                    primary.on_ask_commit(local, now, from, out);
                }
            }
            Message::Refused { promised } => self.on_refused(now, promised, out),
            Message::Propose {
                configuration,
                last,
            } => self.on_propose(from, configuration, last, out),
            Message::Accepted { term, version } => {
                self.on_accepted(now, from, (term, version), out);
            }
            Message::Register {
                nonce,
                configuration,
            } if from == ReplicaId::WITNESS => self.on_register(now, nonce, configuration, out),
            Message::Register { .. }
            | Message::ReadRegister { .. }
            | Message::CompareAndSet { .. } => self.local.dropped += 1,
        }
    }

    /// The primary role with the replica, if it reigns in `term`.
    fn reigning(&mut self, term: Term) -> Option<(&mut Primary, &mut Local)> {
        match &mut self.role {
            Part::Primary(primary) if primary.term == term => Some((primary, &mut self.local)),
            Part::Primary(_) | Part::Seeking(_) | Part::Candidate(_) | Part::Backup(_) => None,
        }
    }

    fn on_standing(
        &mut self,
        now: Time,
        from: ReplicaId,
        nonce: Option<Nonce>,
        standing: Standing,
        out: &mut Outbox,
    ) {
        if from == ReplicaId::WITNESS || standing.promised.number >= u64::MAX / 2 {
            self.local.dropped += 1;
            return;
        }
        match &mut self.role {
            Part::Primary(primary) => {
                primary.on_standing(&mut self.local, now, from, &standing, out);
            }
            Part::Seeking(seeking) => {
                // A probe says as much as an answer, but only an answer is known to be of this round.
                if nonce == Some(seeking.nonce) {
                    if self.local.is_alone() {
                        // Nobody else remembers: what was heard is known from now on, whoever answers next time.
                        self.local.learn(standing.configuration.as_ref(), out);
                    }
                    seeking.heard.insert(from, standing);
                    self.consider(now, out);
                }
            }
            Part::Backup(backup) => {
                let resigned = from == backup.primary
                    && standing.posture != Posture::Primary
                    && standing.promised >= backup.term;
                if resigned {
                    self.seek(now, Rest::None, out);
                }
            }
            Part::Candidate(_) => {}
        }
    }

    /// Whether a primary's message is to be followed; takes its term and configuration over if so.
    fn heed(
        &mut self,
        from: ReplicaId,
        term: Term,
        configuration: &Configuration,
        out: &mut Outbox,
    ) -> bool {
        if term.replica != from
            || from == self.local.me
            || configuration.term > term
            || !is_plausible(configuration)
        {
            self.local.dropped += 1;
            return false;
        }
        #[cfg(feature = "sim")]
        let forgets = self.local.mutated(Mutation::TermCheckForgotten);
        #[cfg(not(feature = "sim"))]
        let forgets = false;
        if term < self.local.hard.promised && !forgets {
            let promised = self.local.hard.promised;
            self.local.answer(from, &Message::Refused { promised }, out);
            return false;
        }
        backup::adopt(&mut self.local, term, configuration, out);
        self.follow(term, out);
        true
    }

    fn on_refused(&mut self, now: Time, promised: Term, out: &mut Outbox) {
        if promised.number >= u64::MAX / 2 {
            self.local.dropped += 1;
            return;
        }
        self.local.seen = self.local.seen.max(promised);
        let defeated = match &self.role {
            // It deposes the primary; it is no reason to drop the one who says so.
            Part::Primary(primary) => promised > primary.term,
            Part::Candidate(candidate) => promised > candidate.change.new.term,
            Part::Seeking(_) | Part::Backup(_) => false,
        };
        if defeated {
            self.seek(now, Rest::AfterDefeat, out);
        }
    }

    /// `Alone`: somebody proposes a configuration with this replica in it.
    fn on_propose(
        &mut self,
        from: ReplicaId,
        new: Configuration,
        last: LogPoint,
        out: &mut Outbox,
    ) {
        let local = &mut self.local;
        if !local.is_alone()
            || !is_plausible(&new)
            || new.term.replica != from
            || !new.has(local.me, local.store)
        {
            local.dropped += 1;
            return;
        }
        let promotes = local
            .hard
            .configuration
            .as_ref()
            .is_none_or(|c| c.term != new.term);
        let known = local.hard.configuration.as_ref();
        let again = known.is_some_and(|c| *c == new);
        let stale = new.term < local.hard.promised
            || known.is_some_and(|c| c.rank() >= new.rank())
            || (promotes && last.rank() < local.log.last().rank());
        if !again && stale {
            let promised = local.hard.promised.max(local.seen);
            local.send(from, &Message::Refused { promised }, out);
            return;
        }
        let message = Message::Accepted {
            term: new.term,
            version: new.version,
        };
        if !again {
            local.hard.promised = local.hard.promised.max(new.term);
            local.hard.intent = None;
            local.hard.learn(&new);
            local.persist_hard(out);
        }
        local.answer(from, &message, out);
        let term = new.term;
        if promotes {
            self.follow(term, out);
        }
    }

    fn on_accepted(&mut self, now: Time, from: ReplicaId, rank: (Term, Version), out: &mut Outbox) {
        match &mut self.role {
            Part::Candidate(candidate) => {
                let settled = candidate.change.on_accepted(&self.local, from, rank, out);
                self.settle_candidate(settled, now, out);
            }
            Part::Primary(primary) => {
                let mut ended = None;
                for (at, change) in primary.changes.iter_mut().enumerate() {
                    if let Some(settled) = change.on_accepted(&self.local, from, rank, out) {
                        ended = Some((at, settled));
                    }
                }
                self.settle_reign(ended, now, out);
            }
            Part::Seeking(_) | Part::Backup(_) => {}
        }
    }

    /// The witness said what the register holds.
    fn on_register(
        &mut self,
        now: Time,
        nonce: Nonce,
        register: Option<Configuration>,
        out: &mut Outbox,
    ) {
        if self.local.is_alone() || register.as_ref().is_some_and(|c| !is_plausible(c)) {
            self.local.dropped += 1;
            return;
        }
        match &mut self.role {
            Part::Seeking(seeking) => {
                if nonce == seeking.nonce {
                    seeking.register = Some(register);
                    self.consider(now, out);
                }
            }
            Part::Candidate(candidate) => {
                let settled = candidate.change.on_register(register.as_ref());
                self.settle_candidate(settled, now, out);
            }
            Part::Primary(primary) => {
                let beyond = register.as_ref().is_some_and(|c| c.term > primary.term);
                let ended = primary
                    .changes
                    .first()
                    .and_then(|c| c.on_register(register.as_ref()))
                    .map(|settled| (0, settled));
                #[cfg(feature = "sim")]
                if self.local.mutated(Mutation::OldRegisterTaken)
                    && primary
                        .changes
                        .first()
                        .is_some_and(|c| c.is_old_register(register.as_ref()))
                {
                    primary.changes.clear();
                    primary.advance(&mut self.local, now, out);
                    return;
                }
                if beyond {
                    self.seek(now, Rest::AfterDefeat, out);
                } else {
                    self.settle_reign(ended, now, out);
                }
            }
            Part::Backup(_) => {}
        }
    }

    fn settle_reign(&mut self, ended: Option<(usize, Settled)>, now: Time, out: &mut Outbox) {
        if let (Some((at, settled)), Part::Primary(primary)) = (ended, &mut self.role)
            && primary.settle(&mut self.local, now, at, &settled, out) == Reign::Ends
        {
            self.seek(now, Rest::AfterDefeat, out);
        }
    }

    // ---- after every event --------------------------------------------------------------------------------------

    /// What follows from any event: a primary that is gone, members to drop or to add, reads to confirm.
    fn pump(&mut self, now: Time, out: &mut Outbox) {
        match &mut self.role {
            Part::Primary(primary) => {
                primary.reconfigure(&mut self.local, now, out);
                primary.pump_reads(&mut self.local, now, out);
            }
            Part::Backup(backup) => {
                if !self.local.is_live(backup.primary) {
                    self.seek(now, Rest::None, out);
                }
            }
            Part::Seeking(_) | Part::Candidate(_) => {}
        }
    }

    fn on_view_changed(&mut self, now: Time, out: &mut Outbox) {
        self.local.refresh_view(now);
        self.consider(now, out);
    }
}

/// Whether a seeking replica holds back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    None,
    AfterDefeat,
}

impl Seeking {
    fn idle() -> Self {
        Self {
            nonce: Nonce(0),
            heard: BTreeMap::new(),
            register: None,
            deadline: Time::ZERO,
            rounds: 0,
            not_before: Time::ZERO,
        }
    }

    fn begin_round(&mut self, nonce: Nonce, deadline: Time) {
        self.nonce = nonce;
        self.heard.clear();
        self.register = None;
        self.deadline = deadline;
        self.rounds = self.rounds.saturating_add(1);
    }
}

impl Protocol for Passive {
    fn start(&mut self, now: Time, out: &mut Outbox) {
        for peer in self.local.others() {
            self.local.detector.watch(now, peer);
        }
        #[cfg(feature = "sim")]
        if self.start_as_planted(now, out) {
            return;
        }
        self.seek(now, Rest::None, out);
    }

    fn on_message(&mut self, now: Time, envelope: &Envelope, mut body: Bytes, out: &mut Outbox) {
        match Message::decode(&mut body) {
            Ok(message) if self.admit(now, envelope, &message, out) => {
                self.dispatch(now, envelope.from, message, body, out);
                self.pump(now, out);
            }
            Ok(_) | Err(_) => self.local.dropped += 1,
        }
    }

    fn on_tick(&mut self, now: Time, out: &mut Outbox) {
        self.local.detector.tick(now);
        self.local.refresh_view(now);
        self.local.expire_reads(now, out);
        match &mut self.role {
            Part::Primary(primary) => primary.tick(&mut self.local, now, out),
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
                    candidate.change.resend(&self.local, now, out);
                }
            }
            Part::Backup(_) => {}
        }
        self.pump(now, out);
    }

    fn on_hint(&mut self, now: Time, peer: ReplicaId, hint: Hint, out: &mut Outbox) {
        if self.local.group.members.contains(&peer) {
            self.local.detector.on_hint(now, peer, hint);
            if hint == Hint::Gone {
                self.local.gone.insert(peer);
            }
            self.on_view_changed(now, out);
            self.pump(now, out);
        }
    }

    fn on_persisted(&mut self, now: Time, token: PersistToken, out: &mut Outbox) {
        self.local.durable.persisted(token);
        if !self.local.restoring {
            self.local.maybe_snapshot(out);
        }
        match &mut self.role {
            Part::Primary(primary) => {
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
            Part::Backup(backup) => backup.acknowledge(&mut self.local, Again::No, out),
            Part::Seeking(_) => {}
        }
        self.pump(now, out);
    }

    fn on_snapshot_ready(&mut self, _: Time, meta: SnapshotMeta, out: &mut Outbox) {
        let floor = match &self.role {
            Part::Primary(primary) => primary.transfer_floor(),
            Part::Seeking(_) | Part::Candidate(_) | Part::Backup(_) => None,
        };
        self.local.snapshot_ready(meta, floor, out);
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
        self.local.restoring = false;
        self.local.applied = meta.last.index;
        self.local.commit = self.local.commit.max(meta.last.index);
        if let Part::Backup(backup) = &mut self.role {
            backup.on_restored(&mut self.local, meta, out);
        }
        self.local.apply(now, out);
        self.consider(now, out);
    }

    fn propose(
        &mut self,
        now: Time,
        wall: Timestamp,
        commands: Vec<Bytes>,
        out: &mut Outbox,
    ) -> Result<Index, ProposeError> {
        match &mut self.role {
            Part::Primary(primary) => primary.propose(&mut self.local, now, wall, commands, out),
            Part::Backup(backup) => Err(ProposeError::NotPrimary {
                primary: Some(backup.primary),
            }),
            Part::Seeking(_) | Part::Candidate(_) => {
                Err(ProposeError::NotPrimary { primary: None })
            }
        }
    }

    fn read(&mut self, now: Time, ticket: Ticket, read: Read, out: &mut Outbox) {
        let at_least = match read {
            Read::Local => Index::ZERO,
            Read::AtLeast(token) => token.index,
            Read::Linearizable => {
                let error = match &mut self.role {
                    Part::Primary(primary) => {
                        primary.read(&mut self.local, now, ticket, out);
                        return;
                    }
                    Part::Backup(backup) => ReadError::NotPrimary {
                        primary: Some(backup.primary),
                    },
                    Part::Seeking(_) | Part::Candidate(_) => {
                        ReadError::NotPrimary { primary: None }
                    }
                };
                out.push(Action::ReadFailed { ticket, error });
                return;
            }
        };
        if self.local.restoring {
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

    fn next_deadline(&self, now: Time) -> Option<Time> {
        let role = match &self.role {
            Part::Primary(primary) => Some(primary.next_deadline(&self.local)),
            Part::Seeking(seeking) => Some(if seeking.not_before > now {
                seeking.deadline.min(seeking.not_before)
            } else {
                seeking.deadline
            }),
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

    fn status(&self) -> ProtocolStatus {
        let local = &self.local;
        let (primary, serving) = match &self.role {
            Part::Primary(primary) => (Some(local.me), primary.serving(local)),
            Part::Backup(backup) => (Some(backup.primary), false),
            Part::Seeking(_) | Part::Candidate(_) => (None, false),
        };
        ProtocolStatus {
            role: self.role_name(),
            term: local.hard.promised,
            primary,
            serving,
            configuration: local.hard.configuration.clone(),
            view: local.membership.view().number,
            last: local.log.last(),
            durable: local.durable.index(),
            commit: local.commit,
            applied: local.applied,
            log_start: local.log.base().index,
            waiting_for: local.waiting_for.clone(),
            dropped: local.dropped,
        }
    }

    fn check_invariants(&self) {
        let local = &self.local;
        assert!(
            local.commit <= local.log.last().index,
            "only what is in the log is committed"
        );
        assert!(
            local.applied <= local.commit || local.restoring,
            "only what is committed is applied"
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
        let resumes = self.local.mutated(Mutation::TermResumed);
        let from_arguments = self.local.mutated(Mutation::RoleFromArguments);
        let me = self.local.me;
        let planted = match self.local.hard.configuration.clone() {
            Some(c) if resumes && c.term.replica == me && c.term == self.local.hard.promised => {
                Some(c)
            }
            known if from_arguments && self.local.group.members.first() == Some(&me) => {
                let term = self.local.hard.promised.next_for(me);
                let members: BTreeSet<_> = [me].into();
                self.local.hard.promised = term;
                Some(Configuration {
                    term,
                    version: known.map_or(Version(1), |c| c.version.next()),
                    in_sync: members.into_iter().map(|m| (m, self.local.store)).collect(),
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
