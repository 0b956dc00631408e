//! Runs the simulator from the command line: one seed, or many on several threads.
//!
//! ```text
//! cargo run --release -p kvrep-core --features sim --example simulate -- --seeds 1000
//! cargo run --release -p kvrep-core --features sim --example simulate -- --seed 7 --cell alone/wal/crashes --trace
//! ```
#![allow(
    clippy::disallowed_methods,
    reason = "a program: it shows how long it took"
)]

mod seeds;

use clap::Parser;
use kvrep_core::protocol::passive::Mutation;
use kvrep_core::sim::{Cell, Report, Simulation};
use seeds::{Ran, Seeds, Shown, by_name, cell_named, in_turn, print_line, print_list, shown};
use std::process::ExitCode;

/// Simulates whole groups under faults and checks every promise.
#[derive(Parser, Debug)]
#[command(name = "simulate", version)]
struct Arguments {
    #[command(flatten)]
    seeds: Seeds,
    /// One cell of the promise table, such as witness/wal/partitions; without it, all of them in turn.
    #[arg(long, value_parser = cell)]
    cell: Option<Cell>,
    /// Only the cells whose names contain this, in turn.
    #[arg(long, default_value = "")]
    matching: String,
    /// Plants a bug, by its name.
    #[arg(long, value_parser = mutation)]
    mutation: Option<Mutation>,
    /// Damages the memory of replicas now and then, instead of the cell's faults.
    #[arg(long)]
    disturbed: bool,
    /// Simulated seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Operations of all clients together.
    #[arg(long, default_value_t = 1_000)]
    operations: u32,
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
    let mut cells = Cell::all();
    if arguments.list {
        return print_list(&cells, |cell| cell.promise(), &Mutation::ALL);
    }
    cells.retain(|cell| cell.to_string().contains(&arguments.matching));
    if cells.is_empty() {
        eprintln!(
            "no cell's name contains {:?}; see --list",
            arguments.matching
        );
        return ExitCode::FAILURE;
    }
    arguments.seeds.run(|seed| run(&arguments, &cells, seed))
}

fn run(arguments: &Arguments, cells: &[Cell], seed: u64) -> Report {
    let cell = arguments.cell.unwrap_or_else(|| in_turn(cells, seed));
    let mut simulation = Simulation::new(cell, seed)
        .seconds(arguments.seconds)
        .operations(arguments.operations)
        .mutation(arguments.mutation);
    if arguments.disturbed {
        simulation = simulation.disturbed();
    }
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
            ("faults", stats.faults),
            ("starts", stats.starts),
            ("reigns", stats.reigns),
            ("transfers", stats.transfers),
            ("truncations", stats.truncations),
            ("losses", stats.losses),
            ("undecided", stats.undecided),
            ("entries", stats.entries),
        ];
        shown(self, (stats.events, stats.undecided), numbers)
    }
}
