//! Serves clients on their own wire, on the port of the replica itself.

use super::message::{Content, Dialect, Message, Side, TableCodec, opcode};
use super::policy::{AFTER_GOODBYE, LARGE_REQUESTS_MAX, REQUEST_BYTES_MAX, manners};
use super::requests::{NoAnswer, Requests};
use super::roll::Roll;
use super::room::Room;
use super::skel::{Ask, asked};
use crate::common::conversation::{Conversation, Farewell};
use async_trait::async_trait;
use bytes::Bytes;
use kvrep_core::Node;
use kvrep_core::client_wire::Outcome;
use kvrep_transport_tcp::ForeignService;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{Notify, SetOnce};
use tokio::time::{sleep, timeout};

/// Serves clients, once it knows the node. See the [module](self).
pub(super) struct Service {
    requests: SetOnce<Requests>,
    /// How long a request waits, at most.
    within: Duration,
    dialect: Dialect,
    room: Room,
    roll: Arc<Roll>,
}

impl Service {
    /// A service that writes this dialect. A request waits for at most `within`, also for the service to [begin](Self::begin); then its client is
    /// hung up on. Which servers are known is answered at any time.
    #[must_use]
    pub(super) fn new(dialect: Dialect, within: Duration, roll: Arc<Roll>) -> Self {
        Self {
            requests: SetOnce::new(),
            within,
            dialect,
            room: Room::for_frames(LARGE_REQUESTS_MAX),
            roll,
        }
    }

    /// Serves by way of this node from now on.
    pub(super) fn begin(&self, node: &Node) {
        // There is one node to each service.
        let _ = self.requests.set(Requests::new(node, self.within));
    }

    /// One request after the other: whoever asks faster is slowed down by TCP.
    async fn answer(&self, talk: &mut Talk, given_up: &Notify) -> Served {
        loop {
            let next = tokio::select! {
                next = talk.next() => next,
                () = given_up.notified() => return Served::Garbage,
            };
            let request = match next {
                Ok(Some(request)) => request,
                Ok(None) => return Served::Enough,
                Err(_) => return Served::Garbage,
            };
            let reply = match request.ok() {
                None => Message::failure(),
                Some(Message {
                    opcode: opcode::SERVERS,
                    content: Content::Result(_),
                }) => self.roll.told(),
                Some(request) => match asked(request) {
                    None => Message::failure(),
                    Some(ask) => match self.reply(&ask, talk).await {
                        Ok(reply) => reply,
                        Err(ended) => return ended,
                    },
                },
            };
            if talk.send(reply).await.is_err() {
                return Served::Enough;
            }
        }
    }

    /// The reply to a request, or how the conversation ends without one.
    async fn reply(&self, ask: &Ask, talk: &mut Talk) -> Result<Message, Served> {
        let Ok(requests) = timeout(self.within, self.requests.wait()).await else {
            return Err(Served::Unanswered);
        };
        let Some(outcome) = carried_out(requests, ask, talk).await else {
            return Err(Served::Enough);
        };
        // There is no word for "not known": hanging up says it.
        let reply = outcome.ok().and_then(|outcome| ask.reply(outcome));
        reply.ok_or(Served::Unanswered)
    }
}

type Talk = Conversation<TcpStream, TableCodec>;

/// The outcome of a request; `None` when its client has left meanwhile. (A write may be carried out all the same.)
async fn carried_out(
    requests: &Requests,
    ask: &Ask,
    talk: &mut Talk,
) -> Option<Result<Outcome, NoAnswer>> {
    let left = async {
        match talk.farewell().await {
            Farewell::SaidAll => sleep(AFTER_GOODBYE).await,
            Farewell::Broken => {}
        }
    };
    tokio::select! {
        biased;
        outcome = requests.carry_out(ask) => Some(outcome),
        () = left => None,
    }
}

/// How a conversation ended.
enum Served {
    /// The client has gone, or does not listen.
    Enough,
    /// It said what is no frame, or nothing for too long, or makes room for others.
    Garbage,
    /// There is no answer to tell.
    Unanswered,
}

#[async_trait]
impl ForeignService for Service {
    async fn serve(&self, stream: TcpStream, first: Bytes, _: SocketAddr) {
        let codec =
            TableCodec::new(Side::Server, self.dialect, REQUEST_BYTES_MAX).room(self.room.clone());
        let given_up: Arc<Notify> = codec.given_up();
        let mut talk = Conversation::continued(stream, &first, codec, manners());
        match self.answer(&mut talk, &given_up).await {
            Served::Enough | Served::Unanswered => {}
            Served::Garbage => {
                if talk.send(Message::failure()).await.is_ok() {
                    talk.finish().await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primary_backup_table::policy::{GROUP, group};
    use crate::primary_backup_table::table::Table;
    use kvrep_core::protocol::passive::Join;
    use kvrep_core::transport::memory::MemoryNetwork;
    use kvrep_core::{Authority, ReplicaId};
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    const LONG: Duration = Duration::from_millis(4_500);

    /// A request that nobody serves, and its client leaves: it is not held for as long as one that is waited for.
    #[tokio::test]
    async fn a_request_is_dropped_when_its_client_leaves() {
        let network = MemoryNetwork::new();
        let mut pair = group([ReplicaId(1)], Authority::Alone);
        pair.limits.command_bytes_max = 1 << 20;
        pair.limits.frame_bytes_max = 2 << 20;
        // It asks to be let in, and nobody is there.
        let node = Node::builder(GROUP, ReplicaId(2))
            .group(pair)
            .join(Join::full())
            .transport(network.transport())
            .state_machine(Table::default())
            .start();
        let node = node.await.expect("it starts");
        let service = Service::new(Dialect::Plain, LONG, Arc::default());
        service.begin(&node);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let mut client = TcpStream::connect(address).await.expect("a connection");
        let (stream, from) = listener.accept().await.expect("a client");
        let size = [0, 0, 0, 8, 0, 50, 1, 0xf4, 0, 0, 0, 0];
        client.write_all(&size).await.expect("asked");
        let began = Instant::now();
        let serving = service.serve(stream, Bytes::new(), from);
        let leaving = async move {
            sleep(Duration::from_millis(100)).await;
            drop(client);
        };
        tokio::join!(serving, leaving);
        let held = began.elapsed();
        assert!(held >= AFTER_GOODBYE, "{held:?}");
        assert!(held < LONG, "{held:?}");
    }
}
