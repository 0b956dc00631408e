//! From role to role: seeking, running for primary, reigning, following.

use super::authority::{Change, Settled};
use super::backup::Backup;
use super::members::Join;
use super::message::{Message, Posture, Standing};
#[cfg(feature = "sim")]
use super::mutation::Mutation;
use super::primary::Primary;
use super::takeover::{Decision, Seeking, Situation, decide};
use super::{Candidate, Part, Passive};
use crate::config::Takeover;
use crate::id::{Configuration, ReplicaId, Term};
use crate::membership::Membership;
use crate::protocol::{Action, Event, Outbox, Role};
use crate::time::Time;
use std::collections::{BTreeMap, BTreeSet};

impl Passive {
    pub(super) fn change_role(&mut self, role: Part, out: &mut Outbox) {
        let before = std::mem::replace(&mut self.role, role);
        if let Part::Primary(primary) = before {
            primary.abdicate(out);
        }
        out.push(Action::Event(Event::RoleChanged {
            role: self.role_name(),
            term: self.local.hard.promised,
        }));
    }

    pub(super) fn role_name(&self) -> Role {
        match self.role {
            Part::Seeking(_) => Role::Seeking,
            Part::Candidate(_) => Role::Candidate,
            Part::Primary(_) => Role::Primary,
            Part::Backup(_) => Role::Backup,
        }
    }

    pub(super) fn posture(&self) -> Posture {
        match self.role {
            Part::Candidate(_) | Part::Seeking(_) if self.local.chosen => Posture::Successor,
            Part::Primary(_) => Posture::Primary,
            Part::Candidate(_) | Part::Backup(_) | Part::Seeking(_)
                if !self.local.digests.is_fit() =>
            {
                Posture::Unfit
            }
            Part::Candidate(_) if !self.local.restarting => Posture::Candidate,
            Part::Backup(_) | Part::Seeking(_) if !self.local.restarting => Posture::Following,
            Part::Candidate(_) | Part::Backup(_) | Part::Seeking(_) => Posture::Restarting,
        }
    }

