//! Which entry is where: the terms and hashes of a log, eight bytes an entry.
//!
//! A storage does not read its log back while it runs; what it must know is whether an operation fits. Terms come in
//! long runs, so only the start of each run is kept; hashes are kept one by one.

use super::StorageError;
use crate::entry::Entry;
use crate::id::{Index, LogPoint, Term};
use std::collections::VecDeque;

/// The points of a contiguous log behind `base`.
#[derive(Clone, Debug)]
pub(crate) struct Points {
    base: LogPoint,
    end: LogPoint,
    hashes: VecDeque<u64>,
    /// First index of each run, and its term.
    runs: VecDeque<(Index, Term)>,
}

impl Points {
    /// An empty log whose next entry follows `base`.
    pub(crate) fn new(base: LogPoint) -> Self {
        Self {
            base,
            end: base,
            hashes: VecDeque::new(),
            runs: VecDeque::new(),
        }
    }

    /// The place before the first entry.
    pub(crate) fn base(&self) -> LogPoint {
        self.base
    }

    /// The last entry's place.
    pub(crate) fn end(&self) -> LogPoint {
        self.end
    }

    /// The place of the entry at `index`, or the base.
    pub(crate) fn at(&self, index: Index) -> Option<LogPoint> {
        if index == self.base.index {
            return Some(self.base);
        }
        let slot = index.0.checked_sub(self.base.index.0)?.checked_sub(1)?;
        let hash = *self.hashes.get(usize::try_from(slot).ok()?)?;
        let run = self.runs.partition_point(|(first, _)| *first <= index);
        let (_, term) = self.runs[run - 1];
        Some(LogPoint { term, index, hash })
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// When it does not follow the last one.
    #[inline]
    pub(crate) fn append(&mut self, entry: &Entry) -> Result<(), StorageError> {
        // What a damaged disk or a lying peer says may be the last number there is.
        if self.end.index.0.checked_add(1) != Some(entry.index.0) {
            return Err(StorageError::Misuse(format!(
                "entry {} appended behind {}",
                entry.index, self.end.index
            )));
        }
        if self.hashes.is_empty() || self.end.term != entry.term {
            self.runs.push_back((entry.index, entry.term));
        }
        self.hashes.push_back(entry.hash);
        self.end = entry.point();
        Ok(())
    }

    /// Removes the entry at `from` and what follows it; returns the new end.
    ///
    /// # Errors
    /// When `from` is not in the log, directly behind it, or above `floor` (the snapshot).
    pub(crate) fn cut(&mut self, from: Index, floor: Index) -> Result<LogPoint, StorageError> {
        let to = self
            .at(from.prev())
            .filter(|_| from > floor && from > Index::ZERO);
        let Some(to) = to else {
            return Err(StorageError::Misuse(format!(
                "suffix from {from} cut off a log of {:?}..{:?} with a snapshot at {floor}",
                self.base, self.end
            )));
        };
        self.cut_to(to);
        Ok(to)
    }

    /// Removes what follows `to`, which is a place of this log.
    pub(crate) fn cut_to(&mut self, to: LogPoint) {
        let keep = to.index.0 - self.base.index.0;
        self.hashes
            .truncate(usize::try_from(keep).unwrap_or(usize::MAX));
        while self.runs.back().is_some_and(|(first, _)| *first > to.index) {
            self.runs.pop_back();
        }
        self.end = to;
    }

    /// Forgets the entries up to and including `upto`.
    ///
    /// # Errors
    /// When the snapshot at `snapshot` does not cover them, or they are not there.
    pub(crate) fn purge(&mut self, upto: Index, snapshot: Index) -> Result<(), StorageError> {
        if upto <= self.base.index {
            return Ok(());
        }
        let base = self.at(upto).filter(|_| upto <= snapshot);
        let Some(base) = base else {
            return Err(StorageError::Misuse(format!(
                "prefix up to {upto} purged from a log that ends at {:?}, with a snapshot at {snapshot}",
                self.end
            )));
        };
        let gone = usize::try_from(upto.0 - self.base.index.0).unwrap_or(usize::MAX);
        self.hashes.drain(..gone.min(self.hashes.len()));
        // The run that reaches over `upto` stays; its early start is harmless.
        while self
            .runs
            .get(1)
            .is_some_and(|(first, _)| *first <= upto.next())
        {
            self.runs.pop_front();
        }
        if self.hashes.is_empty() {
            self.runs.clear();
        }
        self.base = base;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::EntryKind;
    use crate::id::ReplicaId;
    use crate::time::Timestamp;
    use bytes::Bytes;

    fn log(terms: &[u64]) -> (Points, Vec<LogPoint>) {
        let mut points = Points::new(LogPoint::ZERO);
        let mut places = vec![LogPoint::ZERO];
        for &number in terms {
            let term = Term {
                number,
                replica: ReplicaId(1),
            };
            let prev = *places.last().unwrap();
            let entry =
                Entry::following(prev, term, Timestamp(0), 0, EntryKind::Noop, Bytes::new());
            points.append(&entry).unwrap();
            places.push(entry.point());
        }
        (points, places)
    }

    #[test]
    fn every_place_is_found_before_and_after_cuts_at_both_ends() {
        let terms = [1, 1, 2, 2, 2, 5, 6, 6];
        let n = terms.len() as u64;
        for purge in 0..=n {
            for keep in purge..=n {
                let (mut points, places) = log(&terms);
                points.purge(Index(purge), Index(n)).unwrap();
                points.cut(Index(keep + 1), Index(purge)).unwrap();
                for i in 0..=n {
                    let expected = (purge <= i && i <= keep).then(|| places[i as usize]);
                    assert_eq!(points.at(Index(i)), expected, "{i} in {purge}..={keep}");
                }
                assert_eq!(points.end(), places[keep as usize]);
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let (mut points, _) = log(&[1, 1, 1]);
        assert!(points.cut(Index(5), Index::ZERO).is_err());
        assert!(points.cut(Index::ZERO, Index::ZERO).is_err());
        assert!(points.cut(Index(2), Index(2)).is_err());
        assert!(points.purge(Index(3), Index(2)).is_err());
        assert!(points.purge(Index(4), Index(9)).is_err());
    }
}
