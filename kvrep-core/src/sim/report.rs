//! What came of a run.

use super::cell::Cell;
use super::disturbance::Disturbances;
use super::world::Length;
use crate::protocol::passive::Mutation;
use crate::time::Time;
use std::fmt;

/// How a rule was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// When, in virtual time.
    pub at: Time,
    /// Which rule.
    pub rule: String,
    /// How.
    pub detail: String,
}

/// Numbers of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Events executed.
    pub events: u64,
    /// Virtual time at the end, in milliseconds.
    pub millis: u64,
    /// Operations answered.
    pub answered: u64,
    /// Operations whose client gave up.
    pub given_up: u64,
    /// Faults caused.
    pub faults: u64,
    /// Starts of nodes, the first ones included.
    pub starts: u64,
    /// Terms in which somebody served.
    pub reigns: u64,
    /// Snapshots put into a state machine while a node was up.
    pub transfers: u64,
    /// Reports of truncated tails.
    pub truncations: u64,
    /// Reports of lost acknowledged writes (possible where only their report is promised).
    pub losses: u64,
    /// Histories of which the checker could not tell whether they are linearizable: too many outcomes are unknown. They
    /// count as passed; the other rules stand.
    pub undecided: u64,
    /// Entries in the final history.
    pub entries: u64,
}

/// What came of a run: nothing, or a failure with everything needed to replay it. (The [active scheme](super::active) has other cells, bugs and
/// numbers.)
///
/// ```
/// use kvrep_core::protocol::passive::Mutation;
/// use kvrep_core::sim::{Cell, Simulation};
///
/// // A planted bug: primaries acknowledge too early. Some seed shows it, and says how to see it again.
/// let cell = Cell::named("witness/wal/all").unwrap();
/// let bug = Some(Mutation::AckBeforeDurable);
/// let mut reports = (0..200).map(|seed| Simulation::new(cell, seed).mutation(bug).run());
/// let caught = reports.find(|report| report.failure.is_some()).unwrap();
/// assert!(caught.replay().contains(&format!("--seed {}", caught.seed)));
/// ```
#[derive(Clone, Debug)]
pub struct Report<C = Cell, M = Mutation, S = Stats> {
    /// The seed.
    pub seed: u64,
    /// The cell.
    pub cell: C,
    /// The planted bug, if there was one.
    pub mutation: Option<M>,
    /// Hash of every executed event: equal for equal runs.
    pub hash: u64,
    /// Numbers.
    pub stats: S,
    /// What went wrong.
    pub failure: Option<Failure>,
    /// The last lines of the trace, when something went wrong.
    pub tail: Vec<String>,
    pub(super) replay: String,
}

impl<C: fmt::Display, M, S: fmt::Debug> Report<C, M, S> {
    /// How to replay this run: a command; or, where it had clients, invariants or a script of one's own, what to run
    /// with the same of them.
    #[must_use]
    pub fn replay(&self) -> &str {
        &self.replay
    }

    /// Panics with the report if something went wrong.
    ///
    /// # Panics
    /// See above.
    pub fn expect_ok(&self) {
        assert!(self.failure.is_none(), "{self}");
    }
}

impl<C: fmt::Display, M, S: fmt::Debug> fmt::Display for Report<C, M, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(failure) = &self.failure else {
            return write!(
                f,
                "seed {} in {}: every promise held; {:?}",
                self.seed, self.cell, self.stats
            );
        };
        for line in &self.tail {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "seed {} in {} at {:?}", self.seed, self.cell, failure.at)?;
        writeln!(f, "broken: {}", failure.rule)?;
        writeln!(f, "{}", failure.detail)?;
        write!(f, "replay: {}", self.replay())
    }
}

/// In words, how to run the same again.
pub(super) fn replay(
    (cell, seed): (Cell, u64),
    mutation: Option<Mutation>,
    length: &Length,
    own_parts: bool,
    disturbances: Disturbances,
) -> String {
    let (seconds, operations) = (length.duration.as_secs(), length.operations);
    if own_parts {
        return format!(
            "Simulation::new(Cell::named(\"{cell}\").unwrap(), {seed}).seconds({seconds}).operations({operations}).trace(|line| println!(\"{{line}}\")), with the same clients, invariants and script"
        );
    }
    let bug = mutation
        .map(|m| format!(" --mutation {m:?}"))
        .unwrap_or_default();
    let disturbed = match disturbances {
        Disturbances::None => "",
        Disturbances::NowAndThen => " --disturbed",
    };
    format!(
        "cargo run --release -p kvrep-core --features sim --example simulate -- --seed {seed} --cell {cell}{bug}{disturbed} --seconds {seconds} --operations {operations} --trace"
    )
}
