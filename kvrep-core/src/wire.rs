//! Frames: what travels between processes, whatever carries it.
//!
//! ```text
//!  0       4       5      6          8        12      16
//!  | magic | version | kind | reserved | length | crc32 | body …
//!  | KVRP  |    1    |  u8  |  u16 = 0 |  u32   |  u32  |
//! ```
//!
//! Integers are big-endian. The CRC-32 (IEEE) covers the first 12 bytes and the body. The length is checked against
//! a limit **before** anything is allocated. A peer frame's body starts with an [`Envelope`]; what follows is the
//! protocol's own message.
//!
//! Caveat: the checksum finds damage, not forgery.
//!
//! ```
//! use bytes::BytesMut;
//! use kvrep_core::wire::{FrameError, FrameKind, decode_frame, encode_frame};
//!
//! let frame = encode_frame(FrameKind::Request, b"hello");
//! let mut stream = BytesMut::from(&frame[..frame.len() - 1]);
//! assert_eq!(decode_frame(&mut stream, 1_024), Ok(None)); // not all of it is there yet
//! stream.extend_from_slice(&frame[frame.len() - 1..]);
//! let (kind, body) = decode_frame(&mut stream, 1_024).unwrap().unwrap();
//! assert_eq!((kind, &body[..]), (FrameKind::Request, b"hello".as_slice()));
//!
//! let mut large = BytesMut::from(&frame[..]);
//! assert!(matches!(decode_frame(&mut large, 4), Err(FrameError::TooLarge { bytes: 5, .. })));
//! ```

use crate::id::{GroupId, Incarnation, ReplicaId};
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// First bytes of every frame: tells kvrep from foreign clients on the same port.
pub const MAGIC: [u8; 4] = *b"KVRP";
/// Version of the wire. Peers of another version are refused.
pub const VERSION: u8 = 2;
/// Bytes before a frame's body.
pub const HEADER_BYTES: usize = 16;

/// What a frame's body is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum FrameKind {
    /// From a replica (or the witness) to another: an [`Envelope`] and a protocol message.
    Peer = 1,
    /// From a client: a [`crate::client_wire::Request`].
    Request = 2,
    /// To a client: a [`crate::client_wire::Reply`].
    Reply = 3,
    /// First frame of a connection, both ways: the transport's own.
    Handshake = 4,
}

/// Why bytes are not a frame. The connection they came from cannot be trusted any further.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The bytes do not start as a frame does.
    #[error("not a kvrep frame (it starts with {0:02x?})")]
    Magic([u8; 4]),
    /// Another version of the wire.
    #[error(
        "wire version {found}, this is version {VERSION}: run the same kvrep version on all replicas"
    )]
    Version {
        /// The version the peer speaks.
        found: u8,
    },
    /// No frame of this kind exists.
    #[error("unknown frame kind {0}")]
    Kind(u8),
    /// Larger than the receiver allows. Nothing was allocated.
    #[error("a frame of {bytes} bytes; at most {bytes_max} are allowed")]
    TooLarge {
        /// Length in the frame's header.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The bytes were changed on the way.
    #[error("checksum mismatch")]
    Checksum,
    /// The body ends early.
    #[error("truncated: {0}")]
    Truncated(&'static str),
}

/// Makes a frame of `body`.
///
/// # Panics
/// When the body is larger than 4 GiB.
#[must_use]
pub fn encode_frame(kind: FrameKind, body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEADER_BYTES + body.len());
    let start = begin_frame(&mut out, kind);
    out.put_slice(body);
    end_frame(&mut out, start);
    out.freeze()
}

/// Starts a frame at the end of `out`; returns where. The body is then appended, and [`end_frame`] called.
pub fn begin_frame(out: &mut BytesMut, kind: FrameKind) -> usize {
    let start = out.len();
    out.put_slice(&MAGIC);
    out.put_u8(VERSION);
    out.put_u8(kind as u8);
    out.put_u16(0);
    out.put_u64(0);
    start
}

/// Fills in length and checksum of the frame that starts at `start`.
///
/// # Panics
/// When the body is larger than 4 GiB.
pub fn end_frame(out: &mut BytesMut, start: usize) {
    let length = u32::try_from(out.len() - start - HEADER_BYTES).expect("a frame is bounded");
    out[start + 8..start + 12].copy_from_slice(&length.to_be_bytes());
    let crc = checksum(&out[start..start + 12], &out[start + HEADER_BYTES..]);
    out[start + 12..start + 16].copy_from_slice(&crc.to_be_bytes());
}

