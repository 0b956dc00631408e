//! What to do with a peer's message: who may say what to whom, in which role.

use super::authority::Settled;
use super::backup::{self, Append};
use super::local::Local;
use super::members::Join;
use super::message::{self, Message, Posture, Standing, is_plausible};
#[cfg(feature = "sim")]
use super::mutation::Mutation;
use super::primary::{Primary, Reign};
use super::succession::Rest;
use super::takeover::Seeking;
use super::{Part, Passive};
use crate::entry::Run;
use crate::id::{Configuration, Incarnation, LogPoint, Nonce, ReplicaId, Term, Version};
use crate::membership::Membership;
use crate::protocol::Outbox;
use crate::state_machine::Malformed;
use crate::time::Time;
use crate::wire::Envelope;
use bytes::Bytes;

/// What stands behind a message.
pub(super) struct Behind {
    /// The rest of its frame.
    pub(super) raw: Bytes,
    /// Entries, where the sender shares this process's memory.
    pub(super) shared: Option<Run>,
}

/// The entries behind an append. They are consecutive and follow `prev`.
fn entries_behind(raw: Bytes, shared: Option<Run>, prev: LogPoint) -> Result<Run, Malformed> {
    match shared {
        None => message::decode_entries(raw, prev),
        Some(run) if raw.is_empty() && run.follows(prev) => Ok(run),
        Some(_) => Err(Malformed("entries that do not follow each other".into())),
    }
}

