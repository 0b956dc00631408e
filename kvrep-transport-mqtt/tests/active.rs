//! Groups of the active scheme through real brokers: one answers for another that dies, who comes back gets everything, a broker that
//! restarts or drops is noticed and healed.

mod common;

use common::{AnyBroker, Mosquitto, PATIENCE, prefix};
use kvrep_core::node::{ActiveNode, Client, ClientOptions, NodeError};
use kvrep_core::protocol::active::{
    Create, Event, Item, Life, Message, Published, Responder, Timing,
};
use kvrep_core::stream::{OrderedStream, StreamEvent, StreamMember};
use kvrep_core::testing::active::{all_equal, all_serve};
use kvrep_core::transport::Destination;
use kvrep_core::{ApplyContext, Fold, GroupId, Incarnation, Read, ReplicaId, StateMachine};
use kvrep_transport_mqtt::MqttConfig;
use kvrep_transport_mqtt::ordered::OrderedTopic;
use kvrep_transport_mqtt::stream::{MqttStream, MqttStreamLink};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::timeout;

type Sum = Fold<i64, i64>;

const MEMBERS: [ReplicaId; 3] = [ReplicaId(1), ReplicaId(2), ReplicaId(3)];

/// Patient with a loaded machine.
fn timing() -> Timing {
    Timing {
        suspect_after: Duration::from_millis(800),
        genesis_after: Duration::from_millis(1_600),
        keep_requests: Duration::from_secs(8),
        ..Timing::default()
    }
}

struct Group {
    config: MqttConfig,
    confirmations: usize,
}

impl Group {
    fn over(config: &MqttConfig) -> Self {
        Self {
            config: config.clone().prefix(prefix()),
            confirmations: 1,
        }
    }

    async fn start(&self, id: ReplicaId, create: Create) -> ActiveNode {
        ActiveNode::builder("sums", id)
            .members(MEMBERS)
            .timing(timing())
            .confirmations(self.confirmations)
            .create(create)
            .shutdown_within(Duration::from_secs(2))
            .stream(MqttStream::new(self.config.clone()))
            .state_machine(Sum::new(0, |sum, by| *sum += by))
            .start()
            .await
            .unwrap()
    }

    async fn start_all(&self) -> Vec<ActiveNode> {
        let mut nodes = Vec::new();
        for id in MEMBERS {
            nodes.push(self.start(id, Create::Allowed).await);
        }
        all_serve(&nodes, PATIENCE).await;
        nodes
    }

