//! Runs the simulator of the active scheme: one seed, or many on several threads.
//!
//! ```text
//! cargo run --release -p kvrep-core --features sim --example simulate-active -- --seeds 1000
//! cargo run --release -p kvrep-core --features sim --example simulate-active -- --seed 7 --cell most/broker --trace
//! ```
#![allow(
    clippy::disallowed_methods,
    reason = "a program: it shows how long it took"
)]

use clap::Parser;
use kvrep_core::protocol::active::Mutation;
use kvrep_core::sim::active::{Cell, Report, Simulation};
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Simulates whole groups of the active scheme, their broker and their clients, and checks every promise.
#[derive(Parser, Debug)]
#[command(name = "simulate-active", version)]
struct Arguments {
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many seeds, from the first on.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// One cell of the promise table, such as most/broker; without it, all of them in turn.
    #[arg(long, value_parser = cell)]
    cell: Option<Cell>,
    /// Plants a bug, by its name.
    #[arg(long, value_parser = mutation)]
    mutation: Option<Mutation>,
    /// Simulated seconds.
    #[arg(long, default_value_t = 40)]
    seconds: u64,
    /// Operations of all clients together.
    #[arg(long, default_value_t = 600)]
    operations: u32,
    /// Prints every line of the trace.
    #[arg(long)]
    trace: bool,
    /// Prints seed, cell and trace hash, to be compared between processes.
    #[arg(long)]
    hashes: bool,
    /// Threads.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    jobs: u8,
    /// Stops after this many failures.
    #[arg(long, default_value_t = 10)]
    failures_max: u64,
    /// Prints the table of cells and promises, and the names of the bugs that can be planted.
    #[arg(long)]
    list: bool,
}

fn cell(name: &str) -> Result<Cell, String> {
    let names = || {
        Cell::all()
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    };
    Cell::named(name).ok_or_else(|| format!("no such cell; there are {}", names()))
}

fn mutation(name: &str) -> Result<Mutation, String> {
    let known = || Mutation::ALL.map(|m| format!("{m:?}")).join(", ");
    let found = (Mutation::ALL.into_iter()).find(|m| format!("{m:?}").eq_ignore_ascii_case(name));
    found.ok_or_else(|| format!("no such bug; there are {}", known()))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        for cell in Cell::all() {
            println!("{:<20} {:?}", cell.to_string(), cell.promise());
        }
        for mutation in Mutation::ALL {
            println!("{mutation:?}");
        }
        return ExitCode::SUCCESS;
    }
    // An assertion inside a replica is reported with its trace; the panic's own message would come in between.
    std::panic::set_hook(Box::new(|_| {}));
    let started = Instant::now();
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let (send, reports) = mpsc::channel();
    let failed = std::thread::scope(|scope| {
        for _ in 0..arguments.jobs {
            let (send, next, stop, arguments) = (send.clone(), &next, &stop, &arguments);
            scope.spawn(move || {
                while !stop.load(Relaxed) {
                    let n = next.fetch_add(1, Relaxed);
                    if n >= arguments.seeds || send.send(run(arguments, n)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        show(&arguments, &reports, &stop, started)
    });
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("{} failed:", failed.len());
    for report in &failed {
        let rule = report.failure.as_ref().map_or("", |f| f.rule.as_str());
        eprintln!("  {rule}: {}", report.replay());
    }
    ExitCode::FAILURE
}

fn run(arguments: &Arguments, n: u64) -> Report {
    let seed = arguments.seed + n;
    let cell = arguments.cell.unwrap_or_else(|| {
        let all = Cell::all();
        all[usize::try_from(seed % all.len() as u64).unwrap_or(0)]
    });
    let mut simulation = Simulation::new(cell, seed)
        .seconds(arguments.seconds)
        .operations(arguments.operations)
        .mutation(arguments.mutation);
    if arguments.trace {
        simulation = simulation.trace(|line| {
            // Whoever reads the trace may have seen enough.
            if writeln!(std::io::stdout(), "{line}").is_err() {
                std::process::exit(0);
            }
        });
    }
    simulation.run()
}

fn show(
    arguments: &Arguments,
    reports: &mpsc::Receiver<Report>,
    stop: &AtomicBool,
    started: Instant,
) -> Vec<Report> {
    let (mut failed, mut done, mut events) = (Vec::new(), 0_u64, 0_u64);
    let (mut undecided, mut shown) = (0, Instant::now());
    for report in reports {
        done += 1;
        events += report.stats.events;
        undecided += report.stats.undecided;
        if arguments.hashes {
            println!("{} {} {:016x}", report.seed, report.cell, report.hash);
        } else if arguments.seeds == 1 {
            println!("{report}\n{:?} hash {:016x}", report.stats, report.hash);
        }
        if report.failure.is_some() {
            if !arguments.hashes && arguments.seeds > 1 {
                eprintln!("{report}\n");
            }
            failed.push(report);
            if failed.len() as u64 >= arguments.failures_max {
                stop.store(true, Relaxed);
            }
        }
        if arguments.seeds > 1
            && (done == arguments.seeds || shown.elapsed() > Duration::from_secs(2))
        {
            shown = Instant::now();
            eprintln!(
                "{done} of {} seeds, {:.0} a minute, {:.1} million events, {undecided} histories undecided, {} failed",
                arguments.seeds,
                done as f64 / started.elapsed().as_secs_f64() * 60.0,
                events as f64 / 1e6,
                failed.len()
            );
        }
    }
    failed
}
