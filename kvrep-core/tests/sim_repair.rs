//! Replicas whose memory is damaged are found out and repaired.
#![cfg(feature = "sim")]

use kvrep_core::sim::{Cell, Simulation};
use std::cell::Cell as Counter;
use std::rc::Rc;

const SEEDS: u64 = 25;

#[test]
fn whosever_state_is_disturbed_in_the_end_all_states_are_equal() {
    let seen = |word: &'static str| (word, Rc::new(Counter::new(0)));
    let words = [
        seen("its state is disturbed"),
        seen("StateDiffers"),
        seen("StateDiscarded"),
    ];
    let standard = ["witness/wal/crashes", "alone/wal/crashes"].map(|cell| (cell, SEEDS));
    let others = [
        "primary/witness/wal/crashes",
        "lease/witness/wal/all",
        "never/alone/wal/all",
        "never-all/alone/wal/all",
        "never-primary/alone/wal/all",
        "never-all-append/alone/wal/all",
    ];
    for (cell, seeds) in standard
        .into_iter()
        .chain(others.map(|cell| (cell, SEEDS / 5)))
    {
        for seed in 0..seeds {
            let counters = words.clone();
            let run = Simulation::new(Cell::named(cell).unwrap(), seed).disturbed();
            let run = run.trace(move |line| {
                for (word, count) in &counters {
                    count.set(count.get() + u64::from(line.contains(word)));
                }
            });
            run.run().expect_ok();
        }
    }
    let [disturbed, found, discarded] = words.each_ref().map(|(_, count)| count.get());
    // A test of the test.
    assert!(disturbed > SEEDS, "{disturbed} disturbances");
    assert!(found >= disturbed, "{found} of {disturbed} were found");
    // An order may be repeated after the primary has changed, or begun another read round.
    let few = disturbed..disturbed + disturbed / 10;
    assert!(few.contains(&discarded), "{discarded} of {disturbed}");
}
