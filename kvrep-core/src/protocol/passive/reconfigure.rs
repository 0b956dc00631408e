//! Which change of the configuration the view calls for, and what its outcome means for the primary.

use super::authority::{Change, Settled};
use super::local::Local;
#[cfg(feature = "sim")]
use super::mutation::Mutation;
use super::primary::{Primary, Reign};
use super::progress::{Pace, Progress};
use crate::config::Ack;
use crate::id::{Configuration, ReplicaId, StoreId};
use crate::protocol::{Action, Event, Outbox};
use crate::time::Time;

impl Primary {
    /// Proposes the change that the view calls for, if any.
    pub(super) fn reconfigure(&mut self, local: &mut Local, now: Time, out: &mut Outbox) {
        let newest = self.changes.last().map_or(&self.configuration, |c| &c.new);
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
                    self.may_count(local, **id)
                        && !newest.in_sync.contains_key(id)
                        && local.is_live(**id)
                        && peer.incarnation == local.life(**id)
                        && !self.suspicions.is_faulty(**id, peer.store)
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
        let old = self.configuration.clone();
        let change = Change::begin(local, now, Some(&old), new, out);
        self.changes.push(change);
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

    /// Whether it has everything that is committed at this moment; or, where the primary alone decides, so much that the
    /// loss window has room for the rest.
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
                lag <= limits.uncommitted_entries_max as u64 / 2
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
        let old = std::mem::replace(&mut self.configuration, new);
        self.members_adopted(local, &old, out);
    }
}
