//! The log while it is open: operations become records, in order, in one stream.
//!
//! Everything that must survive in order is a record of that stream: entries, truncations, the hard state, resets,
//! which snapshots are valid. So after a crash a prefix of the stream is a prefix of the operations, and one sync of
//! one file makes all of them durable. What is not undone by losing records (unlinking segments and old snapshots)
//! happens only after a sync.

use super::aside;
use super::record::{self, Kind, put_point};
use super::recovery::load;
use super::replay::{Place, Replay};
use super::segment::{Active, Header, Sealed};
use super::snapshots::{self, Draft, Snapshots};
use crate::entry::Entry;
use crate::id::{Incarnation, Index, LogPoint, StoreId};
use crate::storage::fs::{Fs, REMEDY, io_error};
use crate::storage::points::Points;
use crate::storage::{SnapshotMeta, StorageError, StorageEvent, StorageOp, Tail};
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

/// An open log.
pub(super) struct Live<F: Fs> {
    pub(super) fs: F,
    pub(super) dir: PathBuf,
    pub(super) segment_bytes: u64,
    pub(super) store: StoreId,
    pub(super) incarnation: Incarnation,
    pub(super) snapshots: Arc<Snapshots<F>>,
    pub(super) points: Points,
    pub(super) generation: u64,
    pub(super) hard_state: Option<Bytes>,
    pub(super) sealed: VecDeque<Sealed>,
    pub(super) active: Active<F::File>,
    /// As [`Sealed::last_live`], of the active segment.
    pub(super) active_live: Index,
    /// Records not yet written.
    pub(super) buffer: BytesMut,
    pub(super) receiving: Option<(SnapshotMeta, Draft<F>)>,
    /// Files that are void once everything written is durable.
    pub(super) void: Vec<PathBuf>,
    pub(super) asides: u64,
    /// Held as long as the log is open.
    pub(super) _lock: F::Lock,
}

impl<F: Fs> Live<F> {
    /// Carries out an operation; [`flush`](Self::flush) writes what it left in the buffer.
    pub(super) fn apply(&mut self, op: StorageOp) -> Result<Option<StorageEvent>, StorageError> {
        match op {
            StorageOp::Append(entries) => self.append(&entries).map(|()| None),
            StorageOp::TruncateSuffix { from, tail } => self.truncate(from, tail),
            StorageOp::PurgePrefix { upto } => {
                self.points.purge(upto, self.snapshots.index())?;
                Ok(None)
            }
            StorageOp::HardState(bytes) => self.hard_state(bytes).map(|()| None),
            StorageOp::SnapshotChunk { meta, offset, data } => {
                self.receive(meta, offset, &data).map(|()| None)
            }
            StorageOp::InstallSnapshot { meta, tail } => self.install(meta, tail),
            StorageOp::Reset { tail } => self.reset(tail),
        }
    }

