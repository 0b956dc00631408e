//! Stories told step by step, and a search over all short stories that shrinks to the shortest that goes wrong.
#![cfg(feature = "sim")]

use kvrep_core::sim::{Act, Cell, Report, Script, Simulation};
use proptest::prelude::*;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

fn wait(millis: u64) -> Act {
    Act::Wait(Duration::from_millis(millis))
}

fn tell(cell: &str, members: u32, acts: &[Act]) -> (Report, Vec<String>) {
    let mut script = Script::new(members);
    for act in acts {
        script = script.act(*act);
    }
    let lines = Rc::new(RefCell::new(Vec::new()));
    let sink = lines.clone();
    let report = Simulation::new(Cell::named(cell).unwrap(), 5)
        .script(script)
        .operations(40)
        .trace(move |line| sink.borrow_mut().push(line.to_owned()))
        .run();
    report.expect_ok();
    let lines = lines.borrow().clone();
    (report, lines)
}

/// Whether lines with these words stand in the trace in this order.
fn stand_in_order(lines: &[String], words: &[&str]) {
    let mut lines = lines.iter();
    for word in words {
        assert!(
            lines.any(|line| line.contains(word)),
            "{word:?} does not come after what stands before it in {words:?}"
        );
    }
}

#[test]
fn a_killed_primary_is_replaced_and_comes_back_as_a_backup() {
    let (_, lines) = tell(
        "witness/wal/crashes",
        3,
        &[
            wait(1_000),
            Act::Kill(1),
            wait(2_000),
            Act::Start(1),
            wait(1_000),
        ],
    );
    stand_in_order(
        &lines,
        &[
            "n1: RoleChanged { role: Primary",
            "*** Kill(1)",
            "n1: is dead",
            "RoleChanged { role: Primary",
            "*** Start(1)",
            "n1: RoleChanged { role: Backup",
            "Joined(n1)",
        ],
    );
}

#[test]
fn a_primary_cut_off_from_its_backups_drops_them_through_the_witness_and_takes_them_back() {
    let (_, lines) = tell(
        "witness/wal/partitions",
        2,
        &[
            wait(1_000),
            Act::Cut(1, 2),
            Act::Cut(2, 1),
            wait(2_000),
            Act::Mend,
            wait(1_000),
        ],
    );
    stand_in_order(
        &lines,
        &[
            "*** Cut(2, 1)",
            "CompareAndSet",
            "Dropped(",
            "*** Mend",
            "Joined(",
        ],
    );
}

fn acts(members: u32) -> impl Strategy<Value = Vec<Act>> {
    let one = move || 1..=members + 1;
    let act = prop_oneof![
        3 => (1_u64..1_500).prop_map(wait),
        2 => one().prop_map(Act::Kill),
        1 => one().prop_map(Act::PowerOff),
        2 => one().prop_map(Act::Start),
        1 => one().prop_map(Act::Pause),
        1 => one().prop_map(Act::Resume),
        2 => (one(), one()).prop_map(|(a, b)| Act::Cut(a, b)),
        1 => Just(Act::Mend),
    ];
    prop::collection::vec(act, 0..24)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_to_a_small_group_with_a_witness_every_promise_holds(
        (members, acts) in (1_u32..=4).prop_flat_map(|m| (Just(m), acts(m))),
        seed in 0_u64..1_000,
        operations in 1_u32..80,
    ) {
        let mut script = Script::new(members);
        for act in acts {
            script = script.act(act);
        }
        let cell = Cell::named("witness/wal/all").unwrap();
        let report = Simulation::new(cell, seed).script(script).operations(operations).run();
        prop_assert!(report.failure.is_none(), "{report}");
    }

    #[test]
    fn whoever_crashes_in_a_small_group_alone_every_promise_holds(
        (members, acts) in (1_u32..=4).prop_flat_map(|m| (Just(m), acts(m))),
        seed in 0_u64..1_000,
        operations in 1_u32..80,
    ) {
        let mut script = Script::new(members);
        for act in acts {
            // Without a witness nothing is promised about cut links and pauses.
            if !matches!(act, Act::Pause(_) | Act::Cut(..)) {
                script = script.act(act);
            }
        }
        let cell = Cell::named("alone/wal/crashes").unwrap();
        let report = Simulation::new(cell, seed).script(script).operations(operations).run();
        prop_assert!(report.failure.is_none(), "{report}");
    }
}
