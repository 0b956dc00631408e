//! Two transports: one asks the group, the other answers the one that asked.

use super::pending::Pending;
use async_trait::async_trait;
use kvrep_benches::load::Caller;
use kvrep_core::transport::{Destination, Inbox, InboxEvent, InboxSink, LocalPeer, Transport};
use kvrep_core::wire::{FrameKind, encode_frame};
use kvrep_core::{GroupId, Incarnation, ReplicaId};
use kvrep_transport_multicast::{MulticastConfig, MulticastTransport};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::time::{Instant, sleep};

pub(crate) struct Ours {
    asks: Arc<MulticastTransport>,
    answers: Arc<MulticastTransport>,
    pending: Arc<Pending>,
}

pub(crate) struct Slot {
    asks: Arc<MulticastTransport>,
    pending: Arc<Pending>,
    bytes: usize,
}

/// Sends back what comes.
struct Answering(Arc<OnceLock<Arc<MulticastTransport>>>);

/// Wakes who waits.
struct Asking(Arc<Pending>);

#[async_trait]
impl InboxSink for Answering {
    fn try_deliver(&self, event: InboxEvent) -> Result<(), InboxEvent> {
        if let (InboxEvent::Peer(body), Some(transport)) = (event, self.0.get()) {
            let frame = encode_frame(FrameKind::Peer, &body);
            transport.send(Destination::One(ASKS), frame);
        }
        Ok(())
    }

    async fn deliver(&self, event: InboxEvent) -> bool {
        self.try_deliver(event).is_ok()
    }
}

#[async_trait]
impl InboxSink for Asking {
    fn try_deliver(&self, event: InboxEvent) -> Result<(), InboxEvent> {
        if let InboxEvent::Peer(body) = event {
            self.0.answered(&body);
        }
        Ok(())
    }

    async fn deliver(&self, event: InboxEvent) -> bool {
        self.try_deliver(event).is_ok()
    }
}

pub(crate) async fn start(config: MulticastConfig) -> Result<Ours, String> {
    let pending = Arc::new(Pending::default());
    let asks = Arc::new(MulticastTransport::new(config.clone()));
    let answers = Arc::new(MulticastTransport::new(config));
    let back = Arc::new(OnceLock::new());
    let _ = back.set(Arc::clone(&answers));
    let inboxes = [
        Inbox::new(Arc::new(Asking(Arc::clone(&pending)))),
        Inbox::new(Arc::new(Answering(back))),
    ];
    for ((transport, replica), inbox) in [(&asks, ASKS), (&answers, ANSWERS)]
        .into_iter()
        .zip(inboxes)
    {
        let me = LocalPeer {
            group: GroupId::named("bench"),
            replica,
            incarnation: Incarnation(1),
            config_hash: 7,
        };
        let started = transport.start(me, inbox).await;
        started.map_err(|error| error.to_string())?;
    }
    let ours = Ours {
        asks,
        answers,
        pending,
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    while ours.callers(1, 64).remove(0).call().await.is_err() {
        if Instant::now() > deadline {
            return Err("the two do not hear each other".into());
        }
        sleep(Duration::from_millis(10)).await;
    }
    Ok(ours)
}

impl Ours {
    pub(crate) fn callers(&self, clients: u32, bytes: usize) -> Vec<Slot> {
        (0..clients)
            .map(|_| Slot {
                asks: Arc::clone(&self.asks),
                pending: Arc::clone(&self.pending),
                bytes,
            })
            .collect()
    }

    pub(crate) async fn stop(self) {
        self.asks.close().await;
        self.answers.close().await;
    }
}

impl Caller for Slot {
    async fn call(&mut self) -> Result<(), String> {
        let send = |number: u64| {
            let mut body = vec![7; self.bytes];
            body[..8].copy_from_slice(&number.to_be_bytes());
            let frame = encode_frame(FrameKind::Peer, &body);
            self.asks.send(Destination::Group, frame);
        };
        self.pending.ask(send).await
    }
}

const ASKS: ReplicaId = ReplicaId(1);
const ANSWERS: ReplicaId = ReplicaId(2);
