//! The active scheme under everything that a broker and machines do: every cell keeps its promise, planted bugs are caught, runs repeat.
#![cfg(feature = "sim")]

use kvrep_core::protocol::active::Mutation;
use kvrep_core::sim::active::{Cell, Report, Simulation};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

const SEEDS: u64 = 506;

/// The search starts at seed 0, so this is a bound on how long it takes, not luck kept.
const SEEDS_MAX: u64 = 2_000;

fn on_both_cores(work: impl Fn() + Sync) {
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(&work);
        }
    });
}

#[test]
fn every_cell_keeps_its_promise() {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let cells = Cell::all();
    on_both_cores(|| {
        loop {
            let seed = next.fetch_add(1, Relaxed) as u64;
            if seed >= SEEDS {
                return;
            }
            let cell = cells[usize::try_from(seed).unwrap() % cells.len()];
            let report = Simulation::new(cell, seed).run();
            if report.failure.is_some() {
                failed.lock().unwrap().push(report.to_string());
            }
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

/// Where random faults show a bug. The others have stories of their own (`protocol/active/tests.rs`).
fn cell_for(mutation: Mutation) -> Option<&'static str> {
    Some(match mutation {
        Mutation::SwitchAtAnnounce
        | Mutation::SnapshotUntied
        | Mutation::ReplayRecentOnly
        | Mutation::ReadyOutOfBand
        | Mutation::DebtsNotInherited
        | Mutation::OwnFailureIgnored => "one/pauses",
        Mutation::AnswersNotHeld => "one/slow",
        Mutation::ConfirmedByAnything | Mutation::GivenUnasked => "most/all",
        Mutation::AccusesUnheard => "most/broker",
        Mutation::ObjectionIgnored => "one/extinction",
        Mutation::GenesisNotFirst
        | Mutation::DecidedAlone
        | Mutation::LastFencedAtOnce
        | Mutation::DecisionOnOldMark
        | Mutation::DebtsNotHandedOver
        | Mutation::ReceivedForAnswered
        | Mutation::NotVerified
        | Mutation::UnlistedBelieved => return None,
        other => unreachable!("{other:?} has a cell or a story"),
    })
}

/// The first seed that catches the bug and is clean without it.
fn hunt(mutation: Mutation, cell: Cell) -> Option<Report> {
    (0..SEEDS_MAX).find_map(|seed| {
        let caught = Simulation::new(cell, seed).mutation(Some(mutation)).run();
        let clean = || Simulation::new(cell, seed).run().failure.is_none();
        (caught.failure.is_some() && clean()).then_some(caught)
    })
}

#[test]
fn every_planted_bug_is_caught() {
    // An assertion inside a replica is one way to be caught; its message would only confuse.
    std::panic::set_hook(Box::new(|_| {}));
    let (next, missed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    on_both_cores(|| {
        while let Some(mutation) = Mutation::ALL.get(next.fetch_add(1, Relaxed)) {
            let Some(name) = cell_for(*mutation) else {
                continue;
            };
            match hunt(*mutation, Cell::named(name).unwrap()) {
                Some(report) => {
                    let failure = report.failure.unwrap();
                    println!(
                        "{mutation:?}: {name} seed {}: {}",
                        report.seed, failure.rule
                    );
                }
                None => missed.lock().unwrap().push(*mutation),
            }
        }
    });
    let _ = std::panic::take_hook();
    let missed = missed.into_inner().unwrap();
    assert!(
        missed.is_empty(),
        "not caught within {SEEDS_MAX} seeds: {missed:?}"
    );
}

#[test]
fn a_seed_gives_the_same_run_again() {
    for cell in Cell::all() {
        let run = || Simulation::new(cell, 7).seconds(10).operations(100).run();
        assert_eq!(
            (run().hash, run().stats),
            (run().hash, run().stats),
            "{cell}"
        );
    }
}
