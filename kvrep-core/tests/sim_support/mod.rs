//! Runs many simulations on a few threads.

use kvrep_core::sim::{Cell, Report, Simulation};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Runs all of them, on two threads, and gives back the reports in the same order.
#[allow(unreachable_pub, reason = "shared by several test programs")]
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
