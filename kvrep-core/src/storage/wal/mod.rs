//! A write-ahead log in a directory.
//!
//! ```text
//! data/
//!   lock  identity                          who it belongs to, and for how many lives
//!   log-0000000007-00000000000000090001.wal segments: one stream of records, in files of bounded size
//!   snap-0000000000-00000000000000095000.snap
//!   aside/  damaged-1/                      tails cut off, damaged content: kept for the operator, read by nobody
//! ```
//!
//! The intuition: there is **one stream of records**, and everything that must survive in order is in it: entries,
//! cuts of the tail, the hard state, resets, which snapshots count. Nothing in it is ever overwritten, a cut is a
//! record like the others. So what a crash leaves of the stream, a prefix, is the effect of a prefix of the operations;
//! one `fdatasync` of one file makes any number of batches durable; and there is no order between files to get wrong.
//!
//! Invariants:
//!
//! * A segment has its name only after its header and all segments before it are durable: only the last may be torn.
//! * A snapshot's file has its name only when its content is durable, and counts only while the log says so.
//! * Segments and snapshots are removed only after a sync of what makes them superfluous.
//! * After an error nothing more is written, and a failed sync is never tried again.
//!
//! Caveats: whether a bad record is damage or a torn tail is told by marks that are written after each sync, but
//! reach the disk with the next one. If the power goes *and* the medium damages exactly the records of the last sync
//! before it, that is taken for a torn tail. An [`Append`](super::StorageOp::Append) of several entries counts as
//! several operations: a crash may keep some of them.

mod aside;
#[cfg(feature = "testing")]
pub(crate) mod decoders;
mod found;
mod identity;
mod live;
mod record;
mod recovery;
mod replay;
mod segment;
mod setup;
mod snapshots;

#[cfg(test)]
mod tests;

pub use aside::read_aside;
pub use found::has_log;

use super::fs::{Fs, OsFs};
use super::{Durability, Recovered, SnapshotStore, Storage, StorageError, StorageEvent, StorageOp};
use crate::id::{GroupId, Incarnation, ReplicaId};
use live::Live;
use setup::Setup;
use snapshots::{Snapshots, WalSnapshots};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Settings of a [`Wal`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WalOptions {
    /// Whose log it is; a directory of another group is refused.
    pub group: GroupId,
    /// Whose log it is; a directory of another replica is refused.
    pub replica: ReplicaId,
    /// From where the [`StoreId`](crate::StoreId) of a new directory is drawn: random, and never the same twice.
    pub seed: u64,
    /// Size at which a segment is complete. 64 MiB by default; between 512 bytes and 1 GiB.
    pub segment_bytes: u64,
    /// What to do with a damaged directory. Refused by default.
    pub on_corruption: OnCorruption,
    /// The incarnation is at least this. A wiped directory forgets its lives, but the other replicas do not: whoever
    /// wants messages of its new life to be heard gives a number here that grows with each start, such as the
    /// wall-clock time in microseconds. 1 by default.
    pub incarnation_min: Incarnation,
}

impl WalOptions {
    /// The defaults for this replica.
    #[must_use]
    pub fn new(group: GroupId, replica: ReplicaId, seed: u64) -> Self {
        Self {
            group,
            replica,
            seed,
            segment_bytes: 64 << 20,
            on_corruption: OnCorruption::Refuse,
            incarnation_min: Incarnation(1),
        }
    }
}

/// What to do with a directory that is damaged in a way no crash explains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnCorruption {
    /// Opening fails with [`StorageError::Corrupt`]; nothing is changed.
    #[default]
    Refuse,
    /// Everything in it is moved to a subdirectory `damaged-<n>`, and an empty log with a new
    /// [`StoreId`](crate::StoreId) is started: to the group this is a new member, which fetches everything. Right
    /// while the other members hold every acknowledged write.
    SetAside,
}

