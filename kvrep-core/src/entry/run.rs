//! Consecutive entries, shared: the log, the storage, the state machine and whoever ships them hold the same memory.

use super::Entry;
use crate::id::LogPoint;
use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// Entries that follow each other in one log. Cloning and cutting are cheap: the entries are shared, and go when the
/// last run over them goes.
///
/// ```
/// use kvrep_core::{Entry, EntryKind, LogPoint, ReplicaId, Run, Term, Timestamp};
///
/// let term = Term::ZERO.next_for(ReplicaId(1));
/// let mut end = LogPoint::ZERO;
/// let run: Run = (0..3)
///     .map(|_| {
///         let entry = Entry::following(end, term, Timestamp(0), 0, EntryKind::Noop, "".into());
///         end = entry.point();
///         entry
///     })
///     .collect();
/// assert_eq!(run.slice(1..3).first(), Some(&run[1])); // the same memory
/// ```
#[derive(Clone)]
pub struct Run {
    entries: Arc<[Entry]>,
    start: usize,
    end: usize,
}

impl Run {
    /// The entries with these positions in this run.
    ///
    /// # Panics
    /// When it has no such positions.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len());
        Self {
            entries: Arc::clone(&self.entries),
            start: self.start + range.start,
            end: self.start + range.end,
        }
    }

    /// Whether it is the same stretch of the same memory.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.entries, &other.entries)
            && (self.start, self.end) == (other.start, other.end)
    }

    /// Whether its entries continue a log that ends at `prev`. Of those that this process has made consecutive, and so hashed,
    /// the first is hashed again.
    pub(crate) fn follows(&self, prev: LogPoint) -> bool {
        let Some((first, last)) = self.first().zip(self.last()) else {
            return true;
        };
        let indices = prev.index.0.checked_add(self.len() as u64);
        indices == Some(last.index.0)
            && prev.index.0 + 1 == first.index.0
            && prev.term <= first.term
            && first.term <= last.term
            && first.is_behind(prev.hash)
    }

    /// Forgets the entries from position `len` on.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.end = self.end.min(self.start + len);
    }

    /// Forgets the first `count` entries.
    pub(crate) fn advance(&mut self, count: usize) {
        self.start = self.end.min(self.start + count);
    }
}

impl Deref for Run {
    type Target = [Entry];

    fn deref(&self) -> &[Entry] {
        &self.entries[self.start..self.end]
    }
}

impl Default for Run {
    fn default() -> Self {
        Vec::new().into()
    }
}

impl From<Arc<[Entry]>> for Run {
    fn from(entries: Arc<[Entry]>) -> Self {
        let end = entries.len();
        Self {
            entries,
            start: 0,
            end,
        }
    }
}

impl From<Vec<Entry>> for Run {
    fn from(entries: Vec<Entry>) -> Self {
        Arc::<[Entry]>::from(entries).into()
    }
}

impl FromIterator<Entry> for Run {
    fn from_iter<I: IntoIterator<Item = Entry>>(entries: I) -> Self {
        entries.into_iter().collect::<Arc<[Entry]>>().into()
    }
}

impl<'a> IntoIterator for &'a Run {
    type Item = &'a Entry;
    type IntoIter = std::slice::Iter<'a, Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl PartialEq for Run {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Run {}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
