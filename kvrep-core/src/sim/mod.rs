//! A deterministic simulator: a whole group, its disks, its network and its clients, in one thread and in virtual time.
//!
//! Replication is wrong in ways that no example shows: a message that is late, a disk that forgets, a primary that sleeps
//! through its own deposition. The simulator runs the protocol objects and the engine of production against everything
//! that may go wrong, a simulated minute in some tens of milliseconds, and looks after every event whether a promise was
//! broken. A run is a function of its seed and its [`Cell`]: a failure comes with the command that replays it.
//!
//! It is for your own state machine too: give [`Simulation::clients`] your machine and a function that draws commands
//! and queries ([`Clients`]), and it finds whether the machine is deterministic, whether its snapshots are complete, and
//! what its clients see while replicas come and go.
//!
//! ```
//! use kvrep_core::sim::{Cell, Simulation};
//! let cell = Cell::named("witness/wal/partitions").unwrap();
//! let report = Simulation::new(cell, 42).seconds(10).operations(200).run();
//! report.expect_ok();
//! let again = Simulation::new(cell, 42).seconds(10).operations(200).run();
//! assert_eq!(report.hash, again.hash);
//! ```
//!
//! # What is promised, and so checked
//!
//! | authority | medium | faults | promise |
//! |---|---|---|---|
//! | `Witness` | log on disk | crashes, power failures, partitions, pauses, bad disks, all together | everything |
//! | `Witness` | memory | crashes, partitions, pauses, while one member of the in-sync set lives | everything |
//! | `Alone` | log on disk | crashes, power failures, bad disks (not lost ones), no false suspicion | everything |
//! | `Alone` | memory | crashes, no false suspicion, while one member of the in-sync set lives | everything |
//! | `Alone` | log on disk | partitions, pauses | lost writes are reported; one history in the end |
//!
//! That is for the standard policies. Every other legal choice of [policies](crate::policy) has its cells, with the worst that it is
//! proof against (a fixed primary, for one, under everything without a witness); `simulate --list` shows them all.
//!
//! *Everything* is: prefix agreement, one primary per term, acknowledged means durable, commit is never truncated, a term
//! never goes back, tokens never go back, a command is carried out once, equal digests at equal positions (each a file
//! under [`invariants`]); and in the end, when everything is healed, every acknowledged write is there, clients' histories
//! are linearizable and keep the session guarantees, and the group serves and has converged. The table is
//! [`Cell::all`] and [`Cell::promise`].
//!
//! # Caveats
//!
//! What is not simulated is not checked: real threads, real sockets, the operating system. Messages arrive whole and unchanged or
//! not at all, as [`crate::transport`] demands. A run that passes proves nothing about the seeds that were not run.

pub mod active;
mod arrivals;
mod cell;
mod client;
mod clock;
mod cuts;
mod disk;
mod disturbance;
mod effects;
mod ending;
mod faults;
pub mod invariants;
mod kv;
mod ledger;
mod lives;
pub mod lowest;
mod members;
mod network;
mod node;
mod plan;
mod policy;
mod queue;
mod report;
mod schedules;
mod script;
mod service;
mod snapshots;
mod trace;
mod workload;
mod world;

pub use cell::{AuthorityKind, Cell, DetectorKind, Faults, Medium, Promise};
pub use ledger::CommandId;
pub use policy::{ConfirmKind, Policy, TakeoverKind};
pub use report::{Failure, Report, Stats};
pub use script::{Act, Script};
pub use workload::{Clients, Ending, Freshness, RunHistory, Seen, Step, Workload};

use crate::protocol::passive::Mutation;
use disturbance::Disturbances;
use invariants::Invariant;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use world::{Length, World};

