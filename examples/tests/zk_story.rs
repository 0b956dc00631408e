//! The story of system 3 holds: five consoles, the late follower, the missing one, the leader that comes back.

use serde_json::Value;
use std::process::Command;

#[test]
fn r3_34_r3_35_c3_1_c3_8_c3_9_every_check_of_the_story_holds() {
    let told = Command::new(env!("CARGO_BIN_EXE_zk-kv-story"))
        .arg("--json")
        .output()
        .expect("the story can be started");
    let said = String::from_utf8_lossy(&told.stdout);
    assert!(
        told.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&told.stderr)
    );
    let report: Value = serde_json::from_slice(&told.stdout).expect("JSON");
    assert_eq!(report["holds"], true, "{report:#}");
    assert!(
        report["steps"]
            .as_array()
            .is_some_and(|steps| steps.len() >= 15)
    );
}
