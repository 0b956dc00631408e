//! Runs the simulator of the lowest-id scheme: one seed, or many on several threads.
//!
//! ```text
//! cargo run --release -p kvrep-core --features sim --example simulate-lowest -- --seeds 1000
//! cargo run --release -p kvrep-core --features sim --example simulate-lowest -- --seed 7 --cell partitions --trace
//! ```
#![allow(
    clippy::disallowed_methods,
    reason = "a program: it shows how long it took"
)]

mod seeds;

use clap::Parser;
use kvrep_core::protocol::lowest::Mutation;
use kvrep_core::sim::lowest::{Cell, Report, Simulation};
use seeds::{Ran, Seeds, Shown, by_name, cell_named, in_turn, print_line, print_list, shown};
use std::process::ExitCode;

/// Simulates whole groups of the lowest-id scheme under faults, and checks every answer.
#[derive(Parser, Debug)]
#[command(name = "simulate-lowest", version)]
struct Arguments {
    #[command(flatten)]
    seeds: Seeds,
    /// One cell of the promise table, such as partitions; without it, all of them in turn.
    #[arg(long, value_parser = cell)]
    cell: Option<Cell>,
    /// Plants a bug, by its name.
    #[arg(long, value_parser = mutation)]
    mutation: Option<Mutation>,
    /// For how many periods of the ticks there are faults.
    #[arg(long, default_value_t = 200)]
    periods: u32,
    /// Prints the table of cells and promises, and the names of the bugs that can be planted.
    #[arg(long)]
    list: bool,
}

fn cell(name: &str) -> Result<Cell, String> {
    cell_named(Cell::all(), name)
}

fn mutation(name: &str) -> Result<Mutation, String> {
    by_name(&Mutation::ALL, name)
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let cells = Cell::all();
    if arguments.list {
        return print_list(&cells, |cell| cell.promise(), &Mutation::ALL);
    }
    arguments.seeds.run(|seed| run(&arguments, &cells, seed))
}

fn run(arguments: &Arguments, cells: &[Cell], seed: u64) -> Report {
    let cell = arguments.cell.unwrap_or_else(|| in_turn(cells, seed));
    let mut simulation = Simulation::new(cell, seed)
        .periods(arguments.periods)
        .mutation(arguments.mutation);
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
            ("asked", stats.asked),
            ("answered", stats.answered),
            ("doubled", stats.doubled),
            ("faults", stats.faults),
            ("starts", stats.starts),
            ("takeovers", stats.takeovers),
        ];
        shown(self, (stats.events, 0), numbers)
    }
}
