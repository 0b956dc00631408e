//! [`MulticastTransport`]: starts, sends, closes.

use crate::clients::Clients;
use crate::config::MulticastConfig;
use crate::datagram::{Heading, Said, To, pieces_of};
use crate::hearing;
use crate::outbox::{Outbox, remedy};
use crate::peers::Peers;
use crate::socket::GroupSocket;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use kvrep_core::ReplicaId;
use kvrep_core::transport::{
    Capabilities, Destination, FrameCounters, Inbox, LocalPeer, Order, Transport,
    TransportCounters, TransportError,
};
use kvrep_core::wire::{self, FrameKind};
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Carries frames in datagrams: to the group as one, to one replica by itself. See the [crate](crate).
///
/// Nobody is listed: members find each other by what they say to the group.
pub struct MulticastTransport {
    config: MulticastConfig,
    counters: Arc<FrameCounters>,
    /// Until it is closed: with the last of its parts its sockets go.
    running: Mutex<Option<Arc<Shared>>>,
    /// Held while starting and closing.
    task: tokio::sync::Mutex<Option<JoinHandle<()>>>,
    stop: watch::Sender<bool>,
}

impl MulticastTransport {
    /// A transport that joins the group when it is started.
    #[must_use]
    pub fn new(config: MulticastConfig) -> Self {
        Self {
            config,
            counters: Arc::default(),
            running: Mutex::default(),
            task: tokio::sync::Mutex::default(),
            stop: watch::Sender::new(false),
        }
    }

    fn running(&self) -> MutexGuard<'_, Option<Arc<Shared>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a running transport's parts have in common.
pub(crate) struct Shared {
    pub(crate) me: LocalPeer,
    pub(crate) config: MulticastConfig,
    pub(crate) socket: Arc<GroupSocket>,
    pub(crate) outbox: Outbox,
    pub(crate) inbox: Inbox,
    pub(crate) counters: Arc<FrameCounters>,
    peers: Mutex<Peers>,
    clients: Mutex<Clients>,
    /// Frames made.
    number: AtomicU64,
}

impl Shared {
    pub(crate) fn peers(&self) -> MutexGuard<'_, Peers> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn clients(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn reply(&self, to: SocketAddr, frame: &Bytes) {
        self.send(To::One(ReplicaId::NOBODY), to, frame);
    }

    pub(crate) fn heading(&self, said: Said) -> Heading {
        Heading {
            group: self.me.group,
            from: self.me.replica,
            incarnation: self.me.incarnation,
            config_hash: self.me.config_hash,
            said,
        }
    }

    /// Whether what is said with another configuration is heard. 0 is the hash of who takes any: the witness.
    pub(crate) fn fits(&self, config_hash: u64) -> bool {
        config_hash == self.me.config_hash || config_hash == 0 || self.me.config_hash == 0
    }

    /// Says this to the group, or to one address.
    pub(crate) fn say(&self, said: Said, to: SocketAddr) {
        let mut out = BytesMut::with_capacity(Heading::BYTES);
        self.heading(said).encode(&mut out);
        // What does not fit is said again soon.
        self.outbox.send(to, vec![out.freeze()]);
    }

    /// Tells the group that this life is over. What still waits would be refused behind it, and is thrown away.
    pub(crate) async fn say_farewell(&self) {
        let mut out = BytesMut::with_capacity(Heading::BYTES);
        self.heading(Said::Gone).encode(&mut out);
        let group = self.config.group.into();
        self.outbox.send_last(group, out.freeze()).await;
    }

    fn send(&self, to: To, address: SocketAddr, frame: &Bytes) {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let heading = |piece| self.heading(Said::Piece(piece));
        let piece_bytes_max = self.config.piece_bytes_max();
        let Some(pieces) = pieces_of(frame, piece_bytes_max, heading, (to, number)) else {
            return self.counters.refused();
        };
        if self.outbox.send(address, pieces) {
            self.counters.sent();
        } else {
            self.counters.dropped(1);
        }
    }
}

#[async_trait]
impl Transport for MulticastTransport {
    async fn start(&self, me: LocalPeer, inbox: Inbox) -> Result<(), TransportError> {
        let mut task = self.task.lock().await;
        if *self.stop.borrow() || self.running().is_some() {
            let why = "a multicast transport is started once; make another one";
            return Err(TransportError::Config(why.into()));
        }
        self.config.validate().map_err(TransportError::Config)?;
        let socket = GroupSocket::open(&self.config).map_err(|source| TransportError::Listen {
            address: self.config.group.to_string(),
            remedy: remedy(&source),
            source,
        })?;
        let socket = Arc::new(socket);
        let shared = Arc::new(Shared {
            me,
            config: self.config.clone(),
            outbox: Outbox::new(Arc::clone(&socket), &self.config),
            socket,
            inbox,
            counters: Arc::clone(&self.counters),
            peers: Mutex::default(),
            clients: Mutex::default(),
            number: AtomicU64::new(0),
        });
        *self.running() = Some(Arc::clone(&shared));
        let running = hearing::run(shared, self.stop.subscribe());
        *task = Some(tokio::spawn(running));
        Ok(())
    }

    fn send(&self, to: Destination, frame: Bytes) {
        let fits = frame.len() <= self.config.limits.frame_bytes_max;
        if !fits || wire::own_body(&frame, FrameKind::Peer).is_none() {
            return self.counters.refused();
        }
        let running = self.running().clone();
        let Some(shared) = running.filter(|_| !*self.stop.borrow()) else {
            return self.counters.dropped(1);
        };
        match to {
            Destination::Group => shared.send(To::All, self.config.group.into(), &frame),
            Destination::One(peer) => {
                let address = shared.peers().address(peer);
                match address {
                    Some(address) => shared.send(To::One(peer), address, &frame),
                    None => self.counters.dropped(1),
                }
            }
        }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            order: Order::None,
            native_group: true,
            frame_bytes_max: self.config.limits.frame_bytes_max,
        }
    }

    /// Clients find replicas by what they say to the group.
    fn address_of(&self, _: ReplicaId) -> Option<String> {
        None
    }

    fn counters(&self) -> TransportCounters {
        self.counters.read()
    }

    async fn close(&self) {
        let mut task = self.task.lock().await;
        self.stop.send_replace(true);
        if let Some(task) = task.as_mut() {
            // Its panic would be a bug of ours that tokio has reported already.
            let _ = task.await;
        }
        *task = None;
        *self.running() = None;
    }
}

impl Drop for MulticastTransport {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

impl fmt::Debug for MulticastTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MulticastTransport")
            .field("config", &self.config)
            .field("counters", &self.counters())
            .finish_non_exhaustive()
    }
}
