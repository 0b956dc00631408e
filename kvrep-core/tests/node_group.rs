//! Groups of real nodes over the memory transport.

mod support;

use kvrep_core::node::Node;
use kvrep_core::protocol::Role;
use kvrep_core::transport::memory::MemoryNetwork;
use kvrep_core::{Authority, Read};
use std::collections::BTreeSet;
use support::{client, group, primary, replica, three, until, until_equal};

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_carry_out_commands_and_answer_every_kind_of_read() {
    let network = MemoryNetwork::new();
    let nodes = three(&network).await;
    let (client, _) = client(&nodes);
    for n in 0..100 {
        assert_eq!(client.execute(n).await.unwrap(), [n + 1]);
    }
    let all: Vec<u64> = (0..100).collect();
    assert_eq!(client.query(Read::Linearizable, ()).await.unwrap(), all);
    for _ in 0..6 {
        let read = Read::AtLeast(client.token());
        assert_eq!(client.query(read, ()).await.unwrap(), all);
    }
    let local = client.query(Read::Local, ()).await.unwrap();
    assert!(all.starts_with(&local));
    until_equal(&nodes.iter().collect::<Vec<_>>()).await;
    for node in nodes {
        node.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_takes_over_and_the_client_goes_on_without_doing_anything_twice() {
    let network = MemoryNetwork::new();
    let mut nodes = three(&network).await;
    let (client, link) = client(&nodes);
    client.execute(u64::MAX).await.unwrap();
    let mut writers = Vec::new();
    for writer in 0..8_u64 {
        let client = client.clone();
        writers.push(tokio::spawn(async move {
            for n in 0..300 {
                client.execute(writer * 1_000 + n).await.unwrap();
            }
        }));
    }
    until("some were written", async || {
        nodes[0].status().protocol.applied.0 > 100
    })
    .await;
    let old = primary(&nodes).await;
    drop(nodes.swap_remove(old));
    for writer in writers {
        writer.await.unwrap();
    }
    let ledger = client.query(Read::Linearizable, ()).await.unwrap();
    let distinct: BTreeSet<u64> = ledger.iter().copied().collect();
    assert_eq!((ledger.len(), distinct.len()), (2_401, 2_401));

    // The one that was lost comes back empty, and catches up while it writes.
    let id = 6 - nodes.iter().map(|n| n.identity().replica.0).sum::<u32>();
    let back = replica(&network, id).start().await.unwrap();
    link.add(&back);
    client.execute(5_000).await.unwrap();
    nodes.push(back);
    until("it is in sync again", async || {
        let status = nodes[2].status().protocol;
        status.configuration.is_some_and(|c| c.in_sync.len() == 3)
    })
    .await;
    until_equal(&nodes.iter().collect::<Vec<_>>()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_cut_off_is_replaced_through_the_witness_and_follows_when_it_is_back() {
    let network = MemoryNetwork::new();
    let mut config = group();
    config.authority = Authority::Witness;
    let witness = Node::witness(support::GROUP)
        .transport(network.transport())
        .start()
        .await
        .unwrap();
    let mut nodes = Vec::new();
    for id in 1..=3 {
        let builder = replica(&network, id).group(config.clone());
        nodes.push(builder.start().await.unwrap());
    }
    let (client, _) = client(&nodes);
    for n in 0..20 {
        client.execute(n).await.unwrap();
    }
    let old = primary(&nodes).await;
    network.isolate(nodes[old].identity().replica);
    for n in 20..40 {
        client.execute(n).await.unwrap();
    }
    network.heal_all();
    until_equal(&nodes.iter().collect::<Vec<_>>()).await;
    let ledger = client.query(Read::Linearizable, ()).await.unwrap();
    let distinct: BTreeSet<u64> = ledger.iter().copied().collect();
    assert_eq!((ledger.len(), distinct.len()), (40, 40));
    assert_eq!(witness.status().protocol.role, Role::Witness);
    for node in nodes {
        node.shutdown().await.unwrap();
    }
    witness.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_on_disk_survives_the_end_of_all_and_a_wiped_member_gets_a_snapshot() {
    let network = MemoryNetwork::new();
    let dir = tempfile::tempdir().unwrap();
    let mut config = group();
    config.limits.snapshot_log_entries = 100;
    config.limits.retained_entries = 20;
    let start = |id: u32| {
        replica(&network, id)
            .group(config.clone())
            .data_dir(dir.path().join(id.to_string()))
            .start()
    };
    let mut nodes = Vec::new();
    for id in 1..=3 {
        nodes.push(start(id).await.unwrap());
    }
    let (first_client, _) = client(&nodes);
    let writes: Vec<_> = (0..500)
        .map(|n| {
            let client = first_client.clone();
            tokio::spawn(async move { client.execute(n).await.unwrap() })
        })
        .collect();
    for write in writes {
        write.await.unwrap();
    }
    let before = first_client.query(Read::Linearizable, ()).await.unwrap();
    for node in nodes {
        node.shutdown().await.unwrap();
    }

    let mut nodes = Vec::new();
    for id in 1..=3 {
        nodes.push(start(id).await.unwrap());
    }
    let (client, link) = client(&nodes);
    assert_eq!(
        client.query(Read::Linearizable, ()).await.unwrap(),
        before,
        "what was acknowledged is there"
    );
    let at = (primary(&nodes).await + 1) % 3;
    let wiped = nodes.swap_remove(at);
    let id = wiped.identity().replica.0;
    wiped.shutdown().await.unwrap();
    std::fs::remove_dir_all(dir.path().join(id.to_string())).unwrap();
    client.execute(1_000).await.unwrap();
    let back = start(id).await.unwrap();
    link.add(&back);
    nodes.push(back);
    until("the wiped one is in sync again", async || {
        let status = nodes[2].status().protocol;
        status.configuration.is_some_and(|c| c.in_sync.len() == 3)
    })
    .await;
    until_equal(&nodes.iter().collect::<Vec<_>>()).await;
    let ledger = client.query(Read::AtLeast(client.token()), ()).await;
    assert_eq!(ledger.unwrap().len(), 501);
    for node in nodes {
        node.shutdown().await.unwrap();
    }
}
