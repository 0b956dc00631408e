//! The table of system 3 in the simulator, under its own policies: messages lost, doubled and reordered, crashes, pauses,
//! partitions. Replicas stay equal, every client reads its own writes, and no timestamp is given twice.

use kvrep_core::sim::{Cell, Clients, Freshness, Simulation, Step};
use kvrep_examples::zk_like_kv::table::{Ask, Change, Table};

const CELL: &str = "never-all-append/alone/wal/all";

#[test]
fn r3_1_c3_3_replicas_stay_equal_whatever_is_lost_doubled_late_or_started_again() {
    let cell = Cell::named(CELL).expect("the policies of this system have a cell");
    let mut answered = 0;
    for seed in 0..40 {
        let clients = Clients::new(Table::default, |random, _| {
            let key = format!("k{}", random.below(3));
            match random.below(3) {
                0 => Step::Query(Freshness::Seen, Ask::Get { key, timestamp: 0 }),
                1 => Step::Query(Freshness::Local, Ask::Get { key, timestamp: 0 }),
                _ => {
                    let value = random.below(1_000).to_string();
                    Step::Command(Change::Put { key, value })
                }
            }
        });
        let run = Simulation::new(cell, seed).seconds(10).operations(300);
        let report = run.clients(clients).run();
        report.expect_ok();
        answered += report.stats.answered;
    }
    // A test of the test: runs in which nothing happens would pass too.
    assert!(answered > 5_000, "only {answered} operations were answered");
}
