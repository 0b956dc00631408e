//! Changing the configuration: one change is [`begun`](Change::begin), sent again until its outcome is known, and
//! then either *counts* or was *overtaken*.
//!
//! * `Witness`: compare-and-set at the register. The outcome is known from a register that holds the new
//!   configuration (it counts) or one beyond it (overtaken). The old value settles nothing: the request may still be
//!   under way.
//! * `Alone`: the proposer's intent is durable first; then the old members make the new configuration durable, then
//!   those that are added; when all have, it counts. A member that is removed for good while it lives is among the old ones: it
//!   must know, or it could take over as before.
//!
//! While a change is pending, whoever acknowledges needs every member of the old and of the new set.

use super::local::Local;
use super::message::Message;
#[cfg(feature = "sim")]
use super::mutation::Mutation;
use crate::id::{Configuration, PersistToken, ReplicaId, Term, Version};
use crate::protocol::Outbox;
use crate::time::Time;
use std::collections::BTreeSet;

#[derive(Debug)]
pub(super) struct Change {
    pub(super) new: Configuration,
    expected: Option<(Term, Version)>,
    sent_at: Time,
    /// What must be durable here before anybody hears of the change.
    first: Option<PersistToken>,
    olds: BTreeSet<ReplicaId>,
    /// Those among them that the change removes: not waited for once they are dead.
    leaving: BTreeSet<ReplicaId>,
    joiners: BTreeSet<ReplicaId>,
}

/// How a change ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Settled {
    Counts,
    Overtaken,
}

impl Change {
    /// Begins to change `old` (as far as it is known) into `new`.
    pub(super) fn begin(
        local: &mut Local,
        now: Time,
        old: Option<&Configuration>,
        new: Configuration,
        out: &mut Outbox,
    ) -> Self {
        let mut first = None;
        if new.term > local.hard.promised {
            local.hard.promised = new.term;
            first = Some(PersistToken(0));
        }
        if local.is_alone() {
            local.hard.intent = Some(new.clone());
            first = Some(PersistToken(0));
        }
        let others = || new.in_sync.keys().copied().filter(|id| *id != local.me);
        let is_new = |id: &ReplicaId| {
            old.is_some_and(|old| old.term == new.term && !old.in_sync.contains_key(id))
        };
        // One that is to belong no more but lives must know it first: by itself it could take over as before.
        let leaving: BTreeSet<ReplicaId> = old
            .filter(|old| local.is_alone() && old.term == new.term)
            .into_iter()
            .flat_map(|old| old.in_sync.keys().copied())
            .filter(|id| !new.members.contains_key(id) && local.is_live(*id))
            .collect();
        let olds = others().filter(|id| !is_new(id));
        let mut change = Self {
            expected: old.map(Configuration::rank),
            sent_at: now,
            first: None,
            olds: olds.chain(leaving.iter().copied()).collect(),
            leaving,
            joiners: others().filter(is_new).collect(),
            new: new.clone(),
        };
        #[cfg(feature = "sim")]
        if local.mutated(Mutation::IntentNotDurable) && local.is_alone() {
            local.hard.intent = None;
            change.send(local, out);
            return change;
        }
        #[cfg(feature = "sim")]
        if local.mutated(Mutation::TermNotDurable) && !local.is_alone() {
            first = None;
        }
        if first.is_some() {
            change.first = Some(local.persist_hard(out));
        } else {
            change.send(local, out);
        }
        change
    }

    pub(super) fn on_persisted(
        &mut self,
        local: &Local,
        now: Time,
        token: PersistToken,
        out: &mut Outbox,
    ) -> Option<Settled> {
        if self.first.is_some_and(|first| first <= token) {
            self.first = None;
            self.sent_at = now;
            self.send(local, out);
        }
        self.alone_outcome(local)
    }

    pub(super) fn resend(&mut self, local: &mut Local, now: Time, out: &mut Outbox) {
        let dead: Vec<_> = self
            .leaving
            .iter()
            .copied()
            .filter(|id| !local.is_live(*id))
            .collect();
        for id in dead {
            self.leaving.remove(&id);
            if self.olds.remove(&id) {
                // Its end may be the end of the change: looked at with the next completion.
                local.persist(Vec::new(), out);
            }
        }
        if self.deadline(local).is_some_and(|deadline| now >= deadline) {
            self.sent_at = now;
            self.send(local, out);
        }
    }

    /// When it is sent again; not while it waits for the storage.
    pub(super) fn deadline(&self, local: &Local) -> Option<Time> {
        let again = self.sent_at + local.group.timing.resend_every;
        self.first.is_none().then_some(again)
    }

    fn send(&self, local: &Local, out: &mut Outbox) {
        if !local.is_alone() {
            let message = Message::CompareAndSet {
                nonce: local.nonce,
                expected: self.expected,
                new: self.new.clone(),
            };
            local.send_to_any_life(ReplicaId::WITNESS, &message, out);
            #[cfg(feature = "sim")]
            if local.mutated(Mutation::OldRegisterTaken) {
                let nonce = local.nonce;
                local.send_to_any_life(ReplicaId::WITNESS, &Message::ReadRegister { nonce }, out);
            }
            return;
        }
        // The joiners hear of it only when every old member has it.
        let addressees = if self.olds.is_empty() {
            &self.joiners
        } else {
            &self.olds
        };
        let message = Message::Propose {
            configuration: self.new.clone(),
            last: local.log.last(),
        };
        for &to in addressees {
            local.send(to, &message, out);
        }
    }

    /// `Alone`: a member has it durable.
    pub(super) fn on_accepted(
        &mut self,
        local: &Local,
        from: ReplicaId,
        rank: (Term, Version),
        out: &mut Outbox,
    ) -> Option<Settled> {
        if rank == self.new.rank() && self.first.is_none() {
            if self.olds.remove(&from) && self.olds.is_empty() && !self.joiners.is_empty() {
                self.send(local, out);
            } else if self.olds.is_empty() {
                self.joiners.remove(&from);
            }
        }
        self.alone_outcome(local)
    }

    fn alone_outcome(&self, local: &Local) -> Option<Settled> {
        let done = self.first.is_none() && self.olds.is_empty() && self.joiners.is_empty();
        (local.is_alone() && done).then_some(Settled::Counts)
    }

    /// `Witness`: the register holds this.
    pub(super) fn on_register(&self, register: Option<&Configuration>) -> Option<Settled> {
        match register {
            Some(c) if *c == self.new => Some(Settled::Counts),
            Some(c) if Some(c.rank()) > self.expected => Some(Settled::Overtaken),
            Some(_) | None => None,
        }
    }

    /// Whether the register still holds what was there before.
    #[cfg(feature = "sim")]
    pub(super) fn is_old_register(&self, register: Option<&Configuration>) -> bool {
        register.map(Configuration::rank) == self.expected
    }
}
