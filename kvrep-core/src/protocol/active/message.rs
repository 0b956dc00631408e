//! What replicas tell each other beside the stream. Any of it may be lost, late or doubled.

use super::item::{Life, Stamp};
use crate::id::{Index, ReplicaId};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A message from one replica.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Message {
    /// It is there.
    Heartbeat(Heartbeat),
    /// A piece of the state, for one that joins.
    Piece {
        /// Which join.
        life: Life,
        /// From whom.
        from: ReplicaId,
        /// Where the state ends.
        at: Index,
        /// Its chain there, to tell transfers apart.
        chain: u64,
        /// Where in the state the piece begins, in bytes.
        offset: u64,
        /// Bytes of the whole.
        whole: u64,
        /// The bytes.
        data: Bytes,
    },
    /// So much of it is here.
    Got {
        /// Who.
        by: ReplicaId,
        /// Which join.
        life: Life,
        /// Which transfer.
        chain: u64,
        /// So many bytes, without a gap.
        bytes: u64,
    },
}

/// What a replica says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Who.
    pub replica: ReplicaId,
    /// Which join.
    pub life: Life,
    /// Whether it serves, as far as it knows.
    pub serving: bool,
    /// Where it is in the stream; 0 without a state.
    pub at: Index,
    /// The chain there.
    pub chain: u64,
    /// Up to here every answer that it owes is where it goes.
    pub answered: Index,
    /// Up to here it knows that as many replicas have its history as an answer needs.
    pub confirmed: Confirmed,
    /// Tells histories apart that began separately: the chain at the first position. `None`: it has no state, or one that began from
    /// nothing and of which nothing was confirmed since.
    pub origin: Option<u64>,
    /// It holds its answers, and what it has confirms nothing more: others may decide about its history.
    pub holding: bool,
    /// A hash of who serves, as far as it knows.
    pub view: u64,
    /// Who does not serve, as far as it knows: one that finds itself here has missed that.
    pub failed: Vec<(ReplicaId, Life)>,
    /// What it has at the last marks; one without a state says only that they came.
    pub claims: Vec<Claim>,
}

/// As many as an answer needs had the same history, up to a position.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Confirmed {
    /// Which position; 0: nothing is confirmed.
    pub at: Index,
    /// The chain there.
    pub chain: u64,
}

/// What a replica has at a mark.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Claim {
    /// Which mark.
    pub mark: Stamp,
    /// Its position here.
    pub at: Index,
    /// The chain there.
    pub chain: u64,
    /// The state's digest there, if the state machine has one.
    pub digest: Option<u64>,
}
