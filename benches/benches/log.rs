//! The write-ahead log: appending with a sync for each batch, and reading it all again.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use kvrep_benches::log::{batch_after, write_log};
use kvrep_core::storage::wal::{Wal, WalOptions};
use kvrep_core::storage::{Storage, StorageOp};
use kvrep_core::{Entry, GroupId, LogPoint, ReplicaId};
use tempfile::TempDir;

const PAYLOAD_BYTES: usize = 256;

fn append(c: &mut Criterion) {
    for entries in [1, 64] {
        let dir = directory();
        let options = WalOptions::new(GroupId::named("bench"), ReplicaId(1), 1);
        let mut wal = Wal::open_dir(dir.path(), options);
        wal.open().expect("an empty directory opens");
        let mut at = LogPoint::ZERO;
        let mut group = c.benchmark_group("log/append and sync");
        group.throughput(Throughput::Elements(entries));
        group.bench_function(entries.to_string(), |b| {
            b.iter(|| {
                let batch = batch_after(at, entries, PAYLOAD_BYTES);
                at = batch.last().map_or(at, Entry::point);
                wal.write(vec![StorageOp::Append(batch.into())])
                    .expect("the disk takes it");
                wal.sync().expect("the disk takes it");
            });
        });
    }
}

fn replay(c: &mut Criterion) {
    const ENTRIES: u64 = 10_000;
    let dir = directory();
    let written = write_log(dir.path(), ENTRIES, PAYLOAD_BYTES, |_| {});
    let options = written.expect("the disk takes it").options;
    let mut group = c.benchmark_group("log/open");
    group.throughput(Throughput::Elements(ENTRIES));
    group.bench_function(ENTRIES.to_string(), |b| {
        b.iter_batched(
            || Wal::open_dir(dir.path().join("log"), options.clone()),
            |mut wal| {
                let recovered = wal.open().expect("it was closed in order");
                assert_eq!(recovered.entries.len() as u64, ENTRIES);
                (wal, recovered)
            },
            BatchSize::PerIteration,
        );
    });
}

/// On the disk that programs are built on: a temporary directory may be memory.
fn directory() -> TempDir {
    let program = std::env::current_exe().expect("this program has a path");
    let parent = program.parent().expect("it is in a directory");
    TempDir::new_in(parent).expect("it can be written to")
}

criterion_group! {
    name = benches;
    config = kvrep_benches::short();
    targets = append, replay
}
criterion_main!(benches);
