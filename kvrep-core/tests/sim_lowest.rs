//! The lowest-id scheme under everything that a network and machines do: every cell keeps its promise, planted bugs are caught, runs repeat.
#![cfg(feature = "sim")]

mod sim_support;

use kvrep_core::protocol::lowest::Mutation;
use kvrep_core::sim::lowest::{Cell, Report, Simulation, Stats};

const SEEDS: u64 = 500;

/// The search starts at seed 0, so this is a bound on how long it takes, not luck kept.
const SEEDS_MAX: u64 = 2_000;

#[test]
fn every_cell_keeps_its_promise() {
    let cells = Cell::all();
    let failed = sim_support::failures(SEEDS, |seed| {
        let cell = cells[usize::try_from(seed).unwrap() % cells.len()];
        let report = Simulation::new(cell, seed).run();
        report.failure.is_some().then(|| report.to_string())
    });
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

/// Where a bug shows.
fn cell_for(mutation: Mutation) -> &'static str {
    match mutation {
        Mutation::AnswersAtOnce
        | Mutation::SpeaksWhileItListens
        | Mutation::HigherCounts
        | Mutation::CountedOnTooLong
        | Mutation::CountedOnTooShort
        | Mutation::OnlyTheAnsweringSpeaks
        | Mutation::DecidedAtTicks => "crashes",
        Mutation::BacklogBelieved
        | Mutation::SleepUnnoticed
        | Mutation::AwakeByHearing
        | Mutation::DeafForTwoPeriods => "pauses",
        Mutation::OldLifeBelieved => "loss",
        other => unreachable!("{other:?} has a cell"),
    }
}

/// The first seed that catches the bug and is clean without it.
fn hunt(mutation: Mutation) -> Option<Report> {
    let cell = Cell::named(cell_for(mutation)).unwrap();
    (0..SEEDS_MAX).find_map(|seed| {
        let caught = Simulation::new(cell, seed).mutation(Some(mutation)).run();
        let clean = || Simulation::new(cell, seed).run().failure.is_none();
        (caught.failure.is_some() && clean()).then_some(caught)
    })
}

#[test]
fn every_planted_bug_is_caught_and_says_how_to_see_it_again() {
    let missed = sim_support::missed(&Mutation::ALL, |bug| {
        let report = hunt(bug)?;
        let (seed, cell) = (report.seed, report.cell);
        let again = format!(
            "simulate-lowest -- --cell {cell} --seed {seed} --periods 200 --mutation {bug:?}"
        );
        assert!(report.to_string().contains(&again), "{report}");
        Some(format!("{cell} seed {seed}: {}", report.failure?.rule))
    });
    assert!(
        missed.is_empty(),
        "not caught within {SEEDS_MAX} seeds: {missed:?}"
    );
}

/// What is checked happens: a rule about what never happens would prove nothing.
#[test]
fn runs_are_eventful_and_most_requests_are_answered() {
    let mut sum = Stats::default();
    for cell in Cell::all() {
        for seed in 0..10 {
            let stats = Simulation::new(cell, seed).run().stats;
            sum.asked += stats.asked;
            sum.answered += stats.answered;
            sum.doubled += stats.doubled;
            sum.takeovers += stats.takeovers;
        }
    }
    assert!(
        sum.answered > sum.asked / 2 && sum.answered < sum.asked,
        "{sum:?}"
    );
    assert!(sum.doubled > 0 && sum.takeovers > 100, "{sum:?}");
}

#[test]
fn a_seed_gives_the_same_run_again() {
    for cell in Cell::all() {
        let run = || Simulation::new(cell, 7).run();
        assert_eq!(
            (run().hash, run().stats),
            (run().hash, run().stats),
            "{cell}"
        );
    }
}
