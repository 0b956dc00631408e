//! Moving a snapshot to a peer whose log ends before this primary's begins, while writes go on.
//!
//! The primary reads the snapshot in stretches, sends each as several chunks and keeps a bounded number of bytes in
//! flight; the backup writes each chunk to its storage and acknowledges what is durable. A newer snapshot may replace the
//! one that is being sent: the reader keeps the old one readable. Lost chunks are sent again from the last acknowledged
//! offset on.
//!
//! The log behind the snapshot's index is kept until the peer has caught up, unless it outgrows its bound; the transfer
//! then starts again with a newer snapshot.

use super::local::Local;
use super::message::Message;
use crate::id::{Configuration, Index, ReplicaId, Term};
use crate::protocol::{Action, Event, Outbox, SnapshotPiece};
use crate::storage::{SnapshotMeta, StorageOp, Tail};
use crate::time::Time;
use bytes::{BufMut, Bytes};

/// Bytes in a chunk at most. Small enough that allocators keep such buffers at hand, and that a client's frame does
/// not stand long behind one; large enough that a frame's own cost does not show.
const CHUNK_BYTES: u64 = 128 << 10;

/// Bytes read at once at most: going to the storage costs a thread's turn.
const STRETCH_BYTES: u64 = 1 << 20;

/// Bytes in flight at most; less where the group's `inflight_bytes_max` says so.
const WINDOW_BYTES: u64 = 8 << 20;

/// A transfer, as the primary sees it.
#[derive(Debug)]
pub(super) struct Sending {
    meta: Option<SnapshotMeta>,
    /// The snapshot that was current when the storage was asked for the beginning: what it opens is this or a newer one.
    begun: Option<Index>,
    /// Asked of the storage up to here.
    asked: u64,
    /// A read is under way.
    reading: bool,
    /// Durable at the peer up to here.
    taken: u64,
    moved_at: Time,
}

impl Sending {
    pub(super) fn new(now: Time) -> Self {
        Self {
            meta: None,
            begun: None,
            asked: 0,
            reading: false,
            taken: 0,
            moved_at: now,
        }
    }

    /// The log behind this is needed once the peer has the snapshot.
    pub(super) fn index(&self) -> Option<Index> {
        self.meta.map(|m| m.last.index).or(self.begun)
    }

    fn chunk_bytes(local: &Local) -> u64 {
        (local.group.limits.frame_bytes_max as u64 / 4).clamp(1, CHUNK_BYTES)
    }

    /// Asks for the next stretch if it may be in flight.
    pub(super) fn pump(&mut self, local: &Local, peer: ReplicaId, now: Time, out: &mut Outbox) {
        let chunk = Self::chunk_bytes(local);
        if now - self.moved_at >= local.group.timing.resend_every * 3 {
            // Lost on the way, or the peer started anew.
            self.asked = self.taken;
            self.moved_at = now;
            self.reading = false;
        }
        let end = self.meta.map_or(u64::MAX, |m| m.bytes);
        let inflight_max = local.group.limits.inflight_bytes_max as u64;
        let window = WINDOW_BYTES.min(inflight_max).max(chunk);
        let room = window.saturating_sub(self.asked.saturating_sub(self.taken));
        // Not for a crumb, unless nothing is in flight.
        let worth = room >= STRETCH_BYTES.min(window) || self.asked == self.taken;
        // A snapshot shorter than a byte does not exist: sessions alone are longer.
        if !self.reading && self.asked < end && worth {
            self.reading = true;
            if self.meta.is_none() {
                self.begun = local.snapshot.map(|s| s.last.index);
            }
            out.push(Action::ReadSnapshot {
                peer,
                offset: self.asked,
                bytes_max: usize::try_from(room.min(STRETCH_BYTES)).unwrap_or(usize::MAX),
            });
        }
    }

