//! What a segment's bytes mean.
//!
//! Two passes: [`scan`] walks the records and decides where they end and whether that is a torn tail or damage;
//! [`Replay`] then carries out what they say.
//!
//! Bytes that are not a record, in the last segment, are what a crash left of writes that were never synced, unless a
//! [mark](Kind::Mark) behind them says that they were: a mark is written after each sync and names how far it
//! reached. Without that the two could not be told apart, since a disk may well have written the second of two
//! unsynced records and lost the first.

use super::record::{self, HEAD_BYTES, Kind, get_point};
use crate::entry::Entry;
use crate::id::{Index, LogPoint};
use crate::storage::points::Points;
use bytes::{Buf, Bytes};

/// Where a segment's records end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scanned {
    /// Offset behind the last record.
    pub(super) end: usize,
    /// How far it is known to be durable.
    pub(super) durable: usize,
    /// Whether the last record says that another segment follows.
    pub(super) sealed: bool,
    /// Bytes behind the last record that are not zeros reach up to here.
    pub(super) garbage_end: usize,
}

/// Where a segment stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Another one follows it, so it is durable to its end.
    Inner,
    /// It is the last one and may be torn.
    Last,
}

/// A place that is damaged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Damage {
    pub(super) offset: u64,
    pub(super) what: &'static str,
}

/// Walks the records of a segment from `start` on.
pub(super) fn scan(
    segment: &[u8],
    start: usize,
    salt: u32,
    place: Place,
) -> Result<Scanned, Damage> {
    let mut found = Scanned {
        end: start,
        durable: start,
        sealed: false,
        garbage_end: start,
    };
    while let Some((kind, end)) = record::at(segment, salt, found.end) {
        if kind == Kind::Mark && end - found.end == record::MARK_BYTES {
            let upto = (&segment[found.end + HEAD_BYTES..]).get_u64();
            found.durable = usize::try_from(upto).unwrap_or(found.end).min(found.end);
        }
        found.end = end;
        if kind == Kind::End {
            found.sealed = true;
            break;
        }
    }
    found.garbage_end = found.end + used(&segment[found.end..]);
    // Behind that are zeros only, and a mark may end with some.
    let marks_end = segment.len().min(found.garbage_end + record::MARK_BYTES);
    let segment = &segment[..marks_end];
    let damage = |what| Damage {
        offset: found.end as u64,
        what,
    };
    match place {
        Place::Inner if !found.sealed => Err(damage(
            "no valid record is there, although another segment follows",
        )),
        Place::Last if record::marked_durable(segment, salt, found.end, found.end as u64) => Err(
            damage("no valid record is there, although what follows shows that one was durable"),
        ),
        Place::Inner | Place::Last => Ok(found),
    }
}

/// How many bytes there are before the zeros at the end. By stretches, for most of a segment is zeros that were written ahead.
fn used(bytes: &[u8]) -> usize {
    const ZEROS: [u8; 4_096] = [0; 4_096];
    let mut rest = bytes;
    while let Some((before, last)) = rest.split_last_chunk()
        && *last == ZEROS
    {
        rest = before;
    }
    let last = rest.iter().rposition(|byte| *byte != 0);
    last.map_or(0, |at| at + 1)
}

/// The state that records build up.
#[derive(Debug)]
pub(super) struct Replay {
    pub(super) points: Points,
    /// The entries behind `points.base()`.
    pub(super) entries: Vec<Entry>,
    pub(super) generation: u64,
    pub(super) hard_state: Option<Bytes>,
    /// For each segment so far, the highest index in it that is still part of the log.
    pub(super) last_live: Vec<Index>,
}

impl Replay {
    /// Before the first segment, whose header says this.
    pub(super) fn new(base: LogPoint, generation: u64, hard_state: Option<Bytes>) -> Self {
        Self {
            points: Points::new(base),
            entries: Vec::new(),
            generation,
            hard_state,
            last_live: Vec::new(),
        }
    }

