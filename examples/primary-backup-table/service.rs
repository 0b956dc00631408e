//! Serves clients on their own wire, on the port of the replica itself.

use super::message::{Dialect, Message, Room, Side, TableCodec};
use super::policy::{LARGE_REQUESTS_MAX, REQUEST_BYTES_MAX, manners};
use super::requests::Requests;
use super::skel::asked;
use crate::common::conversation::Conversation;
use async_trait::async_trait;
use bytes::Bytes;
use kvrep_core::Node;
use kvrep_transport_tcp::ForeignService;
use std::net::SocketAddr;
use std::sync::OnceLock;
use tokio::net::TcpStream;

/// Serves clients, once it knows the node. See the [module](self).
pub(super) struct Service {
    requests: OnceLock<Requests>,
    dialect: Dialect,
    room: Room,
}

impl Service {
    /// A service that writes this dialect. Clients that come before it [begins](Self::begin) are hung up on.
    #[must_use]
    pub(super) fn new(dialect: Dialect) -> Self {
        Self {
            requests: OnceLock::new(),
            dialect,
            room: Room::for_frames(LARGE_REQUESTS_MAX),
        }
    }

    /// Serves by way of this node from now on.
    pub(super) fn begin(&self, node: &Node) {
        // There is one node to each service.
        let _ = self.requests.set(Requests::new(node));
    }

    /// One request after the other: whoever asks faster is slowed down by TCP.
    async fn answer(&self, talk: &mut Conversation<TcpStream, TableCodec>) -> Served {
        loop {
            let request = match talk.next().await {
                Ok(Some(request)) => request,
                Ok(None) => return Served::Enough,
                Err(_) => return Served::Garbage,
            };
            let reply = match request.ok().and_then(asked) {
                None => Message::failure(),
                Some(ask) => {
                    let Some(requests) = self.requests.get() else {
                        return Served::Unanswered;
                    };
                    let outcome = requests.carry_out(&ask).await;
                    // There is no word for "not known": hanging up says it.
                    match outcome.ok().and_then(|outcome| ask.reply(outcome)) {
                        Some(reply) => reply,
                        None => return Served::Unanswered,
                    }
                }
            };
            if talk.send(reply).await.is_err() {
                return Served::Enough;
            }
        }
    }
}

/// How a conversation ended.
enum Served {
    /// The client has gone, or does not listen.
    Enough,
    /// It said what is no frame, or nothing for too long.
    Garbage,
    /// There is no answer to tell.
    Unanswered,
}

#[async_trait]
impl ForeignService for Service {
    async fn serve(&self, stream: TcpStream, first: Bytes, _: SocketAddr) {
        let codec =
            TableCodec::new(Side::Server, self.dialect, REQUEST_BYTES_MAX).room(self.room.clone());
        let mut talk = Conversation::continued(stream, &first, codec, manners());
        match self.answer(&mut talk).await {
            Served::Enough | Served::Unanswered => {}
            Served::Garbage => {
                if talk.send(Message::failure()).await.is_ok() {
                    talk.finish().await;
                }
            }
        }
    }
}
