//! What may go wrong in a run of the lowest-id scheme, and what is promised nevertheless.

use std::fmt;

/// What may go wrong: the row of the table of promises.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Cell {
    /// Replicas crash and start again, also twice within a period. Messages are late, doubled and overtaken, and all arrive.
    Crashes,
    /// And replicas stop for a while.
    Pauses,
    /// Messages are lost, or come periods too late; replicas crash.
    Loss,
    /// Links are cut, in one direction or both; replicas crash.
    Partitions,
    /// All of it.
    All,
}

/// What is promised under the faults of a cell, besides what every cell promises (see the [module](super)).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Promise {
    /// What is asked is answered once at most, unless it is on its way when a lower one returns.
    OneAnswer,
    /// Of two that hear each other one answers; what was asked while one of them slept for a moment may be answered twice.
    OneAmongThoseThatHear,
    /// In the end one answers.
    OneInTheEnd,
}

impl Cell {
    /// All of them.
    #[must_use]
    pub fn all() -> Vec<Self> {
        vec![
            Self::Crashes,
            Self::Pauses,
            Self::Loss,
            Self::Partitions,
            Self::All,
        ]
    }

    /// The cell of this name, such as `partitions`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let mut all = Self::all().into_iter();
        all.find(|cell| cell.to_string() == name)
    }

    /// What is promised.
    #[must_use]
    pub fn promise(self) -> Promise {
        match self {
            Self::Crashes => Promise::OneAnswer,
            Self::Pauses | Self::Partitions => Promise::OneAmongThoseThatHear,
            Self::Loss | Self::All => Promise::OneInTheEnd,
        }
    }

    pub(super) fn pauses(self) -> bool {
        matches!(self, Self::Pauses | Self::All)
    }

    pub(super) fn loses(self) -> bool {
        matches!(self, Self::Loss | Self::All)
    }

    pub(super) fn cuts(self) -> bool {
        matches!(self, Self::Partitions | Self::All)
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Crashes => "crashes",
            Self::Pauses => "pauses",
            Self::Loss => "loss",
            Self::Partitions => "partitions",
            Self::All => "all",
        })
    }
}
