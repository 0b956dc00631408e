//! Any scheme over any transport: one little state machine, one story a scheme (a crash, a return, and all are the same again), and a test for each pair.
//! The table is in the README of the repository.
//!
//! The active scheme carries out an ordered stream. A hub in memory and a broker keep one; over TCP and multicast the log of a passive group does
//! (`stream::log`).

mod common;

use common::{AnyBroker, PATIENCE, prefix};
use kvrep_core::detector::ticks::TickConfig;
use kvrep_core::node::{ActiveNode, Client, ClientLink, ClientOptions, LocalLink, Node};
use kvrep_core::protocol::active::Timing;
use kvrep_core::stream::OrderedStream;
use kvrep_core::stream::log::{LogLink, LogStream};
use kvrep_core::stream::memory::StreamHub;
use kvrep_core::testing::active::{all_equal, all_serve};
use kvrep_core::transport::Transport;
use kvrep_core::transport::memory::MemoryNetwork;
use kvrep_core::{
    Ack, ApplyContext, Authority, GroupConfig, Read, ReplicaId, StateMachine, Takeover,
};
use kvrep_transport_mqtt::stream::{MqttStream, MqttStreamLink};
use kvrep_transport_mqtt::{MqttConfig, MqttGroupLink, MqttTransport};
use kvrep_transport_multicast::{MulticastConfig, MulticastGroupLink, MulticastTransport};
use kvrep_transport_tcp::{TcpConfig, TcpGroupLink, TcpTransport};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::time::Duration;
use tokio::join;
use tokio::time::{Instant, sleep};

const GROUP: &str = "shelf";
const LOG: &str = "shelf/log";
const MEMBERS: [ReplicaId; 3] = [ReplicaId(1), ReplicaId(2), ReplicaId(3)];

/// Numbers by name. Without commands it may be served by the lowest id.
#[derive(Clone)]
struct Shelf<const TAKES_COMMANDS: bool>(BTreeMap<String, i64>);

impl<const TAKES_COMMANDS: bool> Shelf<TAKES_COMMANDS> {
    fn new() -> Self {
        Self(BTreeMap::from([("nought".into(), 0)]))
    }
}

impl<const TAKES_COMMANDS: bool> StateMachine for Shelf<TAKES_COMMANDS> {
    type Command = (String, i64);
    type Query = String;
    type Response = Option<i64>;
    type Snapshot = BTreeMap<String, i64>;

    const TAKES_COMMANDS: bool = TAKES_COMMANDS;

    fn apply(&mut self, _: &mut ApplyContext, (name, more): Self::Command) -> Option<i64> {
        let number = self.0.entry(name).or_default();
        *number += more;
        Some(*number)
    }

    fn query(&self, name: String) -> Option<i64> {
        self.0.get(&name).copied()
    }

    fn snapshot(&self) -> Self::Snapshot {
        self.0.clone()
    }

    fn restore(&mut self, all: Self::Snapshot) {
        self.0 = all;
    }
}

/// What carries frames: a transport for each member, and a link for clients.
trait Carrier {
    type Transport: Transport;
    type Link: ClientLink;

    fn transport(&self, member: ReplicaId) -> Self::Transport;
    /// For clients of the group of this name.
    fn link(&self, group: &str, nodes: &[Node]) -> Self::Link;
}

impl Carrier for MemoryNetwork {
    type Transport = kvrep_core::transport::memory::MemoryTransport;
    type Link = LocalLink;

    fn transport(&self, _: ReplicaId) -> Self::Transport {
        MemoryNetwork::transport(self)
    }

    fn link(&self, _: &str, nodes: &[Node]) -> LocalLink {
        LocalLink::new(nodes)
    }
}

/// An address for each member. The ports were free a moment ago.
struct Tcp([String; 3]);

impl Tcp {
    fn new() -> Self {
        let free = [(); 3].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        Self(free.map(|port| port.local_addr().unwrap().to_string()))
    }
}

impl Carrier for Tcp {
    type Transport = TcpTransport;
    type Link = TcpGroupLink;

    fn transport(&self, member: ReplicaId) -> TcpTransport {
        let listed: BTreeMap<_, _> = MEMBERS.into_iter().zip(&self.0).collect();
        let peers = listed.iter().map(|(id, address)| (*id, address.as_str()));
        TcpTransport::new(TcpConfig::new(listed[&member].as_str()).peers(peers))
    }

