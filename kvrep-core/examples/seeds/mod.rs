//! What every program that simulates does: seeds on several threads, the progress of it, and what failed with the command that replays it.

use clap::Args;
use kvrep_core::sim::Report;
use std::fmt::{Debug, Display};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Which seeds, and what is shown of them.
#[derive(Args, Debug)]
pub(crate) struct Seeds {
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// How many seeds, from the first on.
    #[arg(long, default_value_t = 1)]
    pub(crate) seeds: u64,
    /// Prints every line of the trace.
    #[arg(long)]
    pub(crate) trace: bool,
    /// Prints seed, cell and trace hash, to be compared between processes.
    #[arg(long)]
    pub(crate) hashes: bool,
    /// One JSON object per seed on standard output.
    #[arg(long)]
    pub(crate) json: bool,
    /// Threads.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) jobs: u8,
    /// Stops after this many failures.
    #[arg(long, default_value_t = 10)]
    pub(crate) failures_max: u64,
}

/// What is shown of one run.
pub(crate) struct Shown {
    pub(crate) seed: u64,
    pub(crate) cell: String,
    pub(crate) hash: u64,
    pub(crate) events: u64,
    pub(crate) undecided: u64,
    pub(crate) stats: String,
    /// Its numbers, as fields of a JSON object.
    pub(crate) numbers: Vec<(&'static str, u64)>,
    pub(crate) failure: Option<Broken>,
}

/// A broken rule, and how to see it again.
pub(crate) struct Broken {
    pub(crate) at_seconds: f64,
    pub(crate) rule: String,
    pub(crate) detail: String,
    pub(crate) replay: String,
}

/// What is shown of a report.
pub(crate) fn shown<C: Display, M, S: Debug>(
    report: &Report<C, M, S>,
    (events, undecided): (u64, u64),
    numbers: Vec<(&'static str, u64)>,
) -> Shown {
    Shown {
        seed: report.seed,
        cell: report.cell.to_string(),
        hash: report.hash,
        events,
        undecided,
        stats: format!("{:?}", report.stats),
        numbers,
        failure: report.failure.as_ref().map(|failure| Broken {
            at_seconds: failure.at.as_nanos() as f64 / 1e9,
            rule: failure.rule.clone(),
            detail: failure.detail.clone(),
            replay: report.replay().to_owned(),
        }),
    }
}

/// Something that was run, in words by its `Display`.
pub(crate) trait Ran: Display + Send {
    fn shown(&self) -> Shown;
}

/// What of these has this name (in any case).
pub(crate) fn by_name<T: Debug + Copy>(all: &[T], name: &str) -> Result<T, String> {
    let same = |one: &&T| format!("{one:?}").eq_ignore_ascii_case(name);
    let known = || {
        let names: Vec<_> = all.iter().map(|one| format!("{one:?}")).collect();
        names.join(", ")
    };
    let found = all.iter().find(same).copied();
    found.ok_or_else(|| format!("no such bug; there are {}", known()))
}

/// The cell of this name.
pub(crate) fn cell_named<C: Display>(all: Vec<C>, name: &str) -> Result<C, String> {
    let names: Vec<_> = all.iter().map(ToString::to_string).collect();
    let found = all.into_iter().zip(&names).find(|(_, one)| *one == name);
    let unknown = || format!("no such cell; there are {}", names.join(", "));
    found.map(|(cell, _)| cell).ok_or_else(unknown)
}

/// Prints the table of cells and promises, and the names of the bugs that can be planted.
pub(crate) fn print_list<C: Display, P: Debug>(
    cells: &[C],
    promise: impl Fn(&C) -> P,
    bugs: &[impl Debug],
) -> ExitCode {
    let names: Vec<_> = cells.iter().map(ToString::to_string).collect();
    let width = names.iter().map(String::len).max().unwrap_or(0);
    for (cell, name) in cells.iter().zip(&names) {
        print_line(&format!("{name:<width$} {:?}", promise(cell)));
    }
    for bug in bugs {
        print_line(&format!("{bug:?}"));
    }
    ExitCode::SUCCESS
}

/// The cell that this seed is for, where all take turns.
pub(crate) fn in_turn<T: Copy>(all: &[T], seed: u64) -> T {
    all[usize::try_from(seed % all.len() as u64).unwrap_or(0)]
}

/// A line of the trace. Whoever reads it may have seen enough.
pub(crate) fn print_line(line: &str) {
    use std::io::Write as _;
    if writeln!(std::io::stdout(), "{line}").is_err() {
        std::process::exit(0);
    }
}

impl Seeds {
    /// Runs `one` for each of them.
    pub(crate) fn run<R: Ran>(&self, one: impl Fn(u64) -> R + Sync) -> ExitCode {
        // An assertion inside a replica is reported with its trace; the panic's own message would come in between.
        std::panic::set_hook(Box::new(|_| {}));
        let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let (send, reports) = mpsc::channel();
        let failed = std::thread::scope(|scope| {
            for _ in 0..self.jobs {
                let (send, next, stop, one) = (send.clone(), &next, &stop, &one);
                scope.spawn(move || {
                    while !stop.load(Relaxed) {
                        let n = next.fetch_add(1, Relaxed);
                        if n >= self.seeds || send.send(one(self.seed + n)).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(send);
            self.show(&reports, &stop)
        });
        if failed.is_empty() {
            return ExitCode::SUCCESS;
        }
        eprintln!("{} failed:", failed.len());
        for Broken { rule, replay, .. } in &failed {
            eprintln!("  {rule}: {replay}");
        }
        ExitCode::FAILURE
    }

    fn show<R: Ran>(&self, reports: &mpsc::Receiver<R>, stop: &AtomicBool) -> Vec<Broken> {
        let started = Instant::now();
        let (mut failed, mut done, mut events, mut undecided) = (Vec::new(), 0_u64, 0_u64, 0_u64);
        let mut last_line = Instant::now();
        for report in reports {
            let shown = report.shown();
            done += 1;
            events += shown.events;
            undecided += shown.undecided;
            if self.json {
                println!("{}", json(&shown));
            } else if self.hashes {
                println!("{} {} {:016x}", shown.seed, shown.cell, shown.hash);
            } else if self.seeds == 1 {
                println!("{report}\n{} hash {:016x}", shown.stats, shown.hash);
            }
            if let Some(broken) = shown.failure {
                if !self.json && !self.hashes && self.seeds > 1 {
                    eprintln!("{report}\n");
                }
                failed.push(broken);
                if failed.len() as u64 >= self.failures_max {
                    stop.store(true, Relaxed);
                }
            }
            let due = done == self.seeds || last_line.elapsed() > Duration::from_secs(2);
            if self.seeds > 1 && due {
                last_line = Instant::now();
                eprintln!(
                    "{done} of {} seeds, {:.0} a minute, {:.1} million events, {undecided} histories undecided, {} failed",
                    self.seeds,
                    done as f64 / started.elapsed().as_secs_f64() * 60.0,
                    events as f64 / 1e6,
                    failed.len()
                );
            }
        }
        failed
    }
}

fn json(shown: &Shown) -> String {
    let failure = shown.failure.as_ref().map_or_else(
        || "null".into(),
        |broken| {
            format!(
                r#"{{"at_seconds":{:.6},"rule":{:?},"detail":{:?}}}"#,
                broken.at_seconds, broken.rule, broken.detail
            )
        },
    );
    let numbers = shown.numbers.iter();
    let numbers: String = numbers
        .map(|(name, n)| format!(r#""{name}":{n},"#))
        .collect();
    format!(
        r#"{{"seed":{},"cell":"{}","hash":"{:016x}",{numbers}"failure":{failure}}}"#,
        shown.seed, shown.cell, shown.hash
    )
}
