//! How frames get from replica to replica.
//!
//! A transport is datagram-shaped: it may lose, duplicate and reorder frames unless its [`Capabilities`] say more,
//! and protocols are written for the worst. What it must keep: a frame arrives whole and unchanged or not at all;
//! `send` never blocks; every queue is bounded, and what does not fit is dropped and counted.
//!
//! The way back: what arrives goes into the node's [`Inbox`], peer frames without their header, requests with the place to
//! [reply to](ReplyTo), and [hints](Hint) of what the transport saw. When the inbox is full, a transport either waits
//! ([`Inbox::deliver`]), so that its sender waits too, or drops and counts ([`Inbox::try_deliver`]).
//!
//! A transport may be wrapped by another one. This one loses what the group must then bear:
//!
//! ```
//! use async_trait::async_trait;
//! use bytes::Bytes;
//! use kvrep_core::ReplicaId;
//! use kvrep_core::transport::{
//!     Capabilities, Destination, Inbox, LocalPeer, Transport, TransportCounters, TransportError,
//! };
//! use std::sync::atomic::{AtomicU64, Ordering};
//!
//! /// Loses every hundredth frame.
//! struct Lossy<T>(T, AtomicU64);
//!
//! #[async_trait]
//! impl<T: Transport> Transport for Lossy<T> {
//!     async fn start(&self, me: LocalPeer, inbox: Inbox) -> Result<(), TransportError> {
//!         self.0.start(me, inbox).await
//!     }
//!     fn send(&self, to: Destination, frame: Bytes) {
//!         if self.1.fetch_add(1, Ordering::Relaxed) % 100 != 99 {
//!             self.0.send(to, frame);
//!         }
//!     }
//!     fn capabilities(&self) -> Capabilities {
//!         self.0.capabilities() // what arrives is still in order
//!     }
//!     fn address_of(&self, peer: ReplicaId) -> Option<String> {
//!         self.0.address_of(peer)
//!     }
//!     fn counters(&self) -> TransportCounters {
//!         self.0.counters()
//!     }
//!     async fn close(&self) {
//!         self.0.close().await;
//!     }
//! }
//! ```
//!
//! The suite in `testing` (feature `testing`) says whether a transport keeps the rules.

#[cfg(feature = "runtime")]
pub mod memory;

pub use crate::shipment::Shipment;

use crate::id::{GroupId, Incarnation, ReplicaId};
use async_trait::async_trait;
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// Who this node is, for the handshake.
#[derive(Clone, Debug)]
pub struct LocalPeer {
    /// The group.
    pub group: GroupId,
    /// This replica.
    pub replica: ReplicaId,
    /// This life of it.
    pub incarnation: Incarnation,
    /// Hash of everything the group must agree on; peers with another one are refused. 0 accepts any and is accepted
    /// by all: the witness has no part in what is agreed.
    pub config_hash: u64,
}

/// Where a frame goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Destination {
    /// To one replica (or the witness).
    One(ReplicaId),
    /// To every other member of the group.
    Group,
}

/// In which order frames arrive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Any.
    None,
    /// As sent, between two replicas, while both live and the connection lasts.
    FifoPerPeer,
    /// The same for everybody.
    Total,
}

/// What a transport promises beyond a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capabilities {
    /// The order of delivery.
    pub order: Order,
    /// Whether [`Destination::Group`] is one send on the network.
    pub native_group: bool,
    /// Largest frame in bytes, header included.
    pub frame_bytes_max: usize,
}

/// What a transport tells the node.
#[non_exhaustive]
pub enum InboxEvent {
    /// A peer frame's body (envelope and message), already checked.
    Peer(Bytes),
    /// A peer frame's body whose entries are the sender's own memory. Only for a sink that
    /// [takes shipments](InboxSink::takes_shipments).
    Shipment(Shipment),
    /// Something seen about a peer; only ever a hint.
    Hint {
        /// About whom.
        peer: ReplicaId,
        /// What was seen.
        hint: Hint,
    },
    /// A client's request (the body of a request frame) and where the reply goes.
    Client {
        /// The body.
        request: Bytes,
        /// Takes the reply frame.
        reply: ReplyTo,
    },
}

