//! Short campaigns, as a user runs them. The long ones are in CONTRIBUTING.md.

use serde_json::Value;
use std::process::{Command, Output};

fn campaign(arguments: &str) -> (Output, Value) {
    let keep = tempfile::tempdir().expect("a directory");
    let kept = keep.path().join("kept").display().to_string();
    let kept: &[&str] = if arguments.starts_with("run") {
        &["--keep", &kept]
    } else {
        &[]
    };
    let output = Command::new(env!("CARGO_BIN_EXE_campaign"))
        .args(arguments.split(' '))
        .arg("--json")
        .args(kept)
        .output()
        .expect("the campaign can be started");
    let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    if output.status.code() == Some(1) {
        // Stays for whoever reads the failure.
        let _ = keep.keep();
    }
    (output, report)
}

/// All rows hold, and at least `struck` faults were done in each.
fn held(arguments: &str, struck: u64) {
    let (output, report) = campaign(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments}: {said}\n{report:#}");
    assert_eq!(report["holds"], true, "{report:#}");
    let rows = report["campaigns"].as_array().expect("rows");
    for row in rows {
        assert!(row["struck"].as_u64() >= Some(struck), "{row:#}");
        assert!(
            row["operations"]["answered"].as_u64() >= Some(100),
            "{row:#}"
        );
    }
}

/// The same where the machine permits what it needs; where it does not, says plainly that this did not run.
fn held_if_permitted(arguments: &str, struck: u64) {
    let (output, report) = campaign(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(2) {
        assert!(!said.contains("panicked"), "{arguments}: {said}");
        let privileged = rustix::process::geteuid().is_root();
        let tools = ["ip", "iptables-restore", "strace", "mount"].map(is_there);
        assert!(
            !(privileged && tools == [true; 4]) || said.contains("not permitted"),
            "everything is there, and yet: {said}"
        );
        println!("NOT RUN: campaign {arguments}: {said}");
        return;
    }
    assert!(output.status.success(), "{arguments}: {said}\n{report:#}");
    let rows = report["campaigns"].as_array().expect("rows");
    for row in rows {
        assert!(row["struck"].as_u64() >= Some(struck), "{row:#}");
    }
}

fn is_there(tool: &str) -> bool {
    Command::new("sh")
        .args(["-c", &format!("command -v {tool}")])
        .output()
        .is_ok_and(|output| output.status.success())
}

#[test]
fn kills_and_pauses_with_a_witness_keep_linearizability() {
    held("run --authority witness --faults kill=8,pause=5", 5);
}

#[test]
fn stopped_and_killed_primaries_answer_no_read_under_a_lease_that_is_over() {
    held(
        "run --authority witness --confirm lease --faults pause=8,kill=4",
        4,
    );
}

#[test]
fn the_help_says_what_each_fault_does_and_what_the_exit_codes_mean() {
    let help = |arguments: &[&str]| {
        let program = Command::new(env!("CARGO_BIN_EXE_campaign"))
            .args(arguments)
            .output();
        let output = program.expect("the campaign can be started");
        assert!(output.status.success());
        String::from_utf8(output.stdout).expect("text")
    };
    let all = help(&["--help"]);
    assert!(
        all.contains("Examples:") && all.contains("Exit code:"),
        "{all}"
    );
    let run = help(&["run", "--help"]);
    for fault in [
        "kill         SIGKILL",
        "pause        SIGSTOP",
        "cut-both     All packets",
        "cut-one-way  The same",
        "full-disk    The disk",
        "eio          A system call",
        "mixed        Any of",
    ] {
        assert!(run.contains(fault), "{fault}: {run}");
    }
    for command in ["run", "sync-sites", "stall", "flood"] {
        assert!(
            help(&[command, "--help"]).contains("Exit code:"),
            "{command}"
        );
    }
}

#[test]
fn kills_without_a_witness_keep_linearizability_and_losses_by_pauses_are_reported() {
    held("run --authority alone --faults kill=8,pause=5", 5);
}

#[test]
fn cuts_in_both_directions_and_in_one_keep_their_promises() {
    held_if_permitted("run --faults cut-both=4,cut-one-way=4", 4);
}

#[test]
fn a_full_disk_ends_a_replica_and_nothing_else() {
    held_if_permitted("run --authority witness --faults full-disk=3", 3);
}

#[test]
fn refused_system_calls_end_a_replica_and_nothing_else() {
    held_if_permitted("run --authority witness --faults eio=4", 1);
}

#[test]
fn wrong_arguments_are_refused_with_a_reason() {
    for (arguments, why) in [
        ("run --faults earthquake", "no such fault"),
        ("run --faults kill=often", "cycles"),
        ("run --clients 0", "1..=256"),
    ] {
        let (output, _) = campaign(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments}: {said}");
        assert!(said.contains(why), "{arguments}: {said}");
    }
}

#[test]
fn syncs_that_fail_at_any_part_of_a_life_lose_nothing() {
    let arguments = "sync-sites --authority witness --victims 1 --strikes eio --every 30";
    let (output, report) = campaign(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{report:#}");
    let row = &report["sync_sites"][0];
    assert!(row["struck"].as_u64() >= Some(2), "{row:#}");
    assert!(row["syncs"].as_u64() >= Some(30), "{row:#}");
}

/// The exact bound on the stall is for a quiet machine, see CONTRIBUTING.md; memory and progress are for any.
#[test]
fn a_stopped_backup_makes_nothing_pile_up_at_its_primary() {
    let (output, seen) = campaign("stall --seconds 2");
    let said = String::from_utf8_lossy(&output.stderr);
    let number = |name: &str| {
        seen[name]
            .as_f64()
            .unwrap_or_else(|| panic!("{said} {seen:#}"))
    };
    let grown = number("resident_while_stopped_bytes") - number("resident_before_bytes");
    assert!(grown <= f64::from(32 << 20), "{seen:#}");
    assert!(
        number("longest_at_the_stop_ms") <= number("suspect_after_ms") + 2_000.0,
        "{seen:#}"
    );
    assert!(number("answered_per_second_after") >= 10.0, "{seen:#}");
}

#[test]
fn a_crowd_of_bad_connections_costs_little_memory_and_healthy_clients_go_on() {
    let (output, seen) = campaign("flood --connections 400 --garbage 2 --seconds 4");
    let said = String::from_utf8_lossy(&output.stderr);
    let number = |name: &str| {
        seen[name]
            .as_f64()
            .unwrap_or_else(|| panic!("{said} {seen:#}"))
    };
    let grown = number("resident_during_bytes") - number("resident_before_bytes");
    assert!(grown <= f64::from(64 << 20), "{seen:#}");
    assert_eq!(number("not_answered"), 0.0, "{seen:#}");
    assert!(number("answered_per_second_during") >= 1.0, "{seen:#}");
    assert!(number("made") >= 400.0, "{seen:#}");
}
