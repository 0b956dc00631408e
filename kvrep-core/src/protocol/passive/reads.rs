//! Linearizable reads at the primary: confirmed, in its term, by every required member.
//!
//! Every append carries the newest *round* and every answer echoes it. A read waits for a round that began after the read
//! came, answered by every member of the in-sync set (and of a pending one): none of them had promised a higher term then,
//! so nobody else had acknowledged anything that this primary does not know. One round serves all reads that came while
//! the one before was under way.

use super::local::Local;
#[cfg(feature = "sim")]
use super::mutation::Mutation;
use super::primary::Primary;
use super::shipping::Fill;
use crate::error::ReadError;
use crate::id::{Nonce, ReplicaId, StoreId, Ticket};
use crate::protocol::{Action, Outbox};
use crate::time::Time;

impl Primary {
    pub(super) fn read(&mut self, local: &mut Local, now: Time, ticket: Ticket, out: &mut Outbox) {
        if self.reads.len() >= local.group.limits.pending_reads_max
            || self.stops_the_world(local, now)
        {
            out.push(Action::ReadFailed {
                ticket,
                error: ReadError::Busy,
            });
            return;
        }
        if let Some(handover) = &self.handover {
            let primary = Some(handover.to);
            out.push(Action::ReadFailed {
                ticket,
                error: ReadError::NotPrimary { primary },
            });
            return;
        }
        if self.serving(local) && (self.is_unrivalled(local) || self.holds_lease(local, now)) {
            let token = local.token();
            out.push(Action::ReadReady { ticket, token });
            return;
        }
        let deadline = now + local.read_patience();
        // One round for all reads that come while another is under way.
        let idle = self.reads.is_empty();
        let round = self.round.next();
        self.reads.push_back((ticket, round, deadline));
        if idle {
            self.next_round(local, now, out);
        }
        self.confirm_reads(local, out);
    }

    /// Whether nobody else can have acknowledged anything since this primary took office, so that no confirmation is needed.
    /// That is so for a fixed primary: a regent takes office only when it hears that the fixed one does not reign, and an
    /// earlier life of it answers nobody.
    fn is_unrivalled(&self, local: &Local) -> bool {
        local.home() == Some(local.me)
    }

    pub(super) fn next_round(&mut self, local: &mut Local, now: Time, out: &mut Outbox) {
        #[cfg(feature = "sim")]
        let fresh = !local.mutated(Mutation::NonceReused);
        #[cfg(not(feature = "sim"))]
        let fresh = true;
        if fresh {
            self.round = self.round.next();
            if let Some((length, _)) = local.lease() {
                self.leases.began(self.round, now, length);
            }
        }
        for (_, round, _) in &mut self.reads {
            *round = (*round).min(self.round);
        }
        let ids: Vec<_> = self.peers.keys().copied().collect();
        for id in ids {
            self.send_append(local, id, now, Fill::Nothing, out);
        }
    }

    pub(super) fn confirm_reads(&mut self, local: &mut Local, out: &mut Outbox) {
        if self.reads.is_empty() || !self.serving(local) {
            return;
        }
        let unrivalled = self.is_unrivalled(local);
        let required: Vec<_> = self.required(local).collect();
        let answered = |round: Nonce| {
            let mut others = required.iter().filter(|(id, _)| *id != local.me).peekable();
            let has = |(id, store): &(ReplicaId, StoreId)| {
                self.peers
                    .get(id)
                    .is_some_and(|p| p.has_answered(*store, round))
            };
            #[cfg(feature = "sim")]
            if local.mutated(Mutation::ReadConfirmedByOne) && others.peek().is_some() {
                return others.any(has);
            }
            others.all(has)
        };
        let mut ready = Vec::new();
        while let Some(&(ticket, round, _)) = self.reads.front()
            && (unrivalled || round <= self.round && answered(round))
        {
            self.reads.pop_front();
            ready.push(ticket);
        }
        let token = local.token();
        for ticket in ready {
            out.push(Action::ReadReady { ticket, token });
        }
    }

    /// Starts the round that waiting reads need, once the one before is answered.
    pub(super) fn pump_reads(&mut self, local: &mut Local, now: Time, out: &mut Outbox) {
        if self
            .reads
            .front()
            .is_some_and(|(_, round, _)| *round > self.round)
        {
            self.next_round(local, now, out);
            self.confirm_reads(local, out);
        }
    }
}
