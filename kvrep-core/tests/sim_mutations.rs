//! The simulator is worth what it catches: every planted bug is found, and the same seed without it is clean.
#![cfg(feature = "sim")]

mod sim_support;

use kvrep_core::protocol::passive::Mutation;
use kvrep_core::sim::{Act, Cell, Report, Script, Simulation};
use std::time::Duration;

/// Where each bug shows. The search starts at seed 0, so these are bounds on how long it takes, not luck kept.
const SEEDS_MAX: u64 = 2_000;

fn cell_for(mutation: Mutation) -> Cell {
    let name = match mutation {
        Mutation::TruncateBelowCommit => "alone/wal/pauses",
        Mutation::PartingNotSought | Mutation::OriginIgnored => "alone/wal/partitions",
        Mutation::SilentWhileItHangs => "alone/wal/disks",
        // A stop that is no crash, where only crashes may happen: with a sleeper that listens first the promise holds all the same.
        Mutation::IntentNotDurable | Mutation::SleepNotNoticed | Mutation::LeaverNotAsked => {
            "alone/wal/crashes"
        }
        Mutation::ReadConfirmedByOne | Mutation::JoinerProposedEarly => "witness/memory/partitions",
        Mutation::RegentServes | Mutation::HomeInsists => "never/alone/memory/crashes",
        Mutation::DownMemberForgotten => "never-all/alone/wal/all",
        Mutation::LossUnbounded => "primary/witness/wal/partitions",
        Mutation::RefutedCounts => "on-request-primary/witness/wal/partitions",
        Mutation::ReleasedEarly => "never-all-append/alone/wal/all",
        Mutation::LeaseNotWaitedOut
        | Mutation::LeaseByAllButOne
        | Mutation::GrantForgotten
        | Mutation::LeaseFromAnswer => "lease/witness/wal/all",
        _ => "witness/wal/partitions",
    };
    Cell::named(name).unwrap()
}

/// What must happen for the bug to show, where random faults bring it about too rarely: everything but the moments and the
/// load, which the seed draws. The primary of a new group is number 1, the witness is number 4.
fn story(mutation: Mutation, seed: u64) -> Option<Script> {
    let wait = |millis| Act::Wait(Duration::from_millis(millis));
    let alone = [2, 3, 4].map(|n| [Act::Cut(1, n), Act::Cut(n, 1)]);
    let alone = alone.as_flattened();
    let moment = wait(1_000 + seed % 50);
    let (before, after): (Vec<Act>, Vec<Act>) = match mutation {
        // A backup dies when the primary is cut off, and takes over with its next life.
        Mutation::GrantForgotten => (vec![moment], vec![Act::Kill(2), Act::Start(2), wait(800)]),
        // The primary stops with answers in its inbox; when it goes on, another has taken over.
        Mutation::LeaseFromAnswer => (
            vec![moment, Act::Pause(1), wait(30)],
            vec![wait(2_000), Act::Resume(1), wait(500)],
        ),
        // The primary stops for longer than the others wait for it; clients' requests and the others' refusals wait at it.
        Mutation::SleepNotNoticed => {
            let acts = [
                moment,
                Act::Pause(1),
                wait(2_000),
                Act::Resume(1),
                wait(500),
            ];
            return Some(acts.into_iter().fold(Script::new(3), Script::act));
        }
        // A primary dies right after one has left, before that one hears that it did; nobody else lives.
        Mutation::LeaverNotAsked => {
            let acts = [
                moment,
                Act::Kill(3),
                wait(1_000),
                Act::Leave(2),
                wait(seed % 10),
                Act::Kill(1),
                wait(2_000),
                Act::Start(1),
                Act::Start(3),
                wait(500),
            ];
            return Some(acts.into_iter().fold(Script::new(3), Script::act));
        }
        // A backup must agree that a dead one is dropped, and its disk hangs; the primary goes on without it, and dies.
        Mutation::SilentWhileItHangs => {
            let acts = [
                wait(1_000),
                Act::SlowDisk(2, 250 + (seed % 8) as u32 * 50),
                Act::Kill(3),
                wait(600 + seed % 400),
                Act::Kill(1),
                wait(2_000),
                Act::Start(1),
                Act::Start(3),
                wait(500),
            ];
            return Some(acts.into_iter().fold(Script::new(3), Script::act));
        }
        // The one that has handed over does not hear of the new reign.
        Mutation::ReadsAfterHandover => (
            vec![wait(1_000), Act::Handover(1, 2), wait(seed % 40)],
            vec![wait(2_000)],
        ),
        _ => return None,
    };
    let acts = [&before, alone, &after, &[Act::Mend, wait(500)]].concat();
    Some(acts.into_iter().fold(Script::new(3), Script::act))
}

/// The first seed that catches the bug and is clean without it, and how it was caught.
fn hunt(mutation: Mutation) -> Option<Report> {
    let cell = cell_for(mutation);
    (0..SEEDS_MAX).find_map(|seed| {
        let simulation = || match story(mutation, seed) {
            Some(script) => Simulation::new(cell, seed).script(script),
            None => Simulation::new(cell, seed),
        };
        let run = || match mutation {
            Mutation::DigestNotCompared
            | Mutation::FaultyPrimaryStays
            | Mutation::RepairNotFenced
            | Mutation::RepairedBeforeDropped => simulation().disturbed(),
            _ => simulation(),
        };
        let caught = run().mutation(Some(mutation)).run();
        let clean = || run().run().failure.is_none();
        (caught.failure.is_some() && clean()).then_some(caught)
    })
}

#[test]
fn every_planted_bug_is_caught_within_two_thousand_seeds() {
    let missed = sim_support::missed(&Mutation::ALL, |bug| {
        let report = hunt(bug)?;
        let rule = report.failure?.rule;
        Some(format!("{} seed {}: {rule}", report.cell, report.seed))
    });
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
