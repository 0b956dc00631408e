//! What a member hears: hellos, farewells, pieces of frames. Nothing is believed before it is checked; what does not fit is counted and dropped, and said
//! once.

use crate::clients::{Asked, Asker};
use crate::datagram::{Heading, Piece, Said, To};
use crate::peers::Met;
use crate::reassembly::{Reassembly, Taken};
use crate::transport::Shared;
use bytes::Bytes;
use kvrep_core::client_wire::{Outcome, Reply, Request};
use kvrep_core::transport::{Hint, InboxEvent, ReplyTo};
use kvrep_core::wire::{self, FrameKind};
use kvrep_core::{Incarnation, ReplicaId};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info, warn};

/// Hears and sends until it is stopped; then says farewell.
pub(crate) async fn run(shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let mut hearing = Hearing {
        frames: Reassembly::new(&shared.config),
        requests: Reassembly::new(&shared.config),
        said: BTreeSet::new(),
        shared: Arc::clone(&shared),
    };
    // On tasks of their own: none is polled for the sake of another.
    let (sending, saying) = (Arc::clone(&shared), Arc::clone(&shared));
    let mut parts = JoinSet::new();
    parts.spawn(async move { sending.outbox.run().await });
    parts.spawn(async move { say_hello(&saying).await });
    parts.spawn(async move { hearing.hear().await });
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => {}
        // A panic, of which the runtime has told.
        _ = parts.join_next() => {}
    }
    // They hold the sockets until they have ended.
    parts.shutdown().await;
    shared.say_farewell().await;
}

async fn say_hello(shared: &Shared) {
    let mut ticks = interval(shared.config.timing.hello_every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        shared.say(Said::Hello, shared.config.group.into());
    }
}

struct Hearing {
    shared: Arc<Shared>,
    frames: Reassembly,
    /// A crowd of clients costs members none of their frames.
    requests: Reassembly,
    /// What was warned of already.
    said: BTreeSet<&'static str>,
}

