//! Frames out of pieces.
//!
//! Invariants: at most so many frames are incomplete, each of at most the largest size, so memory is bounded whatever comes; the oldest gives way,
//! and what waits for too long is given up. A piece that comes twice counts once.

use crate::config::MulticastConfig;
use crate::datagram::Piece;
use bytes::{Bytes, BytesMut};
use kvrep_core::{Incarnation, ReplicaId};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Whose frame: addresses keep those apart who have no name.
pub(crate) type Sender = (ReplicaId, Incarnation, SocketAddr);

#[derive(Debug)]
pub(crate) struct Reassembly {
    incomplete: BTreeMap<(Sender, u64), Incomplete>,
    incomplete_max: usize,
    frame_bytes_max: usize,
    kept: Duration,
}

#[derive(Debug)]
struct Incomplete {
    began: Instant,
    buffer: BytesMut,
    here: Vec<bool>,
    missing: usize,
}

/// What became of a piece.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Taken {
    Whole(Bytes),
    /// Others are missing. So many frames were given up for it.
    Waits {
        given_up: u64,
    },
    /// It fits no frame.
    Refused,
}

impl Reassembly {
    pub(crate) fn new(config: &MulticastConfig) -> Self {
        let (l, kept) = (&config.limits, config.timing.pieces_kept);
        Self::bounded(l.incomplete_max, l.frame_bytes_max, kept)
    }

    fn bounded(incomplete_max: usize, frame_bytes_max: usize, kept: Duration) -> Self {
        Self {
            incomplete: BTreeMap::new(),
            incomplete_max,
            frame_bytes_max,
            kept,
        }
    }

    pub(crate) fn take(
        &mut self,
        now: Instant,
        sender: Sender,
        piece: &Piece,
        data: &[u8],
    ) -> Taken {
        let whole = piece.whole as usize;
        let Some((start, end)) = piece.place() else {
            return Taken::Refused;
        };
        if whole > self.frame_bytes_max || end - start != data.len() {
            return Taken::Refused;
        }
        if piece.count == 1 {
            return Taken::Whole(Bytes::copy_from_slice(data));
        }
        let key = (sender, piece.number);
        let given_up = if self.incomplete.contains_key(&key) {
            0
        } else {
            self.make_room(now)
        };
        let frame = self.incomplete.entry(key).or_insert_with(|| Incomplete {
            began: now,
            buffer: BytesMut::zeroed(whole),
            here: vec![false; usize::from(piece.count)],
            missing: usize::from(piece.count),
        });
        if frame.buffer.len() != whole || frame.here.len() != usize::from(piece.count) {
            return Taken::Refused;
        }
        let here = &mut frame.here[usize::from(piece.index)];
        if !*here {
            *here = true;
            frame.missing -= 1;
            frame.buffer[start..end].copy_from_slice(data);
        }
        if frame.missing > 0 {
            return Taken::Waits { given_up };
        }
        let done = self.incomplete.remove(&key);
        done.map_or(Taken::Refused, |frame| Taken::Whole(frame.buffer.freeze()))
    }

    /// Gives up what has waited for too long, and the oldest if there is no room for another one.
    fn make_room(&mut self, now: Instant) -> u64 {
        let (before, kept) = (self.incomplete.len(), self.kept);
        self.incomplete
            .retain(|_, frame| now.duration_since(frame.began) < kept);
        if self.incomplete.len() >= self.incomplete_max {
            let oldest = self.incomplete.iter().min_by_key(|(_, frame)| frame.began);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                self.incomplete.remove(&oldest);
            }
        }
        (before - self.incomplete.len()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datagram::To;
    use proptest::prelude::*;

    fn sender() -> Sender {
        let address = "127.0.0.1:1".parse().unwrap();
        (ReplicaId(1), Incarnation(1), address)
    }

    fn piece(number: u64, whole: u32, index: u16, count: u16) -> Piece {
        Piece {
            to: To::All,
            number,
            whole,
            index,
            count,
        }
    }

    #[test]
    fn frames_that_never_complete_give_way_and_are_counted() {
        let mut frames = Reassembly::bounded(3, 1_000, Duration::from_secs(1));
        let now = Instant::now();
        let mut given_up = 0;
        for number in 0..1_000 {
            match frames.take(now, sender(), &piece(number, 1_000, 0, 2), &[1; 500]) {
                Taken::Waits { given_up: more } => given_up += more,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((given_up, frames.incomplete.len()), (997, 3));
        // The last one is still completed.
        let whole = frames.take(now, sender(), &piece(999, 1_000, 1, 2), &[2; 500]);
        assert!(matches!(whole, Taken::Whole(frame) if frame.len() == 1_000));
    }

    #[test]
    fn what_waits_for_too_long_is_given_up_when_another_frame_begins_though_there_is_room() {
        let kept = Duration::from_secs(1);
        let mut frames = Reassembly::bounded(64, 1_000, kept);
        let now = Instant::now();
        for (at, number, given_up) in [(now, 1, 0), (now + kept / 2, 2, 0), (now + kept, 3, 1)] {
            let taken = frames.take(at, sender(), &piece(number, 1_000, 0, 2), &[1; 500]);
            assert_eq!(taken, Taken::Waits { given_up }, "{number}");
        }
        assert_eq!(frames.incomplete.len(), 2);
    }

    #[test]
    fn what_fits_no_frame_is_refused() {
        let mut frames = Reassembly::bounded(3, 1_000, Duration::from_secs(1));
        let now = Instant::now();
        for (piece, data) in [
            (piece(1, 1_001, 0, 2), 501),
            (piece(1, u32::MAX, 0, 1), 4),
            (piece(1, 10, 0, 2), 4),
            (piece(1, 10, 2, 2), 5),
        ] {
            assert_eq!(
                frames.take(now, sender(), &piece, &vec![0; data]),
                Taken::Refused
            );
        }
        assert_eq!(
            frames.take(now, sender(), &piece(1, 10, 0, 2), &[0; 5]),
            Taken::Waits { given_up: 0 }
        );
        // The same number as another frame.
        assert_eq!(
            frames.take(now, sender(), &piece(1, 12, 0, 2), &[0; 6]),
            Taken::Refused
        );
    }

    proptest! {
        #[test]
        fn pieces_in_any_order_and_twice_are_the_frame(
            size in 2_usize..3_000,
            order in proptest::collection::vec(any::<u16>(), 1..60),
        ) {
            let frame: Vec<u8> = (0..size).map(|n| (n % 253) as u8).collect();
            let length = size.div_ceil(7);
            let count = size.div_ceil(length) as u16;
            let mut frames = Reassembly::bounded(3, 3_000, Duration::from_secs(1));
            let now = Instant::now();
            let indices = order.iter().map(|n| n % count).chain(0..count);
            let mut whole = None;
            for index in indices {
                let piece = piece(1, size as u32, index, count);
                let (start, end) = piece.place().unwrap();
                if let Taken::Whole(done) = frames.take(now, sender(), &piece, &frame[start..end]) {
                    whole = Some(done);
                    break;
                }
            }
            prop_assert_eq!(whole.unwrap().to_vec(), frame);
        }
    }
}
