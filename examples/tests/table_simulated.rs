//! The table in the simulator, under its own policies: takeover when a client asks, requests that wait for an update, reads under
//! a lease; with messages lost, doubled and late, crashes, and with a witness pauses and partitions too.

use bytes::Bytes;
use kvrep_core::sim::{Cell, Clients, Freshness, Simulation, Step};
use kvrep_examples::primary_backup_table::table::{Command, Query, Table};

/// Q1.1: every history is linearizable, every write carried out once, and the copies end equal.
#[test]
fn histories_are_linearizable_and_copies_equal_under_the_policies_of_the_pair() {
    for cell in [
        "on-request-lease-stopped/alone/wal/disks",
        "on-request-lease-stopped/witness/wal/all",
    ] {
        let cell = Cell::named(cell).expect("the policies of this system have a cell");
        let mut answered = 0;
        for seed in 0..15 {
            let clients = Clients::new(Table::default, |random, _| {
                let key = Bytes::from(format!("k{}", random.below(3)));
                let data = Bytes::from(random.below(1_000).to_string());
                match random.below(6) {
                    0 => Step::Command(Command::CondPut { key, data }),
                    1 => Step::Command(Command::Del { key }),
                    2 => Step::Query(Freshness::Linearizable, Query::Size),
                    3 => Step::Query(Freshness::Linearizable, Query::Get { key }),
                    _ => Step::Command(Command::Put { key, data }),
                }
            });
            let run = Simulation::new(cell, seed).seconds(10).operations(200);
            let report = run.clients(clients).run();
            report.expect_ok();
            answered += report.stats.answered;
        }
        // A test of the test: runs in which nothing happens would pass too.
        assert!(answered > 1_000, "only {answered} operations were answered");
    }
}
