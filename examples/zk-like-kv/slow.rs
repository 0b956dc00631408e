//! `--atraso-replicacao`: replication to or from this server arrives later, as over a slow line.
//!
//! A transport around another one. Frames that carry a write are held back for a while, on their way out (of the leader) and
//! on their way in (to a follower); what comes behind them waits behind them, so that order stays. Everything else passes at
//! once, so the group forms as quickly as ever.
//!
//! Caveat: behind a write heartbeats are held back too. The group must not suspect anybody for that:
//! its `suspect_after` is longer than any delay that is allowed.

use async_trait::async_trait;
use bytes::Bytes;
use kvrep_core::protocol::passive::Message;
use kvrep_core::transport::{
    Capabilities, Destination, Inbox, InboxEvent, InboxSink, LocalPeer, Transport,
    TransportCounters, TransportError,
};
use kvrep_core::wire::{Envelope, FrameKind, own_body};
use kvrep_core::{Entry, EntryKind, ReplicaId};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// A transport whose replication is late.
pub struct Slow<T> {
    line: Arc<T>,
    delay: Duration,
    outgoing: Line<(Destination, Bytes)>,
    dropped: AtomicU64,
}

impl<T: Transport> Slow<T> {
    /// `line`, with writes delayed by so much. Must be called within a runtime.
    pub fn new(line: T, delay: Duration) -> Self {
        let line = Arc::new(line);
        let out = Arc::clone(&line);
        let outgoing = Line::new(delay, move |(to, frame)| {
            out.send(to, frame);
            std::future::ready(())
        });
        Self {
            line,
            delay,
            outgoing,
            dropped: AtomicU64::new(0),
        }
    }
}

#[async_trait]
impl<T: Transport> Transport for Slow<T> {
    async fn start(&self, me: LocalPeer, inbox: Inbox) -> Result<(), TransportError> {
        let node = inbox.clone();
        let incoming = Line::new(self.delay, move |event| {
            let node = node.clone();
            async move {
                node.deliver(event).await;
            }
        });
        let late = Late {
            incoming,
            node: inbox,
        };
        self.line.start(me, Inbox::new(Arc::new(late))).await
    }

    fn send(&self, to: Destination, frame: Bytes) {
        let write = own_body(&frame, FrameKind::Peer).is_some_and(carries_a_write);
        let room = self.outgoing.items.try_reserve();
        let Ok(room) = room else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        };
        room.send(self.outgoing.due((to, frame), write));
    }

    fn capabilities(&self) -> Capabilities {
        self.line.capabilities()
    }

    fn address_of(&self, peer: ReplicaId) -> Option<String> {
        self.line.address_of(peer)
    }

    fn counters(&self) -> TransportCounters {
        let counters = self.line.counters();
        TransportCounters {
            frames_dropped: counters.frames_dropped + self.dropped.load(Ordering::Relaxed),
            ..counters
        }
    }

    async fn close(&self) {
        self.line.close().await;
    }
}

/// A queue that is first in, first out, and in which some things wait.
struct Line<I> {
    items: mpsc::Sender<(Instant, I)>,
    delay: Duration,
}

impl<I: Send + 'static> Line<I> {
    fn new<F>(delay: Duration, deliver: impl Fn(I) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send,
    {
        let (items, mut waiting) = mpsc::channel::<(Instant, I)>(WAITING_MAX);
        tokio::spawn(async move {
            // It ends with the transport: nobody holds the other end then.
            while let Some((due, item)) = waiting.recv().await {
                sleep_until(due).await;
                deliver(item).await;
            }
        });
        Self { items, delay }
    }

    fn due(&self, item: I, write: bool) -> (Instant, I) {
        let now = Instant::now();
        (if write { now + self.delay } else { now }, item)
    }
}

/// The node's inbox behind a slow line.
struct Late {
    incoming: Line<InboxEvent>,
    node: Inbox,
}

#[async_trait]
impl InboxSink for Late {
    fn try_deliver(&self, event: InboxEvent) -> Result<(), InboxEvent> {
        let InboxEvent::Peer(body) = event else {
            return self.node.try_deliver(event);
        };
        let write = carries_a_write(body.clone());
        match self.incoming.items.try_reserve() {
            Ok(room) => {
                room.send(self.incoming.due(InboxEvent::Peer(body), write));
                Ok(())
            }
            Err(_) => Err(InboxEvent::Peer(body)),
        }
    }

    async fn deliver(&self, event: InboxEvent) -> bool {
        let InboxEvent::Peer(body) = event else {
            return self.node.deliver(event).await;
        };
        let write = carries_a_write(body.clone());
        let item = self.incoming.due(InboxEvent::Peer(body), write);
        self.incoming.items.send(item).await.is_ok()
    }
}

/// Whether a peer frame's body brings a command.
fn carries_a_write(mut body: Bytes) -> bool {
    if Envelope::decode(&mut body).is_err() {
        return false;
    }
    let Ok(Message::Append { prev, .. }) = Message::decode(&mut body) else {
        return false;
    };
    while !body.is_empty() {
        match Entry::decode(&mut body, prev.hash) {
            Ok(entry) if entry.kind == EntryKind::Command => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
    false
}

const WAITING_MAX: usize = 65_536;