/// One run, to be set up and started.
///
/// ```
/// use kvrep_core::sim::{Cell, Simulation};
///
/// // What happens, a line each, for somebody who wants to know how a run came to its end.
/// let cell = Cell::named("alone/memory/crashes").unwrap();
/// let run = Simulation::new(cell, 1).seconds(2).operations(20);
/// run.trace(|line| eprintln!("{line}")).run().expect_ok();
/// ```
pub struct Simulation {
    cell: Cell,
    seed: u64,
    length: Length,
    mutation: Option<Mutation>,
    workload: Option<Box<dyn Workload>>,
    rules: Vec<Box<dyn Invariant>>,
    script: Option<Script>,
    disturbances: Disturbances,
    every_line: Option<trace::Watcher>,
}

impl Simulation {
    /// A run of this cell with this seed: 60 simulated seconds, 1,000 operations, the default workload (registers and
    /// counters).
    #[must_use]
    pub fn new(cell: Cell, seed: u64) -> Self {
        Self {
            cell,
            seed,
            length: Length {
                duration: Duration::from_secs(60),
                operations: 1_000,
            },
            mutation: None,
            workload: None,
            rules: Vec::new(),
            script: None,
            disturbances: Disturbances::None,
            every_line: None,
        }
    }

    /// How long the faults last, in simulated seconds.
    #[must_use]
    pub fn seconds(mut self, seconds: u64) -> Self {
        self.length.duration = Duration::from_secs(seconds);
        self
    }

    /// How many operations the clients send, together.
    #[must_use]
    pub fn operations(mut self, operations: u32) -> Self {
        self.length.operations = operations;
        self
    }

    /// Plants a bug, to see it caught.
    #[must_use]
    pub fn mutation(mut self, mutation: Option<Mutation>) -> Self {
        self.mutation = mutation;
        self
    }

    /// Another state machine and what its clients do.
    #[must_use]
    pub fn clients(mut self, workload: impl Workload + 'static) -> Self {
        self.workload = Some(Box::new(workload));
        self
    }

    /// One more rule.
    #[must_use]
    pub fn invariant(mut self, rule: impl Invariant + 'static) -> Self {
        self.rules.push(Box::new(rule));
        self
    }

    /// What goes wrong, and when, instead of random faults. The run is as long as the script.
    #[must_use]
    pub fn script(mut self, script: Script) -> Self {
        self.script = Some(script);
        self
    }

    /// Instead of the faults of the cell, the memory of one replica (of at least three) is damaged now and then: its state
    /// changes, its log does not. The group must find it out and repair it ([`Workload::disturbance`] says how the state is
    /// changed).
    #[must_use]
    pub fn disturbed(mut self) -> Self {
        self.disturbances = Disturbances::NowAndThen;
        self
    }

    /// Shows every line of the trace as it happens.
    #[must_use]
    pub fn trace(mut self, line: impl FnMut(&str) + 'static) -> Self {
        self.every_line = Some(Box::new(line));
        self
    }

    /// Runs it. An assertion that fails inside a replica is a failure like any other (the panic hook is called, so its
    /// message is also on standard error).
    #[must_use]
    pub fn run(self) -> Report {
        let Self {
            cell,
            seed,
            length,
            mutation,
            workload,
            rules,
            script,
            disturbances,
            every_line,
        } = self;
        let own_parts = workload.is_some() || !rules.is_empty() || script.is_some();
        let replay = report::replay((cell, seed), mutation, &length, own_parts, disturbances);
        let mut world = World::new(
            (cell, seed),
            length,
            mutation,
            |plan| {
                workload.unwrap_or_else(|| Box::new(kv::Hammer::new(plan.queries, plan.freshest())))
            },
            rules,
            (script, disturbances, every_line),
        );
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| world.run())) {
            world.fail("a replica's own assertions", words_of(panic.as_ref()));
        }
        let tail = if world.failure.is_some() {
            world.trace.tail()
        } else {
            Vec::new()
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

/// What an assertion that failed had to say.
fn words_of(panic: &(dyn Any + Send)) -> String {
    let owned = panic.downcast_ref::<String>().cloned();
    let text = owned.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
    text.unwrap_or_else(|| "a panic without words".into())
}

/// What a node is called in traces.
fn node_name(node: usize, members: usize) -> String {
    world::node_id(node, members).to_string()
}
