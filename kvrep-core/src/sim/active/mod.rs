//! The simulator of the [active scheme](crate::protocol::active): replicas, the broker that keeps the stream, and clients, in virtual time.
//!
//! The broker is as bad as real ones are found to be: it drops from slow subscribers without a word, loses sessions, forgets its
//! queues when it restarts, delivers twice, and swaps. A run is a function of its seed and its [`Cell`].
//!
//! | answers are confirmed by | faults | promise |
//! |---|---|---|
//! | one | crashes, pauses, false suspicion, lost messages; the broker drops what a stopped replica does not take | linearizable, exactly once, nothing lost while one that serves lives |
//! | one | the broker lies; all that serve die | lost writes are reported by whoever throws them away; one history in the end |
//! | most | crashes, pauses, the broker lies; all together | linearizable, exactly once, nothing lost while most live |
//!
//! In the cells that begin with `log/` the order is not a broker's but the passive scheme's log ([`stream::log`](crate::stream::log)): under the group runs a
//! simulated group of that scheme, with its disks, links, clients and rules, and each member's process is a node of it, too.
//!
//! | answers are confirmed by | what happens, to members and the log | promise |
//! |---|---|---|
//! | one | crashes | the first row's |
//! | one | one at a time stops or does not keep up | the first row's; the second's where somebody who runs was taken for failed meanwhile |
//! | one | all die; links are cut, with a witness and without one | the second row's |
//! | most | crashes, pauses, feeds that lag; links are cut, and a witness decides | the third row's |
//!
//! (What a member writes may stick at a node of the log that has stopped. If that takes longer than members are waited for, two are away at once, and the one that
//! has missed something may be the one whose word counts.)
//!
//! Where the stream is whole, every publication is answered (unless a history was chosen that lacks it, or the broker dropped it for the only replica that served), and twice only if who answered first has failed since. In the end everything is healed: all serve, have equal chains and states, every operation is answered, and in a quiet time every
//! publication is answered exactly once.
//!
//! ```
//! use kvrep_core::sim::active::{Cell, Simulation};
//! let cell = Cell::named("most/broker").unwrap();
//! let report = Simulation::new(cell, 42).seconds(5).operations(100).run();
//! report.expect_ok();
//! assert_eq!(report.hash, Simulation::new(cell, 42).seconds(5).operations(100).run().hash);
//! ```

mod arrivals;
mod broker;
mod bug;
mod cell;
mod client;
mod effects;
mod ending;
mod faults;
mod happening;
mod lives;
mod log;
mod over_log;
mod world;

pub use bug::Bug;
pub use cell::{Cell, Confirmed, Faults, Order, Promise};

use super::kv::Hammer;
use super::trace::Watcher;
use super::words_of;
use super::workload::{Freshness, Workload};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use world::World;

pub use super::report::Failure;

/// One run, to be set up and started.
pub struct Simulation {
    cell: Cell,
    seed: u64,
    duration: Duration,
    operations: u32,
    bug: Option<Bug>,
    workload: Option<Box<dyn Workload>>,
    trace: Option<Watcher>,
}

/// Numbers of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Events executed.
    pub events: u64,
    /// Operations answered.
    pub answered: u64,
    /// Operations whose client gave up.
    pub given_up: u64,
    /// Faults caused.
    pub faults: u64,
    /// Starts of replicas, the first ones included.
    pub starts: u64,
    /// How often a replica had to join again.
    pub fenced: u64,
    /// Decisions about differing histories.
    pub decisions: u64,
    /// Reports of lost writes.
    pub losses: u64,
    /// Histories of which it could not be told whether they are linearizable.
    pub undecided: u64,
}

/// What came of a run.
pub type Report = super::report::Report<Cell, Bug, Stats>;

impl Simulation {
    /// A run of this cell with this seed: 40 simulated seconds, 600 operations on registers and counters.
    #[must_use]
    pub fn new(cell: Cell, seed: u64) -> Self {
        Self {
            cell,
            seed,
            duration: Duration::from_secs(40),
            operations: 600,
            bug: None,
            workload: None,
            trace: None,
        }
    }

    /// How long the faults last, in simulated seconds.
    #[must_use]
    pub fn seconds(mut self, seconds: u64) -> Self {
        self.duration = Duration::from_secs(seconds);
        self
    }

    /// How many operations the clients send, together.
    #[must_use]
    pub fn operations(mut self, operations: u32) -> Self {
        self.operations = operations;
        self
    }

    /// Plants a bug, to see it caught.
    #[must_use]
    pub fn bug(mut self, bug: Option<Bug>) -> Self {
        self.bug = bug;
        self
    }

    /// Another state machine and what its clients do.
    #[must_use]
    pub fn clients(mut self, workload: impl Workload + 'static) -> Self {
        self.workload = Some(Box::new(workload));
        self
    }

    /// Shows every line of the trace as it happens.
    #[must_use]
    pub fn trace(mut self, line: impl FnMut(&str) + 'static) -> Self {
        self.trace = Some(Box::new(line));
        self
    }

    /// Runs it. An assertion that fails inside a replica is a failure like any other.
    #[must_use]
    pub fn run(self) -> Report {
        let Self {
            cell,
            seed,
            duration,
            operations,
            bug,
            workload,
            trace,
        } = self;
        let replay = replay((cell, seed), bug, (duration, operations));
        let workload =
            workload.unwrap_or_else(|| Box::new(Hammer::new(35, Freshness::Linearizable)));
        let mut world = World::new(cell, seed, (duration, operations), bug, workload, trace);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| world.run())) {
            world.fail("a replica's own assertions", words_of(panic.as_ref()));
        }
        let failed = world.failure.is_some();
        Report {
            seed,
            cell,
            mutation: bug,
            hash: world.trace.hash(),
            stats: world.stats(),
            failure: world.failure.take(),
            tail: if failed {
                world.trace.tail()
            } else {
                Vec::new()
            },
            replay,
        }
    }
}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Simulation({}, seed {})", self.cell, self.seed)
    }
}

/// In words, how to run the same again (with the default clients).
fn replay(
    (cell, seed): (Cell, u64),
    bug: Option<Bug>,
    (duration, operations): (Duration, u32),
) -> String {
    let bug = bug.map_or_else(String::new, |bug| format!(" --mutation {bug:?}"));
    let seconds = duration.as_secs();
    format!(
        "cargo run --release -p kvrep-core --features sim --example simulate-active -- --cell {cell} --seed {seed} --seconds {seconds} --operations {operations}{bug} --trace"
    )
}
