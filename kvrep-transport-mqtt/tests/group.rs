//! A whole group through a broker: it serves, it survives the loss of its primary, its clients find it.

mod common;

use common::{AnyBroker, Mosquitto, PATIENCE, prefix, until};
use kvrep_core::node::{Client, ClientError, ClientOptions, Node};
use kvrep_core::transport::Transport;
use kvrep_core::{Fold, Read, ReplicaId};
use kvrep_transport_mqtt::{MqttConfig, MqttGroupLink, MqttTransport, Standing, connect};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

type Sum = Fold<i64, i64>;

const MEMBERS: [ReplicaId; 3] = [ReplicaId(1), ReplicaId(2), ReplicaId(3)];

async fn start(group: &str, id: ReplicaId, config: &MqttConfig) -> Node {
    Node::builder(group, id)
        .members(MEMBERS)
        .transport(MqttTransport::new(config.clone()))
        .shutdown_within(Duration::from_secs(1))
        .state_machine(Sum::new(0, |sum, by| *sum += by))
        .start()
        .await
        .unwrap()
}

async fn group(config: &MqttConfig) -> Vec<Node> {
    let mut nodes = Vec::new();
    for id in MEMBERS {
        nodes.push(start("sums", id, config).await);
    }
    until("all three are in sync", || {
        let statuses = nodes.iter().map(|node| node.status().protocol);
        let mut serving = statuses.filter(|status| status.serving);
        serving.any(|s| s.configuration.is_some_and(|c| c.in_sync.len() == 3))
    })
    .await;
    nodes
}

fn patient() -> ClientOptions {
    let mut options = ClientOptions::default();
    options.deadline = PATIENCE;
    options
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_serves_and_goes_on_without_its_primary_over_every_broker() {
    for broker in AnyBroker::all() {
        let config = broker.config().prefix(prefix());
        let mut nodes = group(&config).await;
        let link = MqttGroupLink::new("sums", config.clone());
        let client = Arc::new(Client::<Sum>::with_options(link, patient()));
        let calls: Vec<_> = (0..100)
            .map(|_| {
                let client = Arc::clone(&client);
                tokio::spawn(async move { client.execute(1).await.unwrap() })
            })
            .collect();
        for call in calls {
            call.await.unwrap();
        }
        assert_eq!(client.query(Read::Linearizable, ()).await.unwrap(), 100);

        let primary = nodes.iter().position(|n| n.status().protocol.serving);
        nodes.remove(primary.unwrap()).shutdown().await.unwrap();
        assert_eq!(client.execute(1).await.unwrap(), 101);
        for node in nodes {
            timeout(PATIENCE, node.shutdown()).await.unwrap().unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_goes_on_when_its_broker_comes_back() {
    let Some(mut broker) = Mosquitto::start("max_queued_messages 0") else {
        return;
    };
    let config = broker.config().prefix(prefix());
    let nodes = group(&config).await;
    let link = MqttGroupLink::new("sums", config.clone());
    let client = Client::<Sum>::with_options(link, patient());
    assert_eq!(client.execute(1).await.unwrap(), 1);
    for round in 2..5 {
        broker.restart();
        assert_eq!(client.execute(1).await.unwrap(), round);
    }
    for node in nodes {
        timeout(PATIENCE, node.shutdown()).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn two_groups_share_a_broker_without_a_prefix_of_their_own() {
    let broker = AnyBroker::embedded();
    let mut nodes = Vec::new();
    for name in ["one", "two"] {
        let node = Node::builder(name, ReplicaId(1))
            .transport(MqttTransport::new(broker.config()))
            .state_machine(Sum::new(0, |sum, by| *sum += by));
        nodes.push(node.start().await.unwrap());
    }
    for (name, by) in [("one", 1), ("two", 2)] {
        let client = connect::<Sum>(name, broker.config());
        assert_eq!(client.execute(by).await.unwrap(), by);
    }
}

#[tokio::test]
async fn a_client_says_why_it_reaches_nobody() {
    let broker = AnyBroker::embedded();
    let why = |config: MqttConfig| async move {
        let mut options = ClientOptions::default();
        options.deadline = Duration::from_millis(700);
        let link = MqttGroupLink::new("sums", config);
        let client = Client::<Sum>::with_options(link, options);
        match client.execute(1).await.unwrap_err() {
            ClientError::Unavailable { last, .. } => last,
            other => panic!("{other:?}"),
        }
    };
    let said = why(broker.config().prefix(prefix())).await;
    assert!(said.contains("no replica of this group"), "{said}");
    let nowhere = common::free_address().to_string();
    let said = why(MqttConfig::new(nowhere.as_str())).await;
    assert!(
        said.contains("nobody listens at") && said.contains(&nowhere),
        "{said}"
    );
    let said = why(MqttConfig::new("no port")).await;
    assert!(said.contains("HOST:PORT"), "{said}");
}

#[tokio::test]
async fn a_transport_waits_for_a_broker_that_is_not_there_and_says_so() {
    let nowhere = common::free_address().to_string();
    let transport = Arc::new(MqttTransport::new(MqttConfig::new(nowhere.as_str())));
    let node = Node::builder("sums", ReplicaId(1))
        .transport(Arc::clone(&transport))
        .state_machine(Sum::new(0, |sum, by| *sum += by));
    let node = node.start().await.unwrap();
    until("it was tried", || {
        matches!(transport.standing(), Standing::Connecting(Some(_)))
    })
    .await;
    let why = transport.connected(Duration::ZERO).await.unwrap_err();
    assert!(
        why.contains("nobody listens at") && why.contains(&nowhere),
        "{why}"
    );
    timeout(PATIENCE, node.shutdown()).await.unwrap().unwrap();
    assert_eq!(transport.standing(), Standing::Closed);
    assert!(transport.connected(Duration::ZERO).await.is_err());
    assert_eq!(transport.counters().frames_sent, 0);
}
