//! An ordered stream when its broker dies, stands still, forgets, or refuses.

mod common;

use common::{AnyBroker, Mosquitto, PATIENCE, await_event, connected, prefix, until};
use kvrep_transport_mqtt::ordered::{
    Deliveries, Event, OrderedTopic, PublicationId, PublishError, Publisher, Refusal, Rejection,
};
use kvrep_transport_mqtt::{EmbeddedBroker, MqttConfig, MqttLimits, MqttTiming};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

fn open(config: MqttConfig, topic: &str) -> (Publisher, Deliveries) {
    OrderedTopic::new(config).subscribe(topic).open().unwrap()
}

/// A way to the broker that can be cut: all connections end at once, and later ones work.
struct Cut {
    address: String,
    cut: watch::Sender<u64>,
}

impl Cut {
    async fn before(broker: &AnyBroker) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (cut, cuts) = watch::channel(0);
        let broker = broker.address();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (broker, mut cuts) = (broker.clone(), cuts.clone());
                cuts.mark_unchanged();
                tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(broker).await else {
                        return;
                    };
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        _ = cuts.changed() => {
                            let _ = near.shutdown().await;
                        }
                    }
                });
            }
        });
        Self { address, cut }
    }

    fn now(&self) {
        self.cut.send_modify(|cuts| *cuts += 1);
    }

    fn config(&self) -> MqttConfig {
        // Many cuts: the waits after them must not grow.
        let mut timing = MqttTiming::default();
        timing.backoff_max = Duration::from_millis(30);
        MqttConfig::new(self.address.as_str()).timing(timing)
    }
}

/// What became of publications, and what was delivered.
#[derive(Default)]
struct Seen {
    acknowledged: BTreeSet<PublicationId>,
    abandoned: BTreeSet<PublicationId>,
    delivered: Vec<(u64, bool)>,
    resumed: Vec<bool>,
}

impl Seen {
    fn note(&mut self, event: Event) {
        match event {
            Event::Acknowledged(id) => assert!(self.acknowledged.insert(id), "told twice: {id:?}"),
            Event::Abandoned(id) => assert!(self.abandoned.insert(id), "told twice: {id:?}"),
            Event::Delivered {
                payload,
                duplicate,
                ack,
                ..
            } => {
                ack.acknowledge();
                let number = String::from_utf8(payload.to_vec()).unwrap();
                self.delivered.push((number.parse().unwrap(), duplicate));
            }
            Event::Connected {
                session_resumed, ..
            } => self.resumed.push(session_resumed),
            Event::Disconnected { .. } => {}
            other => panic!("{other:?}"),
        }
    }

