//! The primary: orders, ships, decides.
//!
//! Life of a write: appended to the log, shipped to every known peer and, in the same outbox behind the sends, written
//! to the own storage; each member acknowledges what is durable there; what **every** member of the in-sync set has
//! (and of the set that is being changed to) is committed, applied and answered.
//!
//! Invariants:
//! * nothing is acknowledged and no read confirmed without every member of the old and the new set of a pending change;
//! * the drop of a member is decided before anything is acknowledged without it;
//! * a primary serves only once an entry of its own term is committed: everything acknowledged before it reigned is
//!   then below its commit point;
//! * a member is a replica *with the storage it was counted with*: after losing its disk it counts for nothing.

use super::authority::Change;
use super::blocked::Blocked;
use super::encoded::EncodedStretch;
use super::handover::Handover;
use super::lease::Leases;
use super::local::Local;
use super::message::Standing;
#[cfg(feature = "sim")]
use super::mutation::Mutation;
use super::progress::{Pace, Progress};
use super::register::Register;
use super::repair::Suspicions;
use super::repeated::Repeated;
use crate::config::Transfer;
use crate::entry::{Entry, EntryKind, Run};
use crate::error::{ProposeError, ReadError};
use crate::id::{Configuration, Index, Nonce, ReplicaId, Term, Ticket, Version};
use crate::manage::Managed;
use crate::protocol::{Action, Outbox};
use crate::storage::StorageOp;
use crate::time::{Time, Timestamp};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Primary {
    pub(super) term: Term,
    pub(super) configuration: Arc<Configuration>,
    /// Changes whose outcome is not known, oldest first. With a witness at most one.
    pub(super) changes: Vec<Change>,
    pub(super) peers: BTreeMap<ReplicaId, Progress>,
    /// The first entry of this term.
    pub(super) first: Index,
    pub(super) round: Nonce,
    /// Reads with the round that confirms them, in order.
    pub(super) reads: VecDeque<(Ticket, Nonce, Time)>,
    /// Who asked for a change of the members, and the configuration that answers it.
    pub(super) asked: Option<(Ticket, (Term, Version))>,
    /// To whom the reign is about to go.
    pub(super) handover: Option<Handover>,
    pub(super) suspicions: Suspicions,
    pub(super) leases: Leases,
    pub(super) blocked: Blocked,
    pub(super) register: Register,
    pub(super) heartbeat_at: Time,
    /// When those who were removed are told so again.
    pub(super) departed_at: Time,
    timestamp: Timestamp,
    pub(super) encoded: EncodedStretch,
    /// How this reign's appends begin.
    pub(super) said: Repeated,
}

/// What the primary must do next about its own role.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reign {
    Goes,
    /// Somebody else reigns, or may.
    Ends,
}

impl Primary {
    /// Takes office: appends the first entry of the term and ships.
    pub(super) fn begin(
        local: &mut Local,
        configuration: Configuration,
        standings: &BTreeMap<ReplicaId, Standing>,
        now: Time,
        out: &mut Outbox,
    ) -> Self {
        let last = local.log.last();
        let timestamp = local
            .log
            .get(last.index)
            .map_or(Timestamp(0), |e| e.timestamp);
        let mut primary = Self {
            term: configuration.term,
            configuration: Arc::new(configuration),
            changes: Vec::new(),
            peers: BTreeMap::new(),
            first: last.index.next(),
            round: Nonce(1),
            reads: VecDeque::new(),
            asked: None,
            handover: None,
            suspicions: Suspicions::default(),
            leases: Leases::begin(now),
            blocked: Blocked::begin(now),
            register: Register::begin(now),
            heartbeat_at: now,
            departed_at: now,
            timestamp,
            encoded: EncodedStretch::default(),
            said: Repeated::default(),
        };
        local.restarting = false;
        for (&peer, standing) in standings {
            if !primary.configuration.members.contains_key(&peer) {
                continue;
            }
            let life = local.life(peer);
            primary
                .peers
                .insert(peer, Progress::new(local, life, standing, now));
        }
        primary.append(local, now, [(EntryKind::Noop, Bytes::new())], out);
        primary
    }

    pub(super) fn serving(&self, local: &Local) -> bool {
        #[cfg(feature = "sim")]
        if local.mutated(Mutation::ServeBeforeOwnTerm) {
            return true;
        }
        local.commit >= self.first
    }

    pub(super) fn propose(
        &mut self,
        local: &mut Local,
        now: Time,
        wall: Timestamp,
        commands: Vec<Bytes>,
        out: &mut Outbox,
    ) -> Result<Index, ProposeError> {
        if let Some(handover) = &self.handover {
            return Err(ProposeError::NotPrimary {
                primary: Some(handover.to),
            });
        }
        let limits = &local.group.limits;
        let last = local.log.last().index;
        let from = self.safe(local);
        let uncommitted = last.0 - from.0.min(last.0);
        let bytes = local.log.bytes_between(from, last);
        if self.stops_the_world(local, now) {
            return Err(ProposeError::Busy);
        }
        if uncommitted as usize + commands.len() > limits.uncommitted_entries_max
            || bytes > limits.uncommitted_bytes_max as u64
        {
            return Err(ProposeError::Busy);
        }
        self.timestamp = self.timestamp.max(wall);
        let first = last.next();
        self.append(
            local,
            now,
            commands.into_iter().map(|c| (EntryKind::Command, c)),
            out,
        );
        Ok(first)
    }

