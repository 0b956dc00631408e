//! What is promised under what: the cells of the promise table, as data.

use super::policy::{ConfirmKind, Policy, TakeoverKind};
use crate::config::{Ack, Authority, Visibility};
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
    /// The same, but that reads are not linearizable, for they may show what is not acknowledged yet: writes are, and every
    /// client reads its own writes and never an older state than before.
    Sessions,
    /// A takeover may lose what the primary alone had acknowledged: at most as many writes as the loss window has room for, the
    /// newest ones, and each loss is reported when the old primary returns. In the end there is one history.
    BoundedLoss,
    /// Two primaries are possible. Whatever acknowledged write is lost was reported when it was cut off
    /// ([`AcknowledgedWritesLost`](crate::protocol::Event::AcknowledgedWritesLost); or
    /// [`TailTruncated`](crate::protocol::Event::TailTruncated) by a replica that has restarted since and cannot know
    /// that it had been acknowledged), and after the faults the group converges to one history.
    DivergenceReported,
}

/// One row of the promise table: policies, an authority, a medium, a class of faults.
///
/// ```
/// use kvrep_core::sim::{Cell, Promise};
/// let cell = Cell::named("alone/wal/partitions").unwrap();
/// assert_eq!(cell.promise(), Promise::DivergenceReported);
/// assert_eq!(cell.to_string(), "alone/wal/partitions");
///
/// // Policies other than the standard ones stand in front.
/// let fixed = Cell::named("never-primary/alone/wal/all").unwrap();
/// assert_eq!(fixed.promise(), Promise::Everything);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Cell {
    /// What the group has chosen.
    pub policy: Policy,
    /// Who suspects.
    pub detector: DetectorKind,
    /// Who decides who may be primary.
    pub authority: AuthorityKind,
    /// Where the log is.
    pub medium: Medium,
    /// What goes wrong.
    pub faults: Faults,
}

/// How replicas suspect each other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum DetectorKind {
    /// After a fixed time ([`FixedDetector`](crate::detector::fixed::FixedDetector)).
    Fixed,
    /// After a time that learns ([`PhiDetector`](crate::detector::phi::PhiDetector)).
    Phi,
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
        policy: Policy::STANDARD,
        detector: DetectorKind::Fixed,
        authority,
        medium,
        faults,
    }
}

impl Cell {
    /// The table of a group with standard policies.
    pub const STANDARD: [Self; 13] = [
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

    /// The whole table: the standard policies, every other legal choice with the worst that it is proof against, and some with
    /// another detector.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut all = Self::STANDARD.to_vec();
        for authority in [AuthorityKind::Witness, AuthorityKind::Alone] {
            for policy in Policy::legal(authority.into()) {
                if policy != Policy::STANDARD {
                    all.extend(Self::of(policy, authority));
                }
            }
        }
        all.extend(Self::of_phi());
        all
    }

    /// Another detector suspects sooner or later, and wrongly more often; it changes no promise where suspicions may be wrong.
    fn of_phi() -> Vec<Self> {
        let (witness, alone) = (AuthorityKind::Witness, AuthorityKind::Alone);
        let mut cells = vec![
            cell(witness, Medium::Wal, Faults::All),
            cell(witness, Medium::Memory, Faults::Pauses),
            cell(alone, Medium::Wal, Faults::Pauses),
        ];
        cells.push(Self {
            policy: Policy {
                confirm: ConfirmKind::Lease,
                ..Policy::STANDARD
            },
            ..cells[0]
        });
        for cell in &mut cells {
            cell.detector = DetectorKind::Phi;
        }
        cells
    }

    fn of(policy: Policy, authority: AuthorityKind) -> Vec<Self> {
        let fixed = policy.takeover == TakeoverKind::Never;
        let (wal, memory) = (Medium::Wal, Medium::Memory);
        let rows = match (policy.ack, authority) {
            // The log of the one that decides is on a disk, and stays there.
            (Ack::Primary, _) if fixed => vec![(wal, Faults::All)],
            (Ack::Primary, AuthorityKind::Witness) => {
                vec![
                    (wal, Faults::Crashes),
                    (wal, Faults::Partitions),
                    (wal, Faults::Pauses),
                ]
            }
            (Ack::Primary, AuthorityKind::Alone) => vec![(wal, Faults::Crashes)],
            (Ack::AllInSync | Ack::All, _) if fixed => match policy.visibility {
                Visibility::OnCommit => vec![(wal, Faults::All), (memory, Faults::Crashes)],
                // In memory what was shown before it was acknowledged may be forgotten.
                Visibility::OnAppend => vec![(wal, Faults::All)],
            },
            (Ack::AllInSync | Ack::All, AuthorityKind::Witness) => {
                vec![(wal, Faults::All), (memory, Faults::Pauses)]
            }
            (Ack::AllInSync | Ack::All, AuthorityKind::Alone) => {
                vec![(wal, Faults::Disks), (wal, Faults::Pauses)]
            }
        };
        rows.into_iter()
            .map(|(medium, faults)| Self {
                policy,
                detector: DetectorKind::Fixed,
                authority,
                medium,
                faults,
            })
            .collect()
    }

    /// The cell of this name (`witness/wal/partitions`, `never-all/alone/memory/crashes`).
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::all().into_iter().find(|c| c.to_string() == name)
    }

    /// What is promised, and so checked, in this cell.
    #[must_use]
    pub fn promise(self) -> Promise {
        let unsafe_here = match (self.authority, self.faults) {
            (AuthorityKind::Witness, _)
            | (AuthorityKind::Alone, Faults::Crashes | Faults::Disks) => false,
            (AuthorityKind::Alone, Faults::Partitions | Faults::Pauses | Faults::All) => true,
        };
        match (
            self.policy.takeover,
            self.policy.ack,
            self.policy.visibility,
        ) {
            (TakeoverKind::Never, _, Visibility::OnAppend) => Promise::Sessions,
            // Nobody else takes over: there are never two primaries.
            (TakeoverKind::Never, _, _) => Promise::Everything,
            (TakeoverKind::MostAdvanced | TakeoverKind::OnClientRequest, _, _) if unsafe_here => {
                Promise::DivergenceReported
            }
            (TakeoverKind::MostAdvanced | TakeoverKind::OnClientRequest, Ack::Primary, _) => {
                Promise::BoundedLoss
            }
            (TakeoverKind::MostAdvanced | TakeoverKind::OnClientRequest, _, _) => {
                Promise::Everything
            }
        }
    }

    /// Whether acknowledged writes may be lost, so that histories part.
    pub(super) fn loses(self) -> bool {
        match self.promise() {
            Promise::Everything | Promise::Sessions => false,
            Promise::BoundedLoss | Promise::DivergenceReported => true,
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

    /// Whether members are started with empty directories: without a witness they begin groups of their own, and what is acknowledged there is lost and
    /// reported when they hear of the one that was there before.
    pub(super) fn begins_anew(self) -> bool {
        self.authority == AuthorityKind::Alone
            && self.medium == Medium::Wal
            && self.promise() == Promise::DivergenceReported
    }

    /// Whether a false suspicion breaks what is promised, so that none may be caused.
    pub(super) fn needs_true_suspicions(self) -> bool {
        self.authority == AuthorityKind::Alone
            && self.policy.takeover != TakeoverKind::Never
            && self.promise() != Promise::DivergenceReported
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
        if self.policy != Policy::STANDARD {
            write!(f, "{}/", self.policy)?;
        }
        if self.detector == DetectorKind::Phi {
            f.write_str("phi/")?;
        }
        write!(f, "{authority}/{medium}/{faults}")
    }
}
