//! Which writes are decided: what every member of the in-sync set has, or what else the group's policy asks for.

#[cfg(feature = "sim")]
use super::authority::Change;
use super::local::Local;
#[cfg(feature = "sim")]
use super::mutation::Mutation;
use super::primary::Primary;
use crate::config::Ack;
use crate::id::{Index, ReplicaId, StoreId};
use crate::protocol::Outbox;
use crate::time::Time;
#[cfg(feature = "sim")]
use std::collections::BTreeMap;

/// The set that counts, and the changes that may.
#[cfg(feature = "sim")]
type Required<'a> = (Option<&'a BTreeMap<ReplicaId, StoreId>>, &'a [Change]);

impl Primary {
    /// Who must have a write, or confirm a read: every member of the old set and of every pending one; some twice.
    pub(super) fn required(&self, local: &Local) -> impl Iterator<Item = (ReplicaId, StoreId)> {
        let (current, pending) = (Some(&self.configuration.in_sync), &self.changes[..]);
        #[cfg(feature = "sim")]
        let (current, pending) = self.required_as_planted(local, (current, pending));
        let _ = local;
        let pending = pending.iter().map(|change| &change.new.in_sync);
        let sets = current.into_iter().chain(pending);
        sets.flatten().map(|(id, store)| (*id, *store))
    }

    /// Planted bugs: one set or the other is forgotten.
    #[cfg(feature = "sim")]
    fn required_as_planted<'a>(
        &'a self,
        local: &Local,
        (current, pending): Required<'a>,
    ) -> Required<'a> {
        let newest = pending.last().map(|c| &c.new.in_sync);
        let shrinks = newest.is_some_and(|new| new.len() < self.configuration.in_sync.len());
        if local.mutated(Mutation::DropRecordedLate) && shrinks {
            (None, &pending[pending.len() - 1..])
        } else if local.mutated(Mutation::JoinerNotAwaited) && !shrinks {
            (current, &[])
        } else {
            (current, pending)
        }
    }

    /// What every required member has durable.
    pub(super) fn replicated(&self, local: &Local) -> Index {
        self.required(local)
            .map(|(id, store)| {
                if id == local.me {
                    local.durable.index()
                } else {
                    self.peers
                        .get(&id)
                        .map_or(Index::ZERO, |p| p.durable_in(store))
                }
            })
            .min()
            .unwrap_or(Index::ZERO)
    }

    /// What no takeover loses: from here on what is in flight is counted.
    pub(super) fn safe(&self, local: &Local) -> Index {
        #[cfg(feature = "sim")]
        if local.mutated(Mutation::LossUnbounded) {
            return local.commit;
        }
        match local.group.ack {
            Ack::AllInSync | Ack::All => local.commit,
            Ack::Primary => self.replicated(local),
        }
    }

    /// What is decided, by the group's policy.
    fn decided(&self, local: &Local) -> Index {
        match local.group.ack {
            Ack::AllInSync => self.replicated(local).min(self.awaited(local)),
            Ack::All => self.replicated(local).min(self.everywhere(local)),
            // Every member has this term's first entry before anything of the term is acknowledged: what an earlier
            // primary left on one of them, and this one did not have, is gone from all of them then.
            Ack::Primary if local.commit < self.first && self.replicated(local) < self.first => {
                local.commit
            }
            Ack::Primary => local.durable.index(),
        }
    }

    /// What every full member of the group has durable, with whatever storage it has now.
    fn everywhere(&self, local: &Local) -> Index {
        #[cfg(feature = "sim")]
        let forgets = local.mutated(Mutation::DownMemberForgotten);
        #[cfg(not(feature = "sim"))]
        let forgets = false;
        // A learner never counts; whoever is about to be a full member does, from the proposal on.
        let pending = self.changes.iter().map(|change| &change.new);
        pending
            .chain([&*self.configuration])
            .flat_map(|c| c.members.keys().copied().filter(|id| c.is_full(*id)))
            .filter(|id| *id != local.me && (!forgets || local.is_live(*id)))
            .map(|id| {
                let life = local.life(id);
                let peer = self.peers.get(&id).filter(|p| p.incarnation == life);
                // What is about to be thrown away is not kept by anybody.
                let peer = peer.filter(|p| !self.suspicions.is_faulty(id, p.store));
                peer.map_or(Index::ZERO, |p| p.durable)
            })
            .min()
            .unwrap_or(local.durable.index())
    }

    /// Commits what the policy says is decided.
    pub(super) fn advance(&mut self, local: &mut Local, now: Time, out: &mut Outbox) {
        let decided = self.decided(local);
        // Nothing of an earlier term is committed by counting alone: an entry of this term must be among it.
        if decided > local.commit && decided >= self.first {
            local.commit_to(decided, now, out);
        }
        self.confirm_reads(local, out);
    }
}
