//! The node's bounded queues: one for peers, one for requests, so that a crowd of clients never delays a heartbeat.

use crate::client_wire::{Op, Outcome};
use crate::config::Read;
use crate::state_machine::Look;
use crate::time::Time;
use crate::transport::{Hint, InboxEvent, InboxSink, ReplyTo};
use async_trait::async_trait;
use bytes::Bytes;
use std::path::PathBuf;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::StateDigest;
use super::copy::CopyReply;
use crate::id::ReplicaId;

/// What peers (and the transport about them) say.
pub(super) enum FromPeer {
    Frame(Bytes),
    Hint { peer: ReplicaId, hint: Hint },
}

/// What is asked of the node.
pub(super) enum Asked {
    Here {
        op: Op,
        deadline: Time,
        reply: oneshot::Sender<Outcome>,
    },
    Remote {
        request: Bytes,
        reply: ReplyTo,
    },
    Look {
        read: Read,
        look: Look,
        reply: oneshot::Sender<Outcome>,
    },
    Copy {
        directory: PathBuf,
        reply: CopyReply,
    },
    Digest(oneshot::Sender<StateDigest>),
}

/// Where the transport delivers. Full queues push back: the event is given back, or its sender waits.
pub(super) struct NodeInbox {
    pub(super) peers: mpsc::Sender<FromPeer>,
    pub(super) requests: mpsc::Sender<Asked>,
}

enum Sorted {
    Peer(FromPeer),
    Request(Asked),
}

fn sort(event: InboxEvent) -> Sorted {
    match event {
        InboxEvent::Peer(body) => Sorted::Peer(FromPeer::Frame(body)),
        InboxEvent::Hint { peer, hint } => Sorted::Peer(FromPeer::Hint { peer, hint }),
        InboxEvent::Client { request, reply } => Sorted::Request(Asked::Remote { request, reply }),
    }
}

#[async_trait]
impl InboxSink for NodeInbox {
    fn try_deliver(&self, event: InboxEvent) -> Result<(), InboxEvent> {
        match sort(event) {
            Sorted::Peer(event) => self.peers.try_send(event).map_err(|e| match given_back(e) {
                FromPeer::Frame(body) => InboxEvent::Peer(body),
                FromPeer::Hint { peer, hint } => InboxEvent::Hint { peer, hint },
            }),
            Sorted::Request(asked) => {
                self.requests
                    .try_send(asked)
                    .map_err(|e| match given_back(e) {
                        Asked::Remote { request, reply } => InboxEvent::Client { request, reply },
                        Asked::Here { .. }
                        | Asked::Look { .. }
                        | Asked::Copy { .. }
                        | Asked::Digest(_) => {
                            unreachable!("the queue gives back what was put in, a remote request")
                        }
                    })
            }
        }
    }

    async fn deliver(&self, event: InboxEvent) -> bool {
        match sort(event) {
            Sorted::Peer(event) => self.peers.send(event).await.is_ok(),
            Sorted::Request(asked) => self.requests.send(asked).await.is_ok(),
        }
    }
}

fn given_back<T>(error: TrySendError<T>) -> T {
    match error {
        TrySendError::Full(event) | TrySendError::Closed(event) => event,
    }
}
