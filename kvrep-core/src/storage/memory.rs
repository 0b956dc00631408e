//! A storage in memory.
//!
//! Nothing outlives the process, so nothing needs to be read back: the log is only its end and its hashes (eight
//! bytes an entry, to judge whether an operation fits); the snapshot is a byte string.
//!
//! A restarted replica is another member: whoever makes the storage gives it a new [`StoreId`] and an incarnation
//! that is larger than every earlier one.

use super::points::Points;
use super::{
    Durability, Recovered, SnapshotMeta, SnapshotReader, SnapshotStore, SnapshotWriter, Storage,
    StorageError, StorageEvent, StorageOp, Tail,
};
use crate::id::{Incarnation, Index, LogPoint, StoreId};
use bytes::{Bytes, BytesMut};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use xxhash_rust::xxh3::Xxh3;

/// Keeps everything in memory. See the [module](self).
///
/// ```
/// use kvrep_core::storage::{Storage, StorageOp, memory::MemoryStorage};
/// use kvrep_core::{Incarnation, StoreId};
///
/// let mut storage = MemoryStorage::new(StoreId(0x5eed), Incarnation(1));
/// let found = storage.open().unwrap();
/// assert!(found.entries.is_empty());
/// storage.write(vec![StorageOp::HardState(b"term 1".as_slice().into())]).unwrap();
/// storage.sync().unwrap();
/// ```
#[derive(Debug)]
pub struct MemoryStorage {
    store: StoreId,
    incarnation: Incarnation,
    stage: Stage,
    points: Points,
    receiving: Option<(SnapshotMeta, Receiving)>,
    snapshots: Arc<MemorySnapshots>,
}

/// A snapshot on its way in: its pieces as they came, and their digest so far.
#[derive(Default)]
struct Receiving {
    pieces: Pieces,
    digest: Box<Xxh3>,
}

impl fmt::Debug for Receiving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Receiving({} bytes)", self.pieces.bytes())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    New,
    Open,
    Failed,
}

impl MemoryStorage {
    /// An empty storage of this identity.
    #[must_use]
    pub fn new(store: StoreId, incarnation: Incarnation) -> Self {
        Self {
            store,
            incarnation,
            stage: Stage::New,
            points: Points::new(LogPoint::ZERO),
            receiving: None,
            snapshots: Arc::new(MemorySnapshots::default()),
        }
    }

    fn apply(&mut self, op: StorageOp) -> Result<Option<StorageEvent>, StorageError> {
        match op {
            StorageOp::Append(entries) => {
                for entry in &entries {
                    self.points.append(entry)?;
                }
                Ok(None)
            }
            StorageOp::TruncateSuffix { from, tail } => {
                let end = self.points.end().index;
                self.points.cut(from, self.snapshots.index())?;
                Ok(saved(tail, from, end))
            }
            StorageOp::PurgePrefix { upto } => {
                self.points.purge(upto, self.snapshots.index())?;
                Ok(None)
            }
            // It would be read back by nobody.
            StorageOp::HardState(_) => Ok(None),
            StorageOp::SnapshotChunk { meta, offset, data } => {
                if offset == 0 {
                    self.receiving = Some((meta, Receiving::default()));
                }
                let fits = self.receiving.as_mut().filter(|(of, got)| {
                    let end = offset.checked_add(data.len() as u64);
                    *of == meta && got.pieces.bytes() == offset && end <= Some(meta.bytes)
                });
                let Some((_, got)) = fits else {
                    return Err(StorageError::Misuse(format!(
                        "piece at {offset} of a snapshot at {:?} does not fit",
                        meta.last
                    )));
                };
                got.digest.update(&data);
                got.pieces.push(data);
                Ok(None)
            }
            StorageOp::InstallSnapshot { meta, tail } => self.install(meta, tail),
            StorageOp::Reset { tail } => {
                let (first, end) = (self.points.base().index.next(), self.points.end().index);
                self.points = Points::new(LogPoint::ZERO);
                self.receiving = None;
                self.snapshots.replace(None);
                Ok(saved(tail, first, end))
            }
        }
    }

