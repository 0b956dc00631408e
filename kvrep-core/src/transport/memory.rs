//! A network inside one process: a frame goes straight into the addressee's inbox.
//!
//! For tests, benchmarks and groups that live in one program. A send looks the addressee up and puts the frame's body
//! into its inbox: no task, no copy, no lock held while delivering. Entries are not even encoded: a node takes them over as
//! they are in the sender's log ([`Shipment`]).
//!
//! What holds: frames between two replicas arrive in the order of the `send` calls; a full inbox, an absent addressee
//! or a cut link drops the frame and counts it at the sender. A transport that starts is told who is there and they
//! are told of it ([`Hint::Connected`]); one that closes, or is dropped, is reported [`Hint::Gone`]. Cut links carry
//! no hints either, as with a cable pulled out.
//!
//! Not a simulator: delivery depends on the scheduling of the process.

use crate::id::{GroupId, ReplicaId};
use crate::transport::{
    Capabilities, Destination, Hint, Inbox, InboxEvent, LocalPeer, Order, Shipment, Transport,
    TransportCounters, TransportError,
};
use crate::wire::{self, FrameKind, HEADER_BYTES};
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

/// The hub of a network in memory. Clones are the same network.
///
/// ```
/// use kvrep_core::transport::memory::MemoryNetwork;
/// use kvrep_core::ReplicaId;
///
/// let network = MemoryNetwork::new();
/// let transport = network.transport(); // one for each replica, given to its node
/// network.cut(ReplicaId(1), ReplicaId(2)); // 2 hears nothing from 1 any more
/// network.heal(ReplicaId(1), ReplicaId(2));
/// # drop(transport);
/// ```
#[derive(Clone)]
pub struct MemoryNetwork {
    hub: Arc<Hub>,
}

struct Hub {
    /// Replaced as a whole, so that a sender holds the lock for one reference count only.
    table: RwLock<Arc<Table>>,
    frame_bytes_max: usize,
}

#[derive(Clone, Default)]
struct Table {
    ports: BTreeMap<(GroupId, ReplicaId), Port>,
    /// Cut links, from and to.
    cuts: BTreeSet<(ReplicaId, ReplicaId)>,
}

#[derive(Clone)]
struct Port {
    inbox: Inbox,
    config_hash: u64,
    counters: Arc<Counters>,
}

#[derive(Default)]
struct Counters {
    sent: AtomicU64,
    received: AtomicU64,
    dropped: AtomicU64,
    refused: AtomicU64,
}

impl MemoryNetwork {
    /// A network that carries frames with bodies of up to 4 MiB, the default of
    /// [`Limits::frame_bytes_max`](crate::Limits::frame_bytes_max).
    #[must_use]
    pub fn new() -> Self {
        Self::with_frame_bytes_max(crate::Limits::default().frame_bytes_max)
    }

    /// A network that carries frames with bodies of up to this many bytes.
    #[must_use]
    pub fn with_frame_bytes_max(frame_bytes_max: usize) -> Self {
        Self {
            hub: Arc::new(Hub {
                table: RwLock::default(),
                frame_bytes_max: frame_bytes_max.saturating_add(HEADER_BYTES),
            }),
        }
    }

    /// A transport on this network. It joins when it is started; who it is, is said then.
    #[must_use]
    pub fn transport(&self) -> MemoryTransport {
        MemoryTransport {
            hub: Arc::clone(&self.hub),
            me: OnceLock::new(),
            closed: AtomicBool::new(false),
            counters: Arc::default(),
        }
    }

    /// Cuts the link in one direction: what `from` sends to `to` is dropped and counted at `from`.
    pub fn cut(&self, from: ReplicaId, to: ReplicaId) {
        self.hub.change(|table| {
            table.cuts.insert((from, to));
        });
    }

    /// Cuts everything from and to this replica.
    pub fn isolate(&self, replica: ReplicaId) {
        self.hub.change(|table| {
            let others: Vec<ReplicaId> = table.ports.keys().map(|(_, id)| *id).collect();
            for other in others.into_iter().filter(|other| *other != replica) {
                table.cuts.insert((replica, other));
                table.cuts.insert((other, replica));
            }
        });
    }

    /// Repairs the link in one direction.
    pub fn heal(&self, from: ReplicaId, to: ReplicaId) {
        self.hub.change(|table| {
            table.cuts.remove(&(from, to));
        });
    }

    /// Repairs all links.
    pub fn heal_all(&self) {
        self.hub.change(|table| table.cuts.clear());
    }
}

impl Default for MemoryNetwork {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = self.hub.table();
        f.debug_struct("MemoryNetwork")
            .field("replicas", &table.ports.keys())
            .field("cuts", &table.cuts)
            .finish()
    }
}

impl Hub {
    fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change<R>(&self, change: impl FnOnce(&mut Table) -> R) -> R {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        change(Arc::make_mut(&mut table))
    }
}

impl Table {
    fn carries(&self, from: ReplicaId, to: ReplicaId) -> bool {
        self.cuts.is_empty() || !self.cuts.contains(&(from, to))
    }