    /// Writes out the buffer.
    pub(super) fn flush(&mut self) -> Result<(), StorageError> {
        if !self.buffer.is_empty() {
            self.active.append(&self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }

    /// Makes everything durable, and then removes what is needed no more.
    pub(super) fn sync(&mut self) -> Result<(), StorageError> {
        self.flush()?;
        if self.active.dirty {
            self.active.sync()?;
            self.mark()?;
        }
        for path in self.void.drain(..) {
            self.fs.remove(&path).map_err(io_error("remove", &path))?;
        }
        let purged = self.points.base().index;
        // Oldest first: if only some of the removals survive a crash, what is left is still contiguous.
        while self.sealed.front().is_some_and(|s| s.last_live <= purged) {
            if let Some(Sealed { path, .. }) = self.sealed.pop_front() {
                self.fs.remove(&path).map_err(io_error("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Notes behind the records that they are durable. Not itself synced: it tells damage from a torn tail, and goes
    /// to the disk with the next records.
    pub(super) fn mark(&mut self) -> Result<(), StorageError> {
        let durable = self.active.offset;
        self.put(Kind::Mark, |out| out.put_u64(durable));
        self.flush()?;
        self.active.dirty = false;
        Ok(())
    }

    /// Empties the log; the next entry follows `base`.
    pub(super) fn restart(&mut self, base: LogPoint, generation: u64) {
        self.put(Kind::Restart, |out| {
            put_point(out, base);
            out.put_u64(generation);
        });
        self.generation = generation;
        self.points = Points::new(base);
        self.limit_live(Index::ZERO);
    }

    fn append(&mut self, entries: &[Entry]) -> Result<(), StorageError> {
        for entry in entries {
            if entry.encoded_bytes() > RECORD_BYTES_MAX {
                return Err(StorageError::Misuse(format!(
                    "an entry of {} bytes",
                    entry.encoded_bytes()
                )));
            }
            self.make_room()?;
            self.points.append(entry)?;
            let offset = self.active.offset + self.buffer.len() as u64;
            record::put_entry(&mut self.buffer, self.active.salt, offset, entry);
            self.active_live = entry.index;
        }
        Ok(())
    }

    fn truncate(&mut self, from: Index, tail: Tail) -> Result<Option<StorageEvent>, StorageError> {
        self.make_room()?;
        let end = self.points.end().index;
        let to = self.points.cut(from, self.snapshots.index())?;
        if to.index == end {
            return Ok(None);
        }
        let event = self.save_aside(tail, to)?;
        self.put(Kind::Truncate, |out| put_point(out, to));
        self.limit_live(to.index);
        Ok(event)
    }

    fn hard_state(&mut self, bytes: Bytes) -> Result<(), StorageError> {
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(StorageError::Misuse(format!(
                "a hard state of {} bytes",
                bytes.len()
            )));
        }
        self.make_room()?;
        self.put(Kind::HardState, |out| out.put_slice(&bytes));
        self.hard_state = Some(bytes);
        Ok(())
    }

    fn receive(
        &mut self,
        meta: SnapshotMeta,
        offset: u64,
        data: &[u8],
    ) -> Result<(), StorageError> {
        if offset == 0 {
            self.receiving = Some((meta, self.snapshots.begin(meta.last)?));
        }
        let fits = self.receiving.as_mut().filter(|(of, draft)| {
            let end = offset.checked_add(data.len() as u64);
            *of == meta && draft.bytes() == offset && end <= Some(meta.bytes)
        });
        let Some((_, draft)) = fits else {
            return Err(StorageError::Misuse(format!(
                "piece at {offset} of a snapshot at {:?} does not fit",
                meta.last
            )));
        };
        draft
            .append(data)
            .map_err(io_error("write the snapshot received to", &self.dir))
    }

    fn install(
        &mut self,
        meta: SnapshotMeta,
        tail: Tail,
    ) -> Result<Option<StorageEvent>, StorageError> {
        let Some((_, draft)) = self.receiving.take().filter(|(of, _)| *of == meta) else {
            return Err(StorageError::Misuse("no such snapshot was received".into()));
        };
        if draft.meta() != meta {
            return Err(StorageError::Corrupt {
                path: self.dir.clone(),
                offset: draft.bytes(),
                what: "the snapshot received is not the one announced; it was discarded".into(),
                remedy: "Start this replica again; it fetches the snapshot again".into(),
            });
        }
        self.make_room()?;
        // The file is void until the log says that its generation is valid.
        let generation = self.generation + 1;
        let (_, path) = draft.publish(generation)?;
        let mut event = None;
        if self.points.at(meta.last.index) == Some(meta.last) {
            self.put(Kind::Generation, |out| out.put_u64(generation));
            self.generation = generation;
        } else {
            event = self.save_aside(tail, self.points.base())?;
            self.restart(meta.last, generation);
        }
        self.replace_snapshot(Some((meta, path)));
        Ok(event)
    }

    fn reset(&mut self, tail: Tail) -> Result<Option<StorageEvent>, StorageError> {
        self.make_room()?;
        let event = self.save_aside(tail, self.points.base())?;
        if tail == Tail::SaveAside {
            self.save_snapshot_aside()?;
        }
        self.receiving = None;
        self.restart(LogPoint::ZERO, self.generation + 1);
        self.replace_snapshot(None);
        Ok(event)
    }

    /// What was current is void, and whatever is still being written of its history too.
    fn replace_snapshot(&mut self, snapshot: Option<(SnapshotMeta, PathBuf)>) {
        let mut state = self.snapshots.state();
        state.generation = self.generation;
        let old = std::mem::replace(&mut state.current, snapshot);
        self.void.extend(old.map(|(_, path)| path));
    }

    /// Copies the entries behind `to` to a file that is durable before they are cut off.
    fn save_aside(
        &mut self,
        tail: Tail,
        to: LogPoint,
    ) -> Result<Option<StorageEvent>, StorageError> {
        if tail == Tail::Drop {
            return Ok(None);
        }
        let entries = self.read_behind(to.index)?;
        if entries.is_empty() {
            return Ok(None);
        }
        let unique = self.unique_name();
        let path = aside::save(&self.fs, &self.dir, self.store, to, &entries, &unique)?;
        Ok(Some(StorageEvent::TailSaved {
            from: to.index.next(),
            entries: entries.len() as u64,
            path,
        }))
    }

    fn save_snapshot_aside(&mut self) -> Result<(), StorageError> {
        let Some((meta, path)) = self.snapshots.state().current.clone() else {
            return Ok(());
        };
        let dir = self.dir.join(aside::DIR);
        self.fs.create_dir(&dir).map_err(io_error("create", &dir))?;
        let unique = self.unique_name();
        let to = dir.join(format!("snapshot-{:020}-{unique}.snap", meta.last.index.0));
        snapshots::copy(&self.fs, &path, &to)
    }

    fn unique_name(&mut self) -> String {
        self.asides += 1;
        format!("life-{}-{}", self.incarnation.0, self.asides)
    }

    /// Reads the entries behind `index` back from the segments.
    fn read_behind(&mut self, index: Index) -> Result<Vec<Entry>, StorageError> {
        self.flush()?;
        let first = self
            .sealed
            .iter()
            .position(|sealed| sealed.last_live > index);
        let sealed = self.sealed.iter().skip(first.unwrap_or(self.sealed.len()));
        let paths = sealed.map(|sealed| (&sealed.path, Place::Inner));
        let mut replay: Option<Replay> = None;
        for (path, place) in paths.chain([(&self.active.path, Place::Last)]) {
            let loaded = load(&self.fs, path, place, REMEDY)?;
            let header = loaded.header;
            let replay =
                replay.get_or_insert_with(|| Replay::new(header.base, header.generation, None));
            replay
                .segment(&loaded.records, loaded.start)
                .map_err(|damage| StorageError::Corrupt {
                    path: path.clone(),
                    offset: damage.offset,
                    what: damage.what.into(),
                    remedy: REMEDY.into(),
                })?;
        }
        let mut entries = replay.map(|replay| replay.entries).unwrap_or_default();
        entries.retain(|entry| entry.index > index);
        Ok(entries)
    }

    /// Entries above `index` are no longer part of the log.
    fn limit_live(&mut self, index: Index) {
        for sealed in &mut self.sealed {
            sealed.last_live = index.min(sealed.last_live);
        }
        self.active_live = index.min(self.active_live);
    }

    fn put(&mut self, kind: Kind, payload: impl FnOnce(&mut BytesMut)) {
        let offset = self.active.offset + self.buffer.len() as u64;
        record::put(&mut self.buffer, self.active.salt, offset, kind, payload);
    }

    /// Called before an operation's record: a new segment's header tells the state before it.
    fn make_room(&mut self) -> Result<(), StorageError> {
        if self.active.offset + self.buffer.len() as u64 >= self.segment_bytes {
            self.put(Kind::End, |_| {});
            self.flush()?;
            self.active.sync()?;
            self.next_segment()?;
        } else if self.buffer.len() >= BUFFER_BYTES_MAX {
            self.flush()?;
        }
        Ok(())
    }

    /// Goes on in a new segment; the active one is complete and durable.
    pub(super) fn next_segment(&mut self) -> Result<(), StorageError> {
        let header = Header {
            store: self.store,
            number: self.active.number + 1,
            base: self.points.end(),
            generation: self.generation,
            hard_state: self.hard_state.clone(),
        };
        let next = Active::create(&self.fs, &self.dir, &header, self.segment_bytes)?;
        let full = std::mem::replace(&mut self.active, next);
        self.sealed.push_back(Sealed {
            path: full.path,
            last_live: std::mem::take(&mut self.active_live),
        });
        Ok(())
    }
}

/// No record is larger; far above every limit of a group, far below what a segment's file may have.
const RECORD_BYTES_MAX: usize = 1 << 30;
/// More than this is written before the batch is complete.
const BUFFER_BYTES_MAX: usize = 4 << 20;
