//! Both storages do what every storage must, on a real disk and on a simulated one.
#![cfg(all(feature = "testing", feature = "sim"))]

use kvrep_core::storage::mem_fs::MemFs;
use kvrep_core::storage::memory::MemoryStorage;
use kvrep_core::storage::wal::{Wal, WalOptions};
use kvrep_core::testing::storage_suite;
use kvrep_core::{GroupId, Incarnation, ReplicaId, StoreId};

fn options(segment_bytes: u64) -> WalOptions {
    let mut options = WalOptions::new(GroupId(1), ReplicaId(1), 7);
    options.segment_bytes = segment_bytes;
    options
}

#[test]
fn the_storage_in_memory_conforms() {
    storage_suite::run_all(|| {
        let mut lives = 0;
        Box::new(move || {
            lives += 1;
            Box::new(MemoryStorage::new(StoreId(lives), Incarnation(lives)))
        })
    });
}

#[test]
fn the_log_on_a_real_disk_conforms() {
    storage_suite::run_all(|| {
        let dir = tempfile::tempdir().unwrap();
        Box::new(move || Box::new(Wal::open_dir(dir.path().join("data"), options(1 << 20))))
    });
}

#[test]
fn the_log_conforms_with_segments_so_small_that_every_few_entries_start_one() {
    storage_suite::run_all(|| {
        let disk = MemFs::new();
        Box::new(move || Box::new(Wal::new(disk.clone(), "data", options(512))))
    });
}