    fn install(
        &mut self,
        meta: SnapshotMeta,
        tail: Tail,
    ) -> Result<Option<StorageEvent>, StorageError> {
        let Some((_, got)) = self.receiving.take().filter(|(of, _)| *of == meta) else {
            return Err(StorageError::Misuse("no such snapshot was received".into()));
        };
        if got.pieces.bytes() != meta.bytes || got.digest.digest() != meta.digest {
            return Err(StorageError::Misuse(
                "the snapshot received is not what was announced".into(),
            ));
        }
        let mut event = None;
        if self.points.at(meta.last.index) != Some(meta.last) {
            let (from, end) = (self.points.base().index.next(), self.points.end().index);
            event = saved(tail, from, end);
            self.points = Points::new(meta.last);
        }
        self.snapshots.replace(Some((meta, Arc::new(got.pieces))));
        Ok(event)
    }
}

impl Storage for MemoryStorage {
    fn open(&mut self) -> Result<Recovered, StorageError> {
        if self.stage != Stage::New {
            return Err(StorageError::Misuse("opened twice".into()));
        }
        self.stage = Stage::Open;
        Ok(Recovered {
            store: self.store,
            incarnation: self.incarnation,
            hard_state: None,
            snapshot: None,
            entries: Vec::new(),
            base: LogPoint::ZERO,
            notes: Vec::new(),
        })
    }

    fn write(&mut self, ops: Vec<StorageOp>) -> Result<Vec<StorageEvent>, StorageError> {
        if self.stage != Stage::Open {
            return Err(StorageError::Misuse("not open, or failed before".into()));
        }
        let mut events = Vec::new();
        for op in ops {
            match self.apply(op) {
                Ok(event) => events.extend(event),
                Err(error) => {
                    self.stage = Stage::Failed;
                    return Err(error);
                }
            }
        }
        Ok(events)
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        if self.stage != Stage::Open {
            return Err(StorageError::Misuse("not open, or failed before".into()));
        }
        Ok(())
    }

    fn snapshots(&self) -> Arc<dyn SnapshotStore> {
        Arc::new(MemorySnapshotStore(Arc::clone(&self.snapshots)))
    }

    fn durability(&self) -> Durability {
        Durability::Memory
    }
}

/// The report of a tail `from..=end` cut off; nothing is kept, since nothing would outlive the process anyway.
fn saved(tail: Tail, from: Index, end: Index) -> Option<StorageEvent> {
    let entries = (end.0 + 1).saturating_sub(from.0);
    (tail == Tail::SaveAside && entries > 0).then(|| StorageEvent::TailSaved {
        from,
        entries,
        path: PathBuf::new(),
    })
}

#[derive(Debug, Default)]
struct MemorySnapshots(Mutex<Current>);

#[derive(Debug, Default)]
struct Current {
    /// Grows when the history is replaced: what was begun before is void.
    generation: u64,
    snapshot: Option<(SnapshotMeta, Arc<Pieces>)>,
}

impl MemorySnapshots {
    fn lock(&self) -> MutexGuard<'_, Current> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn index(&self) -> Index {
        let current = self.lock();
        current
            .snapshot
            .as_ref()
            .map_or(Index::ZERO, |(meta, _)| meta.last.index)
    }

    fn replace(&self, snapshot: Option<(SnapshotMeta, Arc<Pieces>)>) {
        let mut current = self.lock();
        current.generation += 1;
        current.snapshot = snapshot;
    }
}

#[derive(Debug)]
struct MemorySnapshotStore(Arc<MemorySnapshots>);

impl SnapshotStore for MemorySnapshotStore {
    fn create(&self, last: LogPoint) -> Result<Box<dyn SnapshotWriter>, StorageError> {
        Ok(Box::new(MemoryWriter {
            generation: self.0.lock().generation,
            snapshots: Arc::clone(&self.0),
            last,
            pieces: Pieces::default(),
            piece: Vec::new(),
            digest: Box::default(),
        }))
    }

    fn current(&self) -> Result<Option<Box<dyn SnapshotReader>>, StorageError> {
        let current = self.0.lock();
        Ok(current.snapshot.clone().map(|(meta, pieces)| {
            let reader: Box<dyn SnapshotReader> = Box::new(MemoryReader { meta, pieces });
            reader
        }))
    }
}

/// A byte string in the pieces in which it came: a large one is neither copied together nor needs one stretch of
/// memory.
#[derive(Debug, Default)]
struct Pieces {
    /// Each with where it ends.
    pieces: Vec<(u64, Bytes)>,
}

