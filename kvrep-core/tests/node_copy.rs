//! Copies of a running group, and groups that begin from one.

mod support;

use kvrep_core::node::{Client, Feed, LocalLink, Node, StartError};
use kvrep_core::storage::copy::{CopyError, FromCopyError};
use kvrep_core::transport::memory::MemoryNetwork;
use kvrep_core::{GroupConfig, Read};
use std::path::Path;
use std::sync::Arc;
use support::{Ledger, client, group, primary, replica, three, until, until_equal};

fn ledger(ledger: &Ledger) -> Vec<u64> {
    ledger.0.clone()
}

/// A group that forgets its log soon, with a directory for each replica.
fn forgetful() -> GroupConfig {
    let mut config = group();
    config.limits.snapshot_log_entries = 100;
    config.limits.retained_entries = 200;
    config
}

async fn on_disk(network: &MemoryNetwork, scratch: &Path) -> Vec<Node> {
    let mut nodes = Vec::new();
    for id in 1..=3 {
        let node = replica(network, id)
            .group(forgetful())
            .data_dir(scratch.join(id.to_string()));
        nodes.push(node.start().await.unwrap());
    }
    nodes
}

async fn write(client: &Client<Ledger>, numbers: impl Iterator<Item = u64>) {
    let writes: Vec<_> = numbers
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move { client.execute(n).await.unwrap() })
        })
        .collect();
    for write in writes {
        write.await.unwrap();
    }
}

