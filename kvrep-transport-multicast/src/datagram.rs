//! What a datagram says: whose it is, for whom, and which piece of which frame.
//!
//! ```text
//!  0       4       5     6       14     18            26            34   38       46      50      52      54     58
//!  | KVRU  | version | kind | group | from | incarnation | config hash | to | number | whole | index | count | crc | piece …
//! ```
//!
//! A word about a later life of somebody says in *to* whose, and in *number* its incarnation. Integers are big-endian. The CRC-32 (IEEE) covers the first 54 bytes; a frame has one of its own. Invariants: a heading that was read is of
//! this version, its index is below its count, and its piece has just the length that index, count and whole give it.
//!
//! Caveat: nobody proves who he is (a place for that is the version). Run groups in networks that are trusted.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kvrep_core::{GroupId, Incarnation, ReplicaId};

/// Whose a datagram is, and what it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Heading {
    pub(crate) group: GroupId,
    /// [`ReplicaId::NOBODY`] for clients.
    pub(crate) from: ReplicaId,
    pub(crate) incarnation: Incarnation,
    pub(crate) config_hash: u64,
    pub(crate) said: Said,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Said {
    /// Where this datagram comes from, its sender reads.
    Hello,
    /// Its sender has ended.
    Gone,
    /// To one who said hello: a later life of that replica was heard here. That one says it to nobody, if it has ended.
    Later {
        of: ReplicaId,
        incarnation: Incarnation,
    },
    /// A piece of a frame.
    Piece(Piece),
}

/// Which piece of which frame, for whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Piece {
    pub(crate) to: To,
    /// The sender's how-manieth frame.
    pub(crate) number: u64,
    /// Bytes of the whole frame.
    pub(crate) whole: u32,
    pub(crate) index: u16,
    pub(crate) count: u16,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum To {
    All,
    One(ReplicaId),
}

/// Why a datagram was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum DatagramError {
    #[error("it is not kvrep's")]
    Foreign,
    #[error(
        "it is of version {0}, and this is version {VERSION}: run the same kvrep version everywhere"
    )]
    Version(u8),
    #[error("it was changed on the way")]
    Checksum,
    #[error("its heading makes no sense")]
    Senseless,
}

impl Heading {
    pub(crate) const BYTES: usize = 58;

    pub(crate) fn encode(&self, out: &mut BytesMut) {
        let start = out.len();
        let (kind, to, number, piece) = match self.said {
            Said::Hello => (HELLO, ReplicaId::NOBODY, 0, None),
            Said::Gone => (GONE, ReplicaId::NOBODY, 0, None),
            Said::Later { of, incarnation } => (LATER, of, incarnation.0, None),
            Said::Piece(piece) => match piece.to {
                To::All => (PIECE_FOR_ALL, ReplicaId::NOBODY, piece.number, Some(piece)),
                To::One(to) => (PIECE_FOR_ONE, to, piece.number, Some(piece)),
            },
        };
        out.put_slice(MAGIC);
        out.put_u8(VERSION);
        out.put_u8(kind);
        out.put_u64(self.group.0);
        out.put_u32(self.from.0);
        out.put_u64(self.incarnation.0);
        out.put_u64(self.config_hash);
        out.put_u32(to.0);
        out.put_u64(number);
        out.put_u32(piece.map_or(0, |piece| piece.whole));
        out.put_u16(piece.map_or(0, |piece| piece.index));
        out.put_u16(piece.map_or(0, |piece| piece.count));
        let crc = crc32fast::hash(&out[start..]);
        out.put_u32(crc);
    }

    /// Reads the heading; what follows it is the piece.
    pub(crate) fn decode(datagram: &[u8]) -> Result<(Self, &[u8]), DatagramError> {
        let Some((mut head, rest)) = datagram.split_at_checked(Self::BYTES) else {
            return Err(DatagramError::Foreign);
        };
        if !head.starts_with(MAGIC) {
            return Err(DatagramError::Foreign);
        }
        if head[4] != VERSION {
            return Err(DatagramError::Version(head[4]));
        }
        let crc = crc32fast::hash(&head[..Self::BYTES - 4]);
        head.advance(5);
        let kind = head.get_u8();
        let (group, from) = (GroupId(head.get_u64()), ReplicaId(head.get_u32()));
        let (incarnation, config_hash) = (Incarnation(head.get_u64()), head.get_u64());
        let to = ReplicaId(head.get_u32());
        let (number, whole) = (head.get_u64(), head.get_u32());
        let (index, count) = (head.get_u16(), head.get_u16());
        if head.get_u32() != crc {
            return Err(DatagramError::Checksum);
        }
        let piece = |to| Piece {
            to,
            number,
            whole,
            index,
            count,
        };
        let said = match kind {
            HELLO => Said::Hello,
            GONE => Said::Gone,
            LATER => Said::Later {
                of: to,
                incarnation: Incarnation(number),
            },
            PIECE_FOR_ALL => Said::Piece(piece(To::All)),
            PIECE_FOR_ONE => Said::Piece(piece(To::One(to))),
            _ => return Err(DatagramError::Senseless),
        };
        let fits = match said {
            Said::Hello | Said::Gone | Said::Later { .. } => rest.is_empty(),
            Said::Piece(piece) => piece
                .place()
                .is_some_and(|(start, end)| rest.len() == end - start),
        };
        if !fits {
            return Err(DatagramError::Senseless);
        }
        let heading = Self {
            group,
            from,
            incarnation,
            config_hash,
            said,
        };
        Ok((heading, rest))
    }
}

