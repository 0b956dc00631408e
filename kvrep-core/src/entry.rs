//! Log entries and their one encoding, used on the wire and in the write-ahead log.
//!
//! An entry is encoded flat, all integers big-endian:
//!
//! ```text
//! term.number u64 | term.replica u32 | index u64 | timestamp u64 | seed u64 | kind u8 | length u32 | payload
//! ```
//!
//! Hashes are not sent: whoever receives an entry computes `hash = xxh3(payload ‖ header, previous hash)` and so
//! has compared everything before it.
//!
//! Invariants: two logs with an equal hash at an index are equal up to there; and decoding never panics nor allocates,
//! whatever the bytes.
//!
//! Caveat: the hash (XXH3-64) finds histories that have parted by accident. It is no protection against somebody who
//! forges entries.

mod run;

pub use run::Run;

use crate::id::{Index, LogPoint, ReplicaId, Term};
use crate::time::Timestamp;
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// What an entry is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum EntryKind {
    /// The first entry of a term: nothing is applied.
    Noop = 0,
    /// A command for the state machine.
    Command = 1,
}

/// One entry of the log. Cloning is cheap: the payload is shared.
///
/// ```
/// use bytes::BytesMut;
/// use kvrep_core::{Entry, EntryKind, LogPoint, ReplicaId, Term, Timestamp};
///
/// let term = Term::ZERO.next_for(ReplicaId(1));
/// let make = |prev, payload: &'static [u8]| {
///     Entry::following(prev, term, Timestamp(0), 0, EntryKind::Command, payload.into())
/// };
/// let first = make(LogPoint::ZERO, b"a");
/// let second = make(first.point(), b"b");
///
/// let mut bytes = BytesMut::new();
/// second.encode(&mut bytes);
/// assert_eq!(bytes.len(), second.encoded_bytes());
/// let received = Entry::decode(&mut bytes.freeze(), first.hash).unwrap();
/// assert_eq!(received.point(), second.point()); // so everything before is equal too
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The term in which it was appended.
    pub term: Term,
    /// Its position.
    pub index: Index,
    /// The primary's time when it was appended; never goes back along the log.
    pub timestamp: Timestamp,
    /// Drawn by the primary; the only source of randomness of `apply`.
    pub seed: u64,
    /// What it is for.
    pub kind: EntryKind,
    /// The command, in the encoding of the session layer.
    pub payload: Bytes,
    /// Chained hash of the log up to and including this entry.
    pub hash: u64,
}

