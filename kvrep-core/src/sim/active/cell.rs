//! What may go wrong in a run of the active scheme, and what is promised nevertheless.

use std::fmt;

/// What may go wrong.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Faults {
    /// Replicas crash and start again, with nothing. The stream is whole; somebody who serves is always up.
    Crashes,
    /// And replicas stop for a while, messages beside the stream are lost, who lives is taken for dead.
    Pauses,
    /// And all that serve may be gone at once, or stopped for so long that others begin anew: what was acknowledged may be gone with them.
    Extinction,
    /// The broker drops what a stopped replica does not take, without a word; replicas do not crash.
    SlowSubscriber,
    /// The broker loses, repeats and swaps for single replicas, drops sessions, and restarts without its queues.
    Broker,
    /// All of it, but for extinction.
    All,
    /// Links between the nodes of the log under the stream are cut and bad, and a witness decides who goes on.
    Partitions,
    /// The same, and nobody decides: the log itself may part into two histories.
    Divided,
}

/// Who keeps the order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Order {
    /// A broker.
    Broker,
    /// The log of the passive scheme ([`stream::log`](crate::stream::log)), of which each member runs a node.
    Log,
}

/// A row of the table of promises: who must have what an answer says, and what may go wrong.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Cell {
    /// Who keeps the order.
    pub order: Order,
    /// Whether an answer waits for most of the replicas, or is one replica's word.
    pub confirmed: Confirmed,
    /// What may go wrong.
    pub faults: Faults,
}

/// How many replicas must have the history that an answer is made from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Confirmed {
    /// The one that answers.
    ByOne,
    /// More than half.
    ByMost,
}

/// What is promised under the faults of a cell.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Promise {
    /// Linearizable, exactly once, nothing acknowledged is lost.
    Everything,
    /// One history in the end; what was acknowledged and is not in it was reported by who threw it away (or died with those
    /// that had it).
    LossesReported,
}

impl Cell {
    /// All of them.
    #[must_use]
    pub fn all() -> Vec<Self> {
        use Confirmed::{ByMost, ByOne};
        use Faults::{
            All, Broker, Crashes, Divided, Extinction, Partitions, Pauses, SlowSubscriber,
        };
        use Order::Log;
        [
            (Order::Broker, ByOne, Crashes),
            (Order::Broker, ByOne, Pauses),
            (Order::Broker, ByOne, Extinction),
            (Order::Broker, ByOne, SlowSubscriber),
            (Order::Broker, ByOne, Broker),
            (Order::Broker, ByOne, All),
            (Order::Broker, ByMost, Crashes),
            (Order::Broker, ByMost, Pauses),
            (Order::Broker, ByMost, SlowSubscriber),
            (Order::Broker, ByMost, Broker),
            (Order::Broker, ByMost, All),
            (Log, ByOne, Crashes),
            (Log, ByOne, SlowSubscriber),
            (Log, ByOne, Extinction),
            (Log, ByOne, Partitions),
            (Log, ByOne, Divided),
            (Log, ByMost, Pauses),
            (Log, ByMost, Partitions),
        ]
        .map(|(order, confirmed, faults)| Self {
            order,
            confirmed,
            faults,
        })
        .to_vec()
    }

    /// The cell of this name, such as `most/broker`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::all()
            .into_iter()
            .find(|cell| cell.to_string() == name)
    }

    /// What is promised.
    #[must_use]
    pub fn promise(self) -> Promise {
        match (self.confirmed, self.faults) {
            (_, Faults::Crashes | Faults::Pauses | Faults::SlowSubscriber)
            | (Confirmed::ByMost, Faults::Broker | Faults::All | Faults::Partitions) => {
                Promise::Everything
            }
            (_, Faults::Extinction | Faults::Divided)
            | (Confirmed::ByOne, Faults::Broker | Faults::All | Faults::Partitions) => {
                Promise::LossesReported
            }
        }
    }

    /// Whether what reaches the stream reaches every replica that can tell that it missed something.
    pub(super) fn is_whole(self) -> bool {
        match self.faults {
            Faults::Crashes | Faults::Pauses | Faults::SlowSubscriber => true,
            Faults::Partitions => self.confirmed == Confirmed::ByMost,
            Faults::Extinction | Faults::Divided | Faults::Broker | Faults::All => false,
        }
    }

    pub(super) fn crashes(self) -> bool {
        match self.faults {
            Faults::Crashes | Faults::Pauses | Faults::Extinction | Faults::All => true,
            Faults::Partitions => self.confirmed == Confirmed::ByMost,
            Faults::SlowSubscriber | Faults::Broker | Faults::Divided => false,
        }
    }

    pub(super) fn pauses(self) -> bool {
        match self.faults {
            // (A log in memory, or without a witness, is not told to be proof against processes that stop.)
            Faults::Extinction if self.order == Order::Log => false,
            Faults::Pauses | Faults::Extinction | Faults::All | Faults::SlowSubscriber => true,
            Faults::Crashes | Faults::Broker | Faults::Partitions | Faults::Divided => false,
        }
    }

    /// Whether the broker drops what a stopped subscriber does not take.
    pub(super) fn drops(self) -> bool {
        matches!(self.faults, Faults::SlowSubscriber | Faults::All)
    }

    /// Whether the broker loses, repeats and swaps.
    pub(super) fn lies(self) -> bool {
        matches!(self.faults, Faults::Broker | Faults::All)
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let confirmed = match self.confirmed {
            Confirmed::ByOne => "one",
            Confirmed::ByMost => "most",
        };
        let faults = match self.faults {
            Faults::Crashes => "crashes",
            Faults::Pauses => "pauses",
            Faults::Extinction => "extinction",
            Faults::SlowSubscriber => "slow",
            Faults::Broker => "broker",
            Faults::All => "all",
            Faults::Partitions => "partitions",
            Faults::Divided => "divided",
        };
        if self.order == Order::Log {
            f.write_str("log/")?;
        }
        write!(f, "{confirmed}/{faults}")
    }
}
