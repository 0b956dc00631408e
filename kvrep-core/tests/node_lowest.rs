//! The lowest-id scheme on real nodes: one answers, the next takes over, the returned one answers again.

use kvrep_core::detector::ticks::TickConfig;
use kvrep_core::node::{Client, ClientOptions, LocalLink, Node};
use kvrep_core::protocol::passive::{Options, Passive};
use kvrep_core::transport::memory::MemoryNetwork;
use kvrep_core::{ApplyContext, Fold, Read, ReplicaId, StateMachine};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Says what was asked, and who says it.
struct Echo(u32);

impl StateMachine for Echo {
    type Command = ();
    type Query = String;
    type Response = (u32, String);
    type Snapshot = ();

    const TAKES_COMMANDS: bool = false;

    fn apply(&mut self, _: &mut ApplyContext, (): ()) -> Self::Response {
        (self.0, String::new())
    }
    fn query(&self, query: String) -> Self::Response {
        (self.0, query)
    }
    fn snapshot(&self) {}
    fn restore(&mut self, (): ()) {}
}

async fn start(network: &MemoryNetwork, id: u32) -> Node {
    let ticks = TickConfig {
        period: Duration::from_millis(50),
        ..TickConfig::default()
    };
    Node::builder("echo", ReplicaId(id))
        .members((1..=3).map(ReplicaId))
        .transport(network.transport())
        .lowest_id(ticks)
        .state_machine(Echo(id))
        .start()
        .await
        .unwrap()
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn the_lowest_that_lives_answers() {
    let network = MemoryNetwork::new();
    let mut nodes = Vec::new();
    for id in 1..=3 {
        nodes.push(start(&network, id).await);
    }
    let client = |nodes: &[Node]| {
        let mut options = ClientOptions::default();
        options.deadline = Duration::from_secs(30);
        Client::<Echo>::with_options(LocalLink::new(nodes), options)
    };
    let asked = async |nodes: &[Node], n: u32| {
        let client = client(nodes);
        let answer = client.query(Read::Linearizable, n.to_string());
        answer.await.unwrap()
    };
    until("one answers", || nodes[0].status().protocol.serving).await;
    assert_eq!(asked(&nodes, 1).await, (1, "1".into()));
    nodes.remove(0).shutdown().await.unwrap();
    assert_eq!(asked(&nodes, 2).await, (2, "2".into()));
    nodes.push(start(&network, 1).await);
    until("the lowest answers again", || {
        let serving: Vec<_> = nodes.iter().map(|n| n.status().protocol.serving).collect();
        serving == [false, false, true]
    })
    .await;
    assert_eq!(asked(&nodes, 3).await, (1, "3".into()));
    // Any other one is as good, for whoever asks for it.
    let second = client(&nodes[..1]);
    let anybody = second.query(Read::Local, "any".into());
    assert_eq!(anybody.await.unwrap(), (2, "any".into()));
}

/// The scheme that is named last counts, with all that belongs to it.
#[tokio::test]
async fn a_protocol_of_ones_own_named_after_lowest_id_takes_commands() {
    let node = Node::builder("sums", ReplicaId(1))
        .lowest_id(TickConfig::default())
        .protocol(|context, recovered| {
            let options = Options::new(context.replica, context.config, context.seed);
            Passive::new(options, recovered)
        })
        .state_machine(Fold::new(0_i64, |sum, by: i64| *sum += by))
        .start()
        .await
        .unwrap();
    let client = Client::<Fold<i64, i64>>::new(LocalLink::new([&node]));
    assert_eq!(client.execute(2).await.unwrap(), 2);
    node.shutdown().await.unwrap();
}
