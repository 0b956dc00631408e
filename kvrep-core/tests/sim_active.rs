//! The active scheme under everything that a broker and machines do: every cell keeps its promise, planted bugs are caught, runs repeat.
#![cfg(feature = "sim")]

mod sim_support;

use kvrep_core::protocol::active::Mutation;
use kvrep_core::sim::active::{Bug, Cell, Order, Report, Simulation};
use kvrep_core::stream::log;

const SEEDS: u64 = 506;

/// The search starts at seed 0, so this is a bound on how long it takes, not luck kept.
const SEEDS_MAX: u64 = 2_000;

fn keep_their_promises(order: Order, seconds: u64, operations: u32) {
    let mut cells = Cell::all();
    cells.retain(|cell| cell.order == order);
    let failed = sim_support::failures(SEEDS, |seed| {
        let cell = cells[usize::try_from(seed).unwrap() % cells.len()];
        let run = Simulation::new(cell, seed).seconds(seconds);
        let report = run.operations(operations).run();
        report.failure.is_some().then(|| report.to_string())
    });
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

#[test]
fn every_cell_keeps_its_promise() {
    keep_their_promises(Order::Broker, 40, 600);
}

#[test]
fn every_cell_over_a_log_keeps_its_promise() {
    keep_their_promises(Order::Log, 25, 400);
}

/// Where random faults show a bug. The others have stories of their own (`protocol/active/tests.rs`).
fn cell_for(bug: Bug) -> Option<&'static str> {
    let mutation = match bug {
        Bug::Scheme(mutation) => mutation,
        Bug::Stream(log::Mutation::GapUnsaid | log::Mutation::Shuffled) => {
            return Some("log/most/pauses");
        }
        Bug::Stream(_) => return Some("log/one/crashes"),
    };
    Some(match mutation {
        Mutation::SwitchAtAnnounce
        | Mutation::SnapshotUntied
        | Mutation::ReplayRecentOnly
        | Mutation::ReadyOutOfBand
        | Mutation::DebtsNotInherited
        | Mutation::OwnFailureIgnored => "one/pauses",
        Mutation::AnswersNotHeld => "one/slow",
        Mutation::ConfirmedByAnything => "most/all",
        Mutation::GivenUnasked => "log/most/pauses",
        Mutation::AccusesUnheard => "most/broker",
        Mutation::RivalIgnored => "one/extinction",
        // (Where nobody objects, the history that began anew yields later, as the shorter one.)
        Mutation::ObjectionIgnored
        | Mutation::GenesisNotFirst
        | Mutation::DecidedAlone
        | Mutation::LastFencedAtOnce
        | Mutation::DecisionOnOldMark
        | Mutation::DebtsNotHandedOver
        | Mutation::ReceivedForAnswered
        | Mutation::NotVerified
        | Mutation::UnlistedBelieved
        | Mutation::StartsUnheard
        | Mutation::EndsWithTheState
        | Mutation::LossSinceAgreement
        | Mutation::JoinsOverGap
        | Mutation::GivenOverGap => return None,
        other => unreachable!("{other:?} has a cell or a story"),
    })
}

/// The first seed that catches the bug and is clean without it.
fn hunt(bug: Bug, cell: Cell) -> Option<Report> {
    (0..SEEDS_MAX).find_map(|seed| {
        let caught = Simulation::new(cell, seed).bug(Some(bug)).run();
        let clean = || Simulation::new(cell, seed).run().failure.is_none();
        (caught.failure.is_some() && clean()).then_some(caught)
    })
}

#[test]
fn every_planted_bug_is_caught() {
    let mut bugs = Bug::all();
    bugs.retain(|bug| cell_for(*bug).is_some());
    let missed = sim_support::missed(&bugs, |bug| {
        let report = hunt(bug, Cell::named(cell_for(bug)?).unwrap())?;
        let rule = report.failure.unwrap().rule;
        Some(format!("{} seed {}: {rule}", report.cell, report.seed))
    });
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
