//! What every transport must keep, as tests for people who write one.
//!
//! Implement [`TransportFactory`] for your transport and name it, in a test file of your crate (which needs `tokio` with
//! `macros` and `rt-multi-thread`):
//!
//! ```
//! use async_trait::async_trait;
//! use kvrep_core::ReplicaId;
//! use kvrep_core::testing::transport_suite::TransportFactory;
//! use kvrep_core::transport::{Transport, memory::MemoryNetwork};
//! use std::{collections::BTreeMap, sync::Arc};
//!
//! struct InMemory(MemoryNetwork);
//!
//! #[async_trait]
//! impl TransportFactory for InMemory {
//!     async fn make(&self, replicas: &[ReplicaId]) -> BTreeMap<ReplicaId, Arc<dyn Transport>> {
//!         let made = |id: &ReplicaId| (*id, Arc::new(self.0.transport()) as Arc<dyn Transport>);
//!         replicas.iter().map(made).collect()
//!     }
//!     async fn remake(&self, _: ReplicaId) -> Arc<dyn Transport> {
//!         Arc::new(self.0.transport())
//!     }
//! }
//!
//! kvrep_core::transport_suite!(InMemory(MemoryNetwork::new()));
//! # fn main() {}
//! ```
//!
//! Each rule becomes a test of its own. A transport may lose frames, so the suite repeats what it waits for until a
//! deadline of [`PATIENCE`]; what arrives must be right at once. Order is checked where
//! [`Capabilities`](crate::transport::Capabilities) promise it.

use crate::id::{GroupId, Incarnation, ReplicaId};
use crate::testing::mailbox::Mailbox;
use crate::transport::{Destination, Hint, InboxEvent, LocalPeer, Order, Transport};
use crate::wire::{self, Envelope, FrameKind, HEADER_BYTES};
use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// How long the suite waits for something that should happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Makes the transports under test.
#[async_trait]
pub trait TransportFactory: Send + Sync {
    /// New transports, not started, of replicas that can reach each other.
    async fn make(&self, replicas: &[ReplicaId]) -> BTreeMap<ReplicaId, Arc<dyn Transport>>;

    /// A new transport for a replica made before, whose transport was closed: where the others look for it (the
    /// same port, the same topic).
    async fn remake(&self, replica: ReplicaId) -> Arc<dyn Transport>;
}

/// Makes a `#[tokio::test]` of every rule of the [suite](self). The argument is an expression that makes a fresh
/// [`TransportFactory`].
#[macro_export]
macro_rules! transport_suite {
    ($factory:expr) => {
        $crate::transport_suite!(@each $factory;
            frames_arrive_whole_and_unchanged_in_both_directions,
            frames_of_every_size_up_to_the_largest_arrive,
            frames_over_the_limit_are_refused,
            frames_arrive_in_order_if_promised,
            a_frame_to_the_group_reaches_all_others,
            sending_to_nobody_neither_blocks_nor_goes_uncounted,
            a_peer_that_does_not_read_neither_blocks_nor_fills_memory,
            closing_ends_everything_and_can_be_repeated,
            a_peer_that_restarts_is_connected_again);
    };
    (@each $factory:expr; $($rule:ident),*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $rule() {
                $crate::testing::transport_suite::$rule(&$factory).await;
            }
        )*
    };
}

/// Runs every rule in turn, each with a factory of its own.
///
/// # Panics
/// When the transport breaks a rule.
pub async fn run_all<F: TransportFactory>(factory: impl Fn() -> F) {
    frames_arrive_whole_and_unchanged_in_both_directions(&factory()).await;
    frames_of_every_size_up_to_the_largest_arrive(&factory()).await;
    frames_over_the_limit_are_refused(&factory()).await;
    frames_arrive_in_order_if_promised(&factory()).await;
    a_frame_to_the_group_reaches_all_others(&factory()).await;
    sending_to_nobody_neither_blocks_nor_goes_uncounted(&factory()).await;
    a_peer_that_does_not_read_neither_blocks_nor_fills_memory(&factory()).await;
    closing_ends_everything_and_can_be_repeated(&factory()).await;
    a_peer_that_restarts_is_connected_again(&factory()).await;
}