    fn link(&self, group: &str, _: &[Node]) -> TcpGroupLink {
        TcpGroupLink::new(group, self.0.clone())
    }
}

/// Through a broker in this process.
struct Mqtt {
    config: MqttConfig,
    _broker: AnyBroker,
}

impl Mqtt {
    fn new() -> Self {
        let broker = AnyBroker::embedded();
        Self {
            config: broker.config().prefix(prefix()),
            _broker: broker,
        }
    }
}

impl Carrier for Mqtt {
    type Transport = MqttTransport;
    type Link = MqttGroupLink;

    fn transport(&self, _: ReplicaId) -> MqttTransport {
        MqttTransport::new(self.config.clone())
    }

    fn link(&self, group: &str, _: &[Node]) -> MqttGroupLink {
        MqttGroupLink::new(group, self.config.clone())
    }
}

/// A group that nobody else has, over the loopback interface.
struct Multicast(MulticastConfig);

impl Multicast {
    fn new() -> Self {
        let free = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = free.local_addr().unwrap().port();
        let [a, b, ..] = std::process::id().to_le_bytes();
        let group = SocketAddrV4::new(Ipv4Addr::new(239, 254, a, b), port);
        Self(MulticastConfig::new(group).interface(Ipv4Addr::LOCALHOST))
    }
}

impl Carrier for Multicast {
    type Transport = MulticastTransport;
    type Link = MulticastGroupLink;

    fn transport(&self, _: ReplicaId) -> MulticastTransport {
        MulticastTransport::new(self.0.clone())
    }

    fn link(&self, group: &str, _: &[Node]) -> MulticastGroupLink {
        MulticastGroupLink::new(group, self.0.clone())
    }
}

/// What keeps an order: a stream for each member, and a link for clients.
trait Keeper {
    type Link: ClientLink;

    fn stream(&self, member: ReplicaId) -> impl OrderedStream;
    fn link(&self) -> Self::Link;
}

impl Keeper for StreamHub {
    type Link = kvrep_core::stream::memory::StreamLink;

    fn stream(&self, _: ReplicaId) -> impl OrderedStream {
        StreamHub::stream(self)
    }

    fn link(&self) -> Self::Link {
        self.client(GROUP)
    }
}

impl Keeper for Mqtt {
    type Link = MqttStreamLink;

    fn stream(&self, _: ReplicaId) -> impl OrderedStream {
        MqttStream::new(self.config.clone())
    }

    fn link(&self) -> MqttStreamLink {
        MqttStreamLink::new(GROUP, self.config.clone())
    }
}

/// The log of a passive group, over what carries frames.
struct Log<C>(C);

impl<C: Carrier> Keeper for Log<C> {
    type Link = LogLink;

    fn stream(&self, member: ReplicaId) -> impl OrderedStream {
        let log = Node::builder(LOG, member)
            .members(MEMBERS)
            .transport(self.0.transport(member));
        LogStream::new(log, self.0.link(LOG, &[]))
    }

    fn link(&self) -> LogLink {
        LogLink::new(GROUP, self.0.link(LOG, &[]))
    }
}

fn client<S>(link: impl ClientLink) -> Client<S> {
    let mut options = ClientOptions::default();
    options.deadline = PATIENCE;
    Client::with_options(link, options)
}

/// Adds one, so many times; returns what the last one made of it.
async fn add(client: &Client<Shelf<true>>, times: i64) -> Option<i64> {
    let mut last = None;
    for _ in 0..times {
        last = client.execute(("one".into(), 1)).await.unwrap();
    }
    last
}

