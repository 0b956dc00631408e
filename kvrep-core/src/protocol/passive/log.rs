//! The log in memory: everything after the last purge. The storage is only written to; what is shipped to a backup
//! comes from here. Its size is bounded by the snapshot and retention limits and by the bound on uncommitted entries.
//!
//! It is kept in the runs in which it was appended, so that storage, state machine and backups share its entries. Nearly
//! every question is about its end; the others find their run by bisection.

use super::message::Course;
use crate::entry::{Entry, EntryKind, Run};
use crate::id::{Index, LogPoint, ReplicaId, Term};
use crate::session::Envelope;
use std::cell::Cell;
use std::collections::VecDeque;

#[derive(Debug)]
pub(super) struct Log {
    /// The place before the first entry here.
    base: LogPoint,
    last: LogPoint,
    chunks: VecDeque<Chunk>,
    /// Encoded bytes of all entries ever appended here up to and including the one at `base`, and at `last`.
    bytes_base: u64,
    bytes_last: u64,
    /// The last answer of [`bytes_upto`](Self::bytes_upto) that took a search: the same place, the snapshot's, is asked for
    /// again and again.
    searched: Cell<Option<(Index, u64)>>,
}

/// A run with its place. Never empty.
#[derive(Debug)]
struct Chunk {
    run: Run,
    first: Index,
    /// Encoded bytes of all entries ever appended before this run, and up to its end.
    bytes_before: u64,
    bytes_upto: u64,
}

impl Chunk {
    fn last(&self) -> Index {
        Index(self.first.0 + self.run.len() as u64 - 1)
    }

    /// Where the entry at `index` is in the run.
    fn position(&self, index: Index) -> usize {
        usize::try_from(index.0 - self.first.0).unwrap_or(usize::MAX)
    }

    /// Encoded bytes of all entries ever appended up to and including the one at `index`, which is in this run.
    fn bytes_upto(&self, index: Index) -> u64 {
        if index == self.last() {
            return self.bytes_upto;
        }
        self.bytes_before + bytes_of(&self.run[..=self.position(index)])
    }
}

fn bytes_of(entries: &[Entry]) -> u64 {
    entries.iter().map(|e| e.encoded_bytes() as u64).sum()
}

impl Log {
    pub(super) fn new(base: LogPoint, entries: Vec<Entry>) -> Self {
        let mut log = Self {
            base,
            last: base,
            chunks: VecDeque::new(),
            bytes_base: 0,
            bytes_last: 0,
            searched: Cell::new(None),
        };
        let mut entries = entries.into_iter().peekable();
        while entries.peek().is_some() {
            log.append(entries.by_ref().take(CHUNK_ENTRIES).collect());
        }
        log
    }

    pub(super) fn base(&self) -> LogPoint {
        self.base
    }

    pub(super) fn last(&self) -> LogPoint {
        self.last
    }

