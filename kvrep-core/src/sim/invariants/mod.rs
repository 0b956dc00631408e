//! What must hold, a file for each rule. Checked after every event, by looking only at what is new.
//!
//! Two kinds: rules that hold whatever happens ([`always`]), and rules that hold where
//! [everything is promised](super::Promise::Everything) ([`promised`]). Add your own with
//! [`Simulation::invariant`](super::Simulation::invariant).

mod acknowledged;
mod commit;
mod digest;
mod handover;
mod home;
mod members;
mod once;
mod prefix;
mod primaries;
mod terms;
mod tokens;

use super::ledger::CommandId;
use super::workload::Freshness;
use crate::config::{Ack, Token};
use crate::id::{Configuration, Incarnation, Index, LogPoint, ReplicaId, StoreId, Term};
use crate::protocol::{Event, ProtocolStatus};
use crate::time::Time;
use std::fmt;

/// One life of one replica.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Life {
    /// Which replica.
    pub replica: ReplicaId,
    /// With which storage.
    pub store: StoreId,
    /// In which life.
    pub incarnation: Incarnation,
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.replica, self.incarnation)
    }
}

/// Something that an invariant may look at.
#[derive(Debug)]
#[non_exhaustive]
pub enum Sight<'a> {
    /// A replica started.
    Started(Life),
    /// An entry was applied.
    Applied {
        /// By whom.
        life: Life,
        /// Which.
        point: LogPoint,
        /// Chained over everything that this state machine has carried out and answered.
        digest: u64,
        /// A command that this state machine has carried out a second time.
        twice: Option<CommandId>,
    },
    /// A snapshot was put into the state machine.
    Restored {
        /// Whose.
        life: Life,
        /// Where it ends.
        point: LogPoint,
    },
    /// The state machine and its sessions, all of it.
    Digested {
        /// Whose.
        life: Life,
        /// Where it is.
        point: LogPoint,
        /// [`Machine::full_digest`](crate::session::Machine::full_digest).
        digest: u64,
    },
    /// What a replica knows after something happened to it.
    Status {
        /// Whose.
        life: Life,
        /// Everything it has handed to its disk is durable.
        settled: bool,
        /// What it knows.
        status: &'a ProtocolStatus,
    },
    /// A durable entry is about to be removed from a log (not because a snapshot holds it).
    Removed {
        /// Whose.
        life: Life,
        /// Which.
        point: LogPoint,
    },
    /// A write was acknowledged by a replica.
    Acknowledged {
        /// By whom.
        life: Life,
        /// Its position.
        token: Token,
        /// The configuration that counts for it.
        configuration: Option<&'a Configuration>,
    },
    /// A client has an answer.
    Answered {
        /// Which client.
        client: u32,
        /// The command's number; `None` for a query or the opening of a session.
        command: Option<CommandId>,
        /// The query's freshness; `None` for a command.
        freshness: Option<Freshness>,
        /// What the client had seen before.
        before: Token,
        /// What it has seen now.
        token: Token,
    },
    /// A replica tells its operator.
    Reported {
        /// Who.
        life: Life,
        /// What.
        event: &'a Event,
    },
}

/// The world, as far as an invariant may see it.
pub struct World<'a> {
    /// The time.
    pub at: Time,
    /// What was first applied at each index, by whomever.
    pub agreed: &'a Agreed,
    /// What the witness's register holds durably, where there is a witness.
    pub register: Option<&'a Configuration>,
    /// Who must have a write before it is acknowledged.
    pub ack: Ack,
    /// The newest configuration that is known to count.
    pub newest: Option<&'a Configuration>,
    /// Whether this replica has the entry (index, term) durably, in its log or in a snapshot; with the storage that it
    /// has it in. `None` for a replica that does not exist.
    pub holds: &'a dyn Fn(ReplicaId, Index, Term) -> Option<(StoreId, bool)>,
}

/// What must hold.
///
/// ```
/// use kvrep_core::sim::invariants::{Invariant, Sight, World};
/// use kvrep_core::sim::{Cell, Simulation};
///
/// /// Nobody lives a hundred times.
/// struct FewLives(u32);
///
/// impl Invariant for FewLives {
///     fn rule(&self) -> &'static str {
///         "few lives"
///     }
///     fn see(&mut self, sight: &Sight<'_>, _: &World<'_>) -> Result<(), String> {
///         if let Sight::Started(life) = sight {
///             self.0 += 1;
///             if self.0 > 100 {
///                 return Err(format!("{life} is the {}th", self.0));
///             }
///         }
///         Ok(())
///     }
/// }
///
/// let cell = Cell::named("witness/wal/crashes").unwrap();
/// let run = Simulation::new(cell, 3).seconds(5).operations(100).invariant(FewLives(0));
/// run.run().expect_ok();
/// ```
pub trait Invariant {
    /// Its name: what a report says was broken.
    fn rule(&self) -> &'static str;

    /// Something happened.
    ///
    /// # Errors
    /// How the rule is broken.
    fn see(&mut self, sight: &Sight<'_>, world: &World<'_>) -> Result<(), String>;
}

/// What was first applied at each index.
#[derive(Clone, Debug, Default)]
pub struct Agreed(Vec<LogPoint>);

impl Agreed {
    /// The entry applied at `index`, if any was.
    #[must_use]
    pub fn at(&self, index: Index) -> Option<LogPoint> {
        let offset = usize::try_from(index.0.checked_sub(1)?).ok()?;
        self.0.get(offset).copied().filter(|p| p.index == index)
    }

    /// The last index.
    #[must_use]
    pub fn end(&self) -> Index {
        Index(self.0.len() as u64)
    }

    pub(super) fn note(&mut self, point: LogPoint) {
        // A snapshot may be the first that is heard of a position; what lies between stays unknown.
        while (self.0.len() as u64) < point.index.0 {
            self.0.push(LogPoint::ZERO);
        }
        if let Some(at) = point.index.0.checked_sub(1)
            && let Ok(at) = usize::try_from(at)
            && self.0[at] == LogPoint::ZERO
        {
            self.0[at] = point;
        }
    }
}

/// The rules that hold whatever happens.
#[must_use]
pub fn always() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(primaries::OnePrimaryPerTerm::default()),
        Box::new(terms::TermNeverGoesBack::default()),
        Box::new(digest::EqualDigests::default()),
        Box::new(once::CarriedOutOnce),
        Box::new(members::OnlyFullMembersCount),
        Box::new(handover::HandoverFailsNobody::default()),
    ]
}

/// The rule for a fixed primary.
#[must_use]
pub fn only_home_serves(home: ReplicaId) -> Box<dyn Invariant> {
    Box::new(home::OnlyHomeServes(home))
}

/// The rules that hold where everything is promised.
#[must_use]
pub fn promised() -> Vec<Box<dyn Invariant>> {
    promised_with(commit::CommitNeverGoesBack::default())
}

/// The same where replicas may be ordered to throw their state away: once they do not count any more.
#[must_use]
pub fn promised_under_repair() -> Vec<Box<dyn Invariant>> {
    promised_with(commit::CommitNeverGoesBack::under_repair())
}

fn promised_with(commit: commit::CommitNeverGoesBack) -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(prefix::PrefixAgreement),
        Box::new(commit),
        Box::new(acknowledged::AcknowledgedMeansDurable::default()),
        Box::new(tokens::TokensNeverGoBack),
    ]
}
