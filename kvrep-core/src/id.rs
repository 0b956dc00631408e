//! The numbers of the protocols, a type for each: who, which life, which term, which position.
//!
//! A number of one kind cannot be taken for one of another, and each is printed with its own letter, so that a trace reads
//! `2.n1@17` (the entry at index 17 of n1's term 2).
//!
//! Invariants: none of them wraps, and none is used a second time for something else. Only [`ReplicaId`]s are chosen by a
//! person; the others are counted, drawn or computed.
//!
//! ```
//! use kvrep_core::{Incarnation, Index, LogPoint, ReplicaId, Term};
//!
//! let term = Term { number: 2, replica: ReplicaId(1) };
//! let end = LogPoint { term, index: Index(17), hash: 0xc0ffee };
//! assert_eq!(format!("{end:?} {}", Incarnation(3)), "2.n1@17 i3");
//! assert_eq!(Index(17).next().prev(), Index(17));
//! ```

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// A member of a group, chosen by whoever writes the group's configuration. Any value but
/// [`ReplicaId::WITNESS`] and [`ReplicaId::NOBODY`].
///
/// ```
/// use kvrep_core::ReplicaId;
/// assert_eq!(ReplicaId(3).to_string(), "n3");
/// assert_eq!(ReplicaId::WITNESS.to_string(), "witness");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
pub struct ReplicaId(pub u32);

impl ReplicaId {
    /// The address under which the witness of a group is reached.
    pub const WITNESS: Self = Self(u32::MAX);
    /// No replica: the holder of the term before the first.
    pub const NOBODY: Self = Self(u32::MAX - 1);
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::WITNESS => f.write_str("witness"),
            Self::NOBODY => f.write_str("nobody"),
            Self(n) => write!(f, "n{n}"),
        }
    }
}

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The number of a group, made from its name. Frames of another group are refused.
///
/// ```
/// use kvrep_core::GroupId;
/// assert_eq!(GroupId::named("orders"), GroupId::named("orders"));
/// assert_ne!(GroupId::named("orders"), GroupId::named("users"));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct GroupId(pub u64);

impl GroupId {
    /// The id of the group of this name (XXH3-64 of its UTF-8 bytes).
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self(xxhash_rust::xxh3::xxh3_64(name.as_bytes()))
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
        )]
        pub struct $name(pub u64);

        impl $name {
            /// The number after this one.
            ///
            /// # Panics
            /// At the end of the 64-bit range, which nothing that counts by one reaches.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.checked_add(1).expect("64-bit counters do not wrap"))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

number!(
    /// A position in the log. The first entry has index 1; 0 is the position before it.
    Index,
    "@"
);
number!(
    /// One life of a replica: grows with each start. Messages of an earlier life are dropped.
    Incarnation,
    "i"
);
number!(
    /// The identity of a storage, drawn at random when it is created. A replica whose disk was wiped, or that
    /// keeps its log in memory and restarts, has another one: it is the same replica but not the same member.
    StoreId,
    "s"
);
number!(
    /// Which group of its name it is: made of the identity of the storage that began it, so drawn at random, and kept in every [`Configuration`]
    /// from the first on. A replica that begins anew with an empty storage, and with nobody to ask, begins another group.
    Origin,
    "o"
);
number!(
    /// The version of a [`Configuration`]; grows with every change and never starts again.
    Version,
    "v"
);
number!(
    /// A number used once: the round of a read confirmation, of a probe, of a request to the witness.
    Nonce,
    "r"
);
number!(
    /// A local handle of one request at one node: the driver's, never sent to another replica.
    Ticket,
    "t"
);
number!(
    /// A batch of storage operations; completions come in this order.
    PersistToken,
    "p"
);
number!(
    /// A client's session: the chained hash of the log at the entry that opened it.
    SessionId,
    "c"
);
number!(
    /// The number of a request within its session, from 1.
    Seq,
    "q"
);

impl Index {
    /// The position before the first entry.
    pub const ZERO: Self = Self(0);

    /// The position before this one; zero stays zero.
    #[must_use]
    pub fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl Origin {
    /// The origin of a group that begins with this storage. (However often it tries to: a group is begun once.)
    #[must_use]
    pub fn of(store: StoreId) -> Self {
        Self(store.0)
    }
}

impl Incarnation {
    /// Not known (yet). Only messages that ask who is there may name it as the addressee's.
    pub const UNKNOWN: Self = Self(0);
}

/// The reign of one primary: a number and the replica that reigns. No two replicas ever hold the same term,
/// and a replica never holds the same term twice.
///
/// ```
/// use kvrep_core::{ReplicaId, Term};
/// let first = Term::ZERO.next_for(ReplicaId(1));
/// assert!(first < Term::ZERO.next_for(ReplicaId(2)));
/// assert!(first.next_for(ReplicaId(1)) > Term::ZERO.next_for(ReplicaId(2)));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Term {
    /// Compared first.
    pub number: u64,
    /// The primary of this term.
    pub replica: ReplicaId,
}

impl Term {
    /// Before the first term.
    pub const ZERO: Self = Self {
        number: 0,
        replica: ReplicaId(0),
    };

    /// The lowest term of `replica` that is above every term with this number.
    #[must_use]
    pub fn next_for(self, replica: ReplicaId) -> Self {
        Self {
            number: self.number.saturating_add(1),
            replica,
        }
    }
}

impl Default for Term {
    fn default() -> Self {
        Self::ZERO
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.number, self.replica)
    }
}

