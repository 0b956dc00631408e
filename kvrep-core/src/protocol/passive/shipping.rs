//! What the primary sends to whom: entries as fast as a peer takes them, a snapshot where the log does not reach back far
//! enough, heartbeats; and what the peers say of how far they are.

use super::authority::Change;
use super::local::Local;
use super::message::Standing;
use super::primary::Primary;
use super::progress::{Pace, Progress};
use super::repeated::{Advance, Reign};
use crate::id::{Index, Nonce, ReplicaId};
use crate::protocol::{Outbox, SnapshotPiece};
use crate::time::Time;
use std::ops::Bound;
use std::sync::Arc;

impl Primary {
    /// Sends every peer what it may have now.
    pub(super) fn ship(&mut self, local: &mut Local, now: Time, out: &mut Outbox) {
        let mut next = self.peers.keys().next().copied();
        while let Some(id) = next {
            self.ship_to(local, id, now, out);
            let behind = (Bound::Excluded(id), Bound::Unbounded);
            next = self.peers.range(behind).next().map(|(id, _)| *id);
        }
    }

    pub(super) fn ship_to(
        &mut self,
        local: &mut Local,
        id: ReplicaId,
        now: Time,
        out: &mut Outbox,
    ) {
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
        let range = (peer.next, shippable(local));
        let room = local.group.limits.frame_bytes_max / 2;
        let (mut run, mut raw, mut sent) = (None, &[][..], None);
        if fill == Fill::Entries {
            let mut runs = local.log.runs(range.0, range.1, room as u64);
            run = runs.next();
            if runs.next().is_none() {
                sent = run.as_ref().and_then(|run| run.last()).map(|e| e.index);
            } else {
                run = None;
                (raw, sent) = self.encoded.run(&local.log, range, room);
            }
        }
        let reign = Reign {
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
        match run {
            // What is new, mostly: one proposal, as it is in the log.
            Some(run) => out.ship(id, peer.incarnation, run, |head| {
                said.encode(&reign, advance, raw, head);
            }),
            None => out.send(id, peer.incarnation, |body| {
                said.encode(&reign, advance, raw, body);
            }),
        }
        peer.sent_at = now;
        if matches!(peer.pace, Pace::Streaming)
            && let Some(last) = sent
        {
            peer.next = last.next();
        }
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
        self.tell_departed(local, now, out);
        if let Some((length, _)) = local.lease() {
            // Whoever answers it grants anew.
            self.round = self.round.next();
            self.leases.began(self.round, now, length);
        }
        let stale = local.group.timing.resend_every;
        for id in local.others() {
            if !self.is_known(local, id) || matches!(self.peers[&id].pace, Pace::Snapshot(_)) {
                local.introduce(id, out);
            } else {
                self.tell_who_belongs(local, id, out);
                let Some(peer) = self.peers.get_mut(&id) else {
                    continue;
                };
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
    /// that it was dropped. (One that must agree to it first is different, as long as it lives.)
    pub(super) fn is_being_dropped(&self, local: &Local, id: ReplicaId) -> bool {
        let life = local.life(id);
        let mut counted = self.configuration.in_sync.contains_key(&id);
        let mut dropped = |change: &Change| {
            let counts = change.new.in_sync.contains_key(&id);
            let drops = counted && !counts && !change.awaits(id, life);
            // One that is about to be added may have it durable.
            counted |= counts;
            drops
        };
        local.is_alone() && self.changes.iter().any(&mut dropped)
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
