//! A log that was damaged on the disk: refused, then fetched again from the group.

mod support;

use kvrep_core::node::{Client, Guard, LocalLink, Node};
use kvrep_core::storage::wal::OnCorruption;
use kvrep_core::transport::memory::MemoryNetwork;
use kvrep_core::{ApplyContext, Authority, GroupConfig, Read, ReplicaId, StateMachine};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use support::{client, primary, replica, until, until_equal};

/// The only log file in `directory`.
fn log_of(directory: &Path) -> PathBuf {
    let mut logs: Vec<PathBuf> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "wal"))
        .collect();
    logs.sort();
    logs.swap_remove(0)
}

/// Changes one bit in the middle of what was written.
fn damage(log: &Path) {
    let mut bytes = std::fs::read(log).unwrap();
    let written = bytes.iter().rposition(|b| *b != 0).unwrap();
    bytes[written / 2] ^= 1;
    std::fs::write(log, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_is_refused_and_the_log_is_fetched_again_from_the_group() {
    let network = MemoryNetwork::new();
    let scratch = tempfile::tempdir().unwrap();
    let directory = |id: u32| scratch.path().join(id.to_string());
    let mut nodes: Vec<Node> = Vec::new();
    for id in 1..=3 {
        let node = replica(&network, id).data_dir(directory(id)).start();
        nodes.push(node.await.unwrap());
    }
    let client = client(&nodes).0;
    for n in 0..500 {
        client.execute(n).await.unwrap();
    }
    // One that is not the primary, so that the client's link need not learn of a new one.
    let at = usize::from(primary(&nodes).await == 0);
    let damaged = nodes.remove(at);
    let id = damaged.identity().replica.0;
    damaged.shutdown().await.unwrap();
    damage(&log_of(&directory(id)));

    let refused = replica(&network, id).data_dir(directory(id)).start().await;
    let why = refused
        .expect_err("a damaged log is not opened")
        .to_string();
    assert!(why.contains("is damaged at byte"), "{why}");

    let back = replica(&network, id)
        .data_dir(directory(id))
        .on_corruption(OnCorruption::SetAside);
    let back = back.start().await.unwrap();
    client.execute(500).await.unwrap();
    until("it counts again", async || {
        let statuses = nodes.iter().map(|n| n.status().protocol);
        statuses
            .filter(|s| s.serving)
            .filter_map(|s| s.configuration)
            .any(|c| c.has(back.identity().replica, back.identity().store))
    })
    .await;
    until_equal(&[&nodes[0], &nodes[1], &back]).await;
}

/// A sum that is one too large on one of the replicas.
struct Drifts {
    sum: u64,
    by: u64,
}

impl StateMachine for Drifts {
    type Command = u64;
    type Query = ();
    type Response = u64;
    type Snapshot = u64;

    fn apply(&mut self, _: &mut ApplyContext, n: u64) -> u64 {
        self.sum += n + self.by;
        n
    }
    fn query(&self, (): ()) -> u64 {
        self.sum
    }
    fn snapshot(&self) -> u64 {
        self.sum
    }
    fn restore(&mut self, state: u64) {
        self.sum = state;
    }
    fn digest(&self) -> Option<u64> {
        Some(self.sum)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_wrong_after_every_repair_stops_and_the_others_go_on() {
    let network = MemoryNetwork::new();
    let members = [1, 2, 3].map(ReplicaId);
    let mut nodes = Vec::new();
    for id in members {
        let mut config = GroupConfig::new(members, Authority::Alone);
        config.limits.digest_every_entries = 5;
        let by = u64::from(id == ReplicaId(3));
        let node = Node::builder("drifts", id)
            .group(config)
            .transport(network.transport())
            .determinism_guard(Guard::Off)
            .state_machine(Drifts { sum: 0, by });
        nodes.push(node.start().await.unwrap());
    }
    let client = Client::<Drifts>::new(LocalLink::new(&nodes[..2]));
    let gives_up = || nodes[2].status().protocol.waiting_for.contains("in a row");
    let written = AtomicU64::new(0);
    until("it gives up", async || {
        written.fetch_add(1, Relaxed);
        assert_eq!(client.execute(1).await, Ok(1));
        gives_up()
    })
    .await;
    assert_eq!(client.execute(1).await, Ok(1), "the others go on");
    let sum = client.query(Read::Linearizable, ()).await;
    assert_eq!(sum, Ok(written.into_inner() + 1));
}