/// What a transport can see of a peer's health.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Hint {
    /// A connection to it was made.
    Connected,
    /// The connection ended and the peer's machine says that nobody listens there any more: the process is gone.
    Gone,
    /// It refused this replica, because it has heard a later life of it: another process runs under this one's name, or the clock by which lives are named
    /// is behind what it was at the last start.
    Superseded,
    /// It hears this replica, and says that it cannot reach it: what it answers does not arrive.
    Unheard,
}

/// Where the reply to a client's request goes. Never blocks; a client that is gone or does not read is dropped by
/// its transport.
///
/// ```
/// use kvrep_core::transport::ReplyTo;
/// use std::sync::mpsc;
///
/// let (replies, sent) = mpsc::channel();
/// let reply = ReplyTo::new(move |frame| drop(replies.send(frame)));
/// reply.send("a whole frame".into());
/// assert_eq!(sent.recv().unwrap(), "a whole frame");
/// ```
#[derive(Clone)]
pub struct ReplyTo(Arc<dyn Fn(Bytes) + Send + Sync>);

impl ReplyTo {
    /// Replies by calling `send` with the whole reply frame.
    pub fn new(send: impl Fn(Bytes) + Send + Sync + 'static) -> Self {
        Self(Arc::new(send))
    }

    /// Sends the reply frame.
    pub fn send(&self, frame: Bytes) {
        (self.0)(frame);
    }
}

impl fmt::Debug for ReplyTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplyTo")
    }
}

impl fmt::Debug for InboxEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(body) => write!(f, "Peer({} bytes)", body.len()),
            Self::Shipment(shipment) => write!(f, "{shipment:?}"),
            Self::Hint { peer, hint } => write!(f, "Hint({peer}, {hint:?})"),
            Self::Client { request, .. } => write!(f, "Client({} bytes)", request.len()),
        }
    }
}

/// The node's bounded queue, as a transport sees it.
#[async_trait]
pub trait InboxSink: Send + Sync {
    /// Puts the event in the queue, or gives it back when the queue is full or the node has stopped.
    ///
    /// # Errors
    /// The event, not delivered.
    fn try_deliver(&self, event: InboxEvent) -> Result<(), InboxEvent>;

    /// Waits for room. Returns whether the node still runs. For transports that can make a sender wait (TCP).
    async fn deliver(&self, event: InboxEvent) -> bool;

    /// Whether it takes [`InboxEvent::Shipment`]; else a transport puts the frame's body together.
    fn takes_shipments(&self) -> bool {
        false
    }
}

/// Where a transport delivers to.
#[derive(Clone)]
pub struct Inbox(Arc<dyn InboxSink>);

impl Inbox {
    /// An inbox over `sink`.
    pub fn new(sink: Arc<dyn InboxSink>) -> Self {
        Self(sink)
    }

    /// See [`InboxSink::try_deliver`].
    ///
    /// # Errors
    /// The event, not delivered.
    pub fn try_deliver(&self, event: InboxEvent) -> Result<(), InboxEvent> {
        self.0.try_deliver(event)
    }

    /// See [`InboxSink::deliver`].
    pub async fn deliver(&self, event: InboxEvent) -> bool {
        self.0.deliver(event).await
    }

    /// See [`InboxSink::takes_shipments`].
    #[must_use]
    pub fn takes_shipments(&self) -> bool {
        self.0.takes_shipments()
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inbox")
    }
}

/// Why a transport could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The address cannot be listened on. Nothing was started.
    #[error("cannot listen on {address}: {source}. {remedy}")]
    Listen {
        /// The address.
        address: String,
        /// What the system said.
        source: std::io::Error,
        /// What to do about it.
        remedy: &'static str,
    },
    /// A setting is wrong. Nothing was started.
    #[error("{0}")]
    Config(String),
}

