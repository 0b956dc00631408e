//! Where a replica keeps its log, its snapshot and its hard state.
//!
//! A [`Storage`] is synchronous and knows no thread: [`write`](Storage::write) takes a batch of operations,
//! [`sync`](Storage::sync) makes everything written so far durable. Whoever drives it decides when to sync, so one
//! `fdatasync` serves every batch that came meanwhile (group commit), and nobody else waits for the disk.
//!
//! Rules for implementers, checked by the suite in `testing` (feature `testing`):
//!
//! * Operations take effect in order. After a crash, what is recovered is the effect of a prefix of them that
//!   contains every operation before the last successful `sync`.
//! * An error is final: whoever gets one stops using the storage, and a failed sync is never tried again
//!   (its dirty pages may be gone: the next sync would succeed without them).
//! * Damage that is not a torn tail is refused at opening, with a message that says what to do.

pub mod copy;
pub mod fs;
#[cfg(any(test, feature = "sim", feature = "testing"))]
pub mod mem_fs;
pub mod memory;
mod points;
pub mod wal;

use crate::entry::{Entry, Run};
use crate::id::{Incarnation, Index, LogPoint, StoreId};
use bytes::Bytes;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// One change to what is stored.
///
/// ```
/// use kvrep_core::storage::{Storage, StorageOp, Tail, memory::MemoryStorage};
/// use kvrep_core::{Entry, EntryKind, Incarnation, Index, LogPoint, StoreId, Term, Timestamp};
///
/// let mut storage = MemoryStorage::new(StoreId(1), Incarnation(1));
/// storage.open().unwrap();
/// let kind = EntryKind::Command;
/// let entry = Entry::following(LogPoint::ZERO, Term::ZERO, Timestamp(0), 0, kind, "x".into());
/// let cut = StorageOp::TruncateSuffix { from: Index(1), tail: Tail::Drop };
/// storage.write(vec![StorageOp::Append(vec![entry.clone()].into()), cut]).unwrap();
/// storage.write(vec![StorageOp::Append(vec![entry].into())]).unwrap(); // fits again
/// storage.sync().unwrap(); // one sync for all of it
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageOp {
    /// Appends entries directly behind the last one.
    Append(Run),
    /// Removes the entry at `from` and everything after it.
    TruncateSuffix {
        /// The first index to go.
        from: Index,
        /// Whether the removed tail is kept aside for the operator.
        tail: Tail,
    },
    /// Forgets the entries up to and including `upto`. A snapshot at `upto` or later exists. The storage may keep
    /// more (whole segments).
    PurgePrefix {
        /// The last index that may go.
        upto: Index,
    },
    /// Replaces the protocol's hard state (terms, configurations): small, opaque, written atomically.
    HardState(Bytes),
    /// Writes a piece of a snapshot that is being received. A piece at offset 0 starts anew.
    SnapshotChunk {
        /// Which snapshot.
        meta: SnapshotMeta,
        /// Where the piece goes; pieces come in order.
        offset: u64,
        /// The piece.
        data: Bytes,
    },
    /// The snapshot received is complete: makes it the current one. If the log has an entry that matches
    /// `meta.last`, what follows it stays; otherwise the whole log goes, and the next entry follows `meta.last`.
    InstallSnapshot {
        /// Which snapshot.
        meta: SnapshotMeta,
        /// Whether a log that goes is kept aside for the operator, before it goes.
        tail: Tail,
    },
    /// Back to an empty log without a snapshot, for a replica whose history was refuted.
    Reset {
        /// Whether what is removed is kept aside for the operator.
        tail: Tail,
    },
}

/// What becomes of a tail that is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// It goes.
    Drop,
    /// It is kept aside (a file beside the log) and the place is reported.
    SaveAside,
}

/// Which state a snapshot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SnapshotMeta {
    /// The last entry whose effect is in it.
    pub last: LogPoint,
    /// Size of the state in bytes.
    pub bytes: u64,
    /// XXH3-64 of the state's bytes.
    pub digest: u64,
}

/// What was found when a storage was opened.
#[derive(Debug)]
pub struct Recovered {
    /// The identity of this storage, drawn when it was created.
    pub store: StoreId,
    /// This life; durable, and larger than every earlier one of this storage.
    pub incarnation: Incarnation,
    /// The last hard state written, if any.
    pub hard_state: Option<Bytes>,
    /// The current snapshot, if any.
    pub snapshot: Option<SnapshotMeta>,
    /// The log after `snapshot.last` (or from index 1), and possibly some entries before it. Contiguous, hashes
    /// computed.
    pub entries: Vec<Entry>,
    /// The place before the first of `entries` (or where the first would go).
    pub base: LogPoint,
    /// What happened at recovery that the operator may want to know (a torn tail cut, for one).
    pub notes: Vec<String>,
}

/// Why a storage cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// Another process uses it. Nothing was changed.
    #[error("{path} is in use by another process: stop it, or choose another directory")]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The directory belongs to something else. Nothing was changed.
    #[error("{path} is not the data of this replica ({found}): choose another directory")]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// What it is instead.
        found: String,
    },
    /// A bad record with good ones behind it, or a damaged snapshot or hard state. Nothing was changed.
    #[error("{path} is damaged at byte {offset}: {what}. {remedy}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        what: String,
        /// What to do about it.
        remedy: String,
    },
    /// The file system refused. After this nothing more is written.
    #[error("{action} {path}: {source}{}", remedy(.source.kind()))]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The log was reset or replaced while this snapshot was written; the snapshot is discarded. Nothing else is
    /// affected: whoever wrote it goes on.
    #[error("the history was replaced while its snapshot was written; the snapshot is discarded")]
    Superseded,
    /// The operations do not fit what is stored: a bug of the caller.
    #[error("storage used wrongly: {0}")]
    Misuse(String),
}

