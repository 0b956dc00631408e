//! What every [`Storage`] must do, as a suite to run against your own.
//!
//! Give [`run_all`] a function that makes an empty place to store in, and returns another one that opens it: each call
//! of the latter is a new process on the same data, after the one before it was dropped. A storage of
//! [`Durability::Memory`] is only asked for what it promises in one life.
//!
//! ```
//! use kvrep_core::storage::{Storage, memory::MemoryStorage};
//! use kvrep_core::testing::storage_suite;
//! use kvrep_core::{Incarnation, StoreId};
//!
//! storage_suite::run_all(|| {
//!     let mut lives = 0;
//!     Box::new(move || {
//!         lives += 1;
//!         Box::new(MemoryStorage::new(StoreId(lives), Incarnation(lives)))
//!     })
//! });
//! ```
//!
//! The suite does not crash anything: what is left of writes that were not synced, of a full disk or of a failed
//! sync, only a storage's own tests can provoke.

use crate::entry::{Entry, EntryKind};
use crate::id::{Incarnation, Index, LogPoint, ReplicaId, Term};
use crate::storage::{
    Durability, Recovered, SnapshotMeta, Storage, StorageError, StorageEvent, StorageOp, Tail,
};
use crate::time::Timestamp;
use bytes::Bytes;

/// Opens the same stored data at each call, as a new process would.
pub type Reopen = Box<dyn FnMut() -> Box<dyn Storage>>;

/// Runs everything; `fresh` makes an empty place each time it is called.
///
/// # Panics
/// When the storage does not do what it must; the message names the rule.
pub fn run_all(mut fresh: impl FnMut() -> Reopen) {
    for rule in RULES {
        rule(fresh());
    }
}

/// Each rule by itself.
pub const RULES: [fn(Reopen); 15] = [
    a_new_storage_is_empty,
    it_is_opened_once_and_before_anything_else,
    the_identity_stays_and_the_incarnation_grows,
    entries_and_the_last_hard_state_come_back,
    a_tail_cut_off_does_not_come_back,
    a_purged_log_keeps_what_follows,
    a_reset_leaves_an_empty_log_and_the_hard_state,
    a_tail_saved_aside_is_reported,
    a_snapshot_is_current_when_finished_and_not_before,
    the_highest_snapshot_finished_is_current_and_older_readers_go_on,
    a_snapshot_of_a_history_that_was_reset_is_refused,
    a_received_snapshot_that_matches_keeps_what_follows,
    a_received_snapshot_that_does_not_match_empties_the_log,
    what_does_not_fit_is_refused_and_an_error_is_final,
    pieces_of_a_snapshot_come_in_order,
];

fn a_new_storage_is_empty(mut reopen: Reopen) {
    let found = open(&mut reopen).1;
    assert_eq!(found.base, LogPoint::ZERO, "a new log starts at zero");
    assert!(found.entries.is_empty(), "a new log is empty");
    assert_eq!(found.snapshot, None, "a new storage has no snapshot");
    assert_eq!(found.hard_state, None, "a new storage has no hard state");
    assert!(
        found.incarnation > Incarnation::UNKNOWN,
        "a life has a number"
    );
}

fn it_is_opened_once_and_before_anything_else(mut reopen: Reopen) {
    let mut storage = reopen();
    assert!(
        storage.write(Vec::new()).is_err(),
        "written before it was opened"
    );
    assert!(storage.sync().is_err(), "synced before it was opened");
    storage.open().expect("opens");
    assert!(storage.open().is_err(), "opened twice");
}

fn the_identity_stays_and_the_incarnation_grows(mut reopen: Reopen) {
    let (storage, first) = open(&mut reopen);
    let durability = storage.durability();
    drop(storage);
    let second = open(&mut reopen).1;
    assert!(
        second.incarnation > first.incarnation,
        "a new life has a higher number"
    );
    match durability {
        Durability::Disk => assert_eq!(second.store, first.store, "the same storage"),
        Durability::Memory => assert_ne!(second.store, first.store, "nothing was kept"),
    }
}