/// What is sent arrives with the same bytes, from each to the other.
///
/// # Panics
/// When the rule is broken.
pub async fn frames_arrive_whole_and_unchanged_in_both_directions(factory: &dyn TransportFactory) {
    let group = TestGroup::start(factory, 2, ROOM).await;
    for (from, to) in [(1, 2), (2, 1)] {
        let sent: BTreeSet<Bytes> = (0..100).map(|n| body_of(from, n, 40)).collect();
        let mut missing = sent.clone();
        let deadline = Instant::now() + PATIENCE;
        while !missing.is_empty() {
            assert!(
                Instant::now() < deadline,
                "{} frames never arrived",
                missing.len()
            );
            missing.iter().for_each(|body| group.send(from, to, body));
            while let Some(body) = group.heard(to, Duration::from_millis(200)).await {
                assert!(sent.contains(&body), "a frame arrived that nobody sent");
                missing.remove(&body);
            }
        }
    }
    group.close().await;
}

/// Bodies of 28 bytes to the largest that the capabilities name.
///
/// # Panics
/// When the rule is broken.
pub async fn frames_of_every_size_up_to_the_largest_arrive(factory: &dyn TransportFactory) {
    let group = TestGroup::start(factory, 2, ROOM).await;
    let largest = group.transport(1).capabilities().frame_bytes_max - HEADER_BYTES;
    assert!(largest >= 1024, "frames of less than 1 KiB are of no use");
    let sizes = (5..31).map(|bits| 1 << bits).filter(|size| *size < largest);
    for size in sizes.chain([28, largest - 1, largest]) {
        group
            .send_until_heard(1, 2, &body_of(1, size as u64, size))
            .await;
    }
    group.close().await;
}

/// A frame one byte larger than the largest is not sent, is counted as refused, and harms nothing.
///
/// # Panics
/// When the rule is broken.
pub async fn frames_over_the_limit_are_refused(factory: &dyn TransportFactory) {
    let group = TestGroup::start(factory, 2, ROOM).await;
    let largest = group.transport(1).capabilities().frame_bytes_max - HEADER_BYTES;
    let before = group.transport(1).counters().refused;
    group.send(1, 2, &body_of(1, 0, largest + 1));
    let after = group.transport(1).counters().refused;
    assert_eq!(
        after,
        before + 1,
        "a frame over the limit counts as refused"
    );
    group.send_until_heard(1, 2, &body_of(1, 1, 40)).await;
    group.close().await;
}

/// With [`Order::FifoPerPeer`] or [`Order::Total`], what arrives from one peer is in the order of the sends.
///
/// # Panics
/// When the rule is broken.
pub async fn frames_arrive_in_order_if_promised(factory: &dyn TransportFactory) {
    const FRAMES: u64 = 5_000;
    let group = TestGroup::start(factory, 2, FRAMES as usize * 2).await;
    if group.transport(1).capabilities().order == Order::None {
        return group.close().await;
    }
    group.send_until_heard(1, 2, &body_of(1, 0, 40)).await;
    for number in 1..=FRAMES {
        group.send(1, 2, &body_of(1, number, 28 + (number as usize % 200)));
    }
    let mut last = 0;
    while last < FRAMES {
        let body = group
            .heard(2, PATIENCE)
            .await
            .expect("the last frame never came");
        let number = number_of(&body);
        // Repeats of frame 0 may still be under way; a gap is a loss, which is allowed.
        assert!(
            number > last || number == 0,
            "frame {number} came after frame {last}"
        );
        last = last.max(number);
    }
    group.close().await;
}

/// [`Destination::Group`] goes to everybody but the sender.
///
/// # Panics
/// When the rule is broken.
pub async fn a_frame_to_the_group_reaches_all_others(factory: &dyn TransportFactory) {
    let group = TestGroup::start(factory, 4, ROOM).await;
    let body = body_of(2, 1, 40);
    let mut missing = BTreeSet::from([1, 3, 4]);
    let deadline = Instant::now() + PATIENCE;
    while !missing.is_empty() {
        assert!(
            Instant::now() < deadline,
            "{missing:?} never heard the group's frame"
        );
        let frame = wire::encode_frame(FrameKind::Peer, &body);
        group.transport(2).send(Destination::Group, frame);
        for to in missing.clone() {
            if group
                .heard(to, Duration::from_millis(100))
                .await
                .is_some_and(|b| b == body)
            {
                missing.remove(&to);
            }
        }
    }
    let own = group.heard(2, Duration::from_millis(50)).await;
    assert_eq!(own, None, "the sender of a frame to the group gets it too");
    group.close().await;
}