/// Waits until it holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Again until its place is free: who crashed in this process lets go of it a little later.
async fn start_again<T, E: std::fmt::Display>(start: impl AsyncFn() -> Result<T, E>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match start().await {
            Ok(node) => return node,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// A primary and its backups: writes and reads go on when it crashes, and in the end all have the same. With `Ack::All` the primary is fixed, a backup crashes, and writes go on
/// when it is back.
async fn passive(carrier: impl Carrier, ack: Ack) {
    let mut config = GroupConfig::new(MEMBERS, Authority::Alone);
    config.ack = ack;
    if ack == Ack::All {
        let primary = MEMBERS[0];
        config.takeover = Takeover::Never { primary };
    }
    let start = async |id: ReplicaId| {
        let transport = carrier.transport(id);
        let carried = transport.capabilities().frame_bytes_max;
        let mut config = config.clone();
        config.limits = config.limits.within_frames(carried);
        Node::builder(GROUP, id)
            .group(config)
            .transport(transport)
            .state_machine(Shelf::<true>::new())
            .start()
            .await
    };
    let in_sync = async |nodes: &[Node]| {
        until("all are in sync", async || {
            let statuses = nodes.iter().map(|node| node.status().protocol);
            let mut serving = statuses.filter(|status| status.serving);
            serving.any(|s| s.configuration.is_some_and(|c| c.in_sync.len() == 3))
        })
        .await;
    };
    let alike = async |nodes: &[Node]| {
        until("all have the same state", async || {
            let mut digests = Vec::new();
            for node in nodes {
                digests.push(node.digest().await.expect("it runs"));
            }
            digests.iter().all(|digest| *digest == digests[0])
        })
        .await;
    };
    let mut nodes = Vec::new();
    for id in MEMBERS {
        nodes.push(start_again(async || start(id).await).await);
    }
    in_sync(&nodes).await;
    let before = client(carrier.link(GROUP, &nodes));
    assert_eq!(add(&before, 20).await, Some(20));
    // What the primary alone has acknowledged may be lost with it.
    alike(&nodes).await;

    let crashes = |node: &Node| node.status().protocol.serving != (ack == Ack::All);
    let crashes = nodes.iter().position(crashes);
    let crashed = nodes.remove(crashes.expect("one serves, two do not"));
    let id = crashed.identity().replica;
    drop(crashed);
    let after = client(carrier.link(GROUP, &nodes));
    let returned = match ack {
        Ack::All => {
            let (added, returned) = join!(add(&after, 20), start_again(async || start(id).await));
            assert_eq!(added, Some(40));
            returned
        }
        _ => {
            assert_eq!(add(&after, 20).await, Some(40));
            start_again(async || start(id).await).await
        }
    };
    nodes.push(returned);
    in_sync(&nodes).await;
    let returned = client(carrier.link(GROUP, &nodes));
    assert_eq!(add(&returned, 20).await, Some(60));
    let read = returned.query(Read::Linearizable, "one".into()).await;
    assert_eq!(read.unwrap(), Some(60));
    alike(&nodes).await;
}

/// All carry out a stream: others answer for one that crashes, and in the end all have the same.
async fn active(keeper: impl Keeper) {
    let timing = Timing {
        suspect_after: Duration::from_millis(800),
        genesis_after: Duration::from_millis(1_600),
        keep_requests: Duration::from_secs(8),
        ..Timing::default()
    };
    let start = async |id: ReplicaId| {
        ActiveNode::builder(GROUP, id)
            .members(MEMBERS)
            .timing(timing)
            .stream(keeper.stream(id))
            .state_machine(Shelf::<true>::new())
            .start()
            .await
    };
    let mut nodes = Vec::new();
    for id in MEMBERS {
        nodes.push(start_again(async || start(id).await).await);
    }
    all_serve(&nodes, PATIENCE).await;
    let client = client(keeper.link());
    assert_eq!(add(&client, 20).await, Some(20));

    drop(nodes.remove(0));
    assert_eq!(add(&client, 20).await, Some(40));

    nodes.push(start_again(async || start(MEMBERS[0]).await).await);
    all_serve(&nodes, PATIENCE).await;
    assert_eq!(add(&client, 20).await, Some(60));
    let read = client.query(Read::Linearizable, "one".into()).await;
    assert_eq!(read.unwrap(), Some(60));
    all_equal(&nodes, PATIENCE).await;
}

/// A state machine that takes commands is refused by the scheme that replicates nothing.
async fn refused(carrier: impl Carrier) {
    let refused = Node::builder(GROUP, MEMBERS[0])
        .members(MEMBERS)
        .transport(carrier.transport(MEMBERS[0]))
        .lowest_id(TickConfig::default())
        .state_machine(Shelf::<true>::new())
        .start()
        .await;
    let why = refused.expect_err("it takes commands").to_string();
    assert!(why.contains("takes commands"), "{why}");
}

/// The lowest answers; when it crashes the next one does; when it returns it does again.
async fn lowest(carrier: impl Carrier) {
    let ticks = TickConfig {
        period: Duration::from_millis(200),
        ..TickConfig::default()
    };
    let start = async |id: ReplicaId| {
        Node::builder(GROUP, id)
            .members(MEMBERS)
            .transport(carrier.transport(id))
            .lowest_id(ticks)
            .state_machine(Shelf::<false>::new())
            .start()
            .await
    };
    let answers_alone = async |nodes: &[Node], lowest: ReplicaId| {
        until("the lowest answers, alone", async || {
            let serving = nodes.iter().filter(|n| n.status().protocol.serving);
            serving.map(|n| n.identity().replica).eq([lowest])
        })
        .await;
        let client = client::<Shelf<false>>(carrier.link(GROUP, nodes));
        let answer = client.query(Read::Linearizable, "nought".into()).await;
        assert_eq!(answer.unwrap(), Some(0));
    };
    let mut nodes = Vec::new();
    for id in MEMBERS {
        nodes.push(start_again(async || start(id).await).await);
    }
    answers_alone(&nodes, MEMBERS[0]).await;
    drop(nodes.remove(0));
    answers_alone(&nodes, MEMBERS[1]).await;
    nodes.insert(0, start_again(async || start(MEMBERS[0]).await).await);
    answers_alone(&nodes, MEMBERS[0]).await;
}

macro_rules! cells {
    ($($row:literal {$($test:ident: $scheme:ident($($over:expr),+) says $word:literal;)*})*) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                $scheme($($over),+).await;
            }
        )*)*

        /// The rows of the README's table: scheme, and a word for each transport.
        const TABLE: &[(&str, &[&str])] = &[$(($row, &[$($word),*])),*];
    };
}