/// Takes one whole frame off the front of `buffer`, if it is there.
///
/// `Ok(None)`: more bytes are needed. The buffer is left as it was then, with room reserved for the frame.
///
/// # Errors
/// When the bytes are not a frame; the stream they came from has lost its framing.
pub fn decode_frame(
    buffer: &mut BytesMut,
    body_bytes_max: usize,
) -> Result<Option<(FrameKind, Bytes)>, FrameError> {
    match take_frame(buffer, body_bytes_max)? {
        Taken::Frame(kind, body) => Ok(Some((kind, body))),
        Taken::Missing(bytes) => {
            buffer.reserve(bytes);
            Ok(None)
        }
    }
}

/// What [`take_frame`] found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Taken {
    /// A whole frame, with its body.
    Frame(FrameKind, Bytes),
    /// At least so many more bytes are needed: those that the frame lacks, once its header is there.
    Missing(usize),
}

/// [`decode_frame`] for a caller that makes room itself.
///
/// # Errors
/// When the bytes are not a frame; the stream they came from has lost its framing.
pub fn take_frame(buffer: &mut BytesMut, body_bytes_max: usize) -> Result<Taken, FrameError> {
    let Some(length) = frame_length(buffer, body_bytes_max)? else {
        return Ok(Taken::Missing(HEADER_BYTES - buffer.len()));
    };
    if buffer.len() < HEADER_BYTES + length {
        return Ok(Taken::Missing(HEADER_BYTES + length - buffer.len()));
    }
    let frame = buffer.split_to(HEADER_BYTES + length).freeze();
    let (kind, body) = open(&frame)?;
    Ok(Taken::Frame(kind, body))
}

/// Takes one frame off the front of bytes that hold whole frames, such as a message into which several were put. Nothing is
/// copied.
///
/// ```
/// use bytes::Bytes;
/// use kvrep_core::wire::{FrameKind, encode_frame, split_frame};
///
/// let frames = [encode_frame(FrameKind::Peer, b"one"), encode_frame(FrameKind::Peer, b"two")];
/// let mut message = Bytes::from(frames.concat());
/// assert_eq!(split_frame(&mut message, 1_024).unwrap(), (FrameKind::Peer, "one".into()));
/// assert_eq!(split_frame(&mut message, 1_024).unwrap(), (FrameKind::Peer, "two".into()));
/// assert!(message.is_empty());
/// ```
///
/// # Errors
/// When they do not begin with a whole frame whose body has at most `body_bytes_max`.
pub fn split_frame(
    bytes: &mut Bytes,
    body_bytes_max: usize,
) -> Result<(FrameKind, Bytes), FrameError> {
    match frame_length(bytes, body_bytes_max)? {
        Some(length) if bytes.len() >= HEADER_BYTES + length => {
            open(&bytes.split_to(HEADER_BYTES + length))
        }
        Some(_) | None => Err(FrameError::Truncated("a frame's end is missing")),
    }
}

/// Opens a frame that came as one datagram.
///
/// ```
/// use kvrep_core::wire::{FrameError, FrameKind, decode_datagram, encode_frame};
///
/// let datagram = encode_frame(FrameKind::Peer, b"hello");
/// assert!(decode_datagram(&datagram, 1_024).is_ok());
/// let mut damaged = datagram.to_vec();
/// damaged[20] ^= 1;
/// assert_eq!(decode_datagram(&damaged.into(), 1_024), Err(FrameError::Checksum));
/// ```
///
/// # Errors
/// When it is not exactly one frame of at most `body_bytes_max`.
pub fn decode_datagram(
    datagram: &Bytes,
    body_bytes_max: usize,
) -> Result<(FrameKind, Bytes), FrameError> {
    match frame_length(datagram, body_bytes_max)? {
        Some(length) if datagram.len() == HEADER_BYTES + length => open(datagram),
        Some(_) | None => Err(FrameError::Truncated("a datagram is exactly one frame")),
    }
}

/// The body of a whole frame that this process made itself: kind and length are looked at, the checksum is not
/// computed again. `None` when it is not one frame of this kind.
#[must_use]
pub fn own_body(frame: &Bytes, kind: FrameKind) -> Option<Bytes> {
    let length = frame_length(frame, usize::MAX).ok().flatten()?;
    (frame[5] == kind as u8 && frame.len() == HEADER_BYTES + length)
        .then(|| frame.slice(HEADER_BYTES..))
}

/// Length of the body of the frame that starts here; `None` while the header is incomplete.
fn frame_length(bytes: &[u8], body_bytes_max: usize) -> Result<Option<usize>, FrameError> {
    // Wrong magic is refused from the first wrong byte on: a foreign client may send little and then wait.
    let shown = bytes.len().min(4);
    if bytes[..shown] != MAGIC[..shown] {
        let mut found = [0; 4];
        found[..shown].copy_from_slice(&bytes[..shown]);
        return Err(FrameError::Magic(found));
    }
    if bytes.len() < HEADER_BYTES {
        return Ok(None);
    }
    if bytes[4] != VERSION {
        return Err(FrameError::Version { found: bytes[4] });
    }
    kind_of(bytes[5])?;
    let length = u32::from_be_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) as usize;
    if length > body_bytes_max {
        return Err(FrameError::TooLarge {
            bytes: length,
            bytes_max: body_bytes_max,
        });
    }
    Ok(Some(length))
}