fn entries_and_the_last_hard_state_come_back(reopen: Reopen) {
    let log = log(LogPoint::ZERO, 1, 5);
    let mut run = Run::new(reopen);
    run.write([append(&log[..3]), StorageOp::HardState("one".into())]);
    run.write([StorageOp::HardState("two".into()), append(&log[3..])]);
    run.again(|found| {
        assert_eq!(found.entries, log, "entries come back with their hashes");
        assert_eq!(
            found.hard_state.as_deref(),
            Some(&b"two"[..]),
            "the last hard state"
        );
    });
    // And the log goes on.
    run.write([append(&chain(&log, 2, 2))]);
    run.again(|found| assert_eq!(found.entries.len(), 7, "the log goes on"));
}

fn a_tail_cut_off_does_not_come_back(reopen: Reopen) {
    let old = log(LogPoint::ZERO, 1, 5);
    let new = chain(&old[..2], 2, 4);
    let mut run = Run::new(reopen);
    run.write([append(&old)]);
    run.write([cut(3, Tail::Drop)]);
    run.again(|found| assert_eq!(found.entries, old[..2], "the tail is gone"));
    run.write([append(&new)]);
    run.again(|found| assert_eq!(found.entries[2..], new, "the new tail is there"));
    run.write([cut(1, Tail::Drop)]);
    run.again(|found| assert!(found.entries.is_empty(), "the whole log can be cut"));
}

fn a_purged_log_keeps_what_follows(reopen: Reopen) {
    let log = log(LogPoint::ZERO, 1, 9);
    let mut run = Run::new(reopen);
    run.write([append(&log)]);
    run.snapshot(log[6].point(), b"state");
    run.write([StorageOp::PurgePrefix { upto: Index(5) }]);
    run.write([append(&chain(&log, 1, 1))]);
    run.again(|found| {
        assert!(
            found.base.index <= Index(5),
            "no more is purged than allowed"
        );
        let kept = found
            .entries
            .iter()
            .filter(|e| e.index.0 > 5 && e.index.0 < 10);
        assert!(kept.eq(&log[5..]), "what follows the purged prefix stays");
        let last = found.entries.last().map(|entry| entry.index);
        assert_eq!(last, Some(Index(10)), "the log goes on behind a purge");
    });
}

fn a_reset_leaves_an_empty_log_and_the_hard_state(reopen: Reopen) {
    let old = log(LogPoint::ZERO, 1, 4);
    let new = log(LogPoint::ZERO, 2, 2);
    let mut run = Run::new(reopen);
    run.write([append(&old), StorageOp::HardState("kept".into())]);
    run.snapshot(old[2].point(), b"state");
    run.write([StorageOp::Reset { tail: Tail::Drop }]);
    assert!(run.current().is_none(), "a reset leaves no snapshot");
    run.again(|found| {
        assert_eq!(found.base, LogPoint::ZERO, "a reset log starts at zero");
        assert!(found.entries.is_empty(), "a reset log is empty");
        assert_eq!(found.snapshot, None, "a reset leaves no snapshot");
        assert_eq!(
            found.hard_state.as_deref(),
            Some(&b"kept"[..]),
            "a reset keeps the hard state"
        );
    });
    run.write([append(&new)]);
    run.again(|found| assert_eq!(found.entries, new, "another history can start"));
}

fn a_tail_saved_aside_is_reported(reopen: Reopen) {
    let old = log(LogPoint::ZERO, 1, 5);
    let mut run = Run::new(reopen);
    run.write([append(&old)]);
    let events = run.write([cut(4, Tail::SaveAside)]);
    let [StorageEvent::TailSaved { from, entries, .. }] = &events[..] else {
        panic!("one report of a tail saved, not {events:?}");
    };
    assert_eq!(
        (*from, *entries),
        (Index(4), 2),
        "the report tells which entries"
    );
    assert!(
        run.write([cut(4, Tail::SaveAside)]).is_empty(),
        "nothing was cut off"
    );
    let events = run.write([StorageOp::Reset {
        tail: Tail::SaveAside,
    }]);
    let [StorageEvent::TailSaved { from, entries, .. }] = &events[..] else {
        panic!("one report of a log saved, not {events:?}");
    };
    assert_eq!(
        (*from, *entries),
        (Index(1), 3),
        "a reset saves the whole log"
    );
    run.again(|found| assert!(found.entries.is_empty(), "what was saved aside is gone"));
}

