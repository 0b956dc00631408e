//! A whole group over multicast: it serves, it bears loss and disorder, it goes on without its primary, its clients find it.

mod common;

use common::{PATIENCE, config, until};
use kvrep_core::node::{Client, ClientError, ClientLink, ClientOptions, Node};
use kvrep_core::testing::impaired::{Impaired, Impairment};
use kvrep_core::transport::Transport;
use kvrep_core::{Fold, Read, ReplicaId};
use kvrep_transport_multicast::{MulticastConfig, MulticastGroupLink, MulticastTransport};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

type Sum = Fold<i64, i64>;

const MEMBERS: [ReplicaId; 3] = [ReplicaId(1), ReplicaId(2), ReplicaId(3)];

async fn start(id: ReplicaId, transport: impl Transport) -> Node {
    Node::builder("sums", id)
        .members(MEMBERS)
        .transport(transport)
        .shutdown_within(Duration::from_secs(1))
        .state_machine(Sum::new(0, |sum, by| *sum += by))
        .start()
        .await
        .unwrap()
}

async fn in_sync(nodes: &[Node], members: usize) {
    until("all are in sync", || {
        let statuses = nodes.iter().map(|node| node.status().protocol);
        let mut serving = statuses.filter(|status| status.serving);
        serving.any(|s| s.configuration.is_some_and(|c| c.in_sync.len() == members))
    })
    .await;
}

fn client(config: &MulticastConfig) -> Client<Sum> {
    let mut options = ClientOptions::default();
    options.deadline = PATIENCE;
    Client::with_options(MulticastGroupLink::new("sums", config.clone()), options)
}

async fn add_ones(client: &Arc<Client<Sum>>, n: u32) {
    let calls: Vec<_> = (0..n)
        .map(|_| {
            let client = Arc::clone(client);
            tokio::spawn(async move { client.execute(1).await.unwrap() })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_serves_and_goes_on_without_its_primary() {
    let config = config();
    let mut nodes = Vec::new();
    for id in MEMBERS {
        nodes.push(start(id, MulticastTransport::new(config.clone())).await);
    }
    in_sync(&nodes, 3).await;
    let client = Arc::new(client(&config));
    add_ones(&client, 200).await;
    assert_eq!(client.query(Read::Linearizable, ()).await.unwrap(), 200);

    let primary = nodes.iter().position(|n| n.status().protocol.serving);
    let gone = MEMBERS[primary.unwrap()];
    nodes.remove(primary.unwrap()).shutdown().await.unwrap();
    assert_eq!(client.execute(1).await.unwrap(), 201);
    nodes.push(start(gone, MulticastTransport::new(config.clone())).await);
    in_sync(&nodes, 3).await;
    assert_eq!(client.execute(1).await.unwrap(), 202);
    for node in nodes {
        timeout(PATIENCE, node.shutdown()).await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_bears_that_every_tenth_frame_is_lost_and_as_many_are_overtaken() {
    let config = config();
    let worse = Impairment {
        lost: 10,
        doubled: 5,
        overtaken: 10,
    };
    let transport = |id: ReplicaId| {
        let inner = MulticastTransport::new(config.clone());
        Impaired::new(inner, worse, 7 + u64::from(id.0))
    };
    let mut nodes = Vec::new();
    for id in MEMBERS {
        nodes.push(start(id, transport(id)).await);
    }
    in_sync(&nodes, 3).await;
    let client = Arc::new(client(&config));
    add_ones(&client, 200).await;
    // Each exactly once.
    assert_eq!(client.query(Read::Linearizable, ()).await.unwrap(), 200);
    let primary = nodes.iter().position(|n| n.status().protocol.serving);
    nodes.remove(primary.unwrap()).shutdown().await.unwrap();
    assert_eq!(client.execute(1).await.unwrap(), 201);
    until("both have the same", || {
        let [one, two] = &nodes[..] else {
            return false;
        };
        one.status().protocol.applied == two.status().protocol.applied
    })
    .await;
    for node in nodes {
        timeout(PATIENCE, node.shutdown()).await.unwrap().unwrap();
    }
}

/// Those that it met are backups, and name a primary that came later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_finds_a_primary_that_it_has_not_met() {
    let config = config();
    let start = |id| start(id, MulticastTransport::new(config.clone()));
    let mut nodes = vec![start(ReplicaId(2)).await, start(ReplicaId(3)).await];
    let mut options = ClientOptions::default();
    options.deadline = PATIENCE;
    let link = Arc::new(MulticastGroupLink::new("sums", config.clone()));
    let client = Client::<Sum>::with_options(Arc::clone(&link), options);
    let call = tokio::spawn(async move { client.execute(1).await });
    until("it has met two", || link.targets() == 2).await;
    nodes.push(start(ReplicaId(1)).await);
    assert_eq!(call.await.unwrap().unwrap(), 1);
    assert_eq!(link.targets(), 3);
    for node in nodes {
        timeout(PATIENCE, node.shutdown()).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_client_says_why_it_reaches_nobody() {
    let mut options = ClientOptions::default();
    options.deadline = Duration::from_millis(700);
    let link = MulticastGroupLink::new("sums", config());
    let client = Client::<Sum>::with_options(link, options);
    let ClientError::Unavailable { last, .. } = client.execute(1).await.unwrap_err() else {
        panic!("nothing was done");
    };
    assert!(last.contains("nobody of this group answers"), "{last}");
}
