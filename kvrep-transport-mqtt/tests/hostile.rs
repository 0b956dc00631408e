//! What others publish on the group's topics, by mistake or malice, is checked, counted and dropped; the group goes on.

mod common;

use bytes::{BufMut, Bytes, BytesMut};
use common::{AnyBroker, PATIENCE, prefix, until};
use kvrep_core::client_wire::{Op, Request};
use kvrep_core::testing::mailbox::Mailbox;
use kvrep_core::transport::{Destination, Hint, InboxEvent, LocalPeer, Transport};
use kvrep_core::wire::{self, Envelope, FrameKind};
use kvrep_core::{GroupId, Incarnation, ReplicaId};
use kvrep_transport_mqtt::ordered::{OrderedTopic, Publisher};
use kvrep_transport_mqtt::{MqttConfig, MqttTransport};
use tokio::time::Instant;

const GROUP: &str = "hostile";

struct Replica {
    id: ReplicaId,
    transport: MqttTransport,
    mailbox: Mailbox,
}

impl Replica {
    async fn start(config: &MqttConfig, me: LocalPeer) -> Self {
        let transport = MqttTransport::new(config.clone());
        let mailbox = Mailbox::new(1_024);
        let id = me.replica;
        transport.start(me, mailbox.inbox()).await.unwrap();
        transport.connected(PATIENCE).await.unwrap();
        Self {
            id,
            transport,
            mailbox,
        }
    }

    fn refused(&self) -> u64 {
        self.transport.counters().refused
    }

