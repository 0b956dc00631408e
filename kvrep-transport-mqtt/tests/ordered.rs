//! An ordered stream over both brokers: order, acknowledgements, limits.

mod common;

use common::{AnyBroker, PATIENCE, await_event, connected, prefix};
use kvrep_transport_mqtt::ordered::{
    AckToken, Deliveries, Event, OrderedTopic, PublishError, Publisher,
};
use kvrep_transport_mqtt::{MqttConfig, MqttLimits};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

fn open(config: MqttConfig, topic: &str) -> (Publisher, Deliveries) {
    OrderedTopic::new(config).subscribe(topic).open().unwrap()
}

async fn delivery(deliveries: &mut Deliveries) -> (bytes::Bytes, AckToken) {
    await_event(deliveries, "a delivery", |event| match event {
        Event::Delivered { payload, ack, .. } => Some((payload, ack)),
        _ => None,
    })
    .await
}

/// Reads `count` payloads, acknowledging them.
async fn payloads(deliveries: &mut Deliveries, count: usize) -> Vec<String> {
    let mut read = Vec::new();
    while read.len() < count {
        let (payload, ack) = delivery(deliveries).await;
        ack.acknowledge();
        read.push(String::from_utf8(payload.to_vec()).unwrap());
    }
    read
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_receivers_see_one_order_of_three_publishers_and_everything_is_acknowledged() {
    const EACH: usize = 400;
    for broker in AnyBroker::all() {
        let topic = prefix();
        let mut readers = Vec::new();
        let mut publishers = Vec::new();
        for _ in 0..3 {
            let (publisher, mut deliveries) = open(broker.config(), &topic);
            connected(&mut deliveries).await;
            publishers.push(publisher);
            readers.push(deliveries);
        }
        let topic: Arc<str> = topic.into();
        for number in 0..EACH {
            for (name, publisher) in publishers.iter().enumerate() {
                let text = format!("{name} {number}");
                publisher.publish(Arc::clone(&topic), text).unwrap();
            }
        }
        let mut reading = tokio::task::JoinSet::new();
        for deliveries in readers {
            reading.spawn(history(deliveries, EACH));
        }
        let histories = reading.join_all().await;
        assert!(histories.windows(2).all(|pair| pair[0] == pair[1]));
    }
}

/// What a reader sees of three publishers, until all is there and its own publications are acknowledged.
async fn history(mut deliveries: Deliveries, each: usize) -> Vec<bytes::Bytes> {
    let (mut history, mut acknowledged) = (Vec::new(), BTreeSet::new());
    while history.len() < 3 * each || acknowledged.len() < each {
        await_event(&mut deliveries, "everything", |event| match event {
            Event::Delivered { payload, ack, .. } => {
                ack.acknowledge();
                history.push(payload);
                Some(())
            }
            Event::Acknowledged(id) => {
                assert!(acknowledged.insert(id), "acknowledged twice");
                Some(())
            }
            _ => None,
        })
        .await;
    }
    timeout(PATIENCE, deliveries.close()).await.unwrap();
    history
}

#[tokio::test]
async fn what_is_published_before_there_is_a_connection_is_sent_and_retained_messages_are_told_apart()
 {
    for broker in AnyBroker::all() {
        let topic = prefix();
        let (publisher, mut deliveries) = open(broker.config(), &topic);
        publisher.publish_retained(topic.clone(), "kept").unwrap();
        assert_eq!(payloads(&mut deliveries, 1).await, ["kept"]);
        let (_late, mut deliveries) = open(broker.config(), &topic);
        let (payload, retained) = await_event(&mut deliveries, "the retained one", |e| match e {
            Event::Delivered {
                payload, retained, ..
            } => Some((payload, retained)),
            _ => None,
        })
        .await;
        assert_eq!((&payload[..], retained), (&b"kept"[..], true));
    }
}

#[tokio::test]
async fn topics_and_payloads_that_cannot_be_sent_are_refused_at_once() {
    let broker = AnyBroker::embedded();
    let mut limits = MqttLimits::default();
    limits.request_bytes_max = 1_024;
    limits.payload_bytes_max = 1_024;
    let topic = prefix();
    let (publisher, mut deliveries) = open(broker.config().limits(limits), &topic);
    for wrong in ["", "a/#", "+"] {
        assert_eq!(publisher.publish(wrong, "x"), Err(PublishError::Topic));
    }
    assert_eq!(
        publisher.publish(topic.as_str(), vec![0; 1_025]),
        Err(PublishError::TooLarge {
            bytes: 1_025,
            bytes_max: 1_024
        })
    );
    publisher.publish(topic.as_str(), "fits").unwrap();
    assert_eq!(payloads(&mut deliveries, 1).await, ["fits"]);
    deliveries.close().await;
    assert_eq!(
        publisher.publish(topic.as_str(), "x"),
        Err(PublishError::Closed)
    );
    while let Some(event) = deliveries.next().await {
        assert!(!matches!(event, Event::Abandoned(_)), "{event:?}");
    }
}

#[tokio::test]
async fn a_reader_that_does_not_acknowledge_gets_no_more_than_the_broker_was_asked_for() {
    // Mosquitto keeps to the limit; the embedded broker sends 100 whatever it is asked.
    for broker in AnyBroker::all() {
        let mut limits = MqttLimits::default();
        limits.deliveries_max = 100;
        let topic = prefix();
        let (publisher, mut sending) = OrderedTopic::new(broker.config()).open().unwrap();
        let (_receiver, mut deliveries) = open(broker.config().limits(limits), &topic);
        connected(&mut deliveries).await;
        for number in 0..300 {
            let text = number.to_string();
            publisher.publish(topic.as_str(), text).unwrap();
        }
        for _ in 0..300 {
            await_event(&mut sending, "acknowledgements", |event| {
                matches!(event, Event::Acknowledged(_)).then_some(())
            })
            .await;
        }
        // What mosquitto has in flight by default.
        let mut held = Vec::new();
        while held.len() < 20 {
            held.push(delivery(&mut deliveries).await.1);
        }
        let more = timeout(Duration::from_millis(200), async {
            loop {
                held.push(delivery(&mut deliveries).await.1);
            }
        });
        assert!(more.await.is_err());
        assert!(held.len() <= 100, "{} unacknowledged", held.len());
        // In reverse: they leave in the order of the deliveries all the same.
        held.iter().rev().for_each(AckToken::acknowledge);
        let rest = payloads(&mut deliveries, 300 - held.len()).await;
        let expected: Vec<_> = (held.len()..300).map(|n| n.to_string()).collect();
        assert_eq!(rest, expected);
    }
}

#[tokio::test]
async fn the_will_is_published_when_a_process_dies_and_not_when_it_closes() {
    for broker in AnyBroker::all() {
        let topic = prefix();
        let (_watcher, mut watching) = open(broker.config(), &topic);
        connected(&mut watching).await;
        let with_will = |text: &'static str| {
            let stream = OrderedTopic::new(broker.config()).will(topic.as_str(), text);
            stream.open().unwrap()
        };
        let (_a, mut closing) = with_will("of the one that closes");
        connected(&mut closing).await;
        closing.close().await;
        // A runtime of its own, that ends under it: as if its process had died.
        let dying = with_will_in_its_own_runtime(&broker, &topic);
        tokio::task::spawn_blocking(move || drop(dying))
            .await
            .unwrap();
        assert_eq!(payloads(&mut watching, 1).await, ["of the one that dies"]);
    }
}