impl Piece {
    /// Where it begins and ends in the frame; `None` if there is no such piece. All but the last have the same length.
    pub(crate) fn place(&self) -> Option<(usize, usize)> {
        let (whole, count) = (self.whole as usize, usize::from(self.count));
        if count == 0 || self.count > PIECES_MAX || self.index >= self.count || whole < count {
            return None;
        }
        let length = whole.div_ceil(count);
        let start = length * usize::from(self.index);
        (start < whole).then(|| (start, (start + length).min(whole)))
    }
}

/// Cuts a frame into datagrams. `None`: it would take too many.
pub(crate) fn pieces_of(
    frame: &Bytes,
    piece_bytes_max: usize,
    heading: impl Fn(Piece) -> Heading,
    (to, number): (To, u64),
) -> Option<Vec<Bytes>> {
    let mut count = u16::try_from(frame.len().div_ceil(piece_bytes_max).max(1)).ok()?;
    // Rounding up may leave nothing for the last ones.
    let length = frame.len().div_ceil(usize::from(count));
    count = u16::try_from(frame.len().div_ceil(length.max(1)).max(1)).ok()?;
    let whole = u32::try_from(frame.len()).ok()?;
    (0..count)
        .map(|index| {
            let piece = Piece {
                to,
                number,
                whole,
                index,
                count,
            };
            let (start, end) = piece.place()?;
            let mut out = BytesMut::with_capacity(Heading::BYTES + end - start);
            heading(piece).encode(&mut out);
            out.put_slice(&frame[start..end]);
            Some(out.freeze())
        })
        .collect()
}

/// Pieces of a frame, at most.
pub(crate) const PIECES_MAX: u16 = 8_192;

const MAGIC: &[u8; 4] = b"KVRU";
const VERSION: u8 = 1;
const HELLO: u8 = 1;
const GONE: u8 = 2;
const PIECE_FOR_ALL: u8 = 3;
const PIECE_FOR_ONE: u8 = 4;
const LATER: u8 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn heading(said: Said) -> Heading {
        Heading {
            group: GroupId(1),
            from: ReplicaId(2),
            incarnation: Incarnation(3),
            config_hash: 4,
            said,
        }
    }

    fn encoded(heading: &Heading, piece: &[u8]) -> Vec<u8> {
        let mut out = BytesMut::new();
        heading.encode(&mut out);
        out.put_slice(piece);
        out.to_vec()
    }

    #[test]
    fn a_heading_has_these_bytes() {
        let piece = Piece {
            to: To::One(ReplicaId(5)),
            number: 6,
            whole: 10,
            index: 1,
            count: 2,
        };
        let bytes = encoded(&heading(Said::Piece(piece)), b"hello");
        let hex: String = bytes[..54].iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            "4b56525501040000000000000001000000020000000000000003000000000000000400000005000000000000\
             00060000000a00010002"
        );
        assert_eq!(
            Heading::decode(&bytes),
            Ok((heading(Said::Piece(piece)), b"hello".as_slice()))
        );
    }

    #[test]
    fn a_flipped_bit_a_cut_and_an_addition_are_refused() {
        let later = Said::Later {
            of: ReplicaId(6),
            incarnation: Incarnation(7),
        };
        for said in [Said::Hello, Said::Gone, later] {
            let bytes = encoded(&heading(said), b"");
            assert_eq!(Heading::decode(&bytes), Ok((heading(said), b"".as_slice())));
            for cut in 0..bytes.len() {
                assert!(Heading::decode(&bytes[..cut]).is_err(), "{cut}");
            }
            for bit in 0..bytes.len() * 8 {
                let mut damaged = bytes.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert!(Heading::decode(&damaged).is_err(), "bit {bit}");
            }
            assert!(Heading::decode(&[&bytes[..], b"x"].concat()).is_err());
        }
    }

    #[test]
    fn pieces_that_cannot_be_are_refused() {
        for (whole, index, count) in [
            (0, 0, 0),
            (0, 0, 1),
            (9, 2, 2),
            (9, 0, PIECES_MAX + 1),
            (1, 1, 2),
            (5, 3, 4),
        ] {
            let piece = Piece {
                to: To::All,
                number: 0,
                whole,
                index,
                count,
            };
            assert_eq!(piece.place(), None, "{whole} {index} {count}");
        }
    }

    proptest! {
        #[test]
        fn the_pieces_of_a_frame_are_the_frame(size in 1_usize..5_000, piece_bytes_max in 1_usize..1_500) {
            let frame = Bytes::from_iter((0..size).map(|n| (n % 251) as u8));
            let of = |piece| heading(Said::Piece(piece));
            if let Some(pieces) = pieces_of(&frame, piece_bytes_max, of, (To::All, 7)) {
                let mut whole = Vec::new();
                for datagram in &pieces {
                    let (_, piece) = Heading::decode(datagram).unwrap();
                    prop_assert!(piece.len() <= piece_bytes_max);
                    whole.extend_from_slice(piece);
                }
                prop_assert_eq!(whole, frame.to_vec());
            }
        }

        #[test]
        fn nothing_read_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Heading::decode(&bytes);
        }
    }
}
