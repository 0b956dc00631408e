//! What is promised under what: the cells of the promise table, as data.

use crate::config::Authority;
use std::fmt;

/// Where the replicas keep their log. The witness always has a disk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Medium {
    /// In memory: a restarted replica is a new member. Never is the last live member of the in-sync set killed.
    Memory,
    /// In a write-ahead log on a simulated disk.
    Wal,
}

/// What goes wrong. Every class contains the crashes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Faults {
    /// Processes are killed at any point and restart; the power fails for the whole group (not with [`Medium::Memory`]); wall
    /// clocks jump; messages are delayed, reordered, duplicated and now and then lost, but never so many that a
    /// live replica looks dead.
    Crashes,
    /// And links are cut: one way, both ways, flapping, all at once; or lose and delay so much that it amounts to it.
    Partitions,
    /// And processes stop for a while; then everything that came meanwhile arrives in one burst.
    Pauses,
    /// And disks refuse (EIO, ENOSPC), become slow, and (with [`Authority::Witness`]) decay while their replica is down.
    Disks,
    /// Everything together.
    All,
}

/// What is checked in a cell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Promise {
    /// Every invariant; nothing acknowledged is lost; linearizable.
    Everything,
    /// Two primaries are possible. Whatever acknowledged write is lost was reported when it was cut off
    /// ([`AcknowledgedWritesLost`](crate::protocol::Event::AcknowledgedWritesLost); or
    /// [`TailTruncated`](crate::protocol::Event::TailTruncated) by a replica that has restarted since and cannot know
    /// that it had been acknowledged), and after the faults the group converges to one history.
    DivergenceReported,
}

/// One row of the promise table: an authority, a medium, a class of faults.
///
/// ```
/// use kvrep_core::sim::{Cell, Promise};
/// let cell = Cell::named("alone/wal/partitions").unwrap();
/// assert_eq!(cell.promise(), Promise::DivergenceReported);
/// assert_eq!(cell.to_string(), "alone/wal/partitions");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Cell {
    /// Who decides who may be primary.
    pub authority: AuthorityKind,
    /// Where the log is.
    pub medium: Medium,
    /// What goes wrong.
    pub faults: Faults,
}

/// [`Authority`], ordered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum AuthorityKind {
    /// [`Authority::Alone`].
    Alone,
    /// [`Authority::Witness`].
    Witness,
}

impl From<AuthorityKind> for Authority {
    fn from(kind: AuthorityKind) -> Self {
        match kind {
            AuthorityKind::Alone => Self::Alone,
            AuthorityKind::Witness => Self::Witness,
        }
    }
}

const fn cell(authority: AuthorityKind, medium: Medium, faults: Faults) -> Cell {
    Cell {
        authority,
        medium,
        faults,
    }
}

impl Cell {
    /// The whole table.
    pub const ALL: [Self; 13] = [
        cell(AuthorityKind::Witness, Medium::Wal, Faults::Crashes),
        cell(AuthorityKind::Witness, Medium::Wal, Faults::Partitions),
        cell(AuthorityKind::Witness, Medium::Wal, Faults::Pauses),
        cell(AuthorityKind::Witness, Medium::Wal, Faults::Disks),
        cell(AuthorityKind::Witness, Medium::Wal, Faults::All),
        cell(AuthorityKind::Witness, Medium::Memory, Faults::Crashes),
        cell(AuthorityKind::Witness, Medium::Memory, Faults::Partitions),
        cell(AuthorityKind::Witness, Medium::Memory, Faults::Pauses),
        cell(AuthorityKind::Alone, Medium::Wal, Faults::Crashes),
        cell(AuthorityKind::Alone, Medium::Wal, Faults::Disks),
        cell(AuthorityKind::Alone, Medium::Memory, Faults::Crashes),
        cell(AuthorityKind::Alone, Medium::Wal, Faults::Partitions),
        cell(AuthorityKind::Alone, Medium::Wal, Faults::Pauses),
    ];

    /// The cell of this name (`witness/wal/partitions`).
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.to_string() == name)
    }

    /// What is promised, and so checked, in this cell.
    #[must_use]
    pub fn promise(self) -> Promise {
        match (self.authority, self.faults) {
            (AuthorityKind::Witness, _)
            | (AuthorityKind::Alone, Faults::Crashes | Faults::Disks) => Promise::Everything,
            (AuthorityKind::Alone, Faults::Partitions | Faults::Pauses | Faults::All) => {
                Promise::DivergenceReported
            }
        }
    }

    pub(super) fn cuts_links(self) -> bool {
        matches!(self.faults, Faults::Partitions | Faults::All)
    }

    pub(super) fn pauses(self) -> bool {
        matches!(self.faults, Faults::Pauses | Faults::All)
    }

    pub(super) fn breaks_disks(self) -> bool {
        self.medium == Medium::Wal && matches!(self.faults, Faults::Disks | Faults::All)
    }

    /// Whether a false suspicion breaks what is promised, so that none may be caused.
    pub(super) fn needs_true_suspicions(self) -> bool {
        self.authority == AuthorityKind::Alone && self.promise() == Promise::Everything
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = match self.authority {
            AuthorityKind::Alone => "alone",
            AuthorityKind::Witness => "witness",
        };
        let medium = match self.medium {
            Medium::Memory => "memory",
            Medium::Wal => "wal",
        };
        let faults = match self.faults {
            Faults::Crashes => "crashes",
            Faults::Partitions => "partitions",
            Faults::Pauses => "pauses",
            Faults::Disks => "disks",
            Faults::All => "all",
        };
        write!(f, "{authority}/{medium}/{faults}")
    }
}