    /// Begins to ask around; `rest` says how long no promotion is tried.
    pub(super) fn seek(&mut self, now: Time, rest: Rest, out: &mut Outbox) {
        let window = self.local.group.timing.probe_window;
        let not_before = match rest {
            Rest::None => now,
            Rest::AfterDefeat => now + self.local.jittered(window),
            Rest::AfterHandover => now + self.local.group.timing.resend_every * 3,
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
        seeking.deadline = not_before;
        self.change_role(Part::Seeking(seeking), out);
        if rest != Rest::AfterHandover {
            self.ask_around(now, out);
        }
    }

    /// Starts a round of questions.
    pub(super) fn ask_around(&mut self, now: Time, out: &mut Outbox) {
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
        if self.outside_for_good() {
            return; // whoever lets it in again will say so
        }
        for peer in self.local.others() {
            let message = match self.local.joining {
                Some(Join { kind, replaces }) if !self.forced => Message::Join { kind, replaces },
                Some(_) | None => Message::Probe {
                    nonce,
                    standing: standing.clone(),
                },
            };
            self.local.send_to_any_life(peer, &message, out);
        }
        if !self.local.is_alone() && self.local.joining.is_none() {
            self.local
                .send_to_any_life(ReplicaId::WITNESS, &Message::ReadRegister { nonce }, out);
        }
        self.consider(now, out);
    }

    /// Decides from what was heard in this round.
    pub(super) fn consider(&mut self, now: Time, out: &mut Outbox) {
        let Part::Seeking(seeking) = &self.role else {
            return;
        };
        if self.local.restoring
            || self.local.stopped
            || now < seeking.not_before
            || !self.local.digests.is_fit()
        {
            return;
        }
        #[cfg(feature = "sim")]
        let ignores_last_set = self.local.mutated(Mutation::LastManIgnored)
            || (self.local.mutated(Mutation::RemovedPromotes) && self.local.is_outside());
        #[cfg(not(feature = "sim"))]
        let ignores_last_set = false;
        if let Some(why) = self.outside(seeking.rounds) {
            self.wait_for(why, out);
            return;
        }
        let members: BTreeSet<ReplicaId> = match &self.local.hard.configuration {
            Some(known) => known
                .members
                .keys()
                .copied()
                .filter(|id| known.is_full(*id))
                .collect(),
            None => self.local.group.members.clone(),
        };
        let decision = decide(&Situation {
            me: self.local.me,
            store: self.local.store,
            authority: self.local.group.authority,
            members: &members,
            founders: self.local.founders,
            promised: self.local.hard.promised.max(self.local.seen),
            configuration: self.local.hard.configuration.as_ref(),
            intent: self.local.hard.intent.as_ref(),
            last: self.local.log.last(),
            restarting: self.local.restarting,
            heard: &seeking.heard,
            register: seeking.register.as_ref(),
            live: &self.local.membership.view().live,
            gone: &self.local.gone,
            round_over: now >= seeking.deadline,
            rounds: seeking.rounds,
            forced: self.forced,
            incarnation: self.local.incarnation,
            chosen: self.local.chosen,
            home: self.local.home(),
            waits_for_request: self.local.group.takeover == Takeover::OnClientRequest
                && !self.local.asked,
            ignores_last_set,
            #[cfg(feature = "sim")]
            insists: self.local.mutated(Mutation::HomeInsists)
                && self.local.home() == Some(self.local.me),
        });
        match decision {
            Decision::Wait(why) => self.wait_for(why, out),
            // Whoever holds a lease that this replica granted may still answer reads. (A forced start breaks that too.)
            Decision::Promote { old: Some(_), .. } if self.waits_for_lease(now) => {}
            Decision::Promote { new, old } => self.run_for(new, old, now, out),
        }
    }

    fn waits_for_lease(&self, now: Time) -> bool {
        #[cfg(feature = "sim")]
        if self.local.mutated(Mutation::LeaseNotWaitedOut) {
            return false;
        }
        now < self.local.granted_until && !self.forced
    }

    pub(super) fn run_for(
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
            let counted = old.iter().flat_map(|c| c.in_sync.keys().copied());
            out.push(Action::Event(Event::Forced {
                not_awaited: counted.filter(|id| *id != self.local.me).collect(),
                replaced: old.clone(),
                from: self.local.log.last().index.next(),
            }));
        }
        let patience = self.local.group.timing.resend_every * 3;
        let mut change = Change::begin(&mut self.local, now, old.as_ref(), &mut [], new, out);
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

    pub(super) fn settle_candidate(
        &mut self,
        settled: Option<Settled>,
        now: Time,
        out: &mut Outbox,
    ) {
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

    pub(super) fn reign(
        &mut self,
        configuration: Configuration,
        standings: &BTreeMap<ReplicaId, Standing>,
        now: Time,
        out: &mut Outbox,
    ) {
        self.local.waiting_for.clear();
        self.local.asked = false;
        if self.local.hard.learn(&configuration) {
            self.local.persist_hard(out);
        }
        out.push(Action::Event(Event::Configured(configuration.clone())));
        let primary = Primary::begin(&mut self.local, configuration, standings, now, out);
        self.change_role(Part::Primary(Box::new(primary)), out);
        self.handover_ends(self.local.me, out);
    }

    /// Another process runs under this replica's name, and is the later one: this one speaks for nobody any more.
    pub(super) fn on_superseded(&mut self, told_by: ReplicaId, out: &mut Outbox) {
        if self.local.stopped {
            return;
        }
        let me = self.local.me;
        self.local.stopped = true;
        self.local.waiting_for = format!(
            "stopped: {told_by} has heard a later life of {me}. Either another process runs as {me}, too: stop one of the two; a replica of its own needs an id of its own. Or this one's storage is a new one, and the clock here is behind its last start: set it right, and start again"
        );
        let why = self.local.waiting_for.clone();
        out.push(Action::Event(Event::Refused(why)));
        self.change_role(Part::Seeking(Seeking::idle()), out);
    }

    /// Follows the primary of `term`, if it does not already.
    pub(super) fn follow(&mut self, term: Term, out: &mut Outbox) {
        self.local.waiting_for.clear();
        // Somebody reigns: nobody need be forced, now or later.
        self.forced = false;
        let already = matches!(&self.role, Part::Backup(backup) if backup.term == term);
        if !already {
            self.change_role(Part::Backup(Backup::begin(term)), out);
            self.handover_ends(term.replica, out);
        }
    }
}

/// Whether a seeking replica holds back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    None,
    AfterDefeat,
    /// Long enough for the successor; until then nobody is even asked, so that nobody notices and competes.
    AfterHandover,
}
