//! State machines that are not deterministic end their node, with words that help.

mod support;

use kvrep_core::node::{Guard, Node, NodeBuilder};
use kvrep_core::state_machine::encode;
use kvrep_core::{ApplyContext, ReplicaId, StateMachine, client_wire::Op};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use support::until;
use tokio::time::{Instant, timeout};

static CALLS: AtomicU64 = AtomicU64::new(0);

/// Numbers commands from a global variable.
struct Global(u64);

impl StateMachine for Global {
    type Command = u64;
    type Query = ();
    type Response = u64;
    type Snapshot = u64;

    fn apply(&mut self, _: &mut ApplyContext, _: u64) -> u64 {
        self.0 = CALLS.fetch_add(1, Relaxed);
        self.0
    }
    fn query(&self, (): ()) -> u64 {
        self.0
    }
    fn snapshot(&self) -> u64 {
        self.0
    }
    fn restore(&mut self, state: u64) {
        self.0 = state;
    }
}

/// Answers with the first key of a hash map.
#[allow(clippy::disallowed_types, reason = "the mistake that is to be found")]
#[derive(Default)]
struct HashOrder(std::collections::HashMap<u64, u64>);

impl StateMachine for HashOrder {
    type Command = u64;
    type Query = ();
    type Response = u64;
    type Snapshot = BTreeMap<u64, u64>;

    fn apply(&mut self, _: &mut ApplyContext, key: u64) -> u64 {
        self.0.insert(key, key);
        self.0.keys().next().copied().unwrap_or(0)
    }
    fn query(&self, (): ()) -> u64 {
        0
    }
    fn snapshot(&self) -> BTreeMap<u64, u64> {
        self.0.iter().map(|(k, v)| (*k, *v)).collect()
    }
    fn restore(&mut self, state: BTreeMap<u64, u64>) {
        self.0 = state.into_iter().collect();
    }
}

fn alone(machine: impl StateMachine) -> NodeBuilder {
    Node::builder("guarded", ReplicaId(1)).state_machine(machine)
}

/// Sends commands until the node has ended; why it did.
async fn end_of(builder: NodeBuilder) -> String {
    let node = builder.start().await.unwrap();
    until("it serves", async || node.status().protocol.serving).await;
    for number in 0..64_u64 {
        let deadline = Instant::now() + Duration::from_secs(1);
        let command = Op::Plain(encode(&number));
        if node.call(command, deadline).await.is_err() {
            break;
        }
    }
    let ended = timeout(Duration::from_secs(20), node.wait()).await;
    ended.expect("it ends").expect_err("by itself").to_string()
}

const EVERY_COMMAND: Guard = Guard::Sampled {
    bytes_per_command: 1 << 20,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_with_a_global_counter_is_stopped_at_its_first_command() {
    let why = end_of(alone(Global(0)).determinism_guard(EVERY_COMMAND)).await;
    // The first entry is the primary's own.
    assert!(why.contains("entry @2"), "{why}");
    assert!(why.contains("the responses differ"), "{why}");
    assert!(why.contains("a global or thread-local variable"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_walks_through_a_hash_map_is_stopped() {
    let machine = alone(HashOrder::default());
    let why = end_of(machine.determinism_guard(EVERY_COMMAND)).await;
    assert!(why.contains("the order of a HashMap"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_guard_nothing_is_carried_out_twice() {
    let builder = alone(Global(0)).determinism_guard(Guard::Off);
    let node = builder.start().await.unwrap();
    until("it serves", async || node.status().protocol.serving).await;
    for number in 0..10_u64 {
        let deadline = Instant::now() + Duration::from_secs(10);
        let command = Op::Plain(encode(&number));
        node.call(command, deadline).await.unwrap();
    }
    node.shutdown().await.unwrap();
}