    /// Carries out the scanned records in `segment[start..]`.
    pub(super) fn segment(&mut self, segment: &Bytes, start: usize) -> Result<(), Damage> {
        self.last_live.push(Index::ZERO);
        let mut offset = start;
        while offset < segment.len() {
            let head = &segment[offset..offset + HEAD_BYTES];
            let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
            let payload = segment.slice(offset + HEAD_BYTES..offset + HEAD_BYTES + length);
            let kind = Kind::of(head[8]);
            self.record(kind, payload).map_err(|what| Damage {
                offset: offset as u64,
                what,
            })?;
            offset += HEAD_BYTES + length;
        }
        Ok(())
    }

    fn record(&mut self, kind: Option<Kind>, mut payload: Bytes) -> Result<(), &'static str> {
        match kind.ok_or(NONSENSE)? {
            Kind::Entry => self.entry(payload),
            Kind::Truncate => {
                let to = get_point(&mut payload).ok_or(NONSENSE)?;
                self.truncate(to)
            }
            Kind::HardState => {
                // A copy, so that it does not keep a whole segment in memory.
                self.hard_state = Some(Bytes::copy_from_slice(&payload));
                Ok(())
            }
            Kind::Restart => {
                let base = get_point(&mut payload).ok_or(NONSENSE)?;
                self.generation = payload.try_get_u64().map_err(|_| NONSENSE)?;
                self.restart(base);
                Ok(())
            }
            Kind::Generation => {
                self.generation = payload.try_get_u64().map_err(|_| NONSENSE)?;
                Ok(())
            }
            Kind::Mark | Kind::End => Ok(()),
        }
    }

    fn entry(&mut self, mut payload: Bytes) -> Result<(), &'static str> {
        let entry = Entry::decode(&mut payload, self.points.end().hash).map_err(|_| NONSENSE)?;
        self.points
            .append(&entry)
            .map_err(|_| "the entry there does not follow the one before it")?;
        if let Some(live) = self.last_live.last_mut() {
            *live = entry.index;
        }
        self.entries.push(entry);
        Ok(())
    }

    fn truncate(&mut self, to: LogPoint) -> Result<(), &'static str> {
        let base = self.points.base();
        if to.index < base.index {
            // The segments that held what is before are purged, so a snapshot covers it.
            self.restart(to);
            return Ok(());
        }
        if self.points.at(to.index) != Some(to) {
            return Err("the log is cut there at an entry that it never had");
        }
        self.points.cut_to(to);
        let keep = to.index.0 - base.index.0;
        self.entries
            .truncate(usize::try_from(keep).unwrap_or(usize::MAX));
        for live in &mut self.last_live {
            *live = to.index.min(*live);
        }
        Ok(())
    }

    /// The log is empty and goes on behind `base`.
    pub(super) fn restart(&mut self, base: LogPoint) {
        self.points = Points::new(base);
        self.entries.clear();
        self.last_live.fill(Index::ZERO);
    }
}

const NONSENSE: &str = "the record there has a good checksum but makes no sense";

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::{BufMut, BytesMut};

    /// Two hard states of 10 bytes, 19 bytes each, and a mark after each.
    fn segment() -> BytesMut {
        let mut out = BytesMut::new();
        for text in [b"0123456789", b"abcdefghij"] {
            let offset = out.len() as u64;
            record::put(&mut out, 1, offset, Kind::HardState, |out| {
                out.put_slice(text);
            });
            let offset = out.len() as u64;
            record::put(&mut out, 1, offset, Kind::Mark, |out| out.put_u64(offset));
        }
        out.put_bytes(0, 50);
        out
    }

    #[test]
    fn damage_before_a_mark_is_told_from_a_torn_tail() {
        let good = scan(&segment(), 0, 1, Place::Last).unwrap();
        assert_eq!((good.end, good.durable, good.garbage_end), (72, 55, 72));
        let mut rotten = segment();
        rotten[5] ^= 1;
        assert_eq!(scan(&rotten, 0, 1, Place::Last).unwrap_err().offset, 0);
        let mut torn = segment();
        torn[60] ^= 1;
        let torn = scan(&torn, 0, 1, Place::Last).unwrap();
        assert_eq!((torn.end, torn.garbage_end), (55, 72));
    }

    #[test]
    fn a_segment_that_another_follows_must_say_so() {
        assert!(scan(&segment(), 0, 1, Place::Inner).is_err());
    }
}
