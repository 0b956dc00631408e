//! The smallest program does what the README says of it.

use std::process::Command;
use std::time::{Duration, Instant};

#[test]
fn the_counter_survives_the_loss_of_a_replica() {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let counter = Command::new(env!("CARGO_BIN_EXE_counter"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&counter.stderr);
        // Its ports are fixed, for the reader's sake: wait until nobody else has them.
        if said.contains("AddrInUse") && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(100));
            continue;
        }
        assert!(counter.status.success(), "{said}");
        assert_eq!(String::from_utf8_lossy(&counter.stdout), "42\n");
        return;
    }
}

#[test]
fn the_counter_is_a_program_of_at_most_thirty_lines() {
    let source = include_str!("../counter/main.rs");
    assert!(source.lines().count() <= 30);
}

#[test]
fn the_readme_shows_the_counter_as_it_is() {
    let readme = include_str!("../../README.md");
    let program = include_str!("../counter/main.rs");
    assert!(
        readme.contains(program),
        "copy counter/main.rs into the README"
    );
}
