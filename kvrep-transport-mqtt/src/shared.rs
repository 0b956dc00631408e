//! What a running transport's parts have in common: who it is, who is there, and the way to the broker.

use crate::config::MqttConfig;
use crate::heading::{Heading, Said};
use crate::link::{Kept, Link, Payload, Publication, PublishError};
use crate::presence::{Peer, Presence};
use crate::topics::Topics;
use bytes::Bytes;
use kvrep_core::ReplicaId;
use kvrep_core::transport::{FrameCounters, Inbox, InboxEvent, LocalPeer, ReplyTo};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) struct Shared {
    pub(crate) me: LocalPeer,
    pub(crate) topics: Topics,
    pub(crate) link: Arc<Link>,
    pub(crate) inbox: Inbox,
    pub(crate) counters: Arc<FrameCounters>,
    pub(crate) frame_bytes_max: usize,
    pub(crate) request_bytes_max: usize,
    presence: Mutex<Presence>,
}

impl Shared {
    pub(crate) fn new(
        me: LocalPeer,
        config: &MqttConfig,
        topics: Topics,
        link: Arc<Link>,
        inbox: Inbox,
        counters: Arc<FrameCounters>,
    ) -> Self {
        Self {
            me,
            topics,
            link,
            inbox,
            counters,
            frame_bytes_max: frame_bytes_max(config),
            request_bytes_max: config.limits.request_bytes_max,
            presence: Mutex::default(),
        }
    }

    pub(crate) fn presence(&self) -> MutexGuard<'_, Presence> {
        self.presence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn send(&self, to: ReplicaId, frame: Bytes) {
        match self.presence().here(to) {
            Some(peer) => self.queue(peer, frame),
            None => self.counters.dropped(1),
        }
    }

    /// To every member that is here. One publication each, on their own topics: between two topics a broker keeps no order.
    pub(crate) fn send_to_all(&self, frame: &Bytes) {
        for (id, peer) in self.presence().all_here() {
            if id != ReplicaId::WITNESS && id != self.me.replica {
                self.queue(peer, frame.clone());
            }
        }
    }

    fn queue(&self, peer: &mut Peer, frame: Bytes) {
        let number = peer.sent + 1;
        let mut begun = false;
        let queued = self.link.join(&peer.topic, None, &frame, || {
            begun = true;
            Heading::of(&self.me, Said::Frames { number }).to_frame()
        });
        if begun {
            peer.sent = number;
        }
        self.count(queued);
    }

    pub(crate) fn count(&self, queued: Result<(), PublishError>) {
        match queued {
            Ok(()) => self.counters.sent(),
            Err(PublishError::TooLarge { .. } | PublishError::Topic) => self.counters.refused(),
            Err(PublishError::Full | PublishError::Closed) => self.counters.dropped(1),
        }
    }

    /// What is said of this life.
    pub(crate) fn life(&self, said: Said) -> Publication {
        life(&self.me, &self.topics, said)
    }

    pub(crate) fn say_alive(&self) {
        let said = Said::Alive {
            request_bytes_max: self.request_bytes_max as u64,
        };
        // Refused only when the link closes, or when the queue is full of what was not sent either.
        let _ = self.link.publish(self.life(said));
    }

    /// Whether what is said with another configuration is heard. 0 is the hash of who takes any: the witness.
    pub(crate) fn fits(&self, config_hash: u64) -> bool {
        config_hash == self.me.config_hash || config_hash == 0 || self.me.config_hash == 0
    }

    /// Where replies to this topic go.
    pub(crate) fn reply_over(self: &Arc<Self>, topic: Arc<str>) -> ReplyTo {
        let shared = Arc::clone(self);
        ReplyTo::new(move |frame| shared.count(shared.link.join(&topic, None, &frame, Bytes::new)))
    }

    /// Returns whether the node still runs.
    pub(crate) async fn deliver(&self, event: InboxEvent) -> bool {
        self.inbox.deliver(event).await
    }
}

/// What a life says of itself, kept for who comes later.
pub(crate) fn life(me: &LocalPeer, topics: &Topics, said: Said) -> Publication {
    Publication {
        topic: topics.life(me.replica),
        payload: Payload::Whole(Heading::of(me, said).to_frame()),
        kept: Kept::Retained,
        reply_to: None,
    }
}

/// Largest frame, header included.
pub(crate) fn frame_bytes_max(config: &MqttConfig) -> usize {
    config.limits.payload_bytes_max - Heading::FRAME_BYTES
}
