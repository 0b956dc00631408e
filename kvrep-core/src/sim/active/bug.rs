//! Bugs that can be planted here.

use crate::protocol::active;
use crate::stream::log;
use std::fmt;

/// A planted bug. Its name is the one that it has where it is planted.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bug {
    /// In the scheme.
    Scheme(active::Mutation),
    /// Between the log that keeps the order and its members; only in cells where a log does.
    Stream(log::Mutation),
}

impl Bug {
    /// All of them.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let scheme = active::Mutation::ALL.map(Self::Scheme);
        let stream = log::Mutation::ALL.map(Self::Stream);
        scheme.into_iter().chain(stream).collect()
    }

    pub(super) fn in_scheme(self) -> Option<active::Mutation> {
        match self {
            Self::Scheme(bug) => Some(bug),
            Self::Stream(_) => None,
        }
    }

    pub(super) fn in_stream(self) -> Option<log::Mutation> {
        match self {
            Self::Stream(bug) => Some(bug),
            Self::Scheme(_) => None,
        }
    }
}

impl fmt::Debug for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme(bug) => bug.fmt(f),
            Self::Stream(bug) => bug.fmt(f),
        }
    }
}
