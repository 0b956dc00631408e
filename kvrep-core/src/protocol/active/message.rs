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

impl Message {
    /// Two smaller pieces of a state in place of this one, for a transport that does not carry it whole. The receiver takes pieces of any size, one behind the
    /// other. `None`: it is no piece, or has fewer than [`Self::PIECE_BYTES_MIN`] bytes.
    #[must_use]
    pub fn halves(&self) -> Option<[Self; 2]> {
        let Self::Piece { offset, data, .. } = self else {
            return None;
        };
        if data.len() < Self::PIECE_BYTES_MIN {
            return None;
        }
        let (first, second) = (data.slice(..data.len() / 2), data.slice(data.len() / 2..));
        let behind = offset + first.len() as u64;
        let mut halves = [self.clone(), self.clone()];
        for (half, (begins, bytes)) in halves.iter_mut().zip([(*offset, first), (behind, second)]) {
            if let Self::Piece { offset, data, .. } = half {
                (*offset, *data) = (begins, bytes);
            }
        }
        Some(halves)
    }

    /// A smaller piece is not cut: what does not carry it carries nothing of use.
    pub const PIECE_BYTES_MIN: usize = 128;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(offset: u64, bytes: usize) -> Message {
        Message::Piece {
            life: Life::default(),
            from: ReplicaId(1),
            at: Index(9),
            chain: 3,
            offset,
            whole: 1_000,
            data: (0..bytes).map(|n| n as u8).collect(),
        }
    }

    #[test]
    fn the_halves_of_a_piece_are_the_piece_one_behind_the_other() {
        assert_eq!(piece(100, Message::PIECE_BYTES_MIN - 1).halves(), None);
        let halves = piece(100, 201).halves().expect("it is large enough");
        let mut next = 100;
        let mut all = Vec::new();
        for half in halves {
            let Message::Piece {
                offset,
                data,
                whole,
                ..
            } = half
            else {
                panic!("a piece");
            };
            assert_eq!((offset, whole), (next, 1_000));
            next += data.len() as u64;
            all.extend_from_slice(&data);
        }
        let whole = matches!(piece(100, 201), Message::Piece { data, .. } if data == all);
        assert!(whole);
    }
}