impl Passive {
    /// Whether a message may be looked at: from a member, of its newest life, to this one.
    pub(super) fn admit(
        &mut self,
        now: Time,
        envelope: &Envelope,
        message: &Message,
        out: &mut Outbox,
    ) -> bool {
        let from = envelope.from;
        if !self.may_speak(from, message) {
            self.on_stranger(now, envelope, message, out);
            return false;
        }
        let is_member = self.local.is_member(from);
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
            self.local.awake.heard(from);
            self.local.detector.on_heard(now, from);
            let verdict = self.local.detector.verdict(now, from);
            self.local.membership.on_verdict(from, verdict);
        }
        true
    }

    /// A peer has restarted. A restart never resumes a term, so a primary that did has ended its reign.
    pub(super) fn on_new_life(&mut self, now: Time, peer: ReplicaId, out: &mut Outbox) {
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

    pub(super) fn dispatch(
        &mut self,
        now: Time,
        from: ReplicaId,
        message: Message,
        Behind { raw, shared }: Behind,
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
            } => match entries_behind(raw, shared, prev) {
                Ok(entries) if entries.last().is_none_or(|e| e.term <= term) => {
                    let append = Append {
                        term,
                        prev,
                        last,
                        commit,
                        round,
                        entries,
                    };
                    let heartbeat = append.entries.is_empty();
                    if self.heed(from, term, &configuration, out)
                        && let Part::Backup(backup) = &mut self.role
                    {
                        self.local.grant(now);
                        backup.on_append(&mut self.local, now, append, out);
                        if self.local.stopped {
                            self.change_role(Part::Seeking(Seeking::idle()), out);
                        }
                    }
                    if heartbeat {
                        self.on_heartbeat(out);
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
            Message::Digest {
                term,
                at,
                digest,
                health,
            } => self.on_digest_told(now, from, (term, at, digest), health, out),
            Message::Repair {
                term,
                configuration,
                round,
            } => self.on_repair(now, from, (term, round), &configuration, out),
            Message::Discarded { term, round } => {
                if let Some((primary, local)) = self.reigning(term) {
                    primary.on_discarded(local, now, (from, round), out);
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
            Message::Join { kind, replaces } => {
                let life = self.local.life(from);
                self.on_join(now, (from, life), Join { kind, replaces }, out);
            }
            Message::NotAdmitted { why } => self.on_not_admitted(why, out),
            Message::Members {
                configuration,
                course,
            } => self.on_members(now, from, &configuration, &course, out),
            Message::Leave => self.on_leave(now, from, out),
            Message::TakeOver { term, last } => self.on_take_over(now, from, (term, last), out),
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
    pub(super) fn reigning(&mut self, term: Term) -> Option<(&mut Primary, &mut Local)> {
        match &mut self.role {
            Part::Primary(primary) if primary.term == term => Some((primary, &mut self.local)),
            Part::Primary(_) | Part::Seeking(_) | Part::Candidate(_) | Part::Backup(_) => None,
        }
    }

    pub(super) fn on_standing(
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
                let rules = standing.promised;
                if standing.posture == Posture::Primary
                    && rules.replica == from
                    && rules < primary.term
                {
                    self.local.note_rival(rules, out);
                }
                primary.on_standing(&mut self.local, now, from, &standing, out);
            }
            Part::Seeking(seeking) => {
                // A probe says as much as an answer, but only an answer is known to be of this round.
                if nonce == Some(seeking.nonce) {
                    if self.local.is_alone() {
                        // Nobody else remembers: what was heard is known from now on, whoever answers next time.
                        self.local.learn(standing.configuration.as_ref(), out);
                    }
                    self.local.asked |= standing.asked;
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
    pub(super) fn heed(
        &mut self,
        from: ReplicaId,
        term: Term,
        configuration: &Configuration,
        out: &mut Outbox,
    ) -> bool {
        if self.local.stopped
            || term.replica != from
            || from == self.local.me
            || configuration.term > term
            || !is_plausible(configuration)
            // A replica that does not belong follows nobody.
            || !configuration.members.contains_key(&self.local.me)
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
            if matches!(self.role, Part::Primary(_)) {
                self.local.note_rival(term, out);
            }
            return false;
        }
        backup::adopt(&mut self.local, term, configuration, out);
        self.follow(term, out);
        true
    }

    pub(super) fn on_refused(&mut self, now: Time, promised: Term, out: &mut Outbox) {
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
    pub(super) fn on_propose(
        &mut self,
        from: ReplicaId,
        new: Configuration,
        last: LogPoint,
        out: &mut Outbox,
    ) {
        let local = &mut self.local;
        let counts = |c: &Configuration| c.has(local.me, local.store);
        // It may also be that this one shall not count any more.
        let leaves = !new.in_sync.contains_key(&local.me)
            && (local.hard.configuration.as_ref()).is_some_and(|c| c.term == new.term);
        if !local.is_alone()
            || local.stopped
            || !is_plausible(&new)
            || new.term.replica != from
            || !(counts(&new) || leaves)
        {
            local.dropped += 1;
            let known = |c: &Configuration| c.in_sync.contains_key(&local.me) && !counts(c);
            if local.is_alone() && is_plausible(&new) && known(&new) {
                local.report_to(from, out);
            }
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
            || (promotes && last.rank() < local.log.last().rank() && local.digests.is_fit());
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

    pub(super) fn on_accepted(
        &mut self,
        now: Time,
        from: ReplicaId,
        rank: (Term, Version),
        out: &mut Outbox,
    ) {
        match &mut self.role {
            Part::Candidate(candidate) => {
                let settled = candidate
                    .change
                    .on_accepted(&mut self.local, from, rank, out);
                self.settle_candidate(settled, now, out);
            }
            Part::Primary(primary) => {
                let mut ended = None;
                for (at, change) in primary.changes.iter_mut().enumerate() {
                    if let Some(settled) = change.on_accepted(&mut self.local, from, rank, out) {
                        ended = Some((at, settled));
                    }
                }
                self.settle_reign(ended, now, out);
            }
            Part::Seeking(_) | Part::Backup(_) => {}
        }
    }

    /// The witness said what the register holds.
    pub(super) fn on_register(
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
        if let Some(register) = &register
            && self.local.is_foreign(register)
            && self.yields_to_register(now, register, out)
        {
            return;
        }
        match &mut self.role {
            Part::Seeking(seeking) => {
                if nonce == seeking.nonce {
                    // It names members that this replica may not know yet.
                    self.local.learn(register.as_ref(), out);
                    seeking.register = Some(register);
                    self.local.sync_members(now);
                    self.consider(now, out);
                }
            }
            Part::Candidate(candidate) => {
                let settled = candidate.change.on_register(register.as_ref());
                self.settle_candidate(settled, now, out);
            }
            Part::Primary(primary) => {
                primary.judge_register(&mut self.local, nonce, register.as_ref(), out);
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

    pub(super) fn settle_reign(
        &mut self,
        ended: Option<(usize, Settled)>,
        now: Time,
        out: &mut Outbox,
    ) {
        if let (Some((at, settled)), Part::Primary(primary)) = (ended, &mut self.role)
            && primary.settle(&mut self.local, now, at, &settled, out) == Reign::Ends
        {
            self.seek(now, Rest::AfterDefeat, out);
        }
    }
}