/// What to do about it, where that is plain.
fn remedy(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ". The disk is full: make room on it, or move the directory as a whole to a larger one, and start again from there; nothing that was acknowledged is lost"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            ". The file system is read-only: see to its disk, mount it for writing, and start again; nothing that was acknowledged is lost"
        }
        _ => "",
    }
}

/// A report of what a write did that the operator should hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageEvent {
    /// A tail was cut off and kept.
    TailSaved {
        /// First index of the tail.
        from: Index,
        /// How many entries it holds.
        entries: u64,
        /// Where it is; empty for a storage in memory.
        path: PathBuf,
    },
}

/// Keeps log, snapshot and hard state. See the [module](self) for the rules.
///
/// [`MemoryStorage`](memory::MemoryStorage) and [`Wal`](wal::Wal) are the two that there are. What a driver does with one:
///
/// ```
/// use kvrep_core::storage::{Storage, StorageError, StorageOp};
///
/// /// Makes all batches that came meanwhile durable with one sync; then they may be acknowledged.
/// fn commit(storage: &mut dyn Storage, batches: Vec<Vec<StorageOp>>) -> Result<(), StorageError> {
///     for batch in batches {
///         for event in storage.write(batch)? {
///             eprintln!("{event:?}");
///         }
///     }
///     storage.sync()
/// }
/// # use kvrep_core::{Incarnation, StoreId, storage::memory::MemoryStorage};
/// # let mut storage = MemoryStorage::new(StoreId(1), Incarnation(1));
/// # storage.open().unwrap();
/// # commit(&mut storage, vec![Vec::new()]).unwrap();
/// ```
pub trait Storage: Send + 'static {
    /// Reads what is there; called once, before anything else. Creates the storage where there is none. The new
    /// incarnation is durable when this returns.
    ///
    /// # Errors
    /// Locked, foreign or damaged storage, or an I/O error; nothing was changed then.
    fn open(&mut self) -> Result<Recovered, StorageError>;

    /// Carries out operations in order; not yet durable.
    ///
    /// # Errors
    /// Final: the storage is not to be used again.
    fn write(&mut self, ops: Vec<StorageOp>) -> Result<Vec<StorageEvent>, StorageError>;

    /// Makes everything written durable.
    ///
    /// # Errors
    /// Final: what was written since the last success may or may not be there.
    fn sync(&mut self) -> Result<(), StorageError>;

    /// The snapshots, usable from any thread beside the storage.
    fn snapshots(&self) -> Arc<dyn SnapshotStore>;

    /// Whether writes need a disk. [`Durability::Memory`] storages are run inline, without a thread.
    fn durability(&self) -> Durability;
}

/// What survives a crash of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Nothing: a restarted replica is a new member.
    Memory,
    /// Everything synced.
    Disk,
}

/// The state snapshots of a storage.
///
/// ```
/// use kvrep_core::storage::{Storage, memory::MemoryStorage};
/// use kvrep_core::{Incarnation, LogPoint, StoreId};
/// use std::io::Write;
///
/// let mut storage = MemoryStorage::new(StoreId(1), Incarnation(1));
/// storage.open().unwrap();
/// let snapshots = storage.snapshots(); // may go to another thread
/// let mut writer = snapshots.create(LogPoint::ZERO).unwrap();
/// writer.write_all(b"the state").unwrap();
/// assert!(snapshots.current().unwrap().is_none()); // not before it is finished
/// let meta = writer.finish().unwrap();
/// let reader = snapshots.current().unwrap().unwrap();
/// assert_eq!(reader.read(4, 100).unwrap(), "state");
/// assert_eq!(meta.bytes, 9);
/// ```
pub trait SnapshotStore: Send + Sync + 'static {
    /// Starts writing the state at `last`. Several may be open; the last one finished with the highest index is the
    /// current one.
    ///
    /// # Errors
    /// When the file cannot be made.
    fn create(&self, last: LogPoint) -> Result<Box<dyn SnapshotWriter>, StorageError>;

    /// Opens the current snapshot for reading; it stays readable while newer ones replace it.
    ///
    /// # Errors
    /// When it cannot be opened.
    fn current(&self) -> Result<Option<Box<dyn SnapshotReader>>, StorageError>;
}

/// A snapshot being written: bytes through [`io::Write`], then [`finish`](Self::finish). Dropped unfinished, it is
/// discarded.
pub trait SnapshotWriter: io::Write + Send {
    /// Makes it durable and current, atomically.
    ///
    /// # Errors
    /// The snapshot is then discarded.
    fn finish(self: Box<Self>) -> Result<SnapshotMeta, StorageError>;
}

/// A snapshot open for reading.
pub trait SnapshotReader: Send + Sync {
    /// Which one.
    fn meta(&self) -> SnapshotMeta;

    /// Reads at most `bytes_max` bytes from `offset` on; fewer only at the end.
    ///
    /// # Errors
    /// An I/O error.
    fn read(&self, offset: u64, bytes_max: usize) -> Result<Bytes, StorageError>;
}