    fn append(
        &mut self,
        local: &mut Local,
        now: Time,
        payloads: impl IntoIterator<Item = (EntryKind, Bytes)>,
        out: &mut Outbox,
    ) {
        let mut prev = local.log.last();
        let added: Run = payloads
            .into_iter()
            .map(|(kind, payload)| {
                let seed = local.rng.next();
                let entry = Entry::following(prev, self.term, self.timestamp, seed, kind, payload);
                prev = entry.point();
                entry
            })
            .collect();
        local.log.append(added.clone());
        // Sends before the write: the backups' disks work in parallel with this one.
        self.ship(local, now, out);
        local.persist(vec![StorageOp::Append(added)], out);
    }

    pub(super) fn on_appended(
        &mut self,
        local: &mut Local,
        now: Time,
        from: ReplicaId,
        (durable, matched, round): (Index, Index, Nonce),
        out: &mut Outbox,
    ) {
        let last = local.log.last().index;
        let life = local.life(from);
        let Some(peer) = self.peers.get_mut(&from).filter(|p| p.incarnation == life) else {
            return;
        };
        if durable > last || matched > last || round > self.round || !peer.is_current(round) {
            local.dropped += 1; // not an answer to anything sent in this term
            return;
        }
        if matches!(peer.pace, Pace::Snapshot(_)) && matched >= local.log.base().index {
            // It has what the snapshot would bring.
            peer.pace = Pace::Probing(now);
        }
        peer.on_appended(durable, matched, round, now);
        if peer.durable >= last {
            peer.transferring = false;
        }
        if !self.configuration.in_sync.contains_key(&from) {
            self.await_joiner(local, from, now);
        }
        self.advance(local, now, out);
        self.ship_to(local, from, now, out);
    }

    /// Whether requests wait for a live replica that is being brought up to date, where the group wants that. One that
    /// makes no progress is not waited for.
    pub(super) fn stops_the_world(&self, local: &Local, now: Time) -> bool {
        let patience = local.group.timing.suspect_after;
        let last = local.log.last().index;
        local.group.transfer == Transfer::WorldStopped
            && self.peers.iter().any(|(id, peer)| {
                let returns = self.configuration.is_full(*id)
                    && !self.configuration.has(*id, peer.store)
                    && peer.durable < last;
                (peer.transferring || returns)
                    && local.is_live(*id)
                    && peer.incarnation == local.life(*id)
                    && now - peer.progressed_at < patience
            })
    }

    /// A regent has brought the fixed primary up to date: it may take office.
    pub(super) fn has_restored(&self, local: &Local) -> bool {
        let Some(home) = local.regent_for() else {
            return false;
        };
        let last = local.log.last().index;
        self.changes.is_empty()
            && self.serving(local)
            && local.is_live(home)
            && self.peers.get(&home).is_some_and(|peer| {
                self.configuration.has(home, peer.store)
                    && peer.incarnation == local.life(home)
                    && peer.durable == last
            })
    }

    pub(super) fn tick(&mut self, local: &mut Local, now: Time, out: &mut Outbox) {
        for change in &mut self.changes {
            change.resend(local, now, out);
        }
        while let Some(&(ticket, _, deadline)) = self.reads.front()
            && deadline <= now
        {
            self.reads.pop_front();
            out.push(Action::ReadFailed {
                ticket,
                error: ReadError::NotPrimary { primary: None },
            });
        }
        self.heartbeat(local, now, out);
        self.ask_register(local, now, out);
        self.ship(local, now, out);
        self.explain(local, now);
    }

    pub(super) fn next_deadline(&self, local: &Local) -> Time {
        self.changes
            .iter()
            .filter_map(|c| c.deadline(local))
            .chain(self.handover.as_ref().map(|h| h.deadline))
            .chain((!local.is_alone()).then_some(self.register.ask_at))
            .fold(self.heartbeat_at, Time::min)
    }

    /// Everything that waits at this primary ends; what was proposed has an unknown outcome.
    pub(super) fn abdicate(mut self, out: &mut Outbox) {
        self.end_handover("another primary may reign", out);
        if let Some((ticket, _)) = self.asked {
            let outcome = Managed::Unknown;
            out.push(Action::Managed { ticket, outcome });
        }
        for (ticket, _, _) in self.reads {
            out.push(Action::ReadFailed {
                ticket,
                error: ReadError::NotPrimary { primary: None },
            });
        }
        out.push(Action::Abandon);
    }

    pub(super) fn check_invariants(&self, local: &Local) {
        assert_eq!(
            self.term.replica, local.me,
            "a primary reigns in its own terms"
        );
        assert!(
            self.configuration.in_sync.contains_key(&local.me),
            "a primary is a member of its configuration"
        );
        assert!(
            local.is_alone() || self.changes.len() <= 1,
            "one change at a time at the register"
        );
        for (id, peer) in &self.peers {
            assert!(
                peer.durable <= local.log.last().index && peer.matched <= local.log.last().index,
                "{id} cannot have more than the primary sent"
            );
        }
    }
}