    /// The other replicas of my group that would talk to me.
    fn others<'a>(&'a self, me: &'a LocalPeer) -> impl Iterator<Item = (ReplicaId, &'a Port)> {
        self.ports
            .iter()
            .filter(|((group, id), port)| {
                *group == me.group && *id != me.replica && port.accepts(me.config_hash)
            })
            .map(|((_, id), port)| (*id, port))
    }
}

impl Port {
    /// 0 is the hash of who takes any configuration: the witness.
    fn accepts(&self, config_hash: u64) -> bool {
        self.config_hash == config_hash || self.config_hash == 0 || config_hash == 0
    }

    /// A hint that finds the inbox full is lost: the detector's timeout does its work.
    fn hint(&self, peer: ReplicaId, hint: Hint) {
        let _ = self.inbox.try_deliver(InboxEvent::Hint { peer, hint });
    }
}

/// One replica's end of a [`MemoryNetwork`].
pub struct MemoryTransport {
    hub: Arc<Hub>,
    me: OnceLock<LocalPeer>,
    closed: AtomicBool,
    counters: Arc<Counters>,
}

impl MemoryTransport {
    fn deliver(&self, table: &Table, me: &LocalPeer, to: ReplicaId, body: InboxEvent) {
        let port = table.ports.get(&(me.group, to));
        let Some(port) = port.filter(|_| table.carries(me.replica, to)) else {
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if !port.accepts(me.config_hash) {
            port.counters.refused.fetch_add(1, Ordering::Relaxed);
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        } else if port.inbox.try_deliver(body).is_ok() {
            self.counters.sent.fetch_add(1, Ordering::Relaxed);
            port.counters.received.fetch_add(1, Ordering::Relaxed);
        } else {
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Who this is, while it is on the network; else what it sends is dropped.
    fn joined(&self) -> Option<&LocalPeer> {
        let me = self.me.get();
        let me = me.filter(|_| !self.closed.load(Ordering::Acquire));
        if me.is_none() {
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
        me
    }

    fn leave(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        let Some(me) = self.me.get() else { return };
        self.hub
            .change(|table| table.ports.remove(&(me.group, me.replica)));
        let table = self.hub.table();
        for (other, port) in table.others(me) {
            if table.carries(me.replica, other) {
                port.hint(me.replica, Hint::Gone);
            }
        }
    }
}

#[async_trait]
impl Transport for MemoryTransport {
    async fn start(&self, me: LocalPeer, inbox: Inbox) -> Result<(), TransportError> {
        let port = Port {
            inbox,
            config_hash: me.config_hash,
            counters: Arc::clone(&self.counters),
        };
        if self.closed.load(Ordering::Acquire) || self.me.get().is_some() {
            return Err(TransportError::Config(
                "a memory transport is started once; take another one from the network".into(),
            ));
        }
        self.hub.change(|table| {
            let key = (me.group, me.replica);
            if table.ports.contains_key(&key) {
                return Err(TransportError::Config(format!(
                    "{} is on this network already; close its transport first",
                    me.replica
                )));
            }
            table.ports.insert(key, port.clone());
            Ok(())
        })?;
        let me = self.me.get_or_init(|| me);
        let table = self.hub.table();
        for (other, theirs) in table.others(me) {
            if table.carries(me.replica, other) {
                theirs.hint(me.replica, Hint::Connected);
            }
            if table.carries(other, me.replica) {
                port.hint(other, Hint::Connected);
            }
        }
        Ok(())
    }

    fn send(&self, to: Destination, frame: Bytes) {
        let body = wire::own_body(&frame, FrameKind::Peer);
        let Some(body) = body.filter(|_| frame.len() <= self.hub.frame_bytes_max) else {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let Some(me) = self.joined() else {
            return;
        };
        let table = self.hub.table();
        match to {
            Destination::One(peer) => self.deliver(&table, me, peer, InboxEvent::Peer(body)),
            Destination::Group => {
                for (peer, _) in table.others(me).filter(|(p, _)| *p != ReplicaId::WITNESS) {
                    self.deliver(&table, me, peer, InboxEvent::Peer(body.clone()));
                }
            }
        }
    }

    fn shares_memory(&self) -> bool {
        true
    }

    fn ship(&self, to: ReplicaId, shipment: Shipment) {
        if shipment.frame_bytes() > self.hub.frame_bytes_max {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let Some(me) = self.joined() else {
            return;
        };
        let table = self.hub.table();
        let port = table.ports.get(&(me.group, to));
        let body = if port.is_some_and(|port| port.inbox.takes_shipments()) {
            InboxEvent::Shipment(shipment)
        } else {
            InboxEvent::Peer(shipment.body())
        };
        self.deliver(&table, me, to, body);
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            order: Order::FifoPerPeer,
            native_group: false,
            frame_bytes_max: self.hub.frame_bytes_max,
        }
    }

    fn address_of(&self, _: ReplicaId) -> Option<String> {
        None
    }

    fn counters(&self) -> TransportCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TransportCounters {
            frames_sent: read(&self.counters.sent),
            frames_received: read(&self.counters.received),
            frames_dropped: read(&self.counters.dropped),
            refused: read(&self.counters.refused),
        }
    }

    async fn close(&self) {
        self.leave();
    }
}

impl Drop for MemoryTransport {
    fn drop(&mut self) {
        self.leave();
    }
}

impl fmt::Debug for MemoryTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryTransport")
            .field("me", &self.me.get())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