    /// A stretch was read: send it in chunks.
    pub(super) fn on_piece(
        &mut self,
        local: &Local,
        peer: ReplicaId,
        piece: &SnapshotPiece,
        (term, configuration): (Term, &Configuration),
        out: &mut Outbox,
    ) {
        self.reading = false;
        if piece.offset != self.asked {
            return; // of before a restart of the transfer
        }
        if self.meta != Some(piece.meta) {
            if piece.offset != 0 {
                self.asked = 0;
                self.taken = 0;
                return;
            }
            self.meta = Some(piece.meta);
        }
        let life = local.life(peer);
        let chunk = usize::try_from(Self::chunk_bytes(local)).unwrap_or(usize::MAX);
        for data in piece.data.chunks(chunk) {
            let message = Message::Chunk {
                term,
                configuration: configuration.clone(),
                meta: piece.meta,
                offset: self.asked,
            };
            self.asked += data.len() as u64;
            out.send(peer, life, |body| {
                body.reserve(data.len() + 256);
                message.encode(body);
                body.put_slice(data);
            });
        }
    }

    /// The peer has everything up to here. Returns whether that is all.
    pub(super) fn on_taken(&mut self, index: Index, upto: u64, now: Time) -> bool {
        let Some(meta) = self.meta.filter(|m| m.last.index == index) else {
            return false;
        };
        if upto < self.taken {
            // The peer begins again.
            self.taken = upto;
            self.asked = upto;
        } else if upto <= meta.bytes {
            if upto > self.taken {
                self.moved_at = now;
            }
            self.taken = upto;
            self.asked = self.asked.max(upto);
        }
        self.taken == meta.bytes
    }
}

/// A transfer, as the backup sees it.
#[derive(Debug, Default)]
pub(super) struct Receiving {
    under_way: Option<(SnapshotMeta, u64)>,
}

/// What a piece did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Wanted: up to here.
    Upto(u64),
    /// All of it is here, and being installed.
    Complete,
}

impl Receiving {
    /// Takes a piece; the storage operations are handed over by this.
    pub(super) fn on_chunk(
        &mut self,
        local: &mut Local,
        meta: SnapshotMeta,
        offset: u64,
        data: Bytes,
        out: &mut Outbox,
    ) -> Taken {
        let have = match self.under_way {
            Some((under_way, have)) if under_way == meta && offset != 0 => have,
            Some(_) | None => 0,
        };
        if offset != have
            || data.is_empty()
            || data.len() as u64 > meta.bytes - have.min(meta.bytes)
        {
            return Taken::Upto(have);
        }
        let have = have + data.len() as u64;
        self.under_way = Some((meta, have));
        let mut ops = vec![StorageOp::SnapshotChunk { meta, offset, data }];
        if have < meta.bytes {
            local.persist(ops, out);
            return Taken::Upto(have);
        }
        self.under_way = None;
        let tail = doubtful_tail(local, meta, out);
        ops.push(StorageOp::InstallSnapshot { meta, tail });
        local.log.restart_at(meta.last);
        local.durable.restarted(meta.last.index);
        local.restoring = true;
        local.snapshot = Some(meta);
        local.snapshotting = false;
        local.persist(ops, out);
        // Behind the write: the snapshot is loaded once it is durable.
        out.push(Action::Restore(meta));
        Taken::Complete
    }
}

/// `Alone`, or where the primary alone decides: the snapshot may replace entries of another history, which cannot be
/// compared any more: unless they end in the snapshot's own term (one primary made all of that), they are kept aside and reported. With a witness, what was
/// acknowledged is in the snapshot or follows it.
fn doubtful_tail(local: &Local, meta: SnapshotMeta, out: &mut Outbox) -> Tail {
    let last = local.log.last();
    let known = local.log.point(meta.last.index) == Some(meta.last) || last.term == meta.last.term;
    if !local.may_lose() || last.index == Index::ZERO || known {
        return Tail::Drop;
    }
    // Where the difference begins cannot be told.
    out.push(Action::Event(Event::TailTruncated {
        from: Index(1),
        entries: last.index.0,
        writes: local.log.writes(Index(1), last.index),
        acknowledged: local.acknowledged(),
    }));
    Tail::SaveAside
}
