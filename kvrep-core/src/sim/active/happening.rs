//! What happens in a run, one thing at a time.

use crate::client_wire::Outcome;
use crate::protocol::active::{AnswerNumber, Message};
use bytes::Bytes;

#[derive(Debug)]
pub(super) enum Happening {
    /// A publication arrives at the broker; of a replica's, which life.
    Arrive {
        publisher: Publisher,
        bytes: Bytes,
    },
    /// The broker delivers.
    Deliver {
        node: usize,
        life: u32,
        epoch: u32,
        bytes: Bytes,
    },
    /// A message beside the stream arrives.
    Message {
        node: usize,
        life: u32,
        message: Box<Message>,
    },
    /// A client is answered, and the replica hears that it is.
    Answer {
        node: usize,
        life: u32,
        number: AnswerNumber,
        reply_to: Bytes,
        outcome: Box<Outcome>,
    },
    /// A client finds its answer in the log.
    Found {
        reply_to: Bytes,
        outcome: Box<Outcome>,
    },
    Answered {
        node: usize,
        life: u32,
        number: AnswerNumber,
    },
    Tick {
        node: usize,
        life: u32,
        number: u64,
    },
    Reset {
        node: usize,
        life: u32,
    },
    Client {
        client: usize,
        timer: u64,
    },
    Fault,
    Start {
        node: usize,
    },
    Resume {
        node: usize,
    },
    /// It goes on, with a new session.
    Return {
        node: usize,
    },
    Heal,
    Look,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Publisher {
    Node { node: usize, life: u32 },
    Client(usize),
}
