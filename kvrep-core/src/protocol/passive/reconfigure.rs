//! Which change of the configuration the view calls for, and what its outcome means for the primary.
//!
//! A joiner is proposed when it has everything that is committed at that moment. Under a steady load one with a slower
//! disk than the others' would never be seen so: each of its acknowledgements comes a little late. So a joiner that is
//! *close*, that is behind by no more than what came since its last acknowledgement, is **awaited**: writes wait for it as for a
//! member, until it has caught up and is proposed. It counts for nothing meanwhile, and nothing is recorded; one that does
//! not get there within the detector's timeout is let go, and tried again later.

use super::authority::{Change, Settled};
use super::local::Local;
#[cfg(feature = "sim")]
use super::mutation::Mutation;
use super::primary::{Primary, Reign};
use super::progress::{Awaited, Pace, Progress};
use crate::config::Ack;
use crate::id::{Configuration, Index, ReplicaId, StoreId};
use crate::protocol::{Action, Event, Outbox};
use crate::time::Time;
use std::sync::Arc;

impl Primary {
    /// Proposes the change that the view calls for, if any.
    pub(super) fn reconfigure(&mut self, local: &mut Local, now: Time, out: &mut Outbox) {
        self.let_go_of_the_slow(local, now, out);
        let newest = self.changes.last().map_or(&*self.configuration, |c| &c.new);
        let gone: Vec<ReplicaId> = newest
            .in_sync
            .iter()
            .filter(|(id, store)| {
                **id != local.me
                    && (self.is_to_be_dropped(local, **id)
                        || self.suspicions.is_faulty(**id, **store)
                        || self.peers.get(id).is_some_and(|p| p.store != **store))
            })
            .map(|(id, _)| *id)
            .collect();
        let mut new;
        if !gone.is_empty() {
            if !self.changes.is_empty() && !local.is_alone() {
                return; // first the outcome of the pending one
            }
            new = newest.clone();
            new.in_sync.retain(|id, _| !gone.contains(id));
        } else if self.changes.is_empty() && self.handover.is_none() && self.serving(local) {
            let ready: Vec<(ReplicaId, StoreId)> = self
                .peers
                .iter()
                .filter(|(id, peer)| {
                    !newest.in_sync.contains_key(id)
                        && self.may_be_added(local, **id, peer)
                        && self.has_caught_up(local, peer)
                })
                .map(|(id, peer)| (*id, peer.store))
                .collect();
            if ready.is_empty() {
                return;
            }
            new = newest.clone();
            new.in_sync.extend(ready);
        } else {
            return;
        }
        new.version = new.version.next();
        let old = Arc::clone(&self.configuration);
        let change = Change::begin(local, now, Some(&old), &mut self.changes, new, out);
        self.changes.push(change);
    }

    /// Whether it may be added once it has caught up.
    fn may_be_added(&self, local: &Local, id: ReplicaId, peer: &Progress) -> bool {
        self.may_count(local, id)
            && local.is_live(id)
            && peer.incarnation == local.life(id)
            && !self.suspicions.is_faulty(id, peer.store)
    }

    /// A peer that does not count has acknowledged something: from here on writes wait for it if it is close.
    pub(super) fn await_joiner(&mut self, local: &Local, id: ReplicaId, now: Time) {
        let idle = self.changes.is_empty() && self.handover.is_none() && self.serving(local);
        let wanted = self
            .peers
            .get(&id)
            .is_some_and(|peer| idle && peer.is_close() && self.may_be_added(local, id, peer));
        if let Some(peer) = self.peers.get_mut(&id) {
            match peer.awaited {
                Awaited::NotBefore(at) if wanted && at <= now => {
                    peer.awaited = Awaited::Since(now);
                }
                Awaited::NotBefore(_) | Awaited::Since(_) => {}
            }
            peer.note_commit(local.commit);
        }
    }

