//! The simulator of the [lowest-id scheme](crate::protocol::lowest): replicas with clocks of their own, the network between them, and what is asked of
//! all of them, in virtual time.
//!
//! Every request goes to every replica, as over multicast; each answers, or names who it expects to answer. Their clocks start anywhere and run up to 2 %
//! wrong. What each replica was told, and when by its own clock, is kept beside it, and every answer is judged by that at once.
//!
//! With *K* for the periods after which a silent replica is not counted on any more (2, unless configured), every cell promises of every replica:
//!
//! | rule | |
//! |---|---|
//! | nobody answers over one that lives | not within *K* periods of hearing a lower one |
//! | who is expected lives | it is a lower one, of a life that is not over, heard less than *K* + 1 periods ago and not out of what waited during a sleep |
//! | somebody takes over | who has heard nobody lower for *K* + 1 periods, and ran for three, answers |
//! | listening | nobody answers in its first two periods, nor in the two after a sleep, nor when it has not ticked for two |
//! | no gap when a lower one returns | who has said since its start, or a sleep, that it lives, answers what is asked from then on, or names who does; and nobody answers before |
//! | one answer a life | to one request |
//! | in the end | of those that live the lowest answers every request, alone, and all others expect it |
//!
//! And by what goes wrong ([`Cell::promise`]): with crashes only, each request is answered once at most, but for those that are on their way when a lower one begins to
//! say that it lives; where nothing is lost, one that has said for two
//! periods to another, over a link that is not cut, that it lives is not answered over: one a side of a partition, also of a one-way one. Excepted is, and
//! so allowed, what was asked while a replica slept for at most two periods: it cannot know that it did.
//!
//! ```
//! use kvrep_core::sim::lowest::{Cell, Simulation};
//! let cell = Cell::named("partitions").unwrap();
//! let report = Simulation::new(cell, 42).run();
//! report.expect_ok();
//! assert_eq!(report.hash, Simulation::new(cell, 42).run().hash);
//! ```

mod cell;
mod faults;
mod judge;
mod lives;
mod node;
mod world;

pub use cell::{Cell, Promise};

use super::trace::Watcher;
use super::words_of;
use crate::protocol::lowest::Mutation;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use world::World;

pub use super::report::Failure;

/// One run, to be set up and started.
pub struct Simulation {
    cell: Cell,
    seed: u64,
    periods: u32,
    mutation: Option<Mutation>,
    trace: Option<Watcher>,
}

/// Numbers of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Events executed.
    pub events: u64,
    /// Requests.
    pub asked: u64,
    /// Of them, answered.
    pub answered: u64,
    /// Of them, answered by more than one replica.
    pub doubled: u64,
    /// Faults caused.
    pub faults: u64,
    /// Starts of replicas, the first ones included.
    pub starts: u64,
    /// How often another replica answered than the time before.
    pub takeovers: u64,
}

/// What came of a run.
pub type Report = super::report::Report<Cell, Mutation, Stats>;

impl Simulation {
    /// A run of this cell with this seed: faults for 200 periods.
    #[must_use]
    pub fn new(cell: Cell, seed: u64) -> Self {
        Self {
            cell,
            seed,
            periods: 200,
            mutation: None,
            trace: None,
        }
    }

    /// For how many periods of the ticks there are faults. Two requests are made in each, on average.
    #[must_use]
    pub fn periods(mut self, periods: u32) -> Self {
        self.periods = periods;
        self
    }

    /// Plants a bug, to see it caught.
    #[must_use]
    pub fn mutation(mut self, mutation: Option<Mutation>) -> Self {
        self.mutation = mutation;
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
            periods,
            mutation,
            trace,
        } = self;
        let bug = mutation.map_or_else(String::new, |bug| format!(" --mutation {bug:?}"));
        let replay = format!(
            "cargo run --release -p kvrep-core --features sim --example simulate-lowest -- --cell {cell} --seed {seed} --periods {periods}{bug} --trace"
        );
        let mut world = World::new(cell, seed, periods, mutation, trace);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| world.run())) {
            world.fail("a replica's own assertions", words_of(panic.as_ref()));
        }
        let tail = match world.failure {
            Some(_) => world.trace.tail(),
            None => Vec::new(),
        };
        Report {
            seed,
            cell,
            mutation,
            hash: world.trace.hash(),
            stats: world.stats(),
            failure: world.failure.take(),
            tail,
            replay,
        }
    }
}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Simulation({}, seed {})", self.cell, self.seed)
    }
}
