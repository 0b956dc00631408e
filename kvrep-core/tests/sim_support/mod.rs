//! Runs many simulations on a few threads.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "shared by several test programs, each of which uses a part of it"
)]

use kvrep_core::sim::{Cell, Report, Simulation};
use std::fmt::Debug;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Runs all of them, on two threads, and gives back the reports in the same order.
pub fn run_all(runs: &[(Cell, u64)]) -> Vec<Report> {
    let next = AtomicUsize::new(0);
    let reports = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((cell, seed)) = runs.get(next.fetch_add(1, Relaxed)) {
                    let report = Simulation::new(*cell, *seed).run();
                    reports.lock().unwrap().push(report);
                }
            });
        }
    });
    let mut reports = reports.into_inner().unwrap();
    let place = |r: &Report| runs.iter().position(|run| *run == (r.cell, r.seed));
    reports.sort_by_key(place);
    reports
}

/// Runs `one` for each of these seeds, on two threads, and gives back what failed.
pub fn failures(seeds: u64, one: impl Fn(u64) -> Option<String> + Sync) -> Vec<String> {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    on_both_cores(|| {
        loop {
            let seed = next.fetch_add(1, Relaxed) as u64;
            if seed >= seeds {
                return;
            }
            if let Some(words) = one(seed) {
                failed.lock().unwrap().push(words);
            }
        }
    });
    failed.into_inner().unwrap()
}

/// Hunts each of these planted bugs, on two threads: `hunt` says how it was caught. Gives back those that were not.
pub fn missed<M: Copy + Debug + Send + Sync>(
    bugs: &[M],
    hunt: impl Fn(M) -> Option<String> + Sync,
) -> Vec<M> {
    // An assertion inside a replica is one way to be caught; its message would only confuse.
    std::panic::set_hook(Box::new(|_| {}));
    let (next, missed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    on_both_cores(|| {
        while let Some(bug) = bugs.get(next.fetch_add(1, Relaxed)) {
            match hunt(*bug) {
                Some(words) => println!("{bug:?}: {words}"),
                None => missed.lock().unwrap().push(*bug),
            }
        }
    });
    let _ = std::panic::take_hook();
    missed.into_inner().unwrap()
}

fn on_both_cores(work: impl Fn() + Sync) {
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(&work);
        }
    });
}