async fn until_in_sync(nodes: &[Node], who: &Node) {
    let (id, store) = (who.identity().replica, who.identity().store);
    until("it counts again", async || {
        let statuses = nodes.iter().map(|n| n.status().protocol);
        let mut serving = statuses.filter(|s| s.serving);
        serving.any(|s| s.configuration.is_some_and(|c| c.has(id, store)))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_whose_replicas_are_all_destroyed_goes_on_from_a_copy_made_under_writes() {
    let (network, scratch) = (MemoryNetwork::new(), tempfile::tempdir().unwrap());
    let nodes = three(&network).await;
    let first = client(&nodes).0;
    let mut feed = nodes[1].subscribe();
    let writing = tokio::spawn({
        let first = first.clone();
        async move { write(&first, 0..400).await }
    });
    until("some were written", async || {
        nodes[1].status().protocol.applied.0 > 50
    })
    .await;
    let backup = scratch.path().join("backup");
    let info = nodes[1].copy_to(&backup).await.unwrap();
    writing.await.unwrap();
    assert_eq!(info.replica, nodes[1].identity().replica);
    drop(nodes); // a copy is all that is left
    let mut upto_copy = Vec::new();
    while let Some(Feed::Applied(applied)) = feed.next().await {
        if applied.index <= info.last.index {
            upto_copy.push(applied.decode::<Ledger>().unwrap().0);
        }
    }

    let network = MemoryNetwork::new();
    let restored = replica(&network, 2).from_copy(&backup).forced();
    let mut nodes = vec![restored.start().await.unwrap()];
    let (found, token) = nodes[0].read_local(Read::Local, ledger).await.unwrap();
    assert_eq!(found, upto_copy);
    assert_eq!(token.index, info.last.index);
    for id in [1, 3] {
        nodes.push(replica(&network, id).start().await.unwrap());
    }
    until_in_sync(&nodes, &nodes[1]).await;
    until_in_sync(&nodes, &nodes[2]).await;
    let again = Client::<Ledger>::new(LocalLink::new(&nodes));
    again.execute(1_000).await.unwrap();
    upto_copy.push(1_000);
    assert_eq!(
        again.query(Read::Linearizable, ()).await.unwrap(),
        upto_copy
    );
    until_equal(&nodes.iter().collect::<Vec<_>>()).await;
    let transfers: Vec<u64> = nodes.iter().map(|n| n.status().node.transfers).collect();
    assert_eq!(transfers[0], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_replica_that_starts_from_a_copy_is_sent_only_what_came_after() {
    let (network, scratch) = (MemoryNetwork::new(), tempfile::tempdir().unwrap());
    let mut nodes = on_disk(&network, scratch.path()).await;
    let (client, link) = client(&nodes);
    let at = (primary(&nodes).await + 1) % 3;
    // A log is cut when a snapshot is ready, and only as far as everybody is: so again, until none reaches back to the
    // beginning. A backup hears of commits later than the clients: a copy made before it has everything may end before the
    // primary's log begins later on, and then a transfer is right.
    let mut written = 0;
    while nodes.iter().any(|n| n.status().protocol.log_start.0 == 0) {
        assert!(written < 20_000, "no log is ever cut");
        write(&client, written..written + 600).await;
        written += 600;
        until_equal(&nodes.iter().collect::<Vec<_>>()).await;
    }
    let backup = scratch.path().join("backup");
    let info = nodes[(at + 1) % 3].copy_to(&backup).await.unwrap();
    let wiped = nodes.swap_remove(at);
    let (id, old_store) = (wiped.identity().replica.0, wiped.identity().store);
    wiped.shutdown().await.unwrap();
    write(&client, written..written + 50).await;

    for (copy, transfers) in [(Some(&backup), 0), (None, 1)] {
        let data = scratch.path().join(id.to_string());
        std::fs::remove_dir_all(&data).unwrap();
        let mut builder = replica(&network, id).group(forgetful()).data_dir(&data);
        if let Some(copy) = copy {
            builder = builder.from_copy(copy);
        }
        let back = builder.start().await.unwrap();
        assert_ne!(back.identity().store, old_store, "it is another member");
        link.add(&back);
        until_in_sync(&nodes, &back).await;
        until_equal(&[&nodes[0], &nodes[1], &back]).await;
        let known = back.digest().await.unwrap().applied.index;
        until("its status tells all that", async || {
            back.status().protocol.applied >= known
        })
        .await;
        assert_eq!(back.status().node.transfers, transfers);
        if copy.is_some() {
            assert!(back.status().protocol.log_start >= info.last.index);
        }
        back.shutdown().await.unwrap();
    }
    // A restart with the same arguments: the copy is for an empty directory.
    let data = scratch.path().join(id.to_string());
    let again = replica(&network, id).group(forgetful()).data_dir(&data);
    let refused = again.from_copy(&backup).start().await.unwrap_err();
    assert!(
        matches!(refused, StartError::Copy(FromCopyError::NotEmpty { .. })),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_with_a_copy_that_is_not_forced_begins_no_history() {
    let (network, scratch) = (MemoryNetwork::new(), tempfile::tempdir().unwrap());
    let nodes = three(&network).await;
    write(&client(&nodes).0, 0..10).await;
    let backup = scratch.path().join("backup");
    nodes[2].copy_to(&backup).await.unwrap();
    drop(nodes);

    let network = MemoryNetwork::new();
    let mut nodes = Vec::new();
    for id in 1..=2 {
        nodes.push(replica(&network, id).start().await.unwrap());
    }
    let seeded = replica(&network, 3).from_copy(&backup);
    nodes.push(seeded.start().await.unwrap());
    until("they say why they wait", async || {
        let waits = |n: &Node| n.status().protocol.waiting_for;
        nodes
            .iter()
            .any(|n| waits(n).contains("no holder of the state remains"))
    })
    .await;
    assert!(nodes.iter().all(|n| !n.status().protocol.serving));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_copied_or_used_is_refused_with_the_reason() {
    let (network, scratch) = (MemoryNetwork::new(), tempfile::tempdir().unwrap());
    let backup = scratch.path().join("backup");
    let witness = Node::witness(support::GROUP)
        .transport(network.transport())
        .start();
    let nothing = witness.await.unwrap().copy_to(&backup).await;
    assert!(matches!(nothing, Err(CopyError::Nothing)), "{nothing:?}");
    let nodes = three(&MemoryNetwork::new()).await;
    write(&client(&nodes).0, 0..5).await;
    nodes[0].copy_to(&backup).await.unwrap();
    let twice = nodes[0].copy_to(&backup).await.unwrap_err();
    assert!(twice.to_string().contains("is not empty"), "{twice}");

    let start = async |builder: kvrep_core::node::NodeBuilder| {
        let error = builder.start().await.expect_err("it is refused");
        error.to_string()
    };
    let other = Node::builder("another", kvrep_core::ReplicaId(1))
        .state_machine(Ledger::default())
        .from_copy(&backup);
    assert!(start(other).await.contains("check the group's name"));
    let mine = |copy: &Path| replica(&network, 1).from_copy(copy);
    let missing = start(mine(&scratch.path().join("nowhere"))).await;
    assert!(missing.contains("holds no copy"), "{missing}");
    let file = backup.join("kvrep.copy");
    let mut bytes = std::fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let damaged = start(mine(&backup)).await;
    assert!(damaged.contains("does not match its digest"), "{damaged}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_copies_at_once_are_one_copy_and_one_refusal_or_two_copies() {
    let scratch = tempfile::tempdir().unwrap();
    let network = MemoryNetwork::new();
    let nodes = Arc::new(three(&network).await);
    write(&client(&nodes).0, 0..5).await;
    let copies: Vec<_> = (0..8)
        .map(|n| {
            let (nodes, to) = (Arc::clone(&nodes), scratch.path().join(n.to_string()));
            tokio::spawn(async move { nodes[0].copy_to(to).await })
        })
        .collect();
    let mut written = 0;
    for copy in copies {
        match copy.await.unwrap() {
            Ok(_) => written += 1,
            Err(CopyError::Busy) => {}
            Err(e) => panic!("{e}"),
        }
    }
    assert!(written > 0);
}
