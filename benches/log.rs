//! A log on disk as a replica leaves it.

use bytes::Bytes;
use kvrep_core::entry::EntryKind;
use kvrep_core::storage::wal::{Wal, WalOptions};
use kvrep_core::storage::{Storage, StorageError, StorageOp};
use kvrep_core::{Entry, GroupId, LogPoint, ReplicaId, Term, Timestamp};
use std::path::Path;

/// A log that was written and closed.
#[derive(Debug)]
pub struct Written {
    /// To open it again, at `log` in its directory.
    pub options: WalOptions,
    /// Bytes of its records, about.
    pub log_bytes: u64,
}

/// Writes a log of `entries` with payloads of `payload_bytes` to `log` in `dir`; `told` hears how many are written.
///
/// # Errors
/// Those of the storage.
pub fn write_log(
    dir: &Path,
    entries: u64,
    payload_bytes: usize,
    mut told: impl FnMut(u64),
) -> Result<Written, StorageError> {
    let options = WalOptions::new(GroupId::named("bench"), ReplicaId(1), 0x10_9000);
    let mut wal = Wal::open_dir(dir.join("log"), options.clone());
    wal.open()?;
    let (mut at, mut left, mut log_bytes) = (LogPoint::ZERO, entries, 0);
    while left > 0 {
        let batch = batch_after(at, left.min(BATCH), payload_bytes);
        at = batch.last().map_or(at, Entry::point);
        left -= batch.len() as u64;
        log_bytes += batch.iter().map(|e| e.encoded_bytes() as u64).sum::<u64>();
        wal.write(vec![StorageOp::Append(batch.into())])?;
        wal.sync()?;
        told(entries - left);
    }
    Ok(Written { options, log_bytes })
}

/// The next `count` entries behind `prev`, with payloads of `payload_bytes`.
#[must_use]
pub fn batch_after(mut prev: LogPoint, count: u64, payload_bytes: usize) -> Vec<Entry> {
    let term = Term::ZERO.next_for(ReplicaId(1));
    let payload = Bytes::from(vec![b'p'; payload_bytes]);
    let mut batch = Vec::new();
    for n in 0..count {
        let kind = EntryKind::Command;
        let entry = Entry::following(prev, term, Timestamp(n), n, kind, payload.clone());
        prev = entry.point();
        batch.push(entry);
    }
    batch
}

/// Entries of one sync.
const BATCH: u64 = 10_000;