/// Frames to one that does not exist, and to one that is not there, are dropped, counted, and cost no time.
///
/// # Panics
/// When the rule is broken.
pub async fn sending_to_nobody_neither_blocks_nor_goes_uncounted(factory: &dyn TransportFactory) {
    let group = TestGroup::start(factory, 3, ROOM).await;
    group.send_until_heard(1, 2, &body_of(1, 0, 40)).await;
    group.transport(2).close().await;
    let before = group.transport(1).counters();
    let began = Instant::now();
    for number in 0..10_000 {
        group.send(1, 2, &body_of(1, number, 40));
        group.send(1, 99, &body_of(1, number, 40));
    }
    assert!(began.elapsed() < PATIENCE / 2, "send blocks");
    let dropped = group.transport(1).counters().frames_dropped - before.frames_dropped;
    assert!(
        dropped >= 10_000,
        "only {dropped} of 10,000 frames to nobody were counted"
    );
    group.send_until_heard(1, 3, &body_of(1, 1, 40)).await;
    group.close().await;
}

/// A peer whose node does not read makes its sender drop and count, not wait; others do not suffer; when it reads
/// again, it hears again.
///
/// # Panics
/// When the rule is broken.
pub async fn a_peer_that_does_not_read_neither_blocks_nor_fills_memory(
    factory: &dyn TransportFactory,
) {
    let group = TestGroup::start(factory, 3, ROOM).await;
    group.send_until_heard(1, 2, &body_of(1, 0, 40)).await;
    let size = group
        .transport(1)
        .capabilities()
        .frame_bytes_max
        .min(64 << 10)
        - HEADER_BYTES;
    let body = body_of(1, 1, size);
    let before = group.transport(1).counters().frames_dropped;
    let deadline = Instant::now() + PATIENCE;
    while group.transport(1).counters().frames_dropped == before {
        assert!(
            Instant::now() < deadline,
            "nothing is dropped: a queue without bound?"
        );
        let began = Instant::now();
        for _ in 0..64 {
            group.send(1, 2, &body);
        }
        assert!(began.elapsed() < Duration::from_secs(5), "send blocks");
        tokio::task::yield_now().await;
    }
    group.send_until_heard(1, 3, &body_of(1, 2, 40)).await;
    group.send_until_heard(1, 2, &body_of(1, 3, 40)).await;
    group.close().await;
}

/// After `close` nothing arrives, the second call returns at once, sends are dropped, and another can take the place.
///
/// # Panics
/// When the rule is broken.
pub async fn closing_ends_everything_and_can_be_repeated(factory: &dyn TransportFactory) {
    let group = TestGroup::start(factory, 2, ROOM).await;
    group.send_until_heard(1, 2, &body_of(1, 0, 40)).await;
    for _ in 0..2 {
        let closed = timeout(PATIENCE, group.transport(2).close()).await;
        assert!(closed.is_ok(), "close hangs");
    }
    while group.heard(2, Duration::ZERO).await.is_some() {}
    group.send(1, 2, &body_of(1, 1, 40));
    group.send(2, 1, &body_of(2, 1, 40));
    let late = group.heard(2, Duration::from_millis(100)).await;
    assert_eq!(late, None, "a closed transport delivers");
    let late = group.heard(1, Duration::from_millis(100)).await;
    assert_eq!(late, None, "a closed transport sends");

    let again = factory.remake(ReplicaId(2)).await;
    let mailbox = Mailbox::new(ROOM);
    let started = again.start(local_peer(2, 2), mailbox.inbox()).await;
    assert!(
        started.is_ok(),
        "its place cannot be taken again: {started:?}"
    );
    again.close().await;
    group.close().await;
}

/// A replica that comes back in a new life hears and is heard, and is announced as connected.
///
/// # Panics
/// When the rule is broken.
pub async fn a_peer_that_restarts_is_connected_again(factory: &dyn TransportFactory) {
    let mut group = TestGroup::start(factory, 2, ROOM).await;
    group.send_until_heard(1, 2, &body_of(1, 0, 40)).await;
    for life in 2..5 {
        group.transport(2).close().await;
        while group.mailbox(1).next(Duration::ZERO).await.is_some() {}
        let again = factory.remake(ReplicaId(2)).await;
        let mailbox = Mailbox::new(ROOM);
        again
            .start(local_peer(2, life), mailbox.inbox())
            .await
            .expect("it starts again");
        group.nodes.insert(ReplicaId(2), (again, mailbox));
        group.await_hint(1, ReplicaId(2), Hint::Connected).await;
        group.send_until_heard(1, 2, &body_of(1, life, 40)).await;
        group.send_until_heard(2, 1, &body_of(2, life, 40)).await;
    }
    group.close().await;
}