    fn client(&self) -> Arc<Client<Sum>> {
        let mut options = ClientOptions::default();
        options.deadline = PATIENCE;
        let link = MqttStreamLink::new("sums", self.config.clone());
        Arc::new(Client::with_options(link, options))
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_answer_for_one_that_ends_and_it_gets_everything_when_it_comes_back() {
    for broker in AnyBroker::all() {
        let group = Group::over(&broker.config());
        let mut nodes = group.start_all().await;
        let client = group.client();
        add(&client, 200).await;
        assert_eq!(client.query(Read::Linearizable, ()).await.unwrap(), 200);

        drop(nodes.remove(1)); // as if it had crashed
        add(&client, 50).await;
        nodes.push(group.start(MEMBERS[1], Create::Never).await);
        add(&client, 50).await;
        all_serve(&nodes, PATIENCE).await;
        assert_eq!(client.query(Read::Linearizable, ()).await.unwrap(), 300);
        all_equal(&nodes, PATIENCE).await;
        for node in nodes {
            timeout(PATIENCE, node.shutdown()).await.unwrap().unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_restarts_without_its_queues_costs_a_group_with_confirmations_nothing() {
    let Some(mut broker) = Mosquitto::start("max_queued_messages 0") else {
        return;
    };
    let mut group = Group::over(&broker.config());
    group.confirmations = 2;
    let nodes = group.start_all().await;
    let client = group.client();
    add(&client, 100).await;
    for _ in 0..2 {
        let writing = {
            let client = Arc::clone(&client);
            tokio::spawn(async move { add(&client, 50).await })
        };
        broker.restart();
        timeout(PATIENCE, writing).await.unwrap().unwrap();
    }
    all_serve(&nodes, PATIENCE).await;
    assert_eq!(client.query(Read::Linearizable, ()).await.unwrap(), 200);
    all_equal(&nodes, PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_item_takes_a_place_and_does_no_harm() {
    for broker in AnyBroker::all() {
        let group = Group::over(&broker.config());
        let nodes = group.start_all().await;
        let client = group.client();
        add(&client, 10).await;
        let topic = format!("{}/all/s", group.config.prefix.as_deref().unwrap());
        let (publisher, mut told) = OrderedTopic::new(broker.config()).open().unwrap();
        for junk in [&b""[..], b"junk", &[0; 4], &[0xff; 300], b"\0\0\0\x02ab"] {
            publisher.publish(topic.as_str(), junk.to_vec()).unwrap();
        }
        let heard = format!("{}/all/h", group.config.prefix.as_deref().unwrap());
        publisher.publish(heard, &b"\x01nothing"[..]).unwrap();
        told.close().await;
        add(&client, 10).await;
        assert_eq!(client.query(Read::Linearizable, ()).await.unwrap(), 20);
        all_equal(&nodes, PATIENCE).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_of_one_name_ends_and_the_first_one_serves_on() {
    for broker in AnyBroker::all() {
        let group = Group::over(&broker.config());
        let nodes = group.start_all().await;
        all_serve(&nodes, PATIENCE).await;
        let life = nodes[0].status().life;
        let again = group.start(MEMBERS[0], Create::Never).await;
        let ended = timeout(PATIENCE, again.wait()).await.unwrap();
        assert!(
            matches!(ended, Err(NodeError::AlreadyRunning(who)) if who == MEMBERS[0]),
            "{ended:?}"
        );
        let status = nodes[0].status();
        assert!(status.serving && status.life == life, "{status:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_configured_otherwise_is_refused() {
    let broker = AnyBroker::embedded();
    let group = Group::over(&broker.config());
    let nodes = [
        group.start(MEMBERS[0], Create::Allowed).await,
        group.start(MEMBERS[1], Create::Allowed).await,
    ];
    all_serve(&nodes, PATIENCE).await;
    let stranger = ActiveNode::builder("sums", MEMBERS[2])
        .members(MEMBERS)
        .timing(timing())
        .responder(Responder::LowestLive)
        .stream(MqttStream::new(group.config.clone()))
        .state_machine(Sum::new(0, |sum, by| *sum += by))
        .start()
        .await
        .unwrap();
    let ended = timeout(PATIENCE, stranger.wait()).await.unwrap();
    assert!(
        matches!(ended, Err(NodeError::ConfiguredOtherwise(_))),
        "{ended:?}"
    );
    assert!(nodes.iter().all(|node| node.status().serving));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_member_left_tells_that_the_others_are_gone() {
    let broker = AnyBroker::embedded();
    let group = Group::over(&broker.config());
    let mut nodes = group.start_all().await;
    let mut events = nodes[0].events();
    let client = group.client();
    add(&client, 5).await;
    nodes.truncate(1);
    let failed = async {
        let mut failed = BTreeSet::new();
        while failed.len() < 2 {
            let event = events.recv().await.unwrap();
            if let kvrep_core::node::active::ActiveEvent::Protocol(Event::Failed(other)) = event {
                failed.insert(other);
            }
        }
    };
    timeout(PATIENCE, failed)
        .await
        .expect("both are declared dead");
    add(&client, 5).await;
    assert_eq!(client.query(Read::Linearizable, ()).await.unwrap(), 10);
}

/// A state of any size, and small answers.
#[derive(Default)]
struct Pile(Vec<String>);

impl StateMachine for Pile {
    type Command = String;
    type Query = ();
    type Response = usize;
    type Snapshot = Vec<String>;

    fn apply(&mut self, _: &mut ApplyContext, command: String) -> usize {
        self.0.push(command);
        self.0.len()
    }

    fn query(&self, (): ()) -> usize {
        self.0.len()
    }

    fn snapshot(&self) -> Vec<String> {
        self.0.clone()
    }

    fn restore(&mut self, state: Vec<String>) {
        self.0 = state;
    }
}

fn member(replica: ReplicaId) -> StreamMember {
    StreamMember {
        group: GroupId::named("sums"),
        replica,
        incarnation: Incarnation(1),
        members: MEMBERS.to_vec(),
        config_hash: 1,
        request_bytes_max: 1 << 20,
        state_bytes_max: 1 << 20,
    }
}

async fn opened(config: &MqttConfig, replica: ReplicaId) -> MqttStream {
    let mut stream = MqttStream::new(config.clone());
    stream.open(member(replica)).await.unwrap();
    while !matches!(stream.next().await, Some(StreamEvent::Opened)) {}
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_beside_a_stream_does_not_wait_until_nothing_more_waits_in_it() {
    const BEFORE: usize = 200;
    const ALL: usize = 2_000;
    for broker in AnyBroker::all() {
        let config = broker.config().prefix(prefix());
        let mut slow = opened(&config, MEMBERS[1]).await;
        let mut says = opened(&config, MEMBERS[0]).await;
        let nothing = Published {
            stamp: None,
            item: Item::Unreadable,
        };
        let beat = Message::Got {
            by: MEMBERS[0],
            life: Life::default(),
            chain: 1,
            bytes: 2,
        };
        let heard = async {
            for n in 0..ALL {
                if n == BEFORE {
                    says.send(Destination::Group, &beat);
                }
                says.publish(&nothing);
            }
            // The broker has all of it, and the other one has read nothing yet.
            let mut delivered = 0;
            while delivered < ALL {
                let event = says.next().await.expect("it is open");
                delivered += usize::from(matches!(event, StreamEvent::Delivered { .. }));
            }
            let mut before = 0;
            loop {
                match slow.next().await.expect("it is open") {
                    StreamEvent::Delivered { .. } => before += 1,
                    StreamEvent::Message(message) if message == beat => return before,
                    _ => {}
                }
            }
        };
        let before = timeout(PATIENCE, heard).await.expect("it is heard");
        assert!(before < ALL / 2, "{before} of {ALL} came before it");
        says.close().await;
        slow.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_gets_its_state_and_serves_while_clients_ask_for_more_than_can_be_done() {
    for broker in AnyBroker::all() {
        let mut group = Group::over(&broker.config());
        // A publication for each request.
        group.config.limits.batch_bytes_max = 1;
        let mut nodes = vec![
            group.start(MEMBERS[0], Create::Allowed).await,
            group.start(MEMBERS[1], Create::Allowed).await,
        ];
        all_serve(&nodes, PATIENCE).await;
        let client = group.client();
        let serves = Arc::new(AtomicBool::new(false));
        let asking: Vec<_> = (0..512)
            .map(|_| {
                let (client, serves) = (Arc::clone(&client), Arc::clone(&serves));
                tokio::spawn(async move {
                    while !serves.load(Ordering::Relaxed) {
                        client.execute(1).await.unwrap();
                    }
                })
            })
            .collect();
        nodes.push(group.start(MEMBERS[2], Create::Never).await);
        all_serve(&nodes[2..], PATIENCE).await;
        serves.store(true, Ordering::Relaxed);
        for asked in asking {
            asked.await.unwrap();
        }
        all_equal(&nodes, PATIENCE).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_goes_over_in_pieces_that_the_broker_takes_and_where_it_takes_none_it_is_said() {
    // One says its limit when it is connected, the other one refuses.
    for limit in ["max_packet_size 3000", "message_size_limit 3000"] {
        let Some(broker) = Mosquitto::start(limit) else {
            return;
        };
        gets_its_state(broker.config().prefix(prefix())).await;
    }
    let broker = Mosquitto::start("max_packet_size 620").unwrap();
    let config = broker.config().prefix(prefix());
    let mut says = opened(&config, MEMBERS[0]).await;
    let piece = Message::Piece {
        life: Life::default(),
        from: MEMBERS[0],
        at: kvrep_core::Index(1),
        chain: 1,
        offset: 0,
        whole: 10_000,
        data: vec![7; 10_000].into(),
    };
    says.send(Destination::One(MEMBERS[1]), &piece);
    let told = async {
        loop {
            if let StreamEvent::Trouble(why) = says.next().await.expect("it is open")
                && why.contains("no state reaches a newcomer")
            {
                return;
            }
        }
    };
    timeout(PATIENCE, told).await.expect("it is said");
}

/// Two members, the second of which begins when there is much to be told.
async fn gets_its_state(config: MqttConfig) {
    let start = |id, create| {
        ActiveNode::builder("piles", id)
            .members([MEMBERS[0], MEMBERS[1]])
            .timing(timing())
            .create(create)
            .stream(MqttStream::new(config.clone()))
            .state_machine(Pile::default())
            .start()
    };
    let first = start(MEMBERS[0], Create::Allowed).await.unwrap();
    all_serve(std::slice::from_ref(&first), PATIENCE).await;
    let link = MqttStreamLink::new("piles", config.clone());
    let client = Client::<Pile>::new(link);
    for all in 1..=60 {
        assert_eq!(client.execute("x".repeat(1_000)).await.unwrap(), all);
    }
    let second = start(MEMBERS[1], Create::Never).await.unwrap();
    all_serve(std::slice::from_ref(&second), PATIENCE).await;
    let (piled, _) = second.read_local(|pile: &Pile| pile.0.len()).await.unwrap();
    assert_eq!(piled, 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_given_up_is_made_anew_and_nothing_that_was_published_is_lost() {
    for broker in AnyBroker::all() {
        let mut stream = MqttStream::new(broker.config().prefix(prefix()));
        stream.open(member(MEMBERS[0])).await.unwrap();
        let item = |genesis| Published {
            stamp: None,
            item: Item::Objection { genesis },
        };
        let stamp = |seq| kvrep_core::protocol::active::Stamp {
            replica: MEMBERS[0],
            incarnation: Incarnation(1),
            seq,
        };
        let heard = async {
            let (mut heard, mut resets, mut said) = (BTreeSet::new(), 0, 0);
            for round in 0..3 {
                for n in 0..50 {
                    stream.publish(&item(stamp(round * 50 + n)));
                }
                while heard.len() < 50 * (round as usize + 1) - 1 {
                    match stream.next().await.expect("it is open") {
                        StreamEvent::Delivered { published, .. } => {
                            let Item::Objection { genesis } = published.item else {
                                panic!("{published:?}");
                            };
                            heard.insert(genesis.seq);
                        }
                        StreamEvent::Reset => resets += 1,
                        StreamEvent::Trouble(why) => said += usize::from(why.contains("anew")),
                        _ => {}
                    }
                }
                stream.reconnect();
                // Under way already: nothing is done, and nothing said.
                stream.reconnect();
            }
            // What was published last may be heard only on the new connection, or was heard on the old one.
            stream.publish(&item(stamp(1_000)));
            while !heard.contains(&1_000) || resets < 1 {
                match stream.next().await.expect("it is open") {
                    StreamEvent::Delivered { published, .. } => {
                        if let Item::Objection { genesis } = published.item {
                            heard.insert(genesis.seq);
                        }
                    }
                    StreamEvent::Reset => resets += 1,
                    StreamEvent::Trouble(why) => said += usize::from(why.contains("anew")),
                    _ => {}
                }
            }
            (resets, said)
        };
        let (resets, said) = timeout(PATIENCE, heard).await.expect("all is heard");
        assert!(resets >= 1);
        assert_eq!(said, 3, "once for each connection that was given up");
        stream.close().await;
    }
}