fn open(frame: &Bytes) -> Result<(FrameKind, Bytes), FrameError> {
    let expected = u32::from_be_bytes([frame[12], frame[13], frame[14], frame[15]]);
    let body = frame.slice(HEADER_BYTES..);
    if checksum(&frame[..12], &body) != expected {
        return Err(FrameError::Checksum);
    }
    Ok((kind_of(frame[5])?, body))
}

fn kind_of(byte: u8) -> Result<FrameKind, FrameError> {
    match byte {
        1 => Ok(FrameKind::Peer),
        2 => Ok(FrameKind::Request),
        3 => Ok(FrameKind::Reply),
        4 => Ok(FrameKind::Handshake),
        other => Err(FrameError::Kind(other)),
    }
}

fn checksum(head: &[u8], body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(head);
    crc.update(body);
    crc.finalize()
}

/// Who speaks to whom: the first bytes of a peer frame's body.
///
/// ```
/// use bytes::BytesMut;
/// use kvrep_core::wire::Envelope;
/// use kvrep_core::{GroupId, Incarnation, ReplicaId};
///
/// let envelope = Envelope {
///     group: GroupId::named("orders"),
///     from: ReplicaId(1),
///     incarnation: Incarnation(3),
///     to_incarnation: Incarnation(8),
/// };
/// let mut bytes = BytesMut::new();
/// envelope.encode(&mut bytes);
/// assert_eq!(bytes.len(), Envelope::BYTES);
/// assert_eq!(Envelope::decode(&mut bytes.freeze()), Ok(envelope));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Envelope {
    /// The group both belong to.
    pub group: GroupId,
    /// Who sent it.
    pub from: ReplicaId,
    /// In which life.
    pub incarnation: Incarnation,
    /// The life of the addressee that is meant; [`Incarnation::UNKNOWN`] only in messages that ask who is there.
    pub to_incarnation: Incarnation,
}

impl Envelope {
    /// Its size.
    pub const BYTES: usize = 8 + 4 + 8 + 8;

    /// Appends it.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u64(self.group.0);
        out.put_u32(self.from.0);
        out.put_u64(self.incarnation.0);
        out.put_u64(self.to_incarnation.0);
    }

    /// Takes it off the front of a peer frame's body.
    ///
    /// # Errors
    /// [`FrameError::Truncated`] when the body is shorter.
    pub fn decode(body: &mut Bytes) -> Result<Self, FrameError> {
        if body.len() < Self::BYTES {
            return Err(FrameError::Truncated("a peer frame without an envelope"));
        }
        Ok(Self {
            group: GroupId(body.get_u64()),
            from: ReplicaId(body.get_u32()),
            incarnation: Incarnation(body.get_u64()),
            to_incarnation: Incarnation(body.get_u64()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_these_bytes() {
        let frame = encode_frame(FrameKind::Peer, b"hi");
        let hex: String = frame.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "4b565250020100000000000257eb6c836869");
    }

    #[test]
    fn every_truncation_waits_and_every_flipped_bit_is_refused() {
        let frame = encode_frame(FrameKind::Request, b"some body");
        for cut in 0..frame.len() {
            let mut part = BytesMut::from(&frame[..cut]);
            assert_eq!(decode_frame(&mut part, 64), Ok(None), "cut at {cut}");
        }
        for bit in 0..frame.len() * 8 {
            let mut bytes = BytesMut::from(&frame[..]);
            bytes[bit / 8] ^= 1 << (bit % 8);
            // A longer length may also wait for more bytes; it is then refused by its checksum or by the deadline.
            assert!(
                !matches!(decode_frame(&mut bytes, 64), Ok(Some(_))),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_anything_is_allocated() {
        let mut bytes = BytesMut::from(&encode_frame(FrameKind::Peer, b"12345")[..HEADER_BYTES]);
        assert_eq!(
            decode_frame(&mut bytes, 4),
            Err(FrameError::TooLarge {
                bytes: 5,
                bytes_max: 4
            })
        );
    }

    #[test]
    fn two_frames_in_one_buffer_come_out_one_by_one() {
        let mut buffer = BytesMut::new();
        buffer.extend_from_slice(&encode_frame(FrameKind::Peer, b"a"));
        buffer.extend_from_slice(&encode_frame(FrameKind::Reply, b""));
        let first = decode_frame(&mut buffer, 64).unwrap().unwrap();
        assert_eq!(first, (FrameKind::Peer, Bytes::from_static(b"a")));
        let second = decode_frame(&mut buffer, 64).unwrap().unwrap();
        assert_eq!(second, (FrameKind::Reply, Bytes::new()));
    }
}
