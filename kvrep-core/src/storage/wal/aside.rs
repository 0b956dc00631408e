//! Tails that were cut off, kept for the operator.
//!
//! A file in the directory `aside` has the form of a segment: its header names the place before the tail, its records
//! are the entries. [`read_aside`] reads it.

use super::record::{self, Kind};
use super::recovery::load;
use super::replay::{Place, Replay};
use super::segment::Header;
use crate::entry::Entry;
use crate::id::{LogPoint, StoreId};
use crate::storage::StorageError;
use crate::storage::fs::{Fs, io_error, replace};
use bytes::BytesMut;
use std::path::{Path, PathBuf};

/// The directory's name.
pub(super) const DIR: &str = "aside";

/// Writes `entries`, which follow `base`, to a file named after the first of them and `unique`.
pub(super) fn save<F: Fs>(
    fs: &F,
    dir: &Path,
    store: StoreId,
    base: LogPoint,
    entries: &[Entry],
    unique: &str,
) -> Result<PathBuf, StorageError> {
    let header = Header {
        store,
        number: 0,
        base,
        generation: 0,
        hard_state: None,
    };
    let mut out = BytesMut::new();
    header.encode(&mut out);
    for entry in entries {
        let offset = out.len() as u64;
        record::put_entry(&mut out, header.salt(), offset, entry);
    }
    let offset = out.len() as u64;
    record::put(&mut out, header.salt(), offset, Kind::End, |_| {});
    let term = entries.first().map_or(base.term, |entry| entry.term);
    let name = format!(
        "tail-{:020}-term-{}.{}-{unique}.wal",
        base.index.0 + 1,
        term.number,
        term.replica.0
    );
    let dir = dir.join(DIR);
    fs.create_dir(&dir).map_err(io_error("create", &dir))?;
    let path = dir.join(name);
    replace(fs, &path, &out)?;
    Ok(path)
}

/// Reads a tail that was [saved aside](crate::storage::StorageEvent::TailSaved): the place before it, and its entries.
///
/// # Errors
/// When the file cannot be read or is damaged.
///
/// ```
/// use kvrep_core::storage::fs::OsFs;
/// use kvrep_core::storage::{Storage, StorageEvent, StorageOp, Tail};
/// use kvrep_core::storage::wal::{Wal, WalOptions, read_aside};
/// use kvrep_core::{Entry, EntryKind, GroupId, Index, LogPoint, ReplicaId, Term, Timestamp};
///
/// # let dir = tempfile::tempdir().unwrap();
/// # let data = dir.path().join("data");
/// let options = WalOptions::new(GroupId::named("orders"), ReplicaId(1), 7);
/// let mut wal = Wal::open_dir(&data, options);
/// wal.open().unwrap();
/// let kind = EntryKind::Command;
/// let entry = Entry::following(LogPoint::ZERO, Term::ZERO, Timestamp(0), 0, kind, "refuted".into());
/// let cut = StorageOp::TruncateSuffix { from: Index(1), tail: Tail::SaveAside };
/// let events = wal.write(vec![StorageOp::Append(vec![entry].into()), cut]).unwrap();
/// let StorageEvent::TailSaved { path, .. } = &events[0];
/// let (_, entries) = read_aside(&OsFs, path).unwrap();
/// assert_eq!(entries[0].payload, "refuted");
/// ```
pub fn read_aside<F: Fs>(fs: &F, path: &Path) -> Result<(LogPoint, Vec<Entry>), StorageError> {
    let loaded = load(fs, path, Place::Inner, REMEDY)?;
    let mut replay = Replay::new(loaded.header.base, 0, None);
    replay
        .segment(&loaded.records, loaded.start)
        .map_err(|damage| StorageError::Corrupt {
            path: path.into(),
            offset: damage.offset,
            what: damage.what.into(),
            remedy: REMEDY.into(),
        })?;
    Ok((loaded.header.base, replay.entries))
}

const REMEDY: &str = "The log does not need this file: it is a copy of what was cut off";