fn a_snapshot_is_current_when_finished_and_not_before(reopen: Reopen) {
    let log = log(LogPoint::ZERO, 1, 3);
    let mut run = Run::new(reopen);
    run.write([append(&log)]);
    let store = run.storage.snapshots();
    assert!(run.current().is_none(), "there is no snapshot yet");
    let mut dropped = store
        .create(log[1].point())
        .expect("a snapshot can be started");
    dropped.write_all(b"never finished").expect("written");
    drop(dropped);
    assert!(
        run.current().is_none(),
        "an unfinished snapshot is discarded"
    );
    let meta = run.snapshot(log[2].point(), b"state");
    assert_eq!(
        meta,
        meta_of(log[2].point(), b"state"),
        "finish tells what was written"
    );
    assert_eq!(
        run.current(),
        Some((meta, b"state".to_vec())),
        "it is read as written"
    );
    let reader = store.current().expect("opens").expect("is there");
    assert_eq!(reader.read(1, 3).expect("read"), &b"tat"[..], "a piece");
    assert_eq!(
        reader.read(3, 99).expect("read"),
        &b"te"[..],
        "a piece at the end"
    );
    assert_eq!(
        reader.read(5, 9).expect("read"),
        &b""[..],
        "nothing behind the end"
    );
    assert_eq!(
        reader.read(u64::MAX, 9).expect("read"),
        &b""[..],
        "nothing far behind the end"
    );
    run.again(|found| assert_eq!(found.snapshot, Some(meta), "a snapshot survives"));
}

fn the_highest_snapshot_finished_is_current_and_older_readers_go_on(reopen: Reopen) {
    let log = log(LogPoint::ZERO, 1, 9);
    let mut run = Run::new(reopen);
    run.write([append(&log)]);
    run.snapshot(log[4].point(), b"five");
    let old = run
        .storage
        .snapshots()
        .current()
        .expect("opens")
        .expect("is there");
    let newer = run.snapshot(log[7].point(), b"eight");
    run.snapshot(log[5].point(), b"six");
    assert_eq!(
        run.current(),
        Some((newer, b"eight".to_vec())),
        "the highest is current"
    );
    assert_eq!(
        old.read(0, 9).expect("read"),
        &b"five"[..],
        "an open one stays readable"
    );
    run.again(|found| assert_eq!(found.snapshot, Some(newer), "the highest survives"));
}

fn a_snapshot_of_a_history_that_was_reset_is_refused(reopen: Reopen) {
    let log = log(LogPoint::ZERO, 1, 3);
    let mut run = Run::new(reopen);
    run.write([append(&log)]);
    let writer = run
        .storage
        .snapshots()
        .create(log[2].point())
        .expect("started");
    run.write([StorageOp::Reset { tail: Tail::Drop }]);
    assert!(
        matches!(writer.finish(), Err(StorageError::Superseded)),
        "a snapshot of the old history must not become current"
    );
    assert!(run.current().is_none(), "no snapshot after a reset");
    run.again(|found| assert_eq!(found.snapshot, None, "no snapshot after a reset"));
}

fn a_received_snapshot_that_matches_keeps_what_follows(reopen: Reopen) {
    let log = log(LogPoint::ZERO, 1, 6);
    let meta = meta_of(log[3].point(), b"received");
    let mut run = Run::new(reopen);
    run.write([append(&log)]);
    run.write([chunk(meta, 0, b"given")]);
    run.write([chunk(meta, 0, b"rece"), chunk(meta, 4, b"ived")]);
    assert!(
        run.current().is_none(),
        "what is being received is not current"
    );
    run.write([install(meta)]);
    assert_eq!(
        run.current(),
        Some((meta, b"received".to_vec())),
        "it is current"
    );
    run.again(|found| {
        assert_eq!(found.snapshot, Some(meta), "it survives");
        assert_eq!(
            found.entries.last(),
            log.last(),
            "what follows a matching entry stays"
        );
    });
    run.write([append(&chain(&log, 1, 1))]);
}

