//! What the tests of the driver share.
#![allow(
    dead_code,
    reason = "each test file uses its part of what they have in common"
)]

pub(crate) mod gate;

use kvrep_core::node::{Client, ClientOptions, LocalLink, Node, NodeBuilder};
use kvrep_core::transport::memory::MemoryNetwork;
use kvrep_core::{ApplyContext, Authority, GroupConfig, ReplicaId, StateMachine, Timing};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// Keeps every number it was given, in order: shows what was applied twice or not at all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger(pub(crate) Vec<u64>);

impl StateMachine for Ledger {
    type Command = u64;
    type Query = ();
    type Response = Vec<u64>;
    type Snapshot = Vec<u64>;

    /// Answers with the length of the ledger.
    fn apply(&mut self, _: &mut ApplyContext, number: u64) -> Vec<u64> {
        self.0.push(number);
        vec![self.0.len() as u64]
    }

    fn query(&self, (): ()) -> Vec<u64> {
        self.0.clone()
    }

    fn snapshot(&self) -> Vec<u64> {
        self.0.clone()
    }

    fn restore(&mut self, state: Vec<u64>) {
        self.0 = state;
    }
}

pub(crate) const GROUP: &str = "ledger";

/// Three replicas with quick timing, so that a takeover takes a fifth of a second.
pub(crate) fn group() -> GroupConfig {
    let mut group = GroupConfig::new((1..=3).map(ReplicaId), Authority::Alone);
    group.timing = Timing {
        heartbeat_every: Duration::from_millis(20),
        suspect_after: Duration::from_millis(200),
        probe_window: Duration::from_millis(20),
        resend_every: Duration::from_millis(50),
    };
    group
}

/// One of the group over `network`.
pub(crate) fn replica(network: &MemoryNetwork, id: u32) -> NodeBuilder {
    Node::builder(GROUP, ReplicaId(id))
        .group(group())
        .transport(network.transport())
        .state_machine(Ledger::default())
}

/// All three, in memory.
pub(crate) async fn three(network: &MemoryNetwork) -> Vec<Node> {
    let mut nodes = Vec::new();
    for id in 1..=3 {
        nodes.push(replica(network, id).start().await.unwrap());
    }
    nodes
}

pub(crate) fn client(nodes: &[Node]) -> (Client<Ledger>, Arc<LocalLink>) {
    let link = Arc::new(LocalLink::new(nodes));
    let mut options = ClientOptions::default();
    options.deadline = Duration::from_secs(20);
    (Client::shared(link.clone(), options), link)
}

/// Waits until `condition` holds.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(20), waiting)
        .await
        .is_err()
    {
        panic!("waited too long until {what}");
    }
}

/// Waits until all of these replicas hold the same.
pub(crate) async fn until_equal(nodes: &[&Node]) {
    until("all replicas hold the same", async || {
        let mut digests = Vec::new();
        for node in nodes {
            digests.push(node.digest().await);
        }
        digests[0].is_some() && digests.iter().all(|d| *d == digests[0])
    })
    .await;
}

/// The position in `nodes` of the one that serves as primary.
pub(crate) async fn primary(nodes: &[Node]) -> usize {
    let mut found = 0;
    until("there is a primary", async || {
        nodes
            .iter()
            .position(|n| n.status().protocol.serving)
            .is_some()
    })
    .await;
    if let Some(at) = nodes.iter().position(|n| n.status().protocol.serving) {
        found = at;
    }
    found
}