    /// What every joiner that is awaited has durable.
    pub(super) fn awaited(&self, local: &Local) -> Index {
        self.peers
            .iter()
            .filter(|(id, peer)| {
                matches!(peer.awaited, Awaited::Since(_))
                    && matches!(peer.pace, Pace::Streaming)
                    && self.may_be_added(local, **id, peer)
            })
            .map(|(_, peer)| peer.durable)
            .min()
            .unwrap_or(Index(u64::MAX))
    }

    /// Writes go on without joiners that were awaited for long enough, or that count by now.
    fn let_go_of_the_slow(&mut self, local: &mut Local, now: Time, out: &mut Outbox) {
        let patience = local.group.timing.suspect_after;
        let mut let_go = false;
        for (id, peer) in &mut self.peers {
            if let Awaited::Since(since) = peer.awaited {
                let counts = self.configuration.has(*id, peer.store);
                if counts || now - since >= patience {
                    let again = if counts { now } else { now + patience * 4 };
                    peer.awaited = Awaited::NotBefore(again);
                    let_go = true;
                }
            }
        }
        if let_go {
            self.advance(local, now, out);
        }
    }

    /// Whether writes shall go on without it.
    fn is_to_be_dropped(&self, local: &Local, id: ReplicaId) -> bool {
        match local.group.ack {
            Ack::AllInSync | Ack::Primary => !local.is_live(id),
            // It is waited for. (With another storage it is another member.)
            #[cfg(feature = "sim")]
            Ack::All if local.mutated(Mutation::DownMemberForgotten) => !local.is_live(id),
            Ack::All => false,
        }
    }

    /// Whether it is a member that may enter the in-sync set.
    fn may_count(&self, local: &Local, id: ReplicaId) -> bool {
        let _ = local;
        #[cfg(feature = "sim")]
        if local.mutated(Mutation::LearnerCounted) {
            return self.configuration.members.contains_key(&id);
        }
        self.configuration.is_full(id)
    }

    /// Whether it has everything that is committed at this moment; or, where the primary alone decides, this term's first
    /// entry and so much that the loss window has room for the rest. (With less it could have a tail of its own, which would
    /// come back if it took over.)
    pub(super) fn has_caught_up(&self, local: &Local, peer: &Progress) -> bool {
        #[cfg(feature = "sim")]
        if local.mutated(Mutation::JoinerProposedEarly) {
            return true;
        }
        let enough = match local.group.ack {
            Ack::AllInSync | Ack::All => peer.durable >= local.commit,
            Ack::Primary => {
                let (limits, last) = (&local.group.limits, local.log.last().index);
                let lag = last.0 - peer.durable.0.min(last.0);
                peer.durable >= self.first
                    && lag <= limits.uncommitted_entries_max as u64 / 2
                    && local.log.bytes_between(peer.durable, last)
                        <= limits.uncommitted_bytes_max as u64 / 2
            }
        };
        matches!(peer.pace, Pace::Streaming) && enough
    }

    /// The change at `at` ended so.
    pub(super) fn settle(
        &mut self,
        local: &mut Local,
        now: Time,
        at: usize,
        settled: &Settled,
        out: &mut Outbox,
    ) -> Reign {
        match settled {
            Settled::Overtaken => Reign::Ends,
            Settled::Counts => {
                // What came before it is superseded.
                let change = self.changes.drain(..=at).next_back();
                if let Some(change) = change {
                    self.adopt(local, change.new, out);
                }
                self.advance(local, now, out);
                Reign::Goes
            }
        }
    }

    pub(super) fn adopt(&mut self, local: &mut Local, new: Configuration, out: &mut Outbox) {
        for id in self.configuration.in_sync.keys() {
            if !new.in_sync.contains_key(id) {
                out.push(Action::Event(Event::Dropped(*id)));
            }
        }
        for id in new.in_sync.keys() {
            if !self.configuration.in_sync.contains_key(id) {
                out.push(Action::Event(Event::Joined(*id)));
            }
        }
        out.push(Action::Event(Event::Configured(new.clone())));
        if local.hard.learn(&new) {
            local.persist_hard(out);
        }
        let old = std::mem::replace(&mut self.configuration, Arc::new(new));
        self.members_adopted(local, &old, out);
    }
}
