//! How many commands a second a group takes whose replicas live in one process: in-memory log, in-memory transport, an
//! empty command, each client waiting for its answer before the next command.

use clap::{Parser, ValueEnum};
use kvrep_benches::inprocess::{Failed, Load, Sessions, Until, measure};
use std::time::Duration;

/// Commands per second of a group in one process, for several numbers of clients, with and without sessions
#[derive(Parser)]
#[command(
    version,
    after_help = "Example:\n  inprocess --replicas 3 --clients 1,64,1024 --seconds 3"
)]
struct Args {
    /// Replicas in the group
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
    replicas: u32,
    /// Concurrent clients, one row each
    #[arg(long, value_delimiter = ',', default_value = "1,64,1024,4096")]
    clients: Vec<u32>,
    /// Whether commands belong to sessions (exactly once), one row each; without, a command is sent to the primary once
    #[arg(long, value_delimiter = ',', default_value = "off,on")]
    sessions: Vec<Switch>,
    /// Seconds measured per row, after half a second of warming up
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Instead of a time: commands of each client, to count instructions by
    #[arg(long, conflicts_with = "seconds")]
    each: Option<u64>,
    /// Worker threads (as many as there are processors by default)
    #[arg(long)]
    workers: Option<usize>,
    /// One JSON object per row
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Switch {
    Off,
    On,
}

fn main() -> Result<(), Failed> {
    let args = Args::parse();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(workers) = args.workers {
        runtime.worker_threads(workers.max(1));
    }
    runtime.enable_all().build()?.block_on(run(args))
}

async fn run(args: Args) -> Result<(), Failed> {
    let replicas = args.replicas;
    if !args.json {
        let (sessions, rate) = ("sessions", "commands/s");
        println!(
            "{:>9} {:>9} {sessions:>9} {rate:>14}",
            "replicas", "clients"
        );
    }
    let time = Until::Time(Duration::from_secs(args.seconds));
    let until = args.each.map_or(time, Until::Each);
    for &clients in &args.clients {
        for switch in &args.sessions {
            let (sessions, word) = match switch {
                Switch::Off => (Sessions::Off, "off"),
                Switch::On => (Sessions::On, "on"),
            };
            let load = Load {
                replicas,
                clients,
                sessions,
                until,
            };
            // As a task, so that it does not run beside the workers but on them.
            let rate = tokio::spawn(measure(load)).await??.rate();
            if args.json {
                println!(
                    "{{\"replicas\":{replicas},\"clients\":{clients},\"sessions\":\"{word}\",\"commands_per_s\":{rate:.0}}}"
                );
            } else {
                println!("{replicas:>9} {clients:>9} {word:>9} {rate:>14.0}");
            }
        }
    }
    Ok(())
}
