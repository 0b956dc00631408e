//! Groups of real nodes over the memory transport.

mod support;

use kvrep_core::Read;
use kvrep_core::transport::memory::MemoryNetwork;
use std::collections::BTreeSet;
use support::{client, primary, replica, three, until, until_equal};

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