/// What a transport did and dropped since its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TransportCounters {
    /// Frames handed to the network.
    pub frames_sent: u64,
    /// Frames delivered to the node.
    pub frames_received: u64,
    /// Frames dropped because a queue was full or nobody was connected.
    pub frames_dropped: u64,
    /// Connections or frames refused: another group, version or configuration, too large, garbage.
    pub refused: u64,
}

/// Counts what a transport does and drops: for transports, from any thread.
///
/// ```
/// use kvrep_core::transport::FrameCounters;
///
/// let counters = FrameCounters::default();
/// counters.sent();
/// counters.dropped(2);
/// assert_eq!((counters.read().frames_sent, counters.read().frames_dropped), (1, 2));
/// ```
#[derive(Default, Debug)]
pub struct FrameCounters {
    sent: AtomicU64,
    received: AtomicU64,
    dropped: AtomicU64,
    refused: AtomicU64,
}

impl FrameCounters {
    /// A frame was handed to the network.
    pub fn sent(&self) {
        self.sent.fetch_add(1, Relaxed);
    }

    /// A frame was delivered to the node.
    pub fn received(&self) {
        self.received.fetch_add(1, Relaxed);
    }

    /// So many frames were dropped.
    pub fn dropped(&self, frames: u64) {
        self.dropped.fetch_add(frames, Relaxed);
    }

    /// A connection or a frame was refused.
    pub fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// As they stand.
    #[must_use]
    pub fn read(&self) -> TransportCounters {
        TransportCounters {
            frames_sent: self.sent.load(Relaxed),
            frames_received: self.received.load(Relaxed),
            frames_dropped: self.dropped.load(Relaxed),
            refused: self.refused.load(Relaxed),
        }
    }
}

/// Carries frames. See the [module](self) for what it must and need not keep.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Starts listening and connecting; frames arrive in `inbox` from now on.
    ///
    /// # Errors
    /// When it cannot; nothing runs then.
    async fn start(&self, me: LocalPeer, inbox: Inbox) -> Result<(), TransportError>;

    /// Sends a frame (whole, header included). Never blocks; drops and counts what does not fit.
    fn send(&self, to: Destination, frame: Bytes);

    /// Whether entries need not be encoded, because peers share this process's memory: then [`ship`](Self::ship) is called. A
    /// transport that wraps another one, and looks at what is sent, leaves it as it is.
    fn shares_memory(&self) -> bool {
        false
    }

    /// Sends entries that are not encoded yet, as [`send`](Self::send) does with a frame.
    fn ship(&self, to: ReplicaId, shipment: Shipment) {
        self.send(Destination::One(to), shipment.frame());
    }

    /// What this transport promises.
    fn capabilities(&self) -> Capabilities;

    /// Where clients find this replica, for redirects; `None` when unknown.
    fn address_of(&self, peer: ReplicaId) -> Option<String>;

    /// What was sent and dropped so far.
    fn counters(&self) -> TransportCounters;

    /// Ends every task and connection; returns when they have ended. The second call does nothing.
    async fn close(&self);
}

/// For a program that wants to ask its transport while a node uses it, for instance where peers were found; and, as `Arc<dyn Transport>`, for one
/// that chooses its transport when it runs.
#[async_trait]
impl<T: Transport + ?Sized> Transport for Arc<T> {
    async fn start(&self, me: LocalPeer, inbox: Inbox) -> Result<(), TransportError> {
        (**self).start(me, inbox).await
    }

    fn send(&self, to: Destination, frame: Bytes) {
        (**self).send(to, frame);
    }

    fn shares_memory(&self) -> bool {
        (**self).shares_memory()
    }

    fn ship(&self, to: ReplicaId, shipment: Shipment) {
        (**self).ship(to, shipment);
    }

    fn capabilities(&self) -> Capabilities {
        (**self).capabilities()
    }

    fn address_of(&self, peer: ReplicaId) -> Option<String> {
        (**self).address_of(peer)
    }

    fn counters(&self) -> TransportCounters {
        (**self).counters()
    }

    async fn close(&self) {
        (**self).close().await;
    }
}
