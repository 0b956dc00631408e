//! The active scheme without a broker: its order is the log of the passive scheme, over TCP.

use kvrep_core::node::{ActiveNode, Client, ClientOptions, Node};
use kvrep_core::protocol::active::{Create, Timing};
use kvrep_core::stream::log::{LogLink, LogStream};
use kvrep_core::{Fold, Read, ReplicaId};
use kvrep_transport_tcp::{TcpConfig, TcpGroupLink, TcpTransport};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

type Sum = Fold<i64, i64>;

const MEMBERS: [ReplicaId; 3] = [ReplicaId(1), ReplicaId(2), ReplicaId(3)];
const PATIENCE: Duration = Duration::from_secs(60);

struct Group {
    addresses: [String; 3],
    confirmations: usize,
}

impl Group {
    fn new(confirmations: usize) -> Self {
        let free = [(); 3].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        Self {
            addresses: free.map(|port| port.local_addr().unwrap().to_string()),
            confirmations,
        }
    }

    fn link(&self) -> TcpGroupLink {
        TcpGroupLink::new("sums/log", self.addresses.clone())
    }

    async fn start(&self, id: ReplicaId, create: Create) -> ActiveNode {
        let peers = || MEMBERS.into_iter().zip(self.addresses.iter().cloned());
        let own = peers().find(|(member, _)| *member == id).unwrap().1;
        let log = Node::builder("sums/log", id)
            .members(MEMBERS)
            .transport(TcpTransport::new(TcpConfig::new(own).peers(peers())));
        ActiveNode::builder("sums", id)
            .members(MEMBERS)
            .timing(Timing {
                suspect_after: Duration::from_millis(1_500),
                genesis_after: Duration::from_millis(3_000),
                keep_requests: Duration::from_secs(15),
                ..Timing::default()
            })
            .confirmations(self.confirmations)
            .create(create)
            .stream(LogStream::new(log, self.link()))
            .state_machine(Sum::new(0, |sum, by| *sum += by))
            .start()
            .await
            .unwrap()
    }

    fn client(&self) -> Arc<Client<Sum>> {
        let mut options = ClientOptions::default();
        options.deadline = PATIENCE;
        Arc::new(Client::with_options(
            LogLink::new("sums", self.link()),
            options,
        ))
    }
}

async fn all_serve(nodes: &[ActiveNode]) {
    let deadline = Instant::now() + PATIENCE;
    let serves = |node: &ActiveNode| {
        let status = node.status();
        status.serving && !status.holding
    };
    while !nodes.iter().all(serves) {
        let statuses: Vec<_> = nodes.iter().map(ActiveNode::status).collect();
        assert!(Instant::now() < deadline, "{statuses:#?}");
        sleep(Duration::from_millis(10)).await;
    }
}

async fn all_equal(nodes: &[ActiveNode]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut seen = BTreeSet::new();
        for node in nodes {
            let digest = node.digest().await.expect("it runs");
            seen.insert((digest.at, digest.chain, digest.digest));
        }
        if seen.len() == 1 {
            return;
        }
        assert!(Instant::now() < deadline, "{seen:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn add(client: &Arc<Client<Sum>>, times: usize) {
    let calls: Vec<_> = (0..times)
        .map(|_| {
            let client = Arc::clone(client);
            tokio::spawn(async move { client.execute(1).await.unwrap() })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
}

/// Whoever dies: the primary of the log, and the owner of half of the requests, or one that is neither.
async fn one_dies_and_comes_back(dies: usize, confirmations: usize) {
    let group = Group::new(confirmations);
    let mut nodes = Vec::new();
    for id in MEMBERS {
        nodes.push(group.start(id, Create::Allowed).await);
    }
    all_serve(&nodes).await;
    let client = group.client();
    add(&client, 100).await;
    drop(nodes.remove(dies));
    add(&client, 100).await;
    nodes.push(group.start(MEMBERS[dies], Create::Never).await);
    all_serve(&nodes).await;
    add(&client, 100).await;
    let sum = client.query(Read::Linearizable, ()).await.unwrap();
    assert_eq!(sum, 300, "each was carried out once");
    all_equal(&nodes).await;
    for node in nodes {
        node.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_member_may_die_and_come_back_and_nothing_is_lost_or_done_twice() {
    for dies in 0..3 {
        one_dies_and_comes_back(dies, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_it_is_where_two_confirm_each_answer() {
    one_dies_and_comes_back(0, 2).await;
}
