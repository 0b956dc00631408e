//! The log and the directory of a long run stay as small as the limits say.

mod support;

use kvrep_core::node::{Client, LocalLink, Node};
use kvrep_core::storage::wal::{Wal, WalOptions};
use kvrep_core::{Fold, GroupId, Limits, ReplicaId};
use std::path::Path;
use support::until;

/// Counts bytes: a small state, however long the log.
type Count = Fold<u64, Vec<u8>>;

const COMMAND: usize = 1_000;
/// What a command takes in the log, at most.
const ENTRY: u64 = COMMAND as u64 + 100;
const SEGMENT: u64 = 64 << 10;
const WRITERS: u64 = 16;

/// Bytes in a directory, and how many snapshots and segments there are.
fn size_of(dir: &Path) -> (u64, usize, usize) {
    let (mut bytes, mut snapshots, mut segments) = (0, 0, 0);
    for file in std::fs::read_dir(dir).unwrap() {
        let file = file.unwrap();
        let name = file.file_name().to_string_lossy().into_owned();
        // It may be removed while we look.
        bytes += file.metadata().map_or(0, |m| m.len());
        snapshots += usize::from(name.ends_with(".snap"));
        segments += usize::from(name.ends_with(".wal"));
    }
    (bytes, snapshots, segments)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_run_stays_within_the_bounds_in_bytes_in_memory_and_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        snapshot_log_bytes: 256 << 10,
        retained_entries: u64::MAX,
        retained_bytes: 128 << 10,
        ..Limits::default()
    };
    let mut options = WalOptions::new(GroupId::named("count"), ReplicaId(1), 1);
    options.segment_bytes = SEGMENT;
    let node = Node::builder("count", ReplicaId(1))
        .state_machine(Count::new(0, |count, bytes| *count += bytes.len() as u64))
        .limits(limits)
        .storage(Wal::open_dir(dir.path(), options))
        .start()
        .await
        .unwrap();
    let client = Client::<Count>::new(LocalLink::new([&node]));
    // What may come while a snapshot is written: by far the most that a disk allows here.
    let meanwhile = 512 << 10;
    let log_max = (256 << 10) + (128 << 10) + meanwhile + WRITERS * ENTRY;
    let (mut log_most, mut disk_most) = (0, 0);
    for round in 1..=20 {
        let writing = (0..WRITERS).map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                for _ in 0..10 {
                    client.execute(vec![7; COMMAND]).await.unwrap();
                }
            })
        });
        for writer in writing.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
        let status = node.status().protocol;
        let log = (status.last.index.0 - status.log_start.0) * COMMAND as u64;
        let (disk, snapshots, _) = size_of(dir.path());
        assert!(log <= log_max, "round {round}: {log} bytes of log");
        assert!(disk <= log_max + 4 * SEGMENT, "round {round}: {disk} bytes");
        assert!(snapshots <= 2, "round {round}: {snapshots} snapshots");
        (log_most, disk_most) = (log.max(log_most), disk.max(disk_most));
    }
    // 3.2 MB went through.
    until("the last snapshot has made room", async || {
        let (_, snapshots, segments) = size_of(dir.path());
        snapshots == 1 && segments as u64 <= log_max / SEGMENT
    })
    .await;
    assert!(
        log_most > 128 << 10 && disk_most > 128 << 10,
        "a test of the test"
    );
    node.shutdown().await.unwrap();
}
