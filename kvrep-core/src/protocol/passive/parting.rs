//! Where the history of a backup parts from its primary's, when what is committed here was refuted: looked for before the own one is thrown away, so that
//! what is lost can be counted.
//!
//! Logs agree up to some point and nowhere behind it (an entry's term and index name everything before it; Ongaro, *Consensus*, 3.5), so the point is found by
//! bisection: each answer to a mismatch shows the primary's entry at a place of the backup's choice. It takes about as many round trips as the number of entries
//! in question has binary digits.
//!
//! It is not found where one of the two has no entries any more that reach back so far; then only that something is lost is known, not how much.

use super::backup::Append;
use super::log::Log;
use crate::id::Index;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Parting {
    /// Up to here the two are known to agree.
    common: Option<Index>,
    /// Here they are known to differ.
    differs: Index,
    /// How many appends told nothing new.
    idle: u32,
}

/// How the search goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Search {
    /// Show what comes behind this.
    Ask(Index),
    /// Here they part.
    Found(Index),
    /// They part here or before; earlier entries are not there to be compared.
    Unknown(Index),
}

impl Parting {
    pub(super) fn new(log: &Log, differs: Index) -> Self {
        let whole = log.base().index == Index::ZERO;
        Self {
            common: whole.then_some(Index::ZERO),
            differs,
            idle: 0,
        }
    }

    /// Compares what an append shows.
    pub(super) fn compare(&mut self, log: &Log, append: &Append) -> Search {
        let before = *self;
        let shown = append.entries.iter().map(crate::entry::Entry::point);
        for theirs in std::iter::once(append.prev).chain(shown) {
            match log.point(theirs.index) {
                Some(ours) if ours == theirs => {
                    self.common = self.common.max(Some(theirs.index));
                }
                Some(_) => {
                    self.differs = self.differs.min(theirs.index);
                    break;
                }
                None => {}
            }
        }
        self.idle = if *self == before { self.idle + 1 } else { 0 };
        if self.idle > IDLE_MAX {
            return self.given_up();
        }
        self.next(log)
    }

    #[cfg(feature = "sim")]
    pub(super) fn differs(&self) -> Index {
        self.differs
    }

    /// Nothing more can be compared.
    pub(super) fn given_up(&self) -> Search {
        Search::Unknown(self.differs)
    }

    fn next(&self, log: &Log) -> Search {
        match self.common {
            Some(common) if common.next() >= self.differs => Search::Found(self.differs),
            Some(common) => Search::Ask(Index(common.0 + (self.differs.0 - common.0) / 2)),
            None if self.differs <= log.base().index => self.given_up(),
            // (Also the base itself.)
            None => {
                let base = log.base().index;
                Search::Ask(Index(base.0 + (self.differs.0 - base.0) / 2))
            }
        }
    }
}

/// So many appends in a row may tell nothing: late ones, repeated ones.
const IDLE_MAX: u32 = 64;