    async fn await_hint(&self, about: ReplicaId, wanted: Hint) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let event = self.mailbox.next(deadline - Instant::now()).await;
            match event.unwrap_or_else(|| panic!("never {wanted:?}: {about}")) {
                InboxEvent::Hint { peer, hint } if peer == about && hint == wanted => return,
                InboxEvent::Hint { .. } | InboxEvent::Peer(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Sends to `to` until it hears; nothing else may be heard there.
    async fn reaches(&self, to: &Self, number: u64) {
        let frame = frame(self.id, number);
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "{number} never arrived");
            self.transport.send(Destination::One(to.id), frame.clone());
            let next = to.mailbox.next(std::time::Duration::from_millis(100)).await;
            match next {
                Some(InboxEvent::Peer(body)) => {
                    assert!(!body.ends_with(&99_u64.to_be_bytes()), "a forged one");
                    if body == frame.slice(wire::HEADER_BYTES..) {
                        return;
                    }
                }
                Some(InboxEvent::Hint { .. }) | None => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

fn me(replica: u32, life: u64, config_hash: u64) -> LocalPeer {
    LocalPeer {
        group: GroupId::named(GROUP),
        replica: ReplicaId(replica),
        incarnation: Incarnation(life),
        config_hash,
    }
}

fn frame(from: ReplicaId, number: u64) -> Bytes {
    let mut body = BytesMut::new();
    let envelope = Envelope {
        group: GroupId::named(GROUP),
        from,
        incarnation: Incarnation(1),
        to_incarnation: Incarnation(1),
    };
    envelope.encode(&mut body);
    body.put_u64(number);
    wire::encode_frame(FrameKind::Peer, &body)
}

fn stranger(broker: &AnyBroker) -> (Publisher, kvrep_transport_mqtt::ordered::Deliveries) {
    OrderedTopic::new(broker.config()).open().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_every_topic_is_counted_and_nobody_is_harmed() {
    for broker in AnyBroker::all() {
        let prefix = prefix();
        let config = broker.config().prefix(prefix.as_str());
        let one = Replica::start(&config, me(1, 1, 7)).await;
        let two = Replica::start(&config, me(2, 1, 7)).await;
        one.reaches(&two, 1).await;
        let (evil, _deliveries) = stranger(&broker);
        let status = Request {
            id: 1,
            op: Op::Status,
        };
        let payloads = [
            Bytes::new(),
            Bytes::from_static(b"garbage"),
            Bytes::from(vec![0xff; 100_000]),
            frame(ReplicaId(1), 99), // without a heading
            Bytes::from(wire::encode_frame(FrameKind::Handshake, &[1; 37]).to_vec()),
            status.to_frame(), // without a topic for the reply
        ];
        for topic in ["to/2/r", "to/2/c", "life/2", "life/1", "life/77", "life/x"] {
            for payload in &payloads {
                evil.publish(format!("{prefix}/{topic}"), payload.clone())
                    .unwrap();
            }
        }
        // All but empty words about lives.
        until("all are counted", || two.refused() >= 6 * 6 - 4).await;
        one.reaches(&two, 2).await;
        two.reaches(&one, 3).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payload_over_the_limit_costs_at_most_the_connection() {
    for broker in AnyBroker::all() {
        let prefix = prefix();
        let mut limits = kvrep_transport_mqtt::MqttLimits::default();
        limits.payload_bytes_max = 64 << 10;
        limits.request_bytes_max = 8 << 10;
        let config = broker.config().prefix(prefix.as_str()).limits(limits);
        let one = Replica::start(&config, me(1, 1, 7)).await;
        let two = Replica::start(&config, me(2, 1, 7)).await;
        one.reaches(&two, 1).await;
        let (evil, mut fate) = stranger(&broker);
        let huge = Bytes::from(vec![7; 1 << 20]);
        evil.publish(format!("{prefix}/to/2/r"), huge).unwrap();
        common::await_event(&mut fate, "the broker has it", |event| {
            matches!(event, kvrep_transport_mqtt::ordered::Event::Acknowledged(_)).then_some(())
        })
        .await;
        one.reaches(&two, 2).await;
    }
}

#[tokio::test]
async fn who_was_started_with_other_settings_is_not_heard_and_the_witness_is() {
    let broker = AnyBroker::embedded();
    let config = broker.config().prefix(prefix());
    let one = Replica::start(&config, me(1, 1, 7)).await;
    let other = Replica::start(&config, me(2, 1, 8)).await;
    let third = Replica::start(&config, me(3, 1, 0)).await;
    one.await_hint(third.id, Hint::Connected).await;
    until("the other one is refused", || {
        one.refused() > 0 && other.refused() > 0
    })
    .await;
    let dropped = one.transport.counters().frames_dropped;
    one.transport
        .send(Destination::One(other.id), frame(one.id, 1));
    assert_eq!(one.transport.counters().frames_dropped, dropped + 1);
    third.reaches(&one, 5).await;
}

#[tokio::test]
async fn an_earlier_life_that_still_runs_is_told_and_the_later_one_goes_on() {
    let broker = AnyBroker::embedded();
    let config = broker.config().prefix(prefix());
    let peer = Replica::start(&config, me(1, 1, 7)).await;
    let old = Replica::start(&config, me(2, 1, 7)).await;
    peer.await_hint(ReplicaId(2), Hint::Connected).await;
    let new = Replica::start(&config, me(2, 2, 7)).await;
    old.await_hint(ReplicaId(2), Hint::Superseded).await;
    peer.await_hint(ReplicaId(2), Hint::Connected).await;
    // Its end is not taken for the end of the later one.
    old.transport.close().await;
    new.reaches(&peer, 1).await;
    peer.reaches(&new, 2).await;
}

#[tokio::test]
async fn a_clean_end_is_told_as_gone() {
    for broker in AnyBroker::all() {
        let config = broker.config().prefix(prefix());
        let one = Replica::start(&config, me(1, 1, 7)).await;
        let two = Replica::start(&config, me(2, 1, 7)).await;
        one.await_hint(two.id, Hint::Connected).await;
        two.transport.close().await;
        one.await_hint(two.id, Hint::Gone).await;
        assert!(
            two.mailbox.next(std::time::Duration::ZERO).await.is_some(),
            "it was told of n1"
        );
    }
}