struct TestGroup {
    nodes: BTreeMap<ReplicaId, (Arc<dyn Transport>, Mailbox)>,
}

impl TestGroup {
    /// Starts replicas 1 to `n`.
    async fn start(factory: &dyn TransportFactory, n: u32, room: usize) -> Self {
        let ids: Vec<ReplicaId> = (1..=n).map(ReplicaId).collect();
        let mut nodes = BTreeMap::new();
        for (id, transport) in factory.make(&ids).await {
            let mailbox = Mailbox::new(room);
            let started = transport.start(local_peer(id.0, 1), mailbox.inbox()).await;
            started.expect("the transport starts");
            nodes.insert(id, (transport, mailbox));
        }
        assert_eq!(
            nodes.len(),
            ids.len(),
            "the factory makes what it is asked for"
        );
        Self { nodes }
    }

    fn transport(&self, replica: u32) -> &Arc<dyn Transport> {
        &self.nodes[&ReplicaId(replica)].0
    }

    fn mailbox(&self, replica: u32) -> &Mailbox {
        &self.nodes[&ReplicaId(replica)].1
    }

    fn send(&self, from: u32, to: u32, body: &[u8]) {
        let frame = wire::encode_frame(FrameKind::Peer, body);
        self.transport(from)
            .send(Destination::One(ReplicaId(to)), frame);
    }

    /// The body of the next peer frame; hints are passed over.
    async fn heard(&self, at: u32, patience: Duration) -> Option<Bytes> {
        loop {
            match self.mailbox(at).next(patience).await? {
                InboxEvent::Peer(body) => return Some(body),
                InboxEvent::Shipment(shipment) => return Some(shipment.body()),
                InboxEvent::Hint { .. } => {}
                InboxEvent::Client { .. } => panic!("a client that nobody started"),
            }
        }
    }

    /// Repeats the frame until it is heard.
    async fn send_until_heard(&self, from: u32, to: u32, body: &Bytes) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.send(from, to, body);
            let again = Instant::now() + Duration::from_millis(300);
            while let Some(heard) = self.heard(to, again - Instant::now()).await {
                if heard == *body {
                    return;
                }
            }
            assert!(
                Instant::now() < deadline,
                "a frame of {} bytes from n{from} to n{to} never arrived",
                body.len()
            );
        }
    }

    async fn await_hint(&self, at: u32, about: ReplicaId, wanted: Hint) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(
                Instant::now() < deadline,
                "no hint that {about} is {wanted:?}"
            );
            match self.mailbox(at).next(Duration::from_millis(100)).await {
                Some(InboxEvent::Hint { peer, hint }) if peer == about && hint == wanted => return,
                Some(_) => {}
                None => sleep(Duration::from_millis(1)).await,
            }
        }
    }

    async fn close(&self) {
        for (transport, _) in self.nodes.values() {
            let closed = timeout(PATIENCE, transport.close()).await;
            assert!(closed.is_ok(), "close hangs");
        }
    }
}

fn local_peer(replica: u32, incarnation: u64) -> LocalPeer {
    LocalPeer {
        group: GroupId::named("transport suite"),
        replica: ReplicaId(replica),
        incarnation: Incarnation(incarnation),
        config_hash: 7,
    }
}

/// A body of `size` bytes (28 at least): an envelope whose last number tells it from others, and a pattern.
fn body_of(from: u32, number: u64, size: usize) -> Bytes {
    let mut body = BytesMut::with_capacity(size);
    let envelope = Envelope {
        group: GroupId::named("transport suite"),
        from: ReplicaId(from),
        incarnation: Incarnation(1),
        to_incarnation: Incarnation(number),
    };
    envelope.encode(&mut body);
    let mut noise = crate::random::Rng::new(number);
    while body.len() + 8 <= size {
        body.put_u64(noise.next());
    }
    body.resize(size.max(Envelope::BYTES), 0xa5);
    body.freeze()
}

fn number_of(body: &Bytes) -> u64 {
    let envelope = Envelope::decode(&mut body.clone());
    envelope
        .expect("a frame arrived that nobody sent")
        .to_incarnation
        .0
}

const ROOM: usize = 1_024;
