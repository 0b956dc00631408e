//! The decoder of datagrams and what puts frames together, for fuzzers and for the test that cuts and flips valid bytes. Not part of the API.

use crate::config::MulticastConfig;
use crate::datagram::{Heading, Piece, Said, To, pieces_of};
use crate::reassembly::{Reassembly, Taken};
use bytes::{Bytes, BytesMut};
use kvrep_core::{GroupId, Incarnation, ReplicaId};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

/// One datagram, as it is and with its checksum made right; says whether it is one.
#[must_use]
pub fn datagram(bytes: &[u8]) -> bool {
    let mended = with_checksum(bytes);
    let _ = read(&mended);
    read(bytes).is_some()
}

/// Datagrams that are accepted.
#[must_use]
pub fn valid_datagrams() -> Vec<Vec<u8>> {
    let mut valid = Vec::new();
    let later = Said::Later {
        of: ReplicaId(5),
        incarnation: Incarnation(9),
    };
    for said in [Said::Hello, Said::Gone, later] {
        let mut out = BytesMut::new();
        heading(said).encode(&mut out);
        valid.push(out.to_vec());
    }
    for to in [To::All, To::One(ReplicaId(5))] {
        valid.extend(pieces(to, 40));
    }
    valid
}

/// Datagrams one after the other, each behind its length in two bytes, with checksums made right: what a sender without manners may send. Says
/// whether frames came out of their pieces.
#[must_use]
pub fn pieces_in_any_order(mut bytes: &[u8]) -> bool {
    let config = MulticastConfig::new(SocketAddrV4::new(Ipv4Addr::new(239, 255, 0, 1), 1));
    let bytes_max = config.limits.frame_bytes_max;
    let mut frames = Reassembly::new(&config);
    let (mut now, mut whole) = (Instant::now(), false);
    while let Some((length, rest)) = bytes.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        let (one, others) = rest.split_at(length);
        bytes = others;
        now += Duration::from_millis(100);
        let one = with_checksum(one);
        let Some((heading, data)) = read(&one) else {
            continue;
        };
        let Said::Piece(piece) = heading.said else {
            continue;
        };
        let sender = (heading.from, heading.incarnation, address());
        if let Taken::Whole(frame) = frames.take(now, sender, &piece, data) {
            assert!(frame.len() <= bytes_max, "a frame has a largest size");
            assert_eq!(frame.len(), piece.whole as usize, "a frame is whole");
            whole = true;
        }
    }
    whole
}

/// Pieces of frames, in order, in disorder and twice.
#[must_use]
pub fn valid_pieces() -> Vec<Vec<u8>> {
    let in_order = pieces(To::All, 40);
    let mut backwards = pieces(To::One(ReplicaId(5)), 20);
    backwards.reverse();
    let twice = in_order.iter().flat_map(|piece| [piece, piece]);
    let twice = twice.cloned().collect();
    let script = |datagrams: Vec<Vec<u8>>| {
        let lengths = datagrams.iter().map(|d| (d.len() as u16).to_be_bytes());
        let parts = lengths.zip(&datagrams);
        parts
            .flat_map(|(length, d)| [&length, &**d].concat())
            .collect()
    };
    [in_order, backwards, twice].map(script).to_vec()
}

fn read(bytes: &[u8]) -> Option<(Heading, &[u8])> {
    let (heading, data) = Heading::decode(bytes).ok()?;
    let mut again = BytesMut::new();
    heading.encode(&mut again);
    assert_eq!(
        Heading::decode(&[&again, data].concat()),
        Ok((heading, data)),
        "a heading comes back"
    );
    Some((heading, data))
}

/// The same with the checksum that its heading should have: guessing one is no attack's hard part.
fn with_checksum(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if let Some(head) = bytes.get_mut(..Heading::BYTES) {
        let (said, checksum) = head.split_at_mut(Heading::BYTES - 4);
        checksum.copy_from_slice(&crc32fast::hash(said).to_be_bytes());
    }
    bytes
}

fn heading(said: Said) -> Heading {
    Heading {
        group: GroupId(1),
        from: ReplicaId(2),
        incarnation: Incarnation(3),
        config_hash: 4,
        said,
    }
}

fn pieces(to: To, piece_bytes_max: usize) -> Vec<Vec<u8>> {
    let frame = Bytes::from_iter(0..100);
    let of = |piece: Piece| heading(Said::Piece(piece));
    let pieces = pieces_of(&frame, piece_bytes_max, of, (to, 7));
    let pieces = pieces.expect("it has not too many pieces");
    pieces.iter().map(|piece| piece.to_vec()).collect()
}

fn address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cut_and_no_flipped_bit_of_what_is_valid_makes_its_decoder_panic() {
        type Decode = fn(&[u8]) -> bool;
        let both: [(Decode, Vec<Vec<u8>>); 2] = [
            (datagram, valid_datagrams()),
            (pieces_in_any_order, valid_pieces()),
        ];
        for (decode, valid) in both {
            for valid in valid {
                assert!(decode(&valid));
                for cut in 0..valid.len() {
                    let _ = decode(&valid[..cut]);
                }
                let mut bytes = valid;
                for bit in 0..bytes.len() * 8 {
                    bytes[bit / 8] ^= 1 << (bit % 8);
                    let _ = decode(&bytes);
                    bytes[bit / 8] ^= 1 << (bit % 8);
                }
            }
        }
    }
}
