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
use super::encoded::Encoded;
use super::handover::Handover;
use super::lease::Leases;
use super::local::Local;
use super::message::{Message, Posture, Standing};
#[cfg(feature = "sim")]
use super::mutation::Mutation;
use super::progress::{Pace, Progress};
use super::repair::Suspicions;
use super::repeated::{Advance, Reign as Said, Repeated};
use crate::config::{Ack, Transfer};
use crate::entry::{Entry, EntryKind, Run};
use crate::error::{ProposeError, ReadError};
use crate::id::{Configuration, Index, Nonce, ReplicaId, StoreId, Term, Ticket, Version};
use crate::manage::Managed;
use crate::protocol::{Action, Outbox, SnapshotPiece};
use crate::storage::StorageOp;
use crate::time::{Time, Timestamp};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
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
    heartbeat_at: Time,
    timestamp: Timestamp,
    encoded: Encoded,
    /// How this reign's appends begin.
    said: Repeated,
}

/// The set that counts, and the changes that may.
#[cfg(feature = "sim")]
type Required<'a> = (Option<&'a BTreeMap<ReplicaId, StoreId>>, &'a [Change]);

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
            heartbeat_at: now,
            timestamp,
            encoded: Encoded::default(),
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

    // ---- writes -------------------------------------------------------------------------------------------------

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

    /// Sends every peer what it may have now.
    pub(super) fn ship(&mut self, local: &mut Local, now: Time, out: &mut Outbox) {
        let mut next = self.peers.keys().next().copied();
        while let Some(id) = next {
            self.ship_to(local, id, now, out);
            let behind = (Bound::Excluded(id), Bound::Unbounded);
            next = self.peers.range(behind).next().map(|(id, _)| *id);
        }
    }

    fn ship_to(&mut self, local: &mut Local, id: ReplicaId, now: Time, out: &mut Outbox) {
        let window = local.group.limits.inflight_bytes_max as u64;
        let last = shippable(local);
        if self.is_being_dropped(local, id) {
            return;
        }
        loop {
            let Some(peer) = self.peers.get_mut(&id) else {
                return;
            };
            if peer.incarnation != local.life(id) {
                return;
            }
            let too_far = peer.next <= local.log.base().index;
            match &mut peer.pace {
                Pace::Snapshot(sending) => {
                    sending.pump(local, id, now, out);
                    local.sending_until = now + local.group.timing.suspect_after;
                    return;
                }
                Pace::Probing(_) | Pace::Streaming if too_far => {
                    peer.begin_transfer(now);
                }
                Pace::Probing(at) => {
                    if *at > now {
                        return;
                    }
                    *at = now + local.group.timing.resend_every;
                    // Who does not answer may be stopped, and what waits for it is memory here: it is asked again
                    // without entries.
                    let fill = if now - peer.moved_at < local.group.timing.resend_every {
                        Fill::Entries
                    } else {
                        Fill::Nothing
                    };
                    self.send_append(local, id, now, fill, out);
                    return;
                }
                Pace::Streaming => {
                    let in_flight = local.log.bytes_between(peer.matched, peer.next.prev());
                    if peer.next > last || in_flight >= window {
                        return;
                    }
                    self.send_append(local, id, now, Fill::Entries, out);
                }
            }
        }
    }

    /// Sends one append; a heartbeat is one without entries.
    pub(super) fn send_append(
        &mut self,
        local: &Local,
        id: ReplicaId,
        now: Time,
        fill: Fill,
        out: &mut Outbox,
    ) {
        if self.is_being_dropped(local, id) {
            return;
        }
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let Some(prev) = local.log.point(peer.next.prev()) else {
            return;
        };
        let (entries, sent) = match fill {
            Fill::Entries => {
                let room = local.group.limits.frame_bytes_max / 2;
                self.encoded
                    .run(&local.log, (peer.next, shippable(local)), room)
            }
            Fill::Nothing => (&[][..], None),
        };
        let reign = Said {
            term: self.term,
            configuration: Arc::clone(&self.configuration),
        };
        let advance = Advance {
            prev,
            last: local.log.last().index,
            commit: local.commit,
            round: self.round,
        };
        let said = &mut self.said;
        out.send(id, peer.incarnation, |body| {
            said.encode(&reign, advance, entries, body);
        });
        peer.sent_at = now;
        if matches!(peer.pace, Pace::Streaming)
            && let Some(last) = sent
        {
            peer.next = last.next();
        }
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

    pub(super) fn on_mismatch(
        &mut self,
        local: &mut Local,
        now: Time,
        from: ReplicaId,
        (hint, round): (Index, Nonce),
        out: &mut Outbox,
    ) {
        let life = local.life(from);
        if round > self.round {
            local.dropped += 1;
            return;
        }
        if let Some(peer) = self.peers.get_mut(&from)
            && peer.incarnation == life
            && peer.is_current(round)
        {
            let log = (local.log.base().index, local.log.last().index);
            peer.on_mismatch(hint, log, round, now);
        }
        self.ship_to(local, from, now, out);
        self.confirm_reads(local, out);
    }

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
    fn safe(&self, local: &Local) -> Index {
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
        // A learner never counts; whoever is about to be a full member does.
        let counts = |id: &ReplicaId| {
            let pending = self.changes.iter().map(|change| &change.new);
            pending
                .chain([&*self.configuration])
                .any(|c| c.is_full(*id))
        };
        local
            .others()
            .filter(counts)
            .filter(|id| !forgets || local.is_live(*id))
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

    /// Whether writes wait for a live replica that is being brought up to date with a snapshot, where the group wants
    /// that. One that makes no progress is not waited for.
    fn stops_the_world(&self, local: &Local, now: Time) -> bool {
        let patience = local.group.timing.suspect_after;
        local.group.transfer == Transfer::WorldStopped
            && self.peers.iter().any(|(id, peer)| {
                peer.transferring
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

    // ---- peers --------------------------------------------------------------------------------------------------

    /// A peer said who it is.
    pub(super) fn on_standing(
        &mut self,
        local: &mut Local,
        now: Time,
        from: ReplicaId,
        standing: &Standing,
        out: &mut Outbox,
    ) {
        if !self.configuration.members.contains_key(&from) {
            return;
        }
        let life = local.life(from);
        let known = self
            .peers
            .get(&from)
            .is_some_and(|p| p.incarnation == life && p.store == standing.store);
        if !known {
            self.peers
                .insert(from, Progress::new(local, life, standing, now));
        }
        self.ship_to(local, from, now, out);
    }

    fn is_known(&self, local: &Local, id: ReplicaId) -> bool {
        self.peers
            .get(&id)
            .is_some_and(|p| p.incarnation == local.life(id))
    }

    pub(super) fn heartbeat(&mut self, local: &mut Local, now: Time, out: &mut Outbox) {
        if now < self.heartbeat_at {
            return;
        }
        self.heartbeat_at = now + local.group.timing.heartbeat_every;
        self.order_repairs(local, out);
        if let Some((length, _)) = local.lease() {
            // Whoever answers it grants anew.
            self.round = self.round.next();
            self.leases.began(self.round, now, length);
        }
        let stale = local.group.timing.resend_every;
        for id in local.others() {
            if !self.is_known(local, id) || matches!(self.peers[&id].pace, Pace::Snapshot(_)) {
                let standing = local.standing(Posture::Primary);
                let nonce = local.next_nonce();
                local.send_to_any_life(id, &Message::Probe { nonce, standing }, out);
            } else if let Some(peer) = self.peers.get_mut(&id) {
                let lost = peer.matched.next() < peer.next && now - peer.moved_at >= stale;
                if lost && matches!(peer.pace, Pace::Streaming) {
                    peer.next = peer.matched.next();
                    peer.pace = Pace::Probing(now);
                }
                self.send_append(local, id, now, Fill::Nothing, out);
            }
            self.ship_to(local, id, now, out);
        }
    }

    pub(super) fn on_ask_commit(
        &mut self,
        local: &mut Local,
        now: Time,
        from: ReplicaId,
        out: &mut Outbox,
    ) {
        if self.is_known(local, from) {
            self.send_append(local, from, now, Fill::Nothing, out);
        }
    }

    pub(super) fn on_snapshot_piece(
        &mut self,
        local: &Local,
        now: Time,
        id: ReplicaId,
        piece: Option<&SnapshotPiece>,
        out: &mut Outbox,
    ) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let known = peer.incarnation == local.life(id);
        if let (Pace::Snapshot(sending), Some(piece), true) = (&mut peer.pace, piece, known) {
            let reign = (self.term, &*self.configuration);
            sending.on_piece(local, id, piece, reign, out);
            sending.pump(local, id, now, out);
        }
    }

    pub(super) fn on_chunk_taken(
        &mut self,
        local: &mut Local,
        now: Time,
        from: ReplicaId,
        (index, upto): (Index, u64),
        out: &mut Outbox,
    ) {
        let life = local.life(from);
        let Some(peer) = self.peers.get_mut(&from).filter(|p| p.incarnation == life) else {
            return;
        };
        if let Pace::Snapshot(sending) = &mut peer.pace
            && {
                peer.progressed_at = now;
                sending.on_taken(index, upto, now)
            }
        {
            peer.next = index.next();
            peer.pace = Pace::Probing(now);
            peer.moved_at = now;
        }
        self.ship_to(local, from, now, out);
    }

    /// `Alone`: whether `id` is a member that a pending change removes. If it comes back before the change is settled, an
    /// append would end its restart in the old configuration, and it could take over from there without ever hearing
    /// that it was dropped.
    pub(super) fn is_being_dropped(&self, local: &Local, id: ReplicaId) -> bool {
        let dropped = |change: &Change| !change.new.in_sync.contains_key(&id);
        local.is_alone()
            && self.configuration.in_sync.contains_key(&id)
            && self.changes.iter().any(dropped)
    }

    /// From where on the peers that are live still need the log: behind the snapshot that one is being sent, or behind
    /// what one that catches up has.
    pub(super) fn needed_from(&self, local: &Local) -> Option<Index> {
        self.peers
            .iter()
            .filter(|(id, _)| local.is_live(**id))
            .filter_map(|(_, peer)| match &peer.pace {
                Pace::Snapshot(sending) => sending.index(),
                Pace::Streaming => Some(peer.matched),
                Pace::Probing(_) => Some(peer.next.prev()),
            })
            .min()
    }

    // ---- time ---------------------------------------------------------------------------------------------------

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
        self.ship(local, now, out);
    }

    pub(super) fn next_deadline(&self, local: &Local) -> Time {
        self.changes
            .iter()
            .filter_map(|c| c.deadline(local))
            .chain(self.handover.as_ref().map(|h| h.deadline))
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

/// How much of the log may leave: where entries are applied before they are decided, only what is applied here.
fn shippable(local: &Local) -> Index {
    if local.shows_early() {
        local.applied
    } else {
        local.log.last().index
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fill {
    Entries,
    Nothing,
}
