//! `systems`: what the example systems' servers carry with clients on their own wire, beside the bare library.
//!
//! Contestants take turns within one run, so that what else the machine does meets all of them; what counts is the share, not the
//! figures. A system adds a file that prints its rows.

mod docstore;
mod relay;
mod table;
mod zk;

use clap::{Parser, ValueEnum};
use kvrep_benches::load::Turns;
use kvrep_benches::program::measured;
use std::process::ExitCode;
use tokio::runtime::Builder;

/// What the example systems' servers carry, beside the bare library, with real processes on this machine.
#[derive(Parser)]
#[command(name = "systems", version, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    /// Only this system [default: all]
    #[arg(long, value_enum)]
    only: Option<System>,
    /// Concurrent clients
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100))]
    clients: u32,
    #[command(flatten)]
    turns: Turns,
}

const EXAMPLES: &str = "\
Examples:
  cargo build --release -p kvrep-examples -p kvrep-benches --bins
  target/release/systems
  target/release/systems --only table --clients 1

The servers are the programs that lie beside this one. Exit code: 0, or 1 if something could not be measured.";

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum System {
    /// The primary-backup table
    Table,
    /// The document store
    Docstore,
    /// The Zookeeper-like store
    Zk,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let plan = cli.turns.plan(cli.clients);
    // One thread drives any number of connections with the least work.
    measured("systems", &mut Builder::new_current_thread(), async {
        let wanted = |system| cli.only.is_none_or(|only| only == system);
        if wanted(System::Table) {
            table::measure(&plan).await?;
        }
        if wanted(System::Docstore) {
            docstore::measure(&plan).await?;
        }
        if wanted(System::Zk) {
            zk::measure(&plan).await?;
        }
        Ok(())
    })
}