impl fmt::Debug for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A place in one history: the index, the term of the entry there, and the hash of everything up to it.
/// Two logs that agree in a `LogPoint` agree in everything before it.
///
/// ```
/// use kvrep_core::{Index, LogPoint, ReplicaId, Term};
///
/// let first = Term::ZERO.next_for(ReplicaId(1));
/// let long = LogPoint { term: first, index: Index(9), hash: 1 };
/// let newer = LogPoint { term: first.next_for(ReplicaId(2)), index: Index(3), hash: 2 };
/// assert!(newer.rank() > long.rank()); // more advanced: the term counts first
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct LogPoint {
    /// Term of the entry at `index`. First, so that the derived order is "most advanced".
    pub term: Term,
    /// Index of the entry; 0 for the empty log.
    pub index: Index,
    /// Chained hash of the log up to and including `index`; 0 for the empty log.
    pub hash: u64,
}

impl LogPoint {
    /// The end of the empty log.
    pub const ZERO: Self = Self {
        term: Term::ZERO,
        index: Index::ZERO,
        hash: 0,
    };

    /// What "more advanced" compares: term, then index.
    #[must_use]
    pub fn rank(self) -> (Term, Index) {
        (self.term, self.index)
    }
}

impl fmt::Debug for LogPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.term, self.index)
    }
}

/// What a member is there for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum MemberKind {
    /// Counts when it has caught up, and may become primary.
    Full,
    /// Has a copy and serves local and token reads; never counts, never becomes primary, is never waited for.
    Learner,
}

/// Who may hold acknowledged writes, and who is primary: the primary is `term.replica`. Ordered by
/// (term, version), changed only through the [authority](crate::Authority)
/// (PacificA §2.2).
///
/// ```
/// use kvrep_core::{Configuration, Departed, MemberKind, Origin, ReplicaId, StoreId, Term, Version};
///
/// let configuration = Configuration {
///     origin: Origin(1),
///     term: Term::ZERO.next_for(ReplicaId(1)),
///     version: Version(1),
///     in_sync: [(ReplicaId(1), StoreId(11)), (ReplicaId(2), StoreId(22))].into(),
///     members: [1, 2, 3].map(|id| (ReplicaId(id), MemberKind::Full)).into(),
///     departed: Departed::default(),
/// };
/// assert!(configuration.has(ReplicaId(2), StoreId(22)));
/// assert!(!configuration.has(ReplicaId(2), StoreId(99))); // its disk was wiped: another member
/// ```
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// Which group it is of, among those that have its name.
    pub origin: Origin,
    /// The term in which it was proposed.
    pub term: Term,
    /// Grows with each change.
    pub version: Version,
    /// The in-sync set: each member with the storage it was counted with.
    pub in_sync: BTreeMap<ReplicaId, StoreId>,
    /// Everybody who belongs to the group, in sync or not. The in-sync set is a part of the full members.
    pub members: BTreeMap<ReplicaId, MemberKind>,
    /// Who belonged to it before.
    pub departed: Departed,
}

/// Who does not belong to a group any more: whoever reigns goes on telling the latest of them, for one that was stopped when it was removed may take itself
/// for a member still.
///
/// ```
/// use kvrep_core::{Departed, ReplicaId};
///
/// let mut departed = Departed::default();
/// departed.leaves(ReplicaId(2));
/// departed.returns(ReplicaId(2));
/// assert_eq!((departed.count, departed.latest.len()), (1, 0));
/// ```
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Departed {
    /// How often a member was removed, ever: of two configurations of one group, neither of which knows of the other, the one with more of them is the one that
    /// went on without somebody.
    pub count: u64,
    /// The latest that were removed and have not returned, at most [`Self::LATEST_MAX`], oldest first.
    pub latest: Vec<ReplicaId>,
}

impl Departed {
    /// So many are remembered by name.
    pub const LATEST_MAX: usize = 16;

    /// A member is removed.
    pub fn leaves(&mut self, id: ReplicaId) {
        self.returns(id);
        if self.latest.len() >= Self::LATEST_MAX {
            self.latest.remove(0);
        }
        self.latest.push(id);
        self.count = self.count.saturating_add(1);
    }

    /// It belongs again.
    pub fn returns(&mut self, id: ReplicaId) {
        self.latest.retain(|gone| *gone != id);
    }
}

impl Configuration {
    /// What configurations are ordered by.
    #[must_use]
    pub fn rank(&self) -> (Term, Version) {
        (self.term, self.version)
    }

    /// Whether this storage of this replica is a member.
    #[must_use]
    pub fn has(&self, replica: ReplicaId, store: StoreId) -> bool {
        self.in_sync.get(&replica) == Some(&store)
    }

    /// Whether it belongs to the group and may count.
    #[must_use]
    pub fn is_full(&self, replica: ReplicaId) -> bool {
        self.members.get(&replica) == Some(&MemberKind::Full)
    }
}

/// For an operator: who has everything, and since which agreement.
impl fmt::Display for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |ids: &mut dyn Iterator<Item = &ReplicaId>| {
            ids.map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        let (term, version) = (self.term, self.version.0);
        let in_sync = names(&mut self.in_sync.keys());
        write!(
            f,
            "{{{in_sync}}} (version {version}, decided by {} in term {})",
            term.replica, term.number
        )
    }
}

impl fmt::Debug for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{:?}", self.term, self.version, self.in_sync.keys())?;
        let others = self.members.iter();
        let mut others = others
            .filter(|(id, _)| !self.in_sync.contains_key(id))
            .peekable();
        if others.peek().is_some() {
            let others: Vec<_> = others.map(|(id, kind)| format!("{id} {kind:?}")).collect();
            write!(f, " and {}", others.join(", "))?;
        }
        Ok(())
    }
}