cells! {
    "passive, acknowledged by all in sync" {
        passive_over_memory: passive(MemoryNetwork::new(), Ack::AllInSync) says "yes";
        passive_over_tcp: passive(Tcp::new(), Ack::AllInSync) says "yes";
        passive_over_mqtt: passive(Mqtt::new(), Ack::AllInSync) says "yes";
        passive_over_multicast: passive(Multicast::new(), Ack::AllInSync) says "yes";
    }
    "passive, acknowledged by all (fixed primary)" {
        passive_by_all_over_memory: passive(MemoryNetwork::new(), Ack::All) says "yes";
        passive_by_all_over_tcp: passive(Tcp::new(), Ack::All) says "yes";
        passive_by_all_over_mqtt: passive(Mqtt::new(), Ack::All) says "yes";
        passive_by_all_over_multicast: passive(Multicast::new(), Ack::All) says "yes";
    }
    "passive, acknowledged by the primary" {
        passive_by_the_primary_over_memory: passive(MemoryNetwork::new(), Ack::Primary) says "yes";
        passive_by_the_primary_over_tcp: passive(Tcp::new(), Ack::Primary) says "yes";
        passive_by_the_primary_over_mqtt: passive(Mqtt::new(), Ack::Primary) says "yes";
        passive_by_the_primary_over_multicast: passive(Multicast::new(), Ack::Primary) says "yes";
    }
    "active" {
        active_over_memory: active(StreamHub::new()) says "yes (`StreamHub`)";
        active_over_tcp: active(Log(Tcp::new())) says "yes, over a log (`LogStream`)";
        active_over_mqtt: active(Mqtt::new()) says "yes (`MqttStream`)";
        active_over_multicast: active(Log(Multicast::new())) says "yes, over a log (`LogStream`)";
    }
    "lowest id, no commands" {
        lowest_id_over_memory: lowest(MemoryNetwork::new()) says "yes";
        lowest_id_over_tcp: lowest(Tcp::new()) says "yes";
        lowest_id_over_mqtt: lowest(Mqtt::new()) says "yes";
        lowest_id_over_multicast: lowest(Multicast::new()) says "yes";
    }
    "lowest id, with commands" {
        lowest_id_refuses_commands_over_memory: refused(MemoryNetwork::new()) says "refused";
        lowest_id_refuses_commands_over_tcp: refused(Tcp::new()) says "refused";
        lowest_id_refuses_commands_over_mqtt: refused(Mqtt::new()) says "refused";
        lowest_id_refuses_commands_over_multicast: refused(Multicast::new()) says "refused";
    }
}

/// Prints the table; the README shows the same one.
#[test]
fn the_readme_shows_this_table() {
    let mut table =
        String::from("| | memory | TCP | MQTT | UDP multicast |\n|---|---|---|---|---|\n");
    for (scheme, words) in TABLE {
        table += &format!("| {scheme} | {} |\n", words.join(" | "));
    }
    println!("{table}");
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    // (A packaged crate has no README of the repository beside it.)
    if let Ok(readme) = std::fs::read_to_string(readme) {
        assert!(readme.contains(&table), "the README lacks\n{table}");
    }
}
