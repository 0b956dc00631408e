//! What a member leaves behind when it closes: a farewell at once, and no socket.

mod common;

use common::{PATIENCE, config};
use kvrep_core::testing::mailbox::Mailbox;
use kvrep_core::transport::{Destination, Hint, InboxEvent, LocalPeer, Transport};
use kvrep_core::wire::{Envelope, FrameKind, encode_frame};
use kvrep_core::{GroupId, Incarnation, ReplicaId};
use kvrep_transport_multicast::{MulticastConfig, MulticastTransport};
use std::io;
use std::net::UdpSocket;
use std::time::Duration;
use tokio::time::{Instant, timeout};

const GROUP: &str = "closing";

async fn member(config: &MulticastConfig, replica: u32) -> (MulticastTransport, Mailbox) {
    let transport = MulticastTransport::new(config.clone());
    let mailbox = Mailbox::new(1_024);
    let me = LocalPeer {
        group: GroupId::named(GROUP),
        replica: ReplicaId(replica),
        incarnation: Incarnation(1),
        config_hash: 7,
    };
    let started = transport.start(me, mailbox.inbox()).await;
    started.expect("it starts");
    (transport, mailbox)
}

/// Waits for what the transport says of the other member.
async fn hears(mailbox: &Mailbox, wanted: Hint) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let event = mailbox.next(left).await;
        let event = event.unwrap_or_else(|| panic!("{wanted:?} never came"));
        if matches!(event, InboxEvent::Hint { hint, .. } if hint == wanted) {
            return;
        }
    }
}

#[tokio::test]
async fn after_close_the_port_is_free_though_the_transport_is_still_there() {
    let config = config();
    let (transport, _mailbox) = member(&config, 1).await;
    // (Without sharing the address: while anybody has it, it is refused.)
    let alone = || UdpSocket::bind(config.group);
    assert_eq!(alone().unwrap_err().kind(), io::ErrorKind::AddrInUse);
    timeout(PATIENCE, transport.close()).await.unwrap();
    drop(alone().expect("nobody has the port any more"));
    // Nothing is sent, and closing again is nothing.
    transport.send(Destination::Group, frame(100));
    assert_eq!(transport.counters().frames_dropped, 1);
    timeout(PATIENCE, transport.close()).await.unwrap();
}

#[tokio::test]
async fn the_farewell_does_not_wait_behind_what_the_pace_holds_back() {
    let config = config();
    let (_other, mailbox) = member(&config, 2).await;
    let mut slow = config;
    // An hour's work.
    slow.limits.bytes_per_second_max = 1_000;
    slow.limits.burst_bytes_max = 8_000;
    let (transport, own) = member(&slow, 1).await;
    hears(&own, Hint::Connected).await;
    for _ in 0..60 {
        transport.send(Destination::Group, frame(60_000));
    }
    let closing = Instant::now();
    timeout(PATIENCE, transport.close()).await.unwrap();
    hears(&mailbox, Hint::Gone).await;
    assert!(closing.elapsed() < Duration::from_secs(30));
}

fn frame(bytes: usize) -> bytes::Bytes {
    let mut body = bytes::BytesMut::new();
    let envelope = Envelope {
        group: GroupId::named(GROUP),
        from: ReplicaId(1),
        incarnation: Incarnation(1),
        to_incarnation: Incarnation(0),
    };
    envelope.encode(&mut body);
    body.extend(vec![7; bytes]);
    encode_frame(FrameKind::Peer, &body)
}