fn a_received_snapshot_that_does_not_match_empties_the_log(reopen: Reopen) {
    let other = log(LogPoint::ZERO, 7, 9);
    let mine = log(LogPoint::ZERO, 1, 6);
    let mut run = Run::new(reopen);
    // In the middle of another history, beyond the end, and then below what was installed before.
    for last in [other[3].point(), other[8].point(), other[2].point()] {
        let meta = meta_of(last, b"received");
        run.write([StorageOp::Reset { tail: Tail::Drop }, append(&mine)]);
        run.write([chunk(meta, 0, b"received"), install(meta)]);
        assert_eq!(
            run.current().map(|(meta, _)| meta),
            Some(meta),
            "it is current"
        );
        run.again(|found| {
            assert_eq!(found.snapshot, Some(meta), "it survives");
            assert_eq!(found.base, last, "the log goes on behind it");
            assert!(
                found.entries.is_empty(),
                "the log that contradicts it is gone"
            );
        });
        run.write([append(&log(last, 8, 2))]);
        run.again(|found| assert_eq!(found.entries.len(), 2, "the log goes on behind it"));
    }
}

fn what_does_not_fit_is_refused_and_an_error_is_final(mut reopen: Reopen) {
    let log = log(LogPoint::ZERO, 1, 5);
    let wrong: [StorageOp; 6] = [
        append(&log[4..]),
        append(&log[1..2]),
        cut(5, Tail::Drop),
        cut(0, Tail::Drop),
        StorageOp::PurgePrefix { upto: Index(1) },
        install(meta_of(log[0].point(), b"")),
    ];
    for op in wrong {
        let (mut storage, found) = open(&mut reopen);
        if found.entries.is_empty() {
            storage.write(vec![append(&log[..3])]).expect("written");
        }
        storage.sync().expect("synced");
        let name = format!("{op:?}");
        let refused = storage.write(vec![op]);
        assert!(
            matches!(refused, Err(StorageError::Misuse(_))),
            "{name}: {refused:?}"
        );
        assert!(storage.write(Vec::new()).is_err(), "written after an error");
        assert!(storage.sync().is_err(), "synced after an error");
        drop(storage);
        let (storage, found) = open(&mut reopen);
        if storage.durability() == Durability::Disk {
            assert_eq!(
                found.entries,
                log[..3],
                "what was synced before an error is there"
            );
        }
    }
    let mut run = Run::new(reopen);
    run.write([StorageOp::Reset { tail: Tail::Drop }, append(&log)]);
    run.snapshot(log[1].point(), b"state");
    let refused = run.storage.write(vec![cut(2, Tail::Drop)]);
    assert!(refused.is_err(), "a log is not cut below its snapshot");
}

fn pieces_of_a_snapshot_come_in_order(mut reopen: Reopen) {
    let meta = meta_of(log(LogPoint::ZERO, 1, 1)[0].point(), b"received");
    let other = SnapshotMeta { digest: 1, ..meta };
    let wrong: [Vec<StorageOp>; 5] = [
        vec![chunk(meta, 4, b"ived")],
        vec![chunk(meta, 0, b"rec"), chunk(meta, 4, b"ived")],
        vec![chunk(meta, 0, b"rece"), chunk(other, 4, b"ived")],
        vec![chunk(meta, 0, b"received and more")],
        vec![chunk(meta, 0, b"rece"), install(meta)],
    ];
    for ops in wrong {
        let mut storage = open(&mut reopen).0;
        let name = format!("{ops:?}");
        assert!(storage.write(ops).is_err(), "{name}");
        drop(storage);
        let found = open(&mut reopen).1;
        assert_eq!(found.snapshot, None, "{name}");
    }
}

/// A storage over several lives; in memory there is only one.
struct Run {
    reopen: Reopen,
    storage: Box<dyn Storage>,
}

impl Run {
    fn new(mut reopen: Reopen) -> Self {
        let storage = open(&mut reopen).0;
        Self { reopen, storage }
    }

    fn write(&mut self, ops: impl IntoIterator<Item = StorageOp>) -> Vec<StorageEvent> {
        let events = self.storage.write(ops.into_iter().collect());
        let events = events.expect("operations that fit are carried out");
        self.storage.sync().expect("a healthy storage syncs");
        events
    }