fn with_will_in_its_own_runtime(
    broker: &AnyBroker,
    topic: &str,
) -> (tokio::runtime::Runtime, Publisher, Deliveries) {
    let (config, topic) = (broker.config(), topic.to_owned());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (publisher, deliveries) = runtime.block_on(async {
            let stream = OrderedTopic::new(config).will(topic, "of the one that dies");
            let (publisher, mut deliveries) = stream.open().unwrap();
            connected(&mut deliveries).await;
            (publisher, deliveries)
        });
        (runtime, publisher, deliveries)
    })
    .join()
    .unwrap()
}

/// A publication of MQTT 3.1.1, which does not ask what the broker takes.
fn publication_of_an_old_client(topic: &str, payload_bytes: usize) -> Vec<u8> {
    let body = 2 + topic.len() + 2 + payload_bytes;
    let mut packet = vec![0x32];
    let mut rest = body;
    loop {
        let more = if rest >= 128 { 0x80 } else { 0 };
        packet.push((rest % 128) as u8 | more);
        rest /= 128;
        if rest == 0 {
            break;
        }
    }
    packet.extend(u16::try_from(topic.len()).unwrap().to_be_bytes());
    packet.extend(topic.as_bytes());
    packet.extend([0, 1]);
    packet.resize(packet.len() + payload_bytes, b'x');
    packet
}

#[tokio::test]
async fn the_embedded_broker_takes_nothing_that_would_end_the_connections_of_its_readers() {
    let broker = AnyBroker::embedded();
    let (address, topic) = (broker.config().broker, prefix());
    let (reader, mut deliveries) = open(broker.config(), &topic);
    connected(&mut deliveries).await;

    let mut old = TcpStream::connect(&address).await.unwrap();
    let connect = [
        &[0x10, 16, 0, 4][..],
        b"MQTT",
        &[4, 2, 0, 60, 0, 4],
        b"big!",
    ]
    .concat();
    old.write_all(&connect).await.unwrap();
    let mut connack = [0; 4];
    old.read_exact(&mut connack).await.unwrap();
    // Refused by its length: the rest of it may have nobody to go to.
    drop(
        old.write_all(&publication_of_an_old_client(&topic, 5_000_000))
            .await,
    );
    let mut rest = Vec::new();
    let ended = timeout(PATIENCE, old.read_to_end(&mut rest)).await.unwrap();
    assert!(ended.is_err() || rest.is_empty(), "{rest:?}");

    // Clients of MQTT 5 know it beforehand.
    let mut limits = MqttLimits::default();
    limits.payload_bytes_max = 8 << 20;
    let (generous, mut theirs) = open(broker.config().limits(limits), &topic);
    connected(&mut theirs).await;
    let refused = generous.publish(topic.as_str(), vec![0; 5_000_000]);
    assert!(
        matches!(refused, Err(PublishError::TooLarge { bytes: 5_000_000, bytes_max }) if bytes_max > 4 << 20),
        "{refused:?}"
    );

    // What its readers take, it takes.
    let most = MqttLimits::default().payload_bytes_max;
    reader.publish(topic.as_str(), vec![b'y'; most]).unwrap();
    await_event(
        &mut deliveries,
        "the largest payload",
        |event| match event {
            Event::Delivered { payload, .. } => {
                assert_eq!(payload.len(), most);
                Some(())
            }
            Event::Disconnected { why, .. } => panic!("thrown off: {why}"),
            _ => None,
        },
    )
    .await;
}