/// A [`Storage`] on disk. See the [module](self).
///
/// ```
/// use kvrep_core::storage::{Storage, StorageOp, wal::{Wal, WalOptions}};
/// use kvrep_core::{GroupId, ReplicaId};
///
/// # let dir = tempfile::tempdir().unwrap();
/// # let data = dir.path().join("data");
/// let options = WalOptions::new(GroupId::named("orders"), ReplicaId(1), 0x5eed);
/// let mut wal = Wal::open_dir(&data, options.clone());
/// let first = wal.open().unwrap();
/// wal.write(vec![StorageOp::HardState(b"term 1".as_slice().into())]).unwrap();
/// wal.sync().unwrap();
/// drop(wal);
///
/// let again = Wal::open_dir(&data, options).open().unwrap();
/// assert_eq!(again.hard_state.as_deref(), Some(b"term 1".as_slice()));
/// assert_eq!(again.store, first.store);
/// assert!(again.incarnation > first.incarnation);
/// ```
pub struct Wal<F: Fs = OsFs> {
    fs: F,
    dir: PathBuf,
    options: WalOptions,
    snapshots: Arc<Snapshots<F>>,
    stage: Stage<F>,
}

enum Stage<F: Fs> {
    New,
    Open(Box<Live<F>>),
    Failed(String),
}

impl Wal {
    /// The log in a directory of the operating system's file system. Nothing is done before
    /// [`open`](Storage::open).
    #[must_use]
    pub fn open_dir(dir: impl Into<PathBuf>, options: WalOptions) -> Self {
        Self::new(OsFs, dir, options)
    }
}

impl<F: Fs> Wal<F> {
    /// The log in a directory of `fs`. Nothing is done before [`open`](Storage::open).
    #[must_use]
    pub fn new(fs: F, dir: impl Into<PathBuf>, options: WalOptions) -> Self {
        let dir = dir.into();
        Self {
            snapshots: Snapshots::new(fs.clone(), dir.clone()),
            fs,
            dir,
            options,
            stage: Stage::New,
        }
    }

    /// Does something with the open log; an error is final.
    fn live<T>(
        &mut self,
        work: impl FnOnce(&mut Live<F>) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        match &mut self.stage {
            Stage::New => Err(StorageError::Misuse("used before it was opened".into())),
            Stage::Failed(why) => Err(StorageError::Io {
                action: "go on after an error with",
                path: self.dir.clone(),
                source: io::Error::other(why.clone()),
            }),
            Stage::Open(live) => {
                let result = work(live);
                if let Err(error) = &result {
                    // Also lets go of the lock.
                    self.stage = Stage::Failed(error.to_string());
                }
                result
            }
        }
    }
}

impl<F: Fs> Storage for Wal<F> {
    fn open(&mut self) -> Result<Recovered, StorageError> {
        if !matches!(self.stage, Stage::New) {
            return Err(StorageError::Misuse("opened twice".into()));
        }
        let setup = Setup {
            fs: &self.fs,
            dir: &self.dir,
            options: &self.options,
            snapshots: &self.snapshots,
        };
        match setup.open() {
            Ok((live, recovered)) => {
                self.stage = Stage::Open(Box::new(live));
                Ok(recovered)
            }
            Err(error) => {
                self.stage = Stage::Failed(error.to_string());
                Err(error)
            }
        }
    }

    fn write(&mut self, ops: Vec<StorageOp>) -> Result<Vec<StorageEvent>, StorageError> {
        self.live(|live| {
            let mut events = Vec::new();
            for op in ops {
                events.extend(live.apply(op)?);
            }
            live.flush()?;
            Ok(events)
        })
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        self.live(Live::sync)
    }

    fn snapshots(&self) -> Arc<dyn SnapshotStore> {
        Arc::new(WalSnapshots(Arc::clone(&self.snapshots)))
    }

    fn durability(&self) -> Durability {
        Durability::Disk
    }
}

impl<F: Fs> fmt::Debug for Wal<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wal")
            .field("dir", &self.dir)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
