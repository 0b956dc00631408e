//! What clients and replicas say to each other (frames of kind [`Request`](crate::wire::FrameKind::Request) and
//! [`Reply`](crate::wire::FrameKind::Reply)).
//!
//! A request is answered once, by a reply with its id, or not at all if the connection ends; replies come in any order.
//! Every [`Outcome`] says what was done. Whoever writes a client in another language needs this module, [`crate::wire`]
//! and the postcard format; Rust programs use the client in `node`.
//!
//! Caveat: the order of the variants and fields is the encoding. It changes only with [`VERSION`](crate::wire::VERSION).
//!
//! ```
//! use kvrep_core::Read;
//! use kvrep_core::client_wire::{Op, Request};
//! use kvrep_core::state_machine::encode;
//! use kvrep_core::wire::{FrameKind, own_body};
//!
//! let op = Op::Query { read: Read::Linearizable, query: encode(&()) };
//! let request = Request { id: 1, op };
//! let body = own_body(&request.to_frame(), FrameKind::Request).unwrap();
//! assert_eq!(Request::from_body(&body), Ok(request));
//! ```

use crate::config::{Read, Token};
use crate::id::{Configuration, ReplicaId, Seq, SessionId};
use crate::manage::Manage;
use crate::protocol::ProtocolStatus;
use crate::scratch::Scratch;
use crate::wire::{self, FrameKind};
use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

/// One request. `id` pairs it with its reply on one connection; several may be under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the client, echoed in the reply.
    pub id: u64,
    /// What is wanted.
    pub op: Op,
}

/// What a client wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// A new session.
    OpenSession,
    /// A command, carried out exactly once however often it is sent.
    Command {
        /// The session.
        session: SessionId,
        /// Its number in the session, from 1.
        seq: Seq,
        /// The client has the answers to everything below: they may be forgotten.
        done_below: Seq,
        /// The state machine's command.
        command: Bytes,
    },
    /// A command without a session: carried out once for each time it arrives.
    Plain(Bytes),
    /// A query.
    Query {
        /// How fresh.
        read: Read,
        /// The state machine's query.
        query: Bytes,
    },
    /// What the replica knows of itself.
    Status,
    /// The end of a session.
    CloseSession(SessionId),
    /// An operator's request.
    Manage(Manage),
}

/// The answer to the request with the same id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The request's.
    pub id: u64,
    /// How it ended.
    pub outcome: Outcome,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Done.
    Done {
        /// The state machine's response.
        response: Bytes,
        /// What the client has seen now.
        token: Token,
    },
    /// The session is open.
    Opened {
        /// Its id.
        session: SessionId,
        /// What the client has seen now.
        token: Token,
    },
    /// The session is closed (or there was none).
    Closed,
    /// The session is not known (any more); the command was **not** carried out now. Whether an earlier attempt was
    /// cannot be told.
    SessionExpired,
    /// The request's number is outside the session's window, or its answer was already given up. Not carried out now.
    OutOfWindow,
    /// The bytes are no command or query of this state machine. Nothing was changed.
    Malformed(String),
    /// Larger than allowed. Nothing was changed.
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// The command was carried out (or the query answered), but the answer is larger than a reply may be.
    ResponseTooLarge {
        /// Its size.
        bytes: u64,
    },
    /// Ask the primary. Nothing was changed.
    NotPrimary {
        /// Who it is, as far as this replica knows.
        primary: Option<ReplicaId>,
        /// Where clients find it.
        address: Option<String>,
    },
    /// Too much is under way. Nothing was changed; retry a little later.
    Busy,
    /// The replica has not caught up with the token.
    Behind,
    /// Whether the command was or will be carried out is not known. Ask again with the same session and number.
    Unknown,
    /// The answer to [`Op::Status`].
    Status(Box<ProtocolStatus>),
    /// An operator's request is done, or was so already; this configuration counts now.
    Managed(Box<Configuration>),
    /// An operator's request is not done: why.
    Refused(String),
}

impl Request {
    /// Its frame.
    ///
    /// # Panics
    /// Never: it is plain data.
    #[must_use]
    pub fn to_frame(&self) -> Bytes {
        wire::encode_frame(FrameKind::Request, Scratch::of(self).as_slice())
    }

    /// Reads the body of a request frame.
    ///
    /// # Errors
    /// When it is not one.
    pub fn from_body(body: &[u8]) -> Result<Self, crate::state_machine::Malformed> {
        crate::state_machine::decode(body)
    }
}

impl Reply {
    /// Its frame.
    ///
    /// # Panics
    /// Never: it is plain data.
    #[must_use]
    pub fn to_frame(&self) -> Bytes {
        Self::frame_of(self.id, &self.outcome)
    }

    /// The frame of a reply that need not be made for it.
    ///
    /// # Panics
    /// Never: it is plain data.
    #[must_use]
    pub fn frame_of(id: u64, outcome: &Outcome) -> Bytes {
        let response = match outcome {
            Outcome::Done { response, .. } => response.len(),
            _ => 0,
        };
        let mut out = BytesMut::with_capacity(FRAME_BYTES + response);
        let start = wire::begin_frame(&mut out, FrameKind::Reply);
        // (As a structure of these two is encoded.)
        crate::scratch::append(&(id, outcome), &mut out);
        wire::end_frame(&mut out, start);
        out.freeze()
    }

    /// Reads the body of a reply frame.
    ///
    /// # Errors
    /// When it is not one.
    pub fn from_body(body: &[u8]) -> Result<Self, crate::state_machine::Malformed> {
        crate::state_machine::decode(body)
    }
}

/// Of most replies, but for the response.
const FRAME_BYTES: usize = 64;