/// Why bytes are not an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a log entry: {0}")]
pub struct EntryError(pub(crate) &'static str);

impl Entry {
    /// Bytes of an encoded entry besides its payload.
    pub const HEADER_BYTES: usize = 8 + 4 + 8 + 8 + 8 + 1 + 4;

    /// Makes the entry that follows `prev`.
    #[must_use]
    pub fn following(
        prev: LogPoint,
        term: Term,
        timestamp: Timestamp,
        seed: u64,
        kind: EntryKind,
        payload: Bytes,
    ) -> Self {
        let mut entry = Self {
            term,
            index: prev.index.next(),
            timestamp,
            seed,
            kind,
            payload,
            hash: 0,
        };
        entry.hash = entry.chain(prev.hash);
        entry
    }

    /// Where the log is after this entry.
    #[must_use]
    pub fn point(&self) -> LogPoint {
        LogPoint {
            term: self.term,
            index: self.index,
            hash: self.hash,
        }
    }

    /// Its size in a frame or in the log.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        Self::HEADER_BYTES + self.payload.len()
    }

    /// Appends its encoding.
    ///
    /// # Panics
    /// When the payload is larger than 4 GiB, which [`crate::Limits`] forbids.
    pub fn encode(&self, out: &mut BytesMut) {
        out.reserve(self.encoded_bytes());
        out.put_slice(&self.header());
        out.put_slice(&self.payload);
    }

    /// The size of the encoded entry that `bytes` begin with; `None` when they are shorter than a header.
    pub(crate) fn peek_encoded_bytes(bytes: &[u8]) -> Option<usize> {
        let length = bytes.get(Self::HEADER_BYTES - 4..)?.first_chunk()?;
        (u32::from_be_bytes(*length) as usize).checked_add(Self::HEADER_BYTES)
    }

    /// Takes one entry off the front of `bytes`; its payload shares their memory.
    ///
    /// # Errors
    /// When they are too short or name an unknown kind. `bytes` is then unspecified.
    pub fn decode(bytes: &mut Bytes, prev_hash: u64) -> Result<Self, EntryError> {
        if bytes.len() < Self::HEADER_BYTES {
            return Err(EntryError("shorter than an entry's header"));
        }
        let mut head = &bytes[..Self::HEADER_BYTES];
        let term = Term {
            number: head.get_u64(),
            replica: ReplicaId(head.get_u32()),
        };
        let index = Index(head.get_u64());
        let timestamp = Timestamp(head.get_u64());
        let seed = head.get_u64();
        let kind = match head.get_u8() {
            0 => EntryKind::Noop,
            1 => EntryKind::Command,
            _ => return Err(EntryError("unknown kind")),
        };
        let length = head.get_u32() as usize;
        bytes.advance(Self::HEADER_BYTES);
        if bytes.len() < length {
            return Err(EntryError("shorter than its payload"));
        }
        let mut entry = Self {
            term,
            index,
            timestamp,
            seed,
            kind,
            payload: bytes.split_to(length),
            hash: 0,
        };
        entry.hash = entry.chain(prev_hash);
        Ok(entry)
    }

    /// Whether its hash is what it must be behind an entry with this hash.
    fn is_behind(&self, prev_hash: u64) -> bool {
        self.hash == self.chain(prev_hash)
    }

    fn header(&self) -> [u8; Self::HEADER_BYTES] {
        let mut header = [0; Self::HEADER_BYTES];
        let mut out = &mut header[..];
        out.put_u64(self.term.number);
        out.put_u32(self.term.replica.0);
        out.put_u64(self.index.0);
        out.put_u64(self.timestamp.0);
        out.put_u64(self.seed);
        out.put_u8(self.kind as u8);
        let length = u32::try_from(self.payload.len()).expect("a payload is bounded by Limits");
        out.put_u32(length);
        header
    }

    fn chain(&self, prev: u64) -> u64 {
        let of_head = xxhash_rust::xxh3::xxh3_64_with_seed(&self.header(), prev);
        xxhash_rust::xxh3::xxh3_64_with_seed(&self.payload, of_head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Entry {
        Entry::following(
            LogPoint::ZERO,
            Term::ZERO.next_for(ReplicaId(2)),
            Timestamp(7),
            9,
            EntryKind::Command,
            Bytes::from_static(b"abc"),
        )
    }

    #[test]
    fn an_entry_has_these_bytes() {
        let mut out = BytesMut::new();
        sample().encode(&mut out);
        let hex: String = out.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            "000000000000000100000002000000000000000100000000000000070000000000000009\
             0100000003616263"
        );
    }

    #[test]
    fn decode_gives_back_what_was_encoded_and_refuses_every_shorter_input() {
        let mut out = BytesMut::new();
        sample().encode(&mut out);
        let whole = out.freeze();
        assert_eq!(Entry::decode(&mut whole.clone(), 0).unwrap(), sample());
        for cut in 0..whole.len() {
            assert!(Entry::decode(&mut whole.slice(..cut), 0).is_err());
        }
    }

    #[test]
    fn the_hash_depends_on_everything_before() {
        let a = sample();
        let b = Entry::following(
            LogPoint {
                hash: 1,
                ..LogPoint::ZERO
            },
            a.term,
            a.timestamp,
            a.seed,
            a.kind,
            a.payload.clone(),
        );
        assert_ne!(a.hash, b.hash);
    }
}
