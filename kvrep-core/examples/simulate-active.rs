//! Runs the simulator of the active scheme: one seed, or many on several threads.
//!
//! ```text
//! cargo run --release -p kvrep-core --features sim --example simulate-active -- --seeds 1000
//! cargo run --release -p kvrep-core --features sim --example simulate-active -- --seed 7 --cell most/broker --trace
//! cargo run --release -p kvrep-core --features sim --example simulate-active -- --seeds 1000 --order log
//! ```
#![allow(
    clippy::disallowed_methods,
    reason = "a program: it shows how long it took"
)]

mod seeds;

use clap::{Parser, ValueEnum};
use kvrep_core::sim::active::{Bug, Cell, Order, Report, Simulation};
use seeds::{Ran, Seeds, Shown, by_name, cell_named, in_turn, print_line, print_list, shown};
use std::process::ExitCode;

/// Simulates whole groups of the active scheme, their broker and their clients, and checks every promise.
#[derive(Parser, Debug)]
#[command(name = "simulate-active", version)]
struct Arguments {
    #[command(flatten)]
    seeds: Seeds,
    /// One cell of the promise table, such as most/broker; without it, all of them in turn.
    #[arg(long, value_parser = cell)]
    cell: Option<Cell>,
    /// Only the cells in which this keeps the order; without it, all of them.
    #[arg(long, value_enum, conflicts_with = "cell")]
    order: Option<Keeper>,
    /// Plants a bug, by its name.
    #[arg(long, value_parser = bug)]
    mutation: Option<Bug>,
    /// Simulated seconds.
    #[arg(long, default_value_t = 40)]
    seconds: u64,
    /// Operations of all clients together.
    #[arg(long, default_value_t = 600)]
    operations: u32,
    /// Prints the table of cells and promises, and the names of the bugs that can be planted.
    #[arg(long)]
    list: bool,
}

/// Who keeps the order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Keeper {
    /// A broker.
    Broker,
    /// The passive scheme's log.
    Log,
}

impl From<Keeper> for Order {
    fn from(keeper: Keeper) -> Self {
        match keeper {
            Keeper::Broker => Self::Broker,
            Keeper::Log => Self::Log,
        }
    }
}

fn cell(name: &str) -> Result<Cell, String> {
    cell_named(Cell::all(), name)
}

fn bug(name: &str) -> Result<Bug, String> {
    by_name(&Bug::all(), name)
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut cells = Cell::all();
    let wanted = arguments.order.map(Order::from);
    cells.retain(|cell| wanted.is_none_or(|order| cell.order == order));
    if arguments.list {
        return print_list(&cells, |cell| cell.promise(), &Bug::all());
    }
    arguments.seeds.run(|seed| run(&arguments, &cells, seed))
}

fn run(arguments: &Arguments, cells: &[Cell], seed: u64) -> Report {
    let cell = arguments.cell.unwrap_or_else(|| in_turn(cells, seed));
    let mut simulation = Simulation::new(cell, seed)
        .seconds(arguments.seconds)
        .operations(arguments.operations)
        .bug(arguments.mutation);
    if arguments.seeds.trace {
        simulation = simulation.trace(print_line);
    }
    simulation.run()
}

impl Ran for Report {
    fn shown(&self) -> Shown {
        let stats = &self.stats;
        let numbers = vec![
            ("events", stats.events),
            ("answered", stats.answered),
            ("given_up", stats.given_up),
            ("faults", stats.faults),
            ("starts", stats.starts),
            ("fenced", stats.fenced),
            ("decisions", stats.decisions),
            ("losses", stats.losses),
            ("undecided", stats.undecided),
        ];
        shown(self, (stats.events, stats.undecided), numbers)
    }
}