    /// Adds the entries that follow.
    pub(super) fn append(&mut self, run: Run) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            return;
        };
        let consecutive = last.index.0 - first.index.0 == run.len() as u64 - 1;
        assert!(
            first.index == self.last.index.next() && consecutive,
            "the log has no gaps"
        );
        let (first, bytes_before) = (first.index, self.bytes_last);
        self.last = last.point();
        self.bytes_last += bytes_of(&run);
        self.chunks.push_back(Chunk {
            run,
            first,
            bytes_before,
            bytes_upto: self.bytes_last,
        });
    }

    /// Which chunk has the entry at `index`.
    fn find(&self, index: Index) -> Option<usize> {
        if index <= self.base.index || index > self.last.index {
            return None;
        }
        let (len, mut at) = (self.chunks.len(), self.chunks.len());
        while at > len.saturating_sub(NEAR_CHUNKS) {
            at -= 1;
            if index >= self.chunks[at].first {
                return Some(at);
            }
        }
        Some(self.chunks.partition_point(|c| c.first <= index) - 1)
    }

    /// The point at `index`, if it is the base or behind it.
    pub(super) fn point(&self, index: Index) -> Option<LogPoint> {
        if index == self.last.index {
            return Some(self.last);
        }
        if index == self.base.index {
            return Some(self.base);
        }
        self.get(index).map(Entry::point)
    }

    pub(super) fn get(&self, index: Index) -> Option<&Entry> {
        let chunk = &self.chunks[self.find(index)?];
        chunk.run.get(chunk.position(index))
    }

    pub(super) fn term_at(&self, index: Index) -> Option<Term> {
        self.point(index).map(|p| p.term)
    }

    /// Entries from `from` up to `upto`, as many as fit in `bytes_max`, but at least one.
    pub(super) fn runs(&self, from: Index, upto: Index, bytes_max: u64) -> Runs<'_> {
        let upto = upto.min(self.last.index);
        let at = self.find(from).filter(|_| from <= upto);
        Runs {
            log: self,
            at: at.unwrap_or(self.chunks.len()),
            from,
            upto,
            bytes_max,
            is_first: true,
        }
    }

    /// Whether somebody wrote something in it, or may have before it begins.
    pub(super) fn has_writes(&self) -> bool {
        self.base.index > Index::ZERO
            || (self.runs(Index(1), self.last.index, u64::MAX)).any(|run| run.iter().any(is_write))
    }

    /// How many of the entries from `from` to `upto` somebody wrote; `None` if some of them are not here to be counted.
    pub(super) fn writes(&self, from: Index, upto: Index) -> Option<u64> {
        if from <= self.base.index || upto > self.last.index {
            return None;
        }
        let runs = self.runs(from, upto, u64::MAX);
        let writes = runs.map(|run| run.iter().filter(|entry| is_write(entry)).count());
        Some(writes.sum::<usize>() as u64)
    }

    /// Encoded bytes in the entries after `from` up to and including `to`.
    pub(super) fn bytes_between(&self, from: Index, to: Index) -> u64 {
        self.bytes_upto(to).saturating_sub(self.bytes_upto(from))
    }

    /// The lowest index behind which the entries up to and including `to` take at most `bytes_max`.
    pub(super) fn first_within(&self, to: Index, bytes_max: u64) -> Index {
        let end = self.bytes_upto(to);
        let is_too_much = |upto: u64| end.saturating_sub(upto) > bytes_max;
        if !is_too_much(self.bytes_base) {
            return self.base.index;
        }
        let at = (self.chunks).partition_point(|chunk| is_too_much(chunk.bytes_upto));
        let Some(chunk) = self.chunks.get(at) else {
            return to;
        };
        let mut upto = chunk.bytes_before;
        let skipped = chunk.run.iter().take_while(|entry| {
            upto += entry.encoded_bytes() as u64;
            is_too_much(upto)
        });
        Index(chunk.first.0 + skipped.count() as u64).min(to)
    }

    fn bytes_upto(&self, index: Index) -> u64 {
        if index >= self.last.index {
            return self.bytes_last;
        }
        if index <= self.base.index {
            return self.bytes_base;
        }
        if let Some((searched, bytes)) = self.searched.get()
            && searched == index
        {
            return bytes;
        }
        let at = self.find(index);
        let bytes = at.map_or(self.bytes_base, |at| self.chunks[at].bytes_upto(index));
        if at.is_some_and(|at| at + NEAR_CHUNKS < self.chunks.len()) {
            self.searched.set(Some((index, bytes)));
        }
        bytes
    }

    /// Removes `from` and everything after it; returns how many entries.
    pub(super) fn truncate(&mut self, from: Index) -> u64 {
        let Some(to) = self.point(from.prev().max(self.base.index)) else {
            return 0;
        };
        let cut = self.last.index.0 - to.index.0;
        self.searched.set(None);
        self.bytes_last = self.bytes_upto(to.index);
        self.last = to;
        while let Some(chunk) = self.chunks.back_mut()
            && chunk.last() > to.index
        {
            if chunk.first > to.index {
                self.chunks.pop_back();
            } else {
                chunk.run.truncate(chunk.position(to.index) + 1);
                chunk.bytes_upto = self.bytes_last;
            }
        }
        cut
    }

    /// Forgets everything up to and including `upto`.
    pub(super) fn purge(&mut self, upto: Index) {
        let upto = upto.min(self.last.index);
        let Some(base) = self.point(upto).filter(|_| upto > self.base.index) else {
            return;
        };
        self.bytes_base = self.bytes_upto(upto);
        self.base = base;
        while let Some(chunk) = self.chunks.front_mut()
            && chunk.first <= upto
        {
            if chunk.last() <= upto {
                self.chunks.pop_front();
            } else {
                chunk.run.advance(chunk.position(upto) + 1);
                chunk.first = upto.next();
                chunk.bytes_before = self.bytes_base;
            }
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

/// What a comparison of terms tells of two histories.
impl Log {
    /// In which reigns it was written.
    pub(super) fn course(&self) -> Course {
        let (base, mut reigns) = (self.base.index, Vec::new());
        let mut at = self.last.index;
        while at > base
            && reigns.len() < Course::REIGNS_MAX
            && let Some(term) = self.term_at(at)
        {
            let first = self.first_from(term);
            reigns.push((term, first));
            at = first.prev();
        }
        Course {
            last: self.last.index,
            reigns,
        }
    }

    /// The first entry here that is not in the log of this course, if it can be told: entries of one term are those of one primary, in its order.
    pub(super) fn parts_from(&self, course: &Course) -> Option<Index> {
        let mut end = course.last;
        for (term, first) in &course.reigns {
            let behind = Term {
                number: term.number,
                replica: ReplicaId(term.replica.0.saturating_add(1)),
            };
            let ours = self.first_from(behind).prev();
            if ours >= *first && self.term_at(ours) == Some(*term) {
                return Some(ours.min(end).next());
            }
            end = first.prev();
        }
        None
    }

    /// The first entry behind the base of this term or a later one; behind the last if there is none.
    fn first_from(&self, term: Term) -> Index {
        let (mut low, mut high) = (self.base.index.next(), self.last.index.next());
        while low < high {
            let middle = Index(low.0 + (high.0 - low.0) / 2);
            if self.term_at(middle) < Some(term) {
                low = middle.next();
            } else {
                high = middle;
            }
        }
        low
    }
}

/// The entries of a stretch of the log, run by run.
#[derive(Clone, Debug)]
pub(super) struct Runs<'a> {
    log: &'a Log,
    /// The next chunk.
    at: usize,
    from: Index,
    upto: Index,
    bytes_max: u64,
    is_first: bool,
}

impl Iterator for Runs<'_> {
    type Item = Run;

    fn next(&mut self) -> Option<Run> {
        let chunk = self.log.chunks.get(self.at)?;
        if self.from > self.upto {
            return None;
        }
        let (start, last) = (chunk.position(self.from), chunk.last().min(self.upto));
        let end = chunk.position(last) + 1;
        let mut fit = end;
        if self.bytes_max < u64::MAX {
            let bytes = chunk.bytes_upto(last) - self.log.bytes_upto(self.from.prev());
            if bytes > self.bytes_max {
                fit = start + self.fitting(&chunk.run[start..end]);
            }
            self.bytes_max = self.bytes_max.saturating_sub(bytes);
        }
        self.is_first = false;
        self.from = last.next();
        // Behind what does not fit nothing does.
        self.at = if fit == end { self.at + 1 } else { usize::MAX };
        (fit > start).then(|| chunk.run.slice(start..fit))
    }
}

impl Runs<'_> {
    /// How many of these entries fit; of the very first ones, one does in any case.
    fn fitting(&self, entries: &[Entry]) -> usize {
        let mut bytes = 0;
        let fit = entries.iter().take_while(|entry| {
            bytes += entry.encoded_bytes() as u64;
            bytes <= self.bytes_max
        });
        fit.count().max(usize::from(self.is_first))
    }
}

/// So many of the last runs are looked through before the others are searched.
const NEAR_CHUNKS: usize = 8;
/// How many entries of a recovered log share their memory.
const CHUNK_ENTRIES: usize = 1_024;

/// Whether it is what somebody wrote, and not the beginning of a reign or of a session.
pub(super) fn is_write(entry: &Entry) -> bool {
    match entry.kind {
        EntryKind::Noop => false,
        EntryKind::Command => Envelope::is_command(&entry.payload),
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
