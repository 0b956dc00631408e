//! The log in memory: everything after the last purge. The storage is only written to; what is shipped to a backup
//! comes from here. Its size is bounded by the snapshot and retention limits and by the bound on uncommitted entries.

use crate::entry::Entry;
use crate::id::{Index, LogPoint, Term};
use std::collections::VecDeque;
use std::collections::vec_deque::Iter;

#[derive(Debug)]
pub(super) struct Log {
    /// The place before the first entry here.
    base: LogPoint,
    entries: VecDeque<Entry>,
    /// `bytes[i]`: encoded bytes of all entries ever appended here up to and including `entries[i]`.
    bytes: VecDeque<u64>,
    bytes_before: u64,
}

impl Log {
    pub(super) fn new(base: LogPoint, entries: Vec<Entry>) -> Self {
        let mut log = Self {
            base,
            entries: VecDeque::new(),
            bytes: VecDeque::new(),
            bytes_before: 0,
        };
        for entry in entries {
            log.push(entry);
        }
        log
    }

    pub(super) fn base(&self) -> LogPoint {
        self.base
    }

    pub(super) fn last(&self) -> LogPoint {
        self.entries.back().map_or(self.base, Entry::point)
    }

    pub(super) fn push(&mut self, entry: Entry) {
        assert_eq!(entry.index, self.last().index.next(), "the log has no gaps");
        let before = self.bytes.back().copied().unwrap_or(self.bytes_before);
        self.bytes.push_back(before + entry.encoded_bytes() as u64);
        self.entries.push_back(entry);
    }

    /// The point at `index`, if it is the base or behind it.
    pub(super) fn point(&self, index: Index) -> Option<LogPoint> {
        if index == self.base.index {
            return Some(self.base);
        }
        self.get(index).map(Entry::point)
    }

    pub(super) fn get(&self, index: Index) -> Option<&Entry> {
        let at = index.0.checked_sub(self.base.index.0 + 1)?;
        self.entries.get(usize::try_from(at).ok()?)
    }

    pub(super) fn term_at(&self, index: Index) -> Option<Term> {
        self.point(index).map(|p| p.term)
    }

    /// Entries from `from` on, as many as fit in `bytes_max`, but at least one.
    pub(super) fn slice(&self, from: Index, upto: Index, bytes_max: usize) -> Vec<Entry> {
        self.run(from, upto, bytes_max).cloned().collect()
    }

    /// The same without a copy; it knows its length.
    pub(super) fn run(&self, from: Index, upto: Index, bytes_max: usize) -> Iter<'_, Entry> {
        let Some(start) = from.0.checked_sub(self.base.index.0 + 1) else {
            return self.entries.range(..0);
        };
        let start = usize::try_from(start)
            .unwrap_or(usize::MAX)
            .min(self.entries.len());
        let bytes = self
            .bytes_upto(from.prev())
            .saturating_add(bytes_max as u64);
        let fit = self.bytes.partition_point(|upto| *upto <= bytes);
        let wanted = upto.0.saturating_sub(self.base.index.0);
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        let end = fit.max(start + 1).min(wanted).min(self.entries.len());
        self.entries.range(start..end.max(start))
    }

    /// Encoded bytes in the entries after `from` up to and including `to`.
    pub(super) fn bytes_between(&self, from: Index, to: Index) -> u64 {
        self.bytes_upto(to).saturating_sub(self.bytes_upto(from))
    }

    /// The lowest index behind which the entries up to and including `to` take at most `bytes_max`.
    pub(super) fn first_within(&self, to: Index, bytes_max: u64) -> Index {
        let end = self.bytes_upto(to);
        let skipped = self
            .bytes
            .partition_point(|upto| end.saturating_sub(*upto) > bytes_max);
        if skipped == 0 && end.saturating_sub(self.bytes_before) <= bytes_max {
            return self.base.index;
        }
        Index(self.base.index.0 + skipped as u64 + 1).min(to)
    }

    fn bytes_upto(&self, index: Index) -> u64 {
        let Some(at) = index.0.checked_sub(self.base.index.0 + 1) else {
            return self.bytes_before;
        };
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        self.bytes
            .get(at)
            .or(self.bytes.back())
            .copied()
            .unwrap_or(self.bytes_before)
    }

    /// Removes `from` and everything after it; returns how many entries.
    pub(super) fn truncate(&mut self, from: Index) -> u64 {
        let keep = from.0.saturating_sub(self.base.index.0 + 1);
        let keep = usize::try_from(keep)
            .unwrap_or(usize::MAX)
            .min(self.entries.len());
        let cut = self.entries.len() - keep;
        self.entries.truncate(keep);
        self.bytes.truncate(keep);
        cut as u64
    }

    /// Forgets everything up to and including `upto`.
    pub(super) fn purge(&mut self, upto: Index) {
        while let Some(first) = self.entries.front()
            && first.index <= upto
        {
            self.base = first.point();
            self.entries.pop_front();
            self.bytes_before = self.bytes.pop_front().unwrap_or(self.bytes_before);
        }
    }

    /// Continues behind `base`: keeps what follows it if it is the same history, else nothing.
    pub(super) fn restart_at(&mut self, base: LogPoint) {
        if self.point(base.index) == Some(base) {
            self.purge(base.index);
        } else {
            *self = Self::new(base, Vec::new());
        }
    }

    /// The first index of the run of entries that have the term of the entry at `index`.
    pub(super) fn first_of_term_at(&self, index: Index) -> Index {
        let mut first = index;
        let Some(term) = self.term_at(index) else {
            return index;
        };
        while first > self.base.index.next() && self.term_at(first.prev()) == Some(term) {
            first = first.prev();
        }
        first
    }
}
