//! Records, the one thing segments consist of.
//!
//! ```text
//! crc32 u32 | length u32 | kind u8 | payload (length bytes)
//! ```
//!
//! Integers are big-endian. The checksum covers, besides length, kind and payload, the segment's salt and the
//! record's own offset: a record is valid in one place only, so neither an old record that a lost write left standing
//! nor a copy of a log inside a command is ever taken for part of this one. No kind is zero, so zeros (a
//! preallocated segment's rest) are never a record.

use crate::entry::Entry;
use crate::id::{Index, LogPoint, ReplicaId, Term};
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// What a record is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// An entry, in its own encoding.
    Entry = 1,
    /// The log ends at this [`LogPoint`] again.
    Truncate = 2,
    /// The protocol's hard state.
    HardState = 3,
    /// The log is empty and goes on behind this [`LogPoint`]; then the generation of valid snapshots.
    Restart = 4,
    /// The generation of valid snapshots from here on; the log stays.
    Generation = 5,
    /// Everything before this offset (u64) of this segment is durable.
    Mark = 6,
    /// The last record of a segment; another segment follows.
    End = 7,
}

impl Kind {
    /// The kind of this number.
    pub(super) fn of(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Entry),
            2 => Some(Self::Truncate),
            3 => Some(Self::HardState),
            4 => Some(Self::Restart),
            5 => Some(Self::Generation),
            6 => Some(Self::Mark),
            7 => Some(Self::End),
            _ => None,
        }
    }
}

/// Bytes before a record's payload.
pub(super) const HEAD_BYTES: usize = 4 + 4 + 1;
/// Bytes of a [`Kind::Mark`] record.
pub(super) const MARK_BYTES: usize = HEAD_BYTES + 8;
/// Bytes of an encoded [`LogPoint`].
pub(super) const POINT_BYTES: usize = 8 + 4 + 8 + 8;

/// Appends a record that will stand at `offset` of the segment with this salt.
pub(super) fn put(
    out: &mut BytesMut,
    salt: u32,
    offset: u64,
    kind: Kind,
    payload: impl FnOnce(&mut BytesMut),
) {
    let start = out.len();
    out.put_u64(0);
    out.put_u8(kind as u8);
    payload(out);
    let length = u32::try_from(out.len() - start - HEAD_BYTES).expect("a record is bounded");
    out[start + 4..start + 8].copy_from_slice(&length.to_be_bytes());
    let crc = checksum(salt, offset, &out[start + 4..]);
    out[start..start + 4].copy_from_slice(&crc.to_be_bytes());
}

/// Appends an entry's record.
pub(super) fn put_entry(out: &mut BytesMut, salt: u32, offset: u64, entry: &Entry) {
    out.reserve(HEAD_BYTES + entry.encoded_bytes());
    put(out, salt, offset, Kind::Entry, |out| entry.encode(out));
}

/// The record at `offset` of a segment: its kind and the offset behind it; `None` if there is no valid one.
pub(super) fn at(segment: &[u8], salt: u32, offset: usize) -> Option<(Kind, usize)> {
    let head = segment.get(offset..offset.checked_add(HEAD_BYTES)?)?;
    let kind = Kind::of(head[8])?;
    let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
    let end = offset + HEAD_BYTES + length;
    let covered = segment.get(offset + 4..end)?;
    let crc = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
    (crc == checksum(salt, offset as u64, covered)).then_some((kind, end))
}

/// Whether a mark at or after `from` says that more than `durable` bytes of this segment were durable.
pub(super) fn marked_durable(segment: &[u8], salt: u32, from: usize, durable: u64) -> bool {
    let candidates = segment.get(from..).unwrap_or_default().windows(MARK_BYTES);
    candidates.enumerate().any(|(i, window)| {
        window[4..9] == [0, 0, 0, 8, Kind::Mark as u8]
            && matches!(at(segment, salt, from + i), Some((Kind::Mark, _)))
            && (&window[HEAD_BYTES..]).get_u64() > durable
    })
}

/// Appends a place in the log.
pub(super) fn put_point(out: &mut BytesMut, point: LogPoint) {
    out.put_u64(point.term.number);
    out.put_u32(point.term.replica.0);
    out.put_u64(point.index.0);
    out.put_u64(point.hash);
}

/// Takes a place in the log off the front.
pub(super) fn get_point(bytes: &mut Bytes) -> Option<LogPoint> {
    if bytes.len() < POINT_BYTES {
        return None;
    }
    Some(LogPoint {
        term: Term {
            number: bytes.get_u64(),
            replica: ReplicaId(bytes.get_u32()),
        },
        index: Index(bytes.get_u64()),
        hash: bytes.get_u64(),
    })
}

fn checksum(salt: u32, offset: u64, covered: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new_with_initial(salt);
    crc.update(&offset.to_be_bytes());
    crc.update(covered);
    crc.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(salt: u32, offset: u64) -> BytesMut {
        let mut out = BytesMut::new();
        put(&mut out, salt, offset, Kind::Mark, |out| out.put_u64(77));
        out
    }

    #[test]
    fn a_record_has_these_bytes() {
        let hex: String = mark(5, 3).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex[8..], *"0000000806000000000000004d");
        assert_eq!(hex.len(), 2 * MARK_BYTES);
    }

    #[test]
    fn a_record_is_valid_only_at_its_place_in_its_segment() {
        let mut segment = vec![0; 3];
        segment.extend_from_slice(&mark(5, 3));
        assert_eq!(at(&segment, 5, 3), Some((Kind::Mark, 20)));
        assert_eq!(at(&segment, 6, 3), None);
        segment.insert(0, 0);
        assert_eq!(at(&segment, 5, 4), None);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_makes_a_record_invalid() {
        let good = mark(5, 0);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(at(&bad, 5, 0), None, "bit {bit}");
        }
        for cut in 0..good.len() {
            assert_eq!(at(&good[..cut], 5, 0), None, "cut {cut}");
        }
    }

    #[test]
    fn a_mark_behind_damage_tells_that_it_was_durable() {
        let mut segment = vec![0xff; 60];
        segment.extend_from_slice(&mark(5, 60));
        assert!(marked_durable(&segment, 5, 40, 40));
        assert!(!marked_durable(&segment, 5, 40, 77));
        assert!(!marked_durable(&segment, 5, 61, 40));
    }
}