impl Pieces {
    fn bytes(&self) -> u64 {
        self.pieces.last().map_or(0, |(end, _)| *end)
    }

    fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.pieces.push((self.bytes() + piece.len() as u64, piece));
        }
    }

    /// From `offset` on, at most `bytes_max`: without a copy where one piece has it all.
    fn read(&self, offset: u64, bytes_max: usize) -> Bytes {
        let first = self.pieces.partition_point(|(end, _)| *end <= offset);
        let mut rest = self.pieces[first..].iter().map(|(end, piece)| {
            let start = end - piece.len() as u64;
            let skip = usize::try_from(offset.saturating_sub(start)).unwrap_or(usize::MAX);
            piece.slice(skip.min(piece.len())..)
        });
        let Some(mut head) = rest.next() else {
            return Bytes::new();
        };
        let left = usize::try_from(self.bytes().saturating_sub(offset)).unwrap_or(usize::MAX);
        if head.len() >= bytes_max.min(left) {
            head.truncate(bytes_max);
            return head;
        }
        let mut out = BytesMut::with_capacity(bytes_max.min(left));
        for piece in std::iter::once(head).chain(rest) {
            let room = bytes_max - out.len();
            if room == 0 {
                break;
            }
            out.extend_from_slice(&piece[..room.min(piece.len())]);
        }
        out.freeze()
    }
}

struct MemoryWriter {
    snapshots: Arc<MemorySnapshots>,
    generation: u64,
    last: LogPoint,
    /// All of the same size, so that what is read in that size is not copied.
    pieces: Pieces,
    /// The one being filled.
    piece: Vec<u8>,
    digest: Box<Xxh3>,
}

impl MemoryWriter {
    fn complete_piece(&mut self) {
        self.pieces.push(std::mem::take(&mut self.piece).into());
    }
}

impl io::Write for MemoryWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.is_empty() && self.pieces.bytes() > 0 {
            self.piece.reserve_exact(PIECE_BYTES); // a small snapshot takes only what it needs
        }
        let bytes = &bytes[..bytes.len().min(PIECE_BYTES - self.piece.len())];
        self.digest.update(bytes);
        self.piece.extend_from_slice(bytes);
        if self.piece.len() == PIECE_BYTES {
            self.complete_piece();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl SnapshotWriter for MemoryWriter {
    fn finish(mut self: Box<Self>) -> Result<SnapshotMeta, StorageError> {
        self.complete_piece();
        let meta = SnapshotMeta {
            last: self.last,
            bytes: self.pieces.bytes(),
            digest: self.digest.digest(),
        };
        let mut current = self.snapshots.lock();
        if current.generation != self.generation {
            return Err(StorageError::Superseded);
        }
        let newest = current.snapshot.as_ref().map(|(meta, _)| meta.last.index);
        if newest < Some(self.last.index) {
            let old = current.snapshot.replace((meta, Arc::new(self.pieces)));
            // Giving a large one back takes time, in which nobody must wait for the lock.
            drop(current);
            drop(old);
        }
        Ok(meta)
    }
}

struct MemoryReader {
    meta: SnapshotMeta,
    pieces: Arc<Pieces>,
}

impl SnapshotReader for MemoryReader {
    fn meta(&self) -> SnapshotMeta {
        self.meta
    }

    fn read(&self, offset: u64, bytes_max: usize) -> Result<Bytes, StorageError> {
        Ok(self.pieces.read(offset, bytes_max))
    }
}

/// A stretch of memory of a snapshot that is written here: what a transfer reads at once.
const PIECE_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_read_as_the_bytes_they_are_at_any_offset_and_length() {
        let whole: Vec<u8> = (0..=99).collect();
        let mut pieces = Pieces::default();
        for part in [&whole[..1], &whole[1..1], &whole[1..40], &whole[40..]] {
            pieces.push(Bytes::copy_from_slice(part));
        }
        assert_eq!(pieces.bytes(), 100);
        for offset in 0..=101 {
            for bytes_max in 0..=102 {
                let start = offset.min(100);
                let end = (start + bytes_max).min(100);
                assert_eq!(
                    pieces.read(offset as u64, bytes_max),
                    whole[start..end],
                    "{bytes_max} bytes from {offset}"
                );
            }
        }
    }
}
