//! What the tests of this crate share.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(unreachable_pub, reason = "a module of several test programs")]

use bytes::{BufMut, Bytes, BytesMut};
use kvrep_core::testing::mailbox::Mailbox;
use kvrep_core::transport::{
    Destination, Hint, InboxEvent, LocalPeer, Transport, TransportCounters,
};
use kvrep_core::wire::{self, Envelope, FrameKind};
use kvrep_core::{GroupId, Incarnation, ReplicaId};
use kvrep_transport_tcp::{TcpConfig, TcpTransport};
use std::time::Duration;
use tokio::time::Instant;

pub const PATIENCE: Duration = Duration::from_secs(20);
/// Of inboxes; small, so that a node that does not read is felt.
pub const ROOM: usize = 16;
pub const GROUP: &str = "tests";

/// A started transport and its inbox.
pub struct Node {
    pub id: ReplicaId,
    pub transport: TcpTransport,
    pub mailbox: Mailbox,
}

impl Node {
    pub async fn start(me: LocalPeer, transport: TcpTransport) -> Self {
        let mailbox = Mailbox::new(ROOM);
        let id = me.replica;
        transport.start(me, mailbox.inbox()).await.unwrap();
        Self {
            id,
            transport,
            mailbox,
        }
    }

    /// One alone, changed by `change`.
    pub async fn alone(change: impl FnOnce(TcpConfig) -> TcpConfig) -> Self {
        let config = change(TcpConfig::new("127.0.0.1:0"));
        let transport = TcpTransport::bind(config).await.unwrap();
        Self::start(me(1), transport).await
    }

    pub fn address(&self) -> String {
        self.transport.local_addr().unwrap().to_string()
    }

    pub fn counters(&self) -> TransportCounters {
        self.transport.counters()
    }

    pub fn send(&self, to: ReplicaId, number: u64) {
        let frame = wire::encode_frame(FrameKind::Peer, &body(self.id, number));
        self.transport.send(Destination::One(to), frame);
    }

    /// Waits for an event that `wanted` takes.
    pub async fn await_event<T>(&self, what: &str, wanted: impl Fn(InboxEvent) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let event = self.mailbox.next(deadline - Instant::now()).await;
            let event = event.unwrap_or_else(|| panic!("never came: {what}"));
            if let Some(found) = wanted(event) {
                return found;
            }
        }
    }

    pub async fn await_hint(&self, about: ReplicaId, wanted: Hint) {
        self.await_event(&format!("{wanted:?} {about}"), |event| {
            matches!(event, InboxEvent::Hint { peer, hint } if peer == about && hint == wanted)
                .then_some(())
        })
        .await;
    }

    /// The next request of a client: its body and its reply.
    pub async fn next_request(&self) -> (Bytes, kvrep_core::transport::ReplyTo) {
        self.await_event("a request", |event| match event {
            InboxEvent::Client { request, reply } => Some((request, reply)),
            _ => None,
        })
        .await
    }
}

/// Sends until it is heard.
pub async fn reaches(from: &Node, to: &Node, number: u64) {
    let deadline = Instant::now() + PATIENCE;
    let wanted = body(from.id, number);
    while Instant::now() < deadline {
        from.send(to.id, number);
        while let Some(event) = to.mailbox.next(Duration::from_millis(50)).await {
            if matches!(event, InboxEvent::Peer(body) if body == wanted) {
                return;
            }
        }
    }
    panic!("{} never heard {number} from {}", to.id, from.id);
}

/// Waits until `condition` holds.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub fn me(replica: u32) -> LocalPeer {
    LocalPeer {
        group: GroupId::named(GROUP),
        replica: ReplicaId(replica),
        incarnation: Incarnation(1),
        config_hash: 7,
    }
}

/// Two bound transports that know each other, changed by `change`.
pub async fn two_bound(change: impl Fn(TcpConfig) -> TcpConfig) -> (TcpTransport, TcpTransport) {
    let one = TcpTransport::bind(change(TcpConfig::new("127.0.0.1:0")))
        .await
        .unwrap();
    let two = TcpTransport::bind(change(TcpConfig::new("127.0.0.1:0")))
        .await
        .unwrap();
    one.add_peer(ReplicaId(2), two.local_addr().unwrap().to_string());
    two.add_peer(ReplicaId(1), one.local_addr().unwrap().to_string());
    (one, two)
}

/// Two started ones.
pub async fn two(change: impl Fn(TcpConfig) -> TcpConfig) -> (Node, Node) {
    let (one, two) = two_bound(change).await;
    (Node::start(me(1), one).await, Node::start(me(2), two).await)
}

fn body(from: ReplicaId, number: u64) -> Bytes {
    let mut body = BytesMut::new();
    let envelope = Envelope {
        group: GroupId::named(GROUP),
        from,
        incarnation: Incarnation(1),
        to_incarnation: Incarnation(1),
    };
    envelope.encode(&mut body);
    body.put_u64(number);
    body.freeze()
}
