//! What stands in the ordered stream, and its encoding.
//!
//! Every item occupies one position at every replica, whatever becomes of it: one that is void or unreadable counts like the
//! others. Items of replicas carry a [`Stamp`], so that whoever misses one knows; those of clients need none.
//!
//! ```
//! use kvrep_core::GroupId;
//! use kvrep_core::protocol::active::{Call, Item, Published, Request};
//!
//! let group = GroupId::named("sums");
//! let request = Request { hash: 7, call: Call::Read("".into()), reply_to: "c1".into(), asked: None };
//! let published = Published { stamp: None, item: Item::Request(request) };
//! let bytes = published.encode(group);
//! assert_eq!(Published::decode(group, &bytes), published);
//! // Whatever else comes has a place, too.
//! assert_eq!(Published::decode(group, b"garbage").item, Item::Unreadable);
//! ```

use crate::client_wire::{Op, Outcome};
use crate::id::{GroupId, Incarnation, Index, ReplicaId};
use crate::session::Envelope;
use crate::time::Timestamp;
use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

/// One join of one start of a replica. Grows with each.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct Life {
    /// Which start.
    pub incarnation: Incarnation,
    /// Which join of it, from 1.
    pub attempt: u32,
}

/// Names one publication of a replica. `seq` begins at 1 with each incarnation and has no gaps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Stamp {
    /// Whose.
    pub replica: ReplicaId,
    /// In which life.
    pub incarnation: Incarnation,
    /// Its how-manieth.
    pub seq: u64,
}

/// An item as it was published.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Published {
    /// `None` for clients.
    pub stamp: Option<Stamp>,
    /// What.
    pub item: Item,
}

/// What a client wants.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Call {
    /// A command, in the encoding of the session layer ([`crate::session::Envelope`]): every replica carries it out.
    Write(Bytes),
    /// A query: the one that owns it answers.
    Read(Bytes),
}

/// A client's request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Of the key; decides who answers, under [`Responder::KeyHash`](super::Responder::KeyHash).
    pub hash: u64,
    /// What is wanted.
    pub call: Call,
    /// Where the answer goes and how it is told from others: opaque here.
    pub reply_to: Bytes,
    /// Who was asked, under [`Responder::Asked`](super::Responder::Asked).
    pub asked: Option<ReplicaId>,
}

impl Request {
    /// A client's operation as a request. `hash` decides who answers.
    ///
    /// # Errors
    /// The answer, where it is nothing for the stream.
    pub fn of_op(op: Op, hash: u64, reply_to: Bytes) -> Result<Self, Outcome> {
        let write = |envelope: &Envelope| Call::Write(envelope.encode());
        let call = match op {
            Op::OpenSession => write(&Envelope::Open),
            Op::Command {
                session,
                seq,
                done_below,
                command,
            } => write(&Envelope::Command {
                session,
                seq,
                done_below,
                command,
            }),
            Op::Plain(command) => write(&Envelope::Plain(command)),
            Op::CloseSession(session) => write(&Envelope::Close(session)),
            // Every read has its place in the stream, and so is as fresh as can be.
            Op::Query { read: _, query } => Call::Read(query),
            Op::Status | Op::Manage(_) => {
                let why = "nobody is primary in the active scheme, and its members are fixed";
                return Err(Outcome::Refused(why.into()));
            }
        };
        Ok(Self {
            hash,
            call,
            reply_to,
            asked: None,
        })
    }
}

/// An item.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Item {
    /// Of a client.
    Request(Request),
    /// The replica is there and wants the state.
    Announce {
        /// Who.
        replica: ReplicaId,
        /// Which join.
        life: Life,
    },
    /// The replica has everything, and owns its slots from here on.
    Ready {
        /// Who.
        replica: ReplicaId,
        /// Which join.
        life: Life,
    },
    /// The replica has not been heard for too long.
    Failed {
        /// Who.
        replica: ReplicaId,
        /// Which life; where it is missing, the current one.
        life: Option<Life>,
        /// When it was heard last.
        seen_at: Timestamp,
    },
    /// A history begins here, or goes on from a state that nobody serves.
    Genesis {
        /// Who serves it.
        replica: ReplicaId,
        /// Which join of it.
        life: Life,
        /// Where the state ends that it begins from; 0: the initial one.
        from: Index,
    },
    /// That genesis is void: somebody serves an older history.
    Objection {
        /// Which genesis.
        genesis: Stamp,
    },
    /// A place at which histories are compared.
    Mark {
        /// How many decisions its publisher knows of.
        decisions: u64,
        /// Its publisher's clock.
        clock: Timestamp,
    },
    /// Which history counts from now on.
    Decision(Decision),
    /// Bytes that are no item.
    Unreadable,
}

/// Which of several histories counts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Decision {
    /// One more than the last one.
    pub number: u64,
    /// The mark about which histories differ.
    pub mark: Stamp,
    /// How many decisions were known when the mark was published.
    pub known: u64,
    /// Where the mark is in the history that counts.
    pub at: Index,
    /// Its chain there.
    pub chain: u64,
    /// Who has that history. The others have failed.
    pub listed: Vec<(ReplicaId, Life)>,
}

impl Published {
    /// The bytes to be published in this group.
    #[must_use]
    pub fn encode(&self, group: GroupId) -> Bytes {
        let mut out = BytesMut::with_capacity(64);
        self.encode_to(group, &mut out);
        out.freeze()
    }

    /// Appends what [`encode`](Self::encode) returns.
    pub fn encode_to(&self, group: GroupId, out: &mut BytesMut) {
        out.put_u8(VERSION);
        out.put_u64(group.0);
        crate::scratch::append(self, out);
    }

    /// What the bytes say; [`Item::Unreadable`] when they say nothing to this group.
    #[must_use]
    pub fn decode(group: GroupId, bytes: &[u8]) -> Self {
        let body = (bytes.strip_prefix(&[VERSION]))
            .and_then(|rest| rest.strip_prefix(&group.0.to_be_bytes()));
        let read = body.and_then(|body| crate::state_machine::decode(body).ok());
        read.unwrap_or(Self {
            stamp: None,
            item: Item::Unreadable,
        })
    }
}

/// Of the encoding.
const VERSION: u8 = 1;
