//! Every cell of the promise table, some seeds each: what is promised holds.
#![cfg(feature = "sim")]

mod sim_support;

use kvrep_core::sim::{AuthorityKind, Cell, DetectorKind, Policy};
use sim_support::run_all;

fn check(seeds_a_cell: u64, cells: impl Fn(&Cell) -> bool) {
    let runs: Vec<_> = Cell::all()
        .into_iter()
        .filter(cells)
        .flat_map(|cell| (0..seeds_a_cell).map(move |seed| (cell, seed)))
        .collect();
    let reports = run_all(&runs);
    assert_eq!(reports.len(), runs.len());
    let failed: Vec<_> = reports.iter().filter(|r| r.failure.is_some()).collect();
    if let Some(first) = failed.first() {
        let replays: Vec<&str> = failed.iter().map(|r| r.replay()).collect();
        panic!(
            "{} of {} runs failed:\n{}\n\nthe first of them:\n{first}",
            failed.len(),
            runs.len(),
            replays.join("\n")
        );
    }
    // A test of the test: runs in which nothing happens would pass too.
    let sum =
        |n: fn(&kvrep_core::sim::Stats) -> u64| reports.iter().map(|r| n(&r.stats)).sum::<u64>();
    assert!(
        sum(|s| s.answered) > 900 * runs.len() as u64,
        "clients are answered"
    );
    assert!(
        sum(|s| s.reigns) > 3 * runs.len() as u64,
        "primaries change"
    );
    assert!(sum(|s| s.starts) > 10 * runs.len() as u64, "nodes restart");
    assert!(sum(|s| s.transfers) > 0, "snapshots are transferred");
}

fn is_standard(cell: &Cell) -> bool {
    cell.policy == Policy::STANDARD && cell.detector == DetectorKind::Fixed
}

#[test]
fn with_a_witness_every_promise_holds_under_every_fault() {
    check(39, |cell| {
        is_standard(cell) && cell.authority == AuthorityKind::Witness
    });
}

#[test]
fn without_a_witness_crashes_break_nothing_and_divergence_is_reported() {
    check(39, |cell| {
        is_standard(cell) && cell.authority == AuthorityKind::Alone
    });
}

#[test]
fn every_other_legal_choice_of_policies_keeps_its_promise() {
    check(4, |cell| {
        cell.policy != Policy::STANDARD && cell.detector == DetectorKind::Fixed
    });
}

#[test]
fn a_detector_that_learns_breaks_no_promise() {
    check(20, |cell| cell.detector == DetectorKind::Phi);
}