    fn snapshot(&self, last: LogPoint, state: &[u8]) -> SnapshotMeta {
        let writer = self.storage.snapshots().create(last);
        let mut writer = writer.expect("a snapshot can be started");
        writer.write_all(state).expect("a snapshot is written");
        writer.finish().expect("a snapshot can be finished")
    }

    fn current(&self) -> Option<(SnapshotMeta, Vec<u8>)> {
        let reader = self.storage.snapshots().current().expect("opens")?;
        let state = reader.read(0, usize::MAX).expect("a snapshot is read");
        Some((reader.meta(), state.to_vec()))
    }

    /// Opens it in a new life, unless nothing would be left.
    fn again(&mut self, check: impl FnOnce(&Recovered)) {
        if self.storage.durability() == Durability::Memory {
            return;
        }
        self.storage = Box::new(Closed);
        let (storage, found) = open(&mut self.reopen);
        self.storage = storage;
        let mut prev = found.base;
        for entry in &found.entries {
            assert_eq!(
                entry.index,
                prev.index.next(),
                "recovered entries are contiguous"
            );
            let (term, kind) = (entry.term, entry.kind);
            let payload = entry.payload.clone();
            let again = Entry::following(prev, term, entry.timestamp, entry.seed, kind, payload);
            assert_eq!(entry.hash, again.hash, "recovered hashes chain");
            prev = entry.point();
        }
        check(&found);
    }
}

/// Stands in between two lives.
struct Closed;

impl Storage for Closed {
    fn open(&mut self) -> Result<Recovered, StorageError> {
        Err(closed())
    }

    fn write(&mut self, _: Vec<StorageOp>) -> Result<Vec<StorageEvent>, StorageError> {
        Err(closed())
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        Err(closed())
    }

    fn snapshots(&self) -> std::sync::Arc<dyn crate::storage::SnapshotStore> {
        crate::storage::memory::MemoryStorage::new(crate::StoreId(0), Incarnation(1)).snapshots()
    }

    fn durability(&self) -> Durability {
        Durability::Memory
    }
}

fn closed() -> StorageError {
    StorageError::Misuse("closed".into())
}

fn open(reopen: &mut Reopen) -> (Box<dyn Storage>, Recovered) {
    let mut storage = reopen();
    let found = storage.open().expect("a healthy storage opens");
    (storage, found)
}

/// `count` entries of one term behind `base`.
fn log(base: LogPoint, term: u64, count: u64) -> Vec<Entry> {
    let mut prev = base;
    let term = Term {
        number: term,
        replica: ReplicaId(1),
    };
    let mut entries = Vec::new();
    for i in 0..count {
        // Some payloads are empty or zeros, which a log must tell from nothing.
        let payload = match i % 3 {
            0 => Bytes::from(format!("command {i}")),
            1 => Bytes::new(),
            _ => Bytes::from_static(&[0; 40]),
        };
        let kind = EntryKind::Command;
        let entry = Entry::following(prev, term, Timestamp(7 + i), i, kind, payload);
        prev = entry.point();
        entries.push(entry);
    }
    entries
}

/// `count` more entries behind those.
fn chain(log_so_far: &[Entry], term: u64, count: u64) -> Vec<Entry> {
    let base = log_so_far.last().map_or(LogPoint::ZERO, Entry::point);
    log(base, term, count)
}

fn append(entries: &[Entry]) -> StorageOp {
    StorageOp::Append(entries.to_vec().into())
}

fn cut(from: u64, tail: Tail) -> StorageOp {
    let from = Index(from);
    StorageOp::TruncateSuffix { from, tail }
}

fn chunk(meta: SnapshotMeta, offset: u64, data: &'static [u8]) -> StorageOp {
    let data = Bytes::from_static(data);
    StorageOp::SnapshotChunk { meta, offset, data }
}

fn meta_of(last: LogPoint, state: &[u8]) -> SnapshotMeta {
    SnapshotMeta {
        last,
        bytes: state.len() as u64,
        digest: xxhash_rust::xxh3::xxh3_64(state),
    }
}

fn install(meta: SnapshotMeta) -> StorageOp {
    StorageOp::InstallSnapshot {
        meta,
        tail: Tail::Drop,
    }
}