impl Hearing {
    async fn hear(&mut self) {
        let mut buffer = vec![0; 65_536];
        let mut in_a_row = 0;
        loop {
            match self.shared.socket.receive(&mut buffer, in_a_row).await {
                Ok((bytes, from)) => {
                    self.on_datagram(&buffer[..bytes], from);
                    in_a_row += 1;
                    if in_a_row == IN_A_ROW {
                        // Whoever else runs on this thread gets his turn under a flood.
                        in_a_row = 0;
                        tokio::task::yield_now().await;
                    }
                }
                Err(error) => {
                    self.refuse("what the socket received", &error);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
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

    fn on_datagram(&mut self, datagram: &[u8], from: SocketAddr) {
        let (heading, data) = match Heading::decode(datagram) {
            Ok(read) => read,
            Err(error) => return self.refuse("a datagram", &error),
        };
        let me = &self.shared.me;
        let (peer, incarnation) = (heading.from, heading.incarnation);
        if heading.group != me.group {
            return self.refuse(
                "a datagram",
                &"it is of another group: give each an address or a port of its own",
            );
        }
        if peer == ReplicaId::NOBODY {
            return self.on_client(&heading, data, from);
        }
        if peer == me.replica {
            // Else it is what this one said itself, or a life of it that is over.
            return self.on_own_life(peer, incarnation);
        }
        if !self.shared.fits(heading.config_hash) {
            let why = format!(
                "{peer} was started with other settings of the group: start all with the same"
            );
            return self.refuse("what another replica says", &why);
        }
        let now = Instant::now();
        let met = if heading.said == Said::Gone {
            self.shared.peers().gone(peer, incarnation)
        } else {
            let kept = self.shared.config.timing.address_kept;
            self.shared
                .peers()
                .heard(now, (peer, incarnation), from, kept)
        };
        match met {
            Met::Known => {}
            Met::News(hint) => {
                if hint == Hint::Connected {
                    // It need not wait to learn where this one reads.
                    self.shared.say(Said::Hello, from);
                }
                self.hint(peer, hint);
            }
            Met::Over => {
                debug!(%peer, "it has ended");
                return self.shared.counters.refused();
            }
            Met::Earlier(later) => {
                debug!(%peer, "of a life that is over");
                if heading.said == Said::Hello {
                    // Not believed, but told: it may run, with a clock that is behind.
                    let (of, incarnation) = (peer, later);
                    self.shared.say(Said::Later { of, incarnation }, from);
                }
                return self.shared.counters.refused();
            }
            Met::TooMany => return self.refuse("a replica", &"there are too many already"),
        }
        match heading.said {
            Said::Piece(piece) => self.on_piece(now, &heading, (piece, data), from),
            Said::Later { of, incarnation } if of == self.shared.me.replica => {
                self.on_own_life(peer, incarnation);
            }
            Said::Hello | Said::Gone | Said::Later { .. } => {}
        }
    }

    /// Somebody, or this replica's own name, tells of a life of this replica.
    fn on_own_life(&mut self, told_by: ReplicaId, incarnation: Incarnation) {
        let me = &self.shared.me;
        if incarnation > me.incarnation {
            if self.said.insert("a later life") {
                warn!(me = %me.replica, %told_by, "a later life of this replica was heard: {incarnation}");
            }
            self.hint(told_by, Hint::Superseded);
        }
    }

    fn on_piece(
        &mut self,
        now: Instant,
        heading: &Heading,
        (piece, data): (Piece, &[u8]),
        from: SocketAddr,
    ) {
        let for_me = match piece.to {
            To::All => true,
            To::One(to) => to == self.shared.me.replica,
        };
        let (peer, number) = (heading.from, piece.number);
        if !for_me || !self.shared.peers().is_new(peer, number) {
            debug!(%peer, number, "for somebody else, or a copy");
            return self.shared.counters.refused();
        }
        let sender = (peer, heading.incarnation, from);
        let frame = match self.frames.take(now, sender, &piece, data) {
            Taken::Whole(frame) => frame,
            Taken::Waits { given_up } => return self.shared.counters.dropped(given_up),
            Taken::Refused => return self.refuse("a piece of a frame", &"it fits none"),
        };
        match wire::decode_datagram(&frame, self.shared.config.limits.frame_bytes_max) {
            Ok((FrameKind::Peer, body)) => {
                self.shared.peers().take(now, peer, number, from);
                self.deliver(body);
            }
            Ok((FrameKind::Request | FrameKind::Reply | FrameKind::Handshake, _)) => {
                self.refuse("a frame", &"it is of another kind");
            }
            Err(error) => self.refuse("a frame", &error),
        }
    }

    /// A client looks for replicas, or asks this one.
    fn on_client(&mut self, heading: &Heading, data: &[u8], from: SocketAddr) {
        let piece = match heading.said {
            Said::Hello => return self.shared.say(Said::Hello, from),
            Said::Piece(piece) if piece.to == To::One(self.shared.me.replica) => piece,
            Said::Gone | Said::Later { .. } | Said::Piece(_) => {
                return self.shared.counters.refused();
            }
        };
        let (now, asker, number) = (Instant::now(), (heading.incarnation, from), piece.number);
        let asked = self.shared.clients().ask(now, asker, number);
        match asked {
            Asked::New => {}
            Asked::Before => return,
            Asked::Answered(frame) => return self.shared.reply(from, &frame),
        }
        let sender = (ReplicaId::NOBODY, heading.incarnation, from);
        let frame = match self.requests.take(now, sender, &piece, data) {
            Taken::Whole(frame) => frame,
            Taken::Waits { given_up } => return self.shared.counters.dropped(given_up),
            Taken::Refused => return self.refuse("a piece of a request", &"it fits none"),
        };
        match wire::decode_datagram(&frame, self.shared.config.limits.frame_bytes_max) {
            Ok((FrameKind::Request, request)) => {
                self.shared.clients().take(now, asker, number);
                self.ask(request, asker, number);
            }
            Ok((FrameKind::Peer | FrameKind::Reply | FrameKind::Handshake, _)) => {
                self.refuse("a request", &"it is a frame of another kind");
            }
            Err(error) => self.refuse("a request", &error),
        }
    }

    fn ask(&mut self, request: Bytes, asker: Asker, number: u64) {
        // Whoever still waits for an answer keeps no socket open.
        let shared = Arc::downgrade(&self.shared);
        let reply = ReplyTo::new(move |frame: Bytes| {
            if let Some(shared) = shared.upgrade() {
                shared.clients().answered(asker, number, &frame);
                shared.reply(asker.1, &frame);
            }
        });
        let event = InboxEvent::Client {
            request: request.clone(),
            reply: reply.clone(),
        };
        if self.shared.inbox.try_deliver(event).is_ok() {
            self.shared.counters.received();
        } else if let Ok(Request { id, .. }) = Request::from_body(&request) {
            self.shared.counters.dropped(1);
            let outcome = Outcome::Busy;
            reply.send(Reply { id, outcome }.to_frame());
        }
    }

    fn deliver(&mut self, body: Bytes) {
        // Nobody could be made to wait: what the node does not take in time is lost, as the network may lose it.
        match self.shared.inbox.try_deliver(InboxEvent::Peer(body)) {
            Ok(()) => self.shared.counters.received(),
            Err(_) => self.shared.counters.dropped(1),
        }
    }

    fn hint(&self, peer: ReplicaId, hint: Hint) {
        info!(me = %self.shared.me.replica, %peer, ?hint, "heard over multicast");
        if self
            .shared
            .inbox
            .try_deliver(InboxEvent::Hint { peer, hint })
            .is_err()
        {
            debug!(%peer, ?hint, "the node has no room for the hint");
        }
    }
}

/// Datagrams that are taken before others on this thread get their turn.
const IN_A_ROW: u32 = 64;
