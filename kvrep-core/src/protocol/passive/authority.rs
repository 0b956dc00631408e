//! Changing the configuration: one change is [`begun`](Change::begin), sent again until its outcome is known, and
//! then either *counts* or was *overtaken*.
//!
//! * `Witness`: compare-and-set at the register. The outcome is known from a register that holds the new
//!   configuration (it counts) or one beyond it (overtaken). The old value settles nothing: the request may still be
//!   under way.
//! * `Alone`: the proposer's intent is durable first; then the old members make the new configuration durable, then
//!   those that are added; when all have, it counts. But before everything a live member that shall not count any more makes it
//!   durable, even before the intent is: it must know, or it could take over as before, and a proposer that restarts with the
//!   intent would go on without it. Until it agrees it is sent heartbeats as before, or it would take over for their lack.
//!
//! `Alone`: a removal may supersede a pending change. From then on that one is told to nobody, and cannot count: whoever accepted it later would take
//! over in a set that is not the group's any more.
//!
//! While a change is pending, whoever acknowledges needs every member of the old and of the new set.

use super::local::Local;
use super::message::Message;
#[cfg(feature = "sim")]
use super::mutation::Mutation;
use crate::id::{Configuration, Incarnation, PersistToken, ReplicaId, Term, Version};
use crate::protocol::Outbox;
use crate::time::Time;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug)]
pub(super) struct Change {
    pub(super) new: Configuration,
    expected: Option<(Term, Version)>,
    sent_at: Time,
    first: First,
    olds: BTreeSet<ReplicaId>,
    /// `Alone`: live members that shall not count any more, in the lives that must agree: not waited for once they are dead.
    leaving: BTreeMap<ReplicaId, Incarnation>,
    joiners: BTreeSet<ReplicaId>,
    stands: Stands,
}

/// Whether a change may still count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stands {
    Alone,
    /// A later one was begun.
    Superseded,
}

/// What comes before the other members hear of a change.
#[derive(Debug, PartialEq, Eq)]
enum First {
    /// Those that shall not count any more agree.
    Leaving,
    /// The intent, or the higher term, is durable here.
    Durable(PersistToken),
    /// Nothing, or it has happened.
    Done,
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
        pending: &mut [Self],
        new: Configuration,
        out: &mut Outbox,
    ) -> Self {
        let others = || new.in_sync.keys().copied().filter(|id| *id != local.me);
        let is_new = |id: &ReplicaId| {
            old.is_some_and(|old| old.term == new.term && !old.in_sync.contains_key(id))
        };
        let counted = old
            .into_iter()
            .chain(pending.iter().map(|change| &change.new));
        let leaving = counted
            .filter(|counted| local.is_alone() && counted.term == new.term)
            .flat_map(|counted| counted.in_sync.keys().copied())
            .filter(|id| !new.in_sync.contains_key(id) && local.is_live(*id))
            .map(|id| (id, local.life(id)))
            .collect();
        #[cfg(feature = "sim")]
        let leaving = if local.mutated(Mutation::LeaverNotAsked) {
            BTreeMap::new()
        } else {
            leaving
        };
        let mut change = Self {
            expected: old.map(Configuration::rank),
            sent_at: now,
            first: First::Leaving,
            olds: others().filter(|id| !is_new(id)).collect(),
            leaving,
            joiners: others().filter(is_new).collect(),
            stands: Stands::Alone,
            new,
        };
        for superseded in pending {
            superseded.stands = Stands::Superseded;
        }
        if change.leaving.is_empty() {
            change.record(local, out);
        } else {
            change.send(local, out);
        }
        change
    }

    /// Makes durable what must be, and then tells the others.
    fn record(&mut self, local: &mut Local, out: &mut Outbox) {
        let mut must = false;
        if self.new.term > local.hard.promised {
            local.hard.promised = self.new.term;
            must = true;
        }
        if local.is_alone() {
            local.hard.intent = Some(self.new.clone());
            must = true;
        }
        #[cfg(feature = "sim")]
        if local.mutated(Mutation::IntentNotDurable) && local.is_alone() {
            local.hard.intent = None;
            must = false;
        }
        #[cfg(feature = "sim")]
        if local.mutated(Mutation::TermNotDurable) && !local.is_alone() {
            must = false;
        }
        if must {
            self.first = First::Durable(local.persist_hard(out));
        } else {
            self.first = First::Done;
            self.send(local, out);
        }
    }

    /// Those whose agreement it waits for now.
    pub(super) fn awaited(&self) -> BTreeSet<ReplicaId> {
        match self.first {
            First::Leaving => self.leaving.keys().copied().collect(),
            First::Durable(_) => BTreeSet::new(),
            First::Done if self.olds.is_empty() => self.joiners.clone(),
            First::Done => self.olds.clone(),
        }
    }

    /// Whether this member, in this life, is still to agree that it shall not count any more.
    pub(super) fn awaits(&self, id: ReplicaId, life: Incarnation) -> bool {
        self.first == First::Leaving && self.leaving.get(&id) == Some(&life)
    }

    pub(super) fn on_persisted(
        &mut self,
        local: &Local,
        now: Time,
        token: PersistToken,
        out: &mut Outbox,
    ) -> Option<Settled> {
        if matches!(self.first, First::Durable(first) if first <= token) {
            self.first = First::Done;
            self.sent_at = now;
            self.send(local, out);
        }
        self.alone_outcome(local)
    }

    pub(super) fn resend(&mut self, local: &mut Local, now: Time, out: &mut Outbox) {
        if self.first == First::Leaving {
            self.leaving
                .retain(|id, life| local.is_live(*id) && local.life(*id) == *life);
            if self.leaving.is_empty() {
                self.record(local, out);
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
        match self.first {
            First::Leaving | First::Done => Some(again),
            First::Durable(_) => None,
        }
    }

    fn send(&self, local: &Local, out: &mut Outbox) {
        if self.stands == Stands::Superseded {
            return;
        }
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
        let message = Message::Propose {
            configuration: self.new.clone(),
            last: local.log.last(),
        };
        let tell = |to: &ReplicaId| local.send(*to, &message, out);
        // The joiners hear of it only when every old member has it.
        if self.first == First::Leaving {
            self.leaving.keys().for_each(tell);
        } else if self.olds.is_empty() {
            self.joiners.iter().for_each(tell);
        } else {
            self.olds.iter().for_each(tell);
        }
    }

    /// `Alone`: a member has it durable.
    pub(super) fn on_accepted(
        &mut self,
        local: &mut Local,
        from: ReplicaId,
        rank: (Term, Version),
        out: &mut Outbox,
    ) -> Option<Settled> {
        if rank == self.new.rank() && self.first == First::Leaving {
            if self.leaving.remove(&from).is_some() && self.leaving.is_empty() {
                self.record(local, out);
            }
        } else if rank == self.new.rank() && self.first == First::Done {
            if self.olds.remove(&from) && self.olds.is_empty() && !self.joiners.is_empty() {
                self.send(local, out);
            } else if self.olds.is_empty() {
                self.joiners.remove(&from);
            }
        }
        self.alone_outcome(local)
    }

    fn alone_outcome(&self, local: &Local) -> Option<Settled> {
        let done = self.first == First::Done && self.olds.is_empty() && self.joiners.is_empty();
        let stands = self.stands == Stands::Alone;
        (local.is_alone() && stands && done).then_some(Settled::Counts)
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