    fn fates(&self) -> usize {
        assert!(self.acknowledged.is_disjoint(&self.abandoned));
        self.acknowledged.len() + self.abandoned.len()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_cut_again_and_again_loses_nothing_and_reorders_nothing() {
    const COUNT: u64 = 3_000;
    for broker in AnyBroker::all() {
        let way = Cut::before(&broker).await;
        let topic = prefix();
        // A small window, so that the numbers of packets come round many times.
        let mut limits = MqttLimits::default();
        limits.unacknowledged_max = 10;
        let (publisher, mut sending) = OrderedTopic::new(way.config().limits(limits))
            .open()
            .unwrap();
        let (_, mut reading) = open(broker.config(), &topic);
        connected(&mut reading).await;
        let mut seen = Seen::default();
        for number in 0..COUNT {
            let text = number.to_string();
            publisher.publish(topic.as_str(), text).unwrap();
        }
        let mut next_cut = 100;
        while seen.fates() < COUNT as usize {
            await_event(&mut sending, "the fate of all", |event| {
                seen.note(event);
                Some(())
            })
            .await;
            if seen.acknowledged.len() >= next_cut {
                next_cut += 200;
                way.now();
            }
        }
        assert!(seen.resumed.len() > 5, "it was cut: {:?}", seen.resumed);
        assert_eq!(seen.resumed.iter().filter(|resumed| !**resumed).count(), 1);
        assert!(seen.abandoned.is_empty());
        // A publication that was sent again may be there twice, as a message of its own; what is new is in order.
        let mut read = Seen::default();
        let mut news = Vec::new();
        while news.len() < COUNT as usize {
            await_event(&mut reading, "all messages", |event| {
                read.note(event);
                Some(())
            })
            .await;
            if let Some((number, _)) = read.delivered.last()
                && news.last().is_none_or(|last| number > last)
            {
                assert_eq!(*number, news.len() as u64, "a gap");
                news.push(*number);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_that_come_again_are_recognised_and_missed_ones_come() {
    const COUNT: u64 = 2_000;
    // The embedded broker stands still now and then when it resumes a receiver's session (see its caveats).
    if let Some(broker) = AnyBroker::mosquitto() {
        let way = Cut::before(&broker).await;
        let topic = prefix();
        let (publisher, mut sending) = OrderedTopic::new(broker.config()).open().unwrap();
        let (counting, mut reading) = open(way.config(), &topic);
        connected(&mut reading).await;
        let pushing = tokio::spawn(async move {
            for number in 0..COUNT {
                let text = number.to_string();
                publisher.publish(topic.as_str(), text).unwrap();
            }
            let mut left = COUNT;
            while left > 0 {
                await_event(&mut sending, "acknowledgements", |event| {
                    left -= u64::from(matches!(event, Event::Acknowledged(_)));
                    Some(())
                })
                .await;
            }
        });
        // Held back, so that there is something to come again: each stretch is acknowledged after the next cut.
        let (mut held, mut told, mut next) = (Vec::new(), BTreeMap::new(), 0);
        while next < COUNT {
            let event = await_event(&mut reading, "all messages", Some).await;
            if let Event::Delivered {
                payload,
                duplicate,
                ack,
                ..
            } = event
            {
                let number: u64 = std::str::from_utf8(&payload).unwrap().parse().unwrap();
                *told.entry(duplicate).or_insert(0) += 1;
                assert!(duplicate || number == next, "{number} instead of {next}");
                next = next.max(number + 1);
                held.push(ack);
                if held.len() >= 15 {
                    if next % 4 == 3 {
                        way.now();
                    }
                    held.drain(..).for_each(|ack| ack.acknowledge());
                }
            }
        }
        held.drain(..).for_each(|ack| ack.acknowledge());
        let copies = counting.counters().copies_recognised;
        assert!(copies > 0, "nothing came again ({told:?} told)");
        pushing.await.unwrap();
    }
}

#[tokio::test]
async fn a_broker_that_forgets_sessions_is_said_to_and_everything_unacknowledged_is_reported() {
    let Some(mut broker) = Mosquitto::start("persistence false") else {
        return;
    };
    let topic = prefix();
    let (publisher, mut deliveries) = open(broker.config(), &topic);
    assert!(!connected(&mut deliveries).await);
    broker.stop();
    let ids: Vec<_> = (0..500)
        .map(|n| publisher.publish(topic.as_str(), n.to_string()).unwrap())
        .collect();
    broker.kill();
    broker.restart();
    let mut seen = Seen::default();
    while seen.resumed.is_empty() {
        await_event(&mut deliveries, "a connection", |event| {
            seen.note(event);
            Some(())
        })
        .await;
    }
    assert_eq!(seen.resumed, [false]);
    assert_eq!(
        seen.fates(),
        ids.len(),
        "told before the new session begins"
    );
    assert!(seen.abandoned.contains(ids.last().unwrap()));
    // What the broker had before it died, it may have delivered; nothing comes after.
    publisher.publish(topic.as_str(), "1000").unwrap();
    let next = await_event(&mut deliveries, "the next", |event| match event {
        Event::Delivered { payload, .. } => Some(payload),
        _ => None,
    });
    assert_eq!(next.await, "1000");
}

#[tokio::test]
async fn a_broker_that_keeps_sessions_over_its_restart_loses_nothing() {
    let Some(mut broker) = Mosquitto::start("persistence true\nmax_queued_messages 0") else {
        return;
    };
    let topic = prefix();
    let (publisher, mut deliveries) = open(broker.config(), &topic);
    connected(&mut deliveries).await;
    let mut seen = Seen::default();
    for number in 0..400_u64 {
        publisher
            .publish(topic.as_str(), number.to_string())
            .unwrap();
        if number == 200 {
            broker.terminate();
            broker.restart();
        }
    }
    while seen.fates() < 400
        || seen
            .delivered
            .iter()
            .map(|d| d.0)
            .collect::<BTreeSet<_>>()
            .len()
            < 400
    {
        await_event(&mut deliveries, "everything", |event| {
            seen.note(event);
            Some(())
        })
        .await;
    }
    assert!(seen.abandoned.is_empty());
    assert_eq!(seen.resumed, [true]);
}

#[tokio::test]
async fn queues_keep_their_limits_while_the_broker_stands_still() {
    let Some(broker) = Mosquitto::start("max_queued_messages 0") else {
        return;
    };
    let topic = prefix();
    let mut limits = MqttLimits::default();
    limits.queue_publications_max = 200;
    limits.queue_bytes_max = 1 << 20;
    let (publisher, mut deliveries) = open(broker.config().limits(limits), &topic);
    connected(&mut deliveries).await;
    broker.stop();
    let mut taken = 0;
    let full = loop {
        match publisher.publish(topic.as_str(), taken.to_string()) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken <= 200, "no limit");
        tokio::task::yield_now().await;
    };
    assert_eq!(full, PublishError::Full);
    assert_eq!(publisher.counters().publications_refused, 1);
    broker.go_on();
    let mut seen = Seen::default();
    while seen.fates() < taken || seen.delivered.len() < taken {
        await_event(&mut deliveries, "everything that was taken", |event| {
            seen.note(event);
            Some(())
        })
        .await;
    }
    // Large ones: by their bytes.
    broker.stop();
    let mut bytes = 0;
    while publisher
        .publish(topic.as_str(), vec![b'7'; 64 << 10])
        .is_ok()
    {
        bytes += 64 << 10;
        assert!(bytes <= 64 << 20, "no limit");
        tokio::task::yield_now().await;
    }
    broker.go_on();
}

#[tokio::test]
async fn wrong_credentials_are_told_and_tried_again_slowly() {
    let users = tempfile::tempdir().unwrap();
    let file = users.path().join("users");
    let made = std::process::Command::new("mosquitto_passwd")
        .args(["-b", "-c"])
        .arg(&file)
        .args(["ann", "right"])
        .status();
    if made.is_ok_and(|status| status.success()) {
        let extra = format!("allow_anonymous false\npassword_file {}", file.display());
        let broker = Mosquitto::start(&extra).expect("mosquitto_passwd comes with mosquitto");
        for config in [broker.config(), broker.config().login("ann", "wrong")] {
            let (_, mut deliveries) = OrderedTopic::new(config).open().unwrap();
            let rejection = await_event(&mut deliveries, "a rejection", |event| match event {
                Event::Rejected(rejection) => Some(rejection),
                _ => None,
            })
            .await;
            let said = rejection.to_string();
            let Rejection::Connection { refusal, .. } = rejection else {
                panic!("{rejection:?}");
            };
            assert_eq!(refusal, Refusal::Credentials);
            assert!(said.contains("check user and password"), "{said}");
            let retry_in = retry_in(&mut deliveries, "").await;
            assert!(retry_in >= Duration::from_secs(1), "{retry_in:?}");
        }
        let (_, mut deliveries) = OrderedTopic::new(broker.config().login("ann", "right"))
            .open()
            .unwrap();
        connected(&mut deliveries).await;
    } else {
        eprintln!("NOT RUN against mosquitto: it is not installed");
    }
    // The embedded broker closes the connection without a word.
    let broker = EmbeddedBroker::start_with("127.0.0.1:0", [("ann", "right")]).unwrap();
    let config = MqttConfig::new(broker.address().to_string());
    let (_, mut deliveries) = OrderedTopic::new(config.clone().login("ann", "wrong"))
        .open()
        .unwrap();
    retry_in(&mut deliveries, "user or password").await;
    let (_, mut deliveries) = OrderedTopic::new(config.login("ann", "right"))
        .open()
        .unwrap();
    connected(&mut deliveries).await;
}

/// Waits until it is told that there is no connection, with this word among the reasons.
async fn retry_in(deliveries: &mut Deliveries, word: &str) -> Duration {
    await_event(deliveries, "a disconnection", |event| match event {
        Event::Disconnected { why, retry_in } => {
            assert!(why.to_string().contains(word), "{why}");
            Some(retry_in)
        }
        _ => None,
    })
    .await
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_named_waited_for_and_found_when_it_comes() {
    let address = common::free_address();
    let topic = prefix();
    let (publisher, mut deliveries) = open(MqttConfig::new(address.to_string()), &topic);
    let sent = publisher.publish(topic.as_str(), "early").unwrap();
    let mut waits = Vec::new();
    while waits.len() < 4 {
        let said = format!("nobody listens at {address}");
        waits.push(retry_in(&mut deliveries, &said).await);
    }
    assert!(waits.windows(2).all(|w| w[1] > w[0]), "{waits:?}");
    let _broker = EmbeddedBroker::start(&address.to_string()).unwrap();
    let acknowledged = await_event(
        &mut deliveries,
        "the acknowledgement",
        |event| match event {
            Event::Acknowledged(id) => Some(id),
            _ => None,
        },
    );
    assert_eq!(acknowledged.await, sent);
}

#[tokio::test]
async fn a_process_that_comes_back_under_its_name_begins_anew_whatever_the_earlier_one_left() {
    for broker in AnyBroker::all() {
        let topic = prefix();
        let named = || broker.config().client_id("the-same");
        let config = named();
        let of_the_first = topic.clone();
        // A runtime of its own that ends under it, as a process does.
        let first = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let (publisher, mut deliveries) = open(config, &of_the_first);
                connected(&mut deliveries).await;
                publisher.publish(of_the_first.as_str(), "old").unwrap();
                await_event(&mut deliveries, "the old one", |event| {
                    matches!(event, Event::Delivered { .. }).then_some(())
                })
                .await;
            });
            runtime.shutdown_background();
        });
        tokio::task::spawn_blocking(move || first.join().unwrap())
            .await
            .unwrap();
        let (publisher, mut deliveries) = open(named(), &topic);
        assert!(
            !connected(&mut deliveries).await,
            "a session that it knows nothing of"
        );
        publisher.publish(topic.as_str(), "new").unwrap();
        let next = await_event(&mut deliveries, "the new one", |event| match event {
            Event::Delivered { payload, .. } => Some(payload),
            _ => None,
        });
        assert_eq!(next.await, "new", "what was meant for the earlier one");
    }
}

#[tokio::test]
async fn two_processes_of_one_name_take_each_others_place_ever_more_slowly() {
    for broker in AnyBroker::all() {
        let named = || open(broker.config().client_id("the-same"), "t");
        let (_one, mut first) = named();
        connected(&mut first).await;
        let (_other, mut second) = named();
        connected(&mut second).await;
        let mut longest = Duration::ZERO;
        while longest < Duration::from_millis(200) {
            let wait = tokio::select! {
                wait = retry_in(&mut first, "") => wait,
                wait = retry_in(&mut second, "") => wait,
            };
            longest = longest.max(wait);
        }
    }
}

#[tokio::test]
async fn something_that_is_no_broker_does_not_stop_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let (_, mut deliveries) = open(MqttConfig::new(address.to_string()), "t");
    for _ in 0..3 {
        retry_in(&mut deliveries, &address.to_string()).await;
    }
}

#[tokio::test]
async fn an_embedded_broker_takes_clients_that_give_no_signs_of_life() {
    let broker = EmbeddedBroker::start("127.0.0.1:0").unwrap();
    for version in [4_u8, 5] {
        // A clean session without signs of life, for the client "x".
        let properties: &[u8] = if version == 5 { &[0] } else { &[] };
        let rest = [
            &b"\0\x04MQTT"[..],
            &[version, 2, 0, 0],
            properties,
            b"\0\x01x",
        ]
        .concat();
        let mut socket = TcpStream::connect(broker.address()).await.unwrap();
        let connect = [&[0x10, u8::try_from(rest.len()).unwrap()][..], &rest].concat();
        socket.write_all(&connect).await.unwrap();
        let mut connack = [0; 2];
        let answered = timeout(PATIENCE, socket.read_exact(&mut connack)).await;
        answered.unwrap().unwrap();
        let mut rest = vec![0; usize::from(connack[1])];
        socket.read_exact(&mut rest).await.unwrap();
        assert_eq!((connack[0], rest[1]), (0x20, 0), "it is let in");
        // MQTT 5: Server Keep Alive (0x13), the longest there is.
        let told = rest.windows(3).any(|three| three == [0x13, 0xff, 0xff]);
        assert_eq!(told, version == 5, "{rest:?}");
    }
}

#[tokio::test]
async fn an_embedded_broker_ends_when_it_is_dropped_and_refuses_an_address_that_is_taken() {
    let broker = EmbeddedBroker::start("127.0.0.1:0").unwrap();
    let address = broker.address();
    assert!(EmbeddedBroker::start(&address.to_string()).is_err());
    let (_, mut deliveries) = open(MqttConfig::new(address.to_string()), "t");
    connected(&mut deliveries).await;
    tokio::task::spawn_blocking(move || drop(broker))
        .await
        .unwrap();
    retry_in(&mut deliveries, "").await;
    until("nobody listens there", || {
        std::net::TcpStream::connect_timeout(&address, PATIENCE).is_err()
    })
    .await;
}
