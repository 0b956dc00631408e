//! The active scheme without a broker: its order is the log of the passive scheme, over TCP.

use bytes::Bytes;
use kvrep_core::node::{
    ActiveBuilder, ActiveNode, Client, ClientError, ClientOptions, Node, NodeBuilder,
};
use kvrep_core::protocol::active::{Create, Timing};
use kvrep_core::stream::log::{LogLink, LogStream};
use kvrep_core::testing::active::{all_equal, all_serve};
use kvrep_core::{Fold, Limits, Read, ReplicaId};
use kvrep_transport_tcp::{TcpConfig, TcpGroupLink, TcpTransport};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

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

    fn log(&self, id: ReplicaId) -> NodeBuilder {
        let peers = || MEMBERS.into_iter().zip(self.addresses.iter().cloned());
        let own = peers().find(|(member, _)| *member == id).unwrap().1;
        Node::builder("sums/log", id)
            .members(MEMBERS)
            .transport(TcpTransport::new(TcpConfig::new(own).peers(peers())))
    }

    fn active(&self, id: ReplicaId) -> ActiveBuilder {
        ActiveNode::builder("sums", id)
            .members(MEMBERS)
            .timing(Timing {
                suspect_after: Duration::from_millis(1_500),
                genesis_after: Duration::from_millis(3_000),
                keep_requests: Duration::from_secs(15),
                ..Timing::default()
            })
            .confirmations(self.confirmations)
    }

    async fn start(&self, id: ReplicaId, create: Create) -> ActiveNode {
        self.active(id)
            .create(create)
            .stream(LogStream::new(self.log(id), self.link()))
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
    all_serve(&nodes, PATIENCE).await;
    let client = group.client();
    add(&client, 100).await;
    drop(nodes.remove(dies));
    add(&client, 100).await;
    nodes.push(group.start(MEMBERS[dies], Create::Never).await);
    all_serve(&nodes, PATIENCE).await;
    add(&client, 100).await;
    let sum = client.query(Read::Linearizable, ()).await.unwrap();
    assert_eq!(sum, 300, "each was carried out once");
    all_equal(&nodes, PATIENCE).await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_for_the_log_is_refused_or_left_out_and_everything_else_goes_on() {
    type Echo = Fold<Bytes, Bytes>;
    const TEXT: usize = 3 << 10;

    let group = Group::new(1);
    let limits = Limits {
        command_bytes_max: 4 << 10,
        ..Limits::default()
    };
    let mut nodes = Vec::new();
    for id in MEMBERS {
        let log = group.log(id).limits(limits);
        let builder = group
            .active(id)
            .stream(LogStream::new(log, group.link()))
            .state_machine(Echo::new(Bytes::new(), |last, next| *last = next));
        nodes.push(builder.start().await.unwrap());
    }
    all_serve(&nodes, PATIENCE).await;
    let mut options = ClientOptions::default();
    options.deadline = PATIENCE;
    let link = LogLink::new("sums", group.link());
    let client = Arc::new(Client::<Echo>::with_options(link, options));

    let refused = client.execute(vec![0; 2 * TEXT].into()).await;
    let large = matches!(
        refused,
        Err(ClientError::TooLarge {
            bytes_max: 4096,
            ..
        })
    );
    assert!(large, "{refused:?}");
    // Their answers are put into the log together, where no two have room.
    let calls: Vec<_> = (0..64)
        .map(|n| {
            let client = Arc::clone(&client);
            tokio::spawn(async move { client.execute(vec![n; TEXT].into()).await.unwrap() })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap().len(), TEXT);
    }
    all_equal(&nodes, PATIENCE).await;
}
