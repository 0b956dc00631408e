//! The simulator is worth what it catches: every planted bug is found, and the same seed without it is clean.
#![cfg(feature = "sim")]

use kvrep_core::protocol::passive::Mutation;
use kvrep_core::sim::{Cell, Report, Simulation};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Where each bug shows. The search starts at seed 0, so these are bounds on how long it takes, not luck kept.
const SEEDS_MAX: u64 = 2_000;

fn cell_for(mutation: Mutation) -> Cell {
    let name = match mutation {
        Mutation::TruncateBelowCommit => "alone/wal/pauses",
        Mutation::IntentNotDurable => "alone/wal/crashes",
        Mutation::ReadConfirmedByOne | Mutation::JoinerProposedEarly => "witness/memory/partitions",
        Mutation::RegentServes | Mutation::HomeInsists => "never/alone/memory/crashes",
        Mutation::DownMemberForgotten => "never-all/alone/wal/all",
        Mutation::LossUnbounded => "primary/witness/wal/partitions",
        Mutation::ReleasedEarly => "never-all-append/alone/wal/all",
        Mutation::LeaseNotWaitedOut | Mutation::LeaseByAllButOne => "lease/witness/wal/all",
        _ => "witness/wal/partitions",
    };
    Cell::named(name).unwrap()
}

/// The first seed that catches the bug and is clean without it, and how it was caught.
fn hunt(mutation: Mutation) -> Option<Report> {
    let cell = cell_for(mutation);
    (0..SEEDS_MAX).find_map(|seed| {
        let run = || match mutation {
            Mutation::DigestNotCompared
            | Mutation::FaultyPrimaryStays
            | Mutation::RepairedBeforeDropped => Simulation::new(cell, seed).disturbed(),
            _ => Simulation::new(cell, seed),
        };
        let caught = run().mutation(Some(mutation)).run();
        let clean = || run().run().failure.is_none();
        (caught.failure.is_some() && clean()).then_some(caught)
    })
}

#[test]
fn every_planted_bug_is_caught_within_two_thousand_seeds() {
    // Assertions inside replicas are among what catches; their messages are not wanted here.
    std::panic::set_hook(Box::new(|_| {}));
    let next = AtomicUsize::new(0);
    let missed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(mutation) = Mutation::ALL.get(next.fetch_add(1, Relaxed)) {
                    match hunt(*mutation) {
                        Some(report) => println!(
                            "{mutation:?}: seed {} in {}: {}",
                            report.seed,
                            report.cell,
                            report.failure.map_or_else(String::new, |f| f.rule)
                        ),
                        None => missed.lock().unwrap().push(*mutation),
                    }
                }
            });
        }
    });
    let _ = std::panic::take_hook();
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
