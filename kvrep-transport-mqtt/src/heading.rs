//! Who says it: the first frame of every publication between replicas, and of what they say of their lives.
//!
//! A broker tells nobody who published. So every publication names its sender, the sender's life and what its group agreed on,
//! and numbers itself: what comes a second time, or too late, is told by the number.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kvrep_core::transport::LocalPeer;
use kvrep_core::wire::{self, FrameError, FrameKind, HEADER_BYTES};
use kvrep_core::{GroupId, Incarnation, ReplicaId};

/// Who says it, and what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Heading {
    pub(crate) group: GroupId,
    pub(crate) from: ReplicaId,
    pub(crate) incarnation: Incarnation,
    pub(crate) config_hash: u64,
    pub(crate) said: Said,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Said {
    /// Frames follow. The number grows by one with every publication to this receiver.
    Frames { number: u64 },
    /// I am here, and read requests of at most so many bytes.
    Alive { request_bytes_max: u64 },
    /// I am not any more.
    Gone,
}

impl Heading {
    /// Its frame's size.
    pub(crate) const FRAME_BYTES: usize = HEADER_BYTES + BODY_BYTES;

    pub(crate) fn of(me: &LocalPeer, said: Said) -> Self {
        Self {
            group: me.group,
            from: me.replica,
            incarnation: me.incarnation,
            config_hash: me.config_hash,
            said,
        }
    }

    pub(crate) fn to_frame(self) -> Bytes {
        let mut body = BytesMut::with_capacity(BODY_BYTES);
        let (kind, number) = match self.said {
            Said::Frames { number } => (1, number),
            Said::Alive { request_bytes_max } => (2, request_bytes_max),
            Said::Gone => (3, 0),
        };
        body.put_u8(kind);
        body.put_u64(self.group.0);
        body.put_u32(self.from.0);
        body.put_u64(self.incarnation.0);
        body.put_u64(self.config_hash);
        body.put_u64(number);
        wire::encode_frame(FrameKind::Handshake, &body)
    }

    /// Takes it off the front of a payload.
    pub(crate) fn take(payload: &mut Bytes) -> Result<Self, FrameError> {
        let (kind, mut body) = wire::split_frame(payload, BODY_BYTES)?;
        if kind != FrameKind::Handshake || body.len() != BODY_BYTES {
            return Err(FrameError::Truncated("a publication without a heading"));
        }
        let kind = body.get_u8();
        let (group, from) = (GroupId(body.get_u64()), ReplicaId(body.get_u32()));
        let (incarnation, config_hash) = (Incarnation(body.get_u64()), body.get_u64());
        let number = body.get_u64();
        let said = match kind {
            1 => Said::Frames { number },
            2 => Said::Alive {
                request_bytes_max: number,
            },
            3 => Said::Gone,
            other => return Err(FrameError::Kind(other)),
        };
        Ok(Self {
            group,
            from,
            incarnation,
            config_hash,
            said,
        })
    }
}

const BODY_BYTES: usize = 1 + 8 + 4 + 8 + 8 + 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn headings() -> impl Iterator<Item = Heading> {
        let said = [
            Said::Frames { number: 9 },
            Said::Alive {
                request_bytes_max: 7,
            },
            Said::Gone,
        ];
        said.into_iter().map(|said| Heading {
            group: GroupId(1),
            from: ReplicaId(2),
            incarnation: Incarnation(3),
            config_hash: 4,
            said,
        })
    }

    #[test]
    fn what_is_said_is_read_and_a_flipped_bit_or_a_cut_is_refused() {
        for heading in headings() {
            let frame = heading.to_frame();
            assert_eq!(frame.len(), Heading::FRAME_BYTES);
            let mut payload = Bytes::from([&frame[..], b"rest"].concat());
            assert_eq!(Heading::take(&mut payload), Ok(heading));
            assert_eq!(payload, "rest");
            for cut in 0..frame.len() {
                assert!(Heading::take(&mut frame.slice(..cut)).is_err(), "{cut}");
            }
            for bit in 0..frame.len() * 8 {
                let mut damaged = frame.to_vec();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert!(Heading::take(&mut damaged.into()).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn a_heading_has_these_bytes() {
        let heading = headings().next().unwrap();
        let hex: String = heading.to_frame()[HEADER_BYTES..]
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(
            hex,
            "01000000000000000100000002000000000000000300000000000000040000000000000009"
        );
    }
}
