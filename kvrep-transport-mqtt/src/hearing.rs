//! What a replica hears over the broker: frames, requests, lives.
//!
//! One task reads, in order; requests are handed to a second one, so that a crowd of clients never delays a heartbeat.
//! Nothing read is believed before it is checked; what does not fit is counted and dropped, and said once.

use crate::heading::{Heading, Said};
use crate::link::{Event, Reader};
use crate::presence::Change;
use crate::shared::Shared;
use crate::transport::Standing;
use bytes::Bytes;
use kvrep_core::client_wire::{Outcome, Reply, Request};
use kvrep_core::transport::{Hint, InboxEvent, ReplyTo};
use kvrep_core::wire::{self, FrameKind};
use kvrep_core::{Incarnation, ReplicaId};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

/// Reads until it is stopped, or the node is; then says farewell.
pub(crate) async fn run(
    shared: Arc<Shared>,
    mut reader: Reader,
    standing: watch::Sender<Standing>,
    mut stop: watch::Receiver<bool>,
) {
    let (requests, waiting) = mpsc::channel(REQUESTS_MAX);
    let asking = tokio::spawn(ask(Arc::clone(&shared), waiting));
    let mut hearing = Hearing {
        frames: shared.topics.frames(shared.me.replica),
        asked: shared.topics.requests(shared.me.replica),
        shared: Arc::clone(&shared),
        requests,
        standing,
        said: BTreeSet::new(),
    };
    let reading = async {
        while let Some(event) = reader.next().await {
            if !hearing.on_event(event).await {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => {}
        () = reading => {}
    }
    asking.abort();
    hearing.standing.send_replace(Standing::Closed);
    let farewell = shared.life(Said::Gone);
    reader.close(Some(farewell)).await;
}

/// Puts requests into the node's inbox, waiting for room.
async fn ask(shared: Arc<Shared>, mut waiting: mpsc::Receiver<InboxEvent>) {
    while let Some(request) = waiting.recv().await {
        if !shared.deliver(request).await {
            return;
        }
        shared.counters.received();
    }
}

struct Hearing {
    shared: Arc<Shared>,
    /// The topic of frames for this replica.
    frames: Arc<str>,
    /// The topic of requests for this replica.
    asked: Arc<str>,
    requests: mpsc::Sender<InboxEvent>,
    standing: watch::Sender<Standing>,
    /// What was warned of already.
    said: BTreeSet<&'static str>,
}

impl Hearing {
    /// Returns whether the node still runs.
    async fn on_event(&mut self, event: Event) -> bool {
        match event {
            Event::Delivered {
                topic,
                payload,
                reply_to,
                ack,
                ..
            } => {
                let runs = if topic == self.frames {
                    self.on_frames(payload).await
                } else if topic == self.asked {
                    self.on_requests(payload, reply_to);
                    true
                } else {
                    self.on_life(&topic, payload).await
                };
                ack.acknowledge();
                return runs;
            }
            Event::Connected { limits, .. } => {
                self.shared.say_alive();
                self.standing.send_replace(Standing::Connected(limits));
            }
            Event::Disconnected { why, .. } => {
                self.shared.presence().forget();
                let dropped = self.shared.link.discard();
                self.shared.counters.dropped(dropped as u64);
                self.standing
                    .send_replace(Standing::Connecting(Some(why.to_string())));
            }
            // Told in the log, and with the disconnection that follows.
            Event::Rejected(_) | Event::Acknowledged(_) | Event::Abandoned(_) => {}
        }
        true
    }

    /// Counts what cannot be taken, and says once what it was.
    fn refuse(&mut self, what: &'static str, why: &dyn std::fmt::Display) {
        self.shared.counters.refused();
        if self.said.insert(what) {
            warn!(me = %self.shared.me.replica, "{what} was refused: {why} (said once; further ones are counted)");
        } else {
            debug!(me = %self.shared.me.replica, "{what} was refused: {why}");
        }
    }

    async fn on_frames(&mut self, mut payload: Bytes) -> bool {
        let heading = match Heading::take(&mut payload) {
            Ok(heading) => heading,
            Err(error) => {
                self.refuse("a publication on the topic of frames", &error);
                return true;
            }
        };
        let Said::Frames { number } = heading.said else {
            self.refuse("a publication on the topic of frames", &"it holds none");
            return true;
        };
        match self.meet(&heading, Hint::Connected) {
            Met::Refused => return true,
            Met::Known => {}
            Met::Hint(hint) => {
                if !self.hint(heading.from, hint).await {
                    return false;
                }
            }
        }
        if !self.shared.presence().take(heading.from, number) {
            debug!(from = %heading.from, number, "a second copy");
            return true;
        }
        while !payload.is_empty() {
            match wire::split_frame(&mut payload, self.shared.frame_bytes_max) {
                Ok((FrameKind::Peer, body)) => {
                    if !self.shared.deliver(InboxEvent::Peer(body)).await {
                        return false;
                    }
                    self.shared.counters.received();
                }
                Ok((FrameKind::Request | FrameKind::Reply | FrameKind::Handshake, _)) => {
                    self.refuse("a frame among those of peers", &"it is of another kind");
                    return true;
                }
                Err(error) => {
                    self.refuse("a frame among those of peers", &error);
                    return true;
                }
            }
        }
        true
    }

    /// One publication holds one request, or several of one client.
    fn on_requests(&mut self, mut payload: Bytes, reply_to: Option<Arc<str>>) {
        let Some(topic) = reply_to.filter(|topic| self.shared.topics.takes_replies(topic)) else {
            self.refuse(
                "a request",
                &"it names no topic for its reply that is a client's of this group",
            );
            return;
        };
        let reply = self.shared.reply_over(topic);
        loop {
            let request = match wire::split_frame(&mut payload, self.shared.request_bytes_max) {
                Ok((FrameKind::Request, request)) => request,
                Ok((FrameKind::Peer | FrameKind::Reply | FrameKind::Handshake, _)) => {
                    self.refuse("a request", &"it is a frame of another kind");
                    return;
                }
                Err(error) => {
                    self.refuse("a request", &error);
                    return;
                }
            };
            self.ask(request, &reply);
            if payload.is_empty() {
                return;
            }
        }
    }

    fn ask(&self, request: Bytes, reply: &ReplyTo) {
        let event = InboxEvent::Client {
            request: request.clone(),
            reply: reply.clone(),
        };
        if self.requests.try_send(event).is_err()
            && let Ok(Request { id, .. }) = Request::from_body(&request)
        {
            let outcome = Outcome::Busy;
            reply.send(Reply { id, outcome }.to_frame());
        }
    }

    async fn on_life(&mut self, topic: &str, mut payload: Bytes) -> bool {
        let about = self.shared.topics.whose_life(topic);
        if payload.is_empty() {
            // The retained word was taken back by hand.
            return true;
        }
        let heading = match Heading::take(&mut payload) {
            Ok(heading) => heading,
            Err(error) => {
                self.refuse("a word about a life", &error);
                return true;
            }
        };
        if about != Some(heading.from) {
            self.refuse("a word about a life", &"it stands under another's name");
            return true;
        }
        if heading.from == self.shared.me.replica {
            return self.on_own_life(&heading).await;
        }
        let hint = match heading.said {
            Said::Alive { .. } => Hint::Connected,
            Said::Gone => Hint::Gone,
            Said::Frames { .. } => {
                self.refuse("a word about a life", &"it says nothing about it");
                return true;
            }
        };
        match self.meet(&heading, hint) {
            Met::Refused | Met::Known => true,
            Met::Hint(hint) => self.hint(heading.from, hint).await,
        }
    }

    /// What is said under this replica's own name.
    async fn on_own_life(&mut self, heading: &Heading) -> bool {
        let mine: Incarnation = self.shared.me.incarnation;
        if heading.group != self.shared.me.group {
            self.refuse("a word about a life", &"it is of another group");
            return true;
        }
        if heading.incarnation > mine {
            warn!(me = %self.shared.me.replica, "a later life of this replica runs: {}", heading.incarnation);
            return self.hint(heading.from, Hint::Superseded).await;
        }
        // The last will of an earlier life, or of an earlier connection of this one.
        if heading.said == Said::Gone {
            self.shared.say_alive();
        }
        true
    }

    /// Learns from a heading who is there.
    fn meet(&mut self, heading: &Heading, seen: Hint) -> Met {
        let shared = Arc::clone(&self.shared);
        if heading.group != shared.me.group {
            self.refuse(
                "a publication",
                &"it is of another group: give each a prefix of its own",
            );
            return Met::Refused;
        }
        if heading.from == shared.me.replica || heading.from == ReplicaId::NOBODY {
            self.refuse(
                "a publication",
                &"it bears the name of this replica, or of nobody",
            );
            return Met::Refused;
        }
        if !shared.fits(heading.config_hash) {
            self.refuse(
                "what another replica says",
                &format!(
                    "{} was started with other settings of the group: start all with the same",
                    heading.from
                ),
            );
            return Met::Refused;
        }
        let (from, incarnation) = (heading.from, heading.incarnation);
        let change = match seen {
            Hint::Gone => shared.presence().gone(from, incarnation),
            _ => {
                let topic = || shared.topics.frames(from);
                shared.presence().alive(from, incarnation, topic)
            }
        };
        match change {
            Change::None => Met::Known,
            Change::Hint(hint) => Met::Hint(hint),
            Change::Stale => {
                debug!(%from, "of an earlier life");
                shared.counters.refused();
                Met::Refused
            }
            Change::TooMany => {
                self.refuse("a replica", &"there are too many already");
                Met::Refused
            }
        }
    }

    async fn hint(&self, peer: ReplicaId, hint: Hint) -> bool {
        info!(me = %self.shared.me.replica, %peer, ?hint, "heard over the broker");
        self.shared.deliver(InboxEvent::Hint { peer, hint }).await
    }
}

enum Met {
    Known,
    Hint(Hint),
    Refused,
}

/// Requests that wait for the node's inbox; whoever finds no place is told that the replica is busy.
const REQUESTS_MAX: usize = 1_024;
