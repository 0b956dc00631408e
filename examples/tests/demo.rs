//! The demo as its user runs it: real processes, real kills, wrong flags and wrong files.

use serde_json::Value;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Output};

fn demo(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_demo"))
        .args(args)
        .arg("--timeline")
        .arg(dir.join("timeline.svg"))
        .output()
        .expect("the demo can be started")
}

/// A file of some hundred records.
fn orders(dir: &Path) -> String {
    let mut csv = String::from("order,customer,amount\n");
    for n in 0..400 {
        writeln!(csv, "o{n},c{},{}", n % 7, n * 3).expect("a string can be written to");
    }
    let path = dir.join("orders.csv");
    std::fs::write(&path, csv).expect("the file can be written");
    path.display().to_string()
}

fn refused(args: &[&str], code: i32, why: &str) {
    let dir = tempfile::tempdir().expect("a directory");
    let output = demo(dir.path(), args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    assert!(said.contains(why), "{args:?}: {said}");
    assert!(!said.contains("panicked"), "{args:?}: {said}");
}

/// A small run with these flags: one kill, and every check holds.
fn survives(flags: &[&str]) -> Value {
    let dir = tempfile::tempdir().expect("a directory");
    let input = orders(dir.path());
    let small: &[&str] = &[
        "--input",
        &input,
        "--key",
        "order",
        "--clients",
        "8",
        "--kills",
        "1",
        "--json",
    ];
    let args = [small, flags].concat();
    let output = demo(dir.path(), &args);
    let said = String::from_utf8_lossy(&output.stderr);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{flags:?}: {said}\n{printed}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["holds"], true, "{report}");
    assert_eq!(report["takeovers"].as_array().map(Vec::len), Some(1));
    assert_eq!(report["checks"].as_array().map(Vec::len), Some(5));
    assert!(report["acknowledged"].as_u64() >= Some(400), "{report}");
    let svg = std::fs::read_to_string(dir.path().join("timeline.svg")).expect("the timeline");
    assert!(svg.starts_with("<svg"), "{svg:.80}");
    report
}

#[test]
fn the_demo_survives_a_kill_of_its_primary_and_proves_it() {
    for authority in ["witness", "alone"] {
        let report = survives(&["--authority", authority]);
        assert_eq!(report["authority"], authority);
        assert_eq!(report["scheme"], "passive");
        assert_eq!(report["transport"], "tcp");
    }
}

#[test]
fn the_passive_scheme_survives_over_mqtt() {
    let report = survives(&["--transport", "mqtt"]);
    assert_eq!(report["transport"], "mqtt");
    assert_eq!(report["authority"], "witness");
}

#[test]
fn the_passive_scheme_survives_over_multicast() {
    let report = survives(&["--transport", "multicast"]);
    assert_eq!(report["transport"], "multicast");
    assert_eq!(report["authority"], "witness");
}

#[test]
fn the_active_scheme_survives_in_the_order_of_a_broker() {
    let report = survives(&["--scheme", "active", "--transport", "mqtt"]);
    assert_eq!(report["scheme"], "active");
    assert_eq!(report["authority"], "none");
    let said = report["not_promised"].as_str().expect("it is said");
    assert!(said.contains("in memory"), "{said}");
}

#[test]
fn the_active_scheme_survives_in_the_order_of_a_log_over_tcp() {
    for authority in ["witness", "alone"] {
        let report = survives(&["--scheme", "active", "--authority", authority]);
        assert_eq!(report["transport"], "tcp");
        assert_eq!(report["authority"], authority);
    }
}

#[test]
fn the_active_scheme_survives_in_the_order_of_a_log_over_multicast() {
    let report = survives(&["--scheme", "active", "--transport", "multicast"]);
    assert_eq!(report["scheme"], "active");
    assert_eq!(report["transport"], "multicast");
}

#[test]
fn pairs_that_cannot_work_are_refused_at_once_with_what_to_use_instead() {
    refused(
        &["--scheme", "lowest"],
        2,
        "the lowest-id scheme replicates nothing, and this state machine takes commands",
    );
    refused(
        &["--scheme", "lowest", "--transport", "multicast"],
        2,
        "Use --scheme passive or active",
    );
    refused(
        &["--transport", "memory"],
        2,
        "use --transport tcp, mqtt or multicast",
    );
    refused(
        &["--scheme", "active", "--transport", "memory"],
        2,
        "connects nodes of one process",
    );
    let broker = ["--scheme", "active", "--transport", "mqtt"];
    let decided = [&broker[..], &["--authority", "alone"]].concat();
    refused(&decided, 2, "the broker orders");
    for pair in [&broker[..], &["--transport", "multicast"]] {
        let cut = [pair, &["--fault", "cut"]].concat();
        refused(&cut, 2, "use --transport tcp or --fault kill");
    }
    refused(
        &["--scheme", "active", "--fault", "cut"],
        2,
        "use --scheme passive or --fault kill",
    );
    refused(&["--scheme", "quorum"], 2, "possible values");
    refused(&["--transport", "udp"], 2, "possible values");
}

#[test]
fn a_replica_that_is_started_by_hand_says_which_flag_is_missing() {
    let serve = |flags: &[&str], why: &str| {
        let common = ["serve", "--id", "1", "--data", "nowhere", "--peer", "1"];
        let output = Command::new(env!("CARGO_BIN_EXE_demo"))
            .args(common)
            .args(flags)
            .output()
            .expect("the demo can be started");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {said}");
        assert!(said.contains(why), "{flags:?}: {said}");
    };
    serve(&[], "--authority witness or alone");
    serve(&["--authority", "alone"], "--peer ID=HOST:PORT");
    serve(&["--transport", "mqtt"], "--broker");
    serve(&["--transport", "multicast"], "--multicast");
    let forced = ["--scheme", "active", "--transport", "mqtt", "--force"];
    serve(
        &[&forced[..], &["--broker", "127.0.0.1:1"]].concat(),
        "--force is for --scheme passive",
    );
}

#[test]
fn what_a_run_that_fails_has_left_is_kept_and_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let output = Command::new(env!("CARGO_BIN_EXE_demo"))
        .args(["--input", &orders(dir.path()), "--key", "order"])
        .args(["--kills", "0", "--timeline", "/no/such/place.svg"])
        .env("TMPDIR", dir.path())
        .output()
        .expect("the demo can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("choose another --timeline"), "{said}");
    let kept = said
        .lines()
        .find_map(|line| line.split_once(" are kept in "));
    let (_, kept) = kept.expect("where they are kept");
    let mut left = std::fs::read_dir(kept).expect("what is kept");
    assert!(left.next().is_some(), "{said}");
}

#[test]
fn every_program_says_its_own_name_and_version() {
    for program in [
        env!("CARGO_BIN_EXE_demo"),
        env!("CARGO_BIN_EXE_calc-server"),
        env!("CARGO_BIN_EXE_calc-client"),
        env!("CARGO_BIN_EXE_docstore-server"),
        env!("CARGO_BIN_EXE_docstore-cli"),
        env!("CARGO_BIN_EXE_docstore-story"),
        env!("CARGO_BIN_EXE_mqtt-kv-broker"),
        env!("CARGO_BIN_EXE_mqtt-kv-client"),
        env!("CARGO_BIN_EXE_mqtt-kv-monitor"),
        env!("CARGO_BIN_EXE_mqtt-kv-server"),
        env!("CARGO_BIN_EXE_mqtt-kv-teste"),
        env!("CARGO_BIN_EXE_table-client"),
        env!("CARGO_BIN_EXE_table-server"),
        env!("CARGO_BIN_EXE_table-story"),
        env!("CARGO_BIN_EXE_zk-kv-client"),
        env!("CARGO_BIN_EXE_zk-kv-server"),
        env!("CARGO_BIN_EXE_zk-kv-story"),
    ] {
        let output = Command::new(program).arg("--version").output();
        let output = output.expect("it can be started");
        let name = Path::new(program).file_name().unwrap_or_default();
        let wanted = format!("{} {}\n", name.display(), env!("CARGO_PKG_VERSION"));
        assert_eq!(String::from_utf8_lossy(&output.stdout), wanted);
    }
}

#[test]
fn wrong_arguments_and_files_are_refused_with_a_reason() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("the file can be written");
        path.display().to_string()
    };
    refused(&["--no-such-flag"], 2, "--no-such-flag");
    refused(&["--replicas", "1"], 2, "2..=9");
    refused(
        &["--input", "/no/such/file", "--key", "k"],
        1,
        "cannot read /no/such/file",
    );
    refused(&["--input", &file("a.csv", "k,v\n1,2\n")], 1, "add --key");
    refused(
        &["--input", &file("b.csv", "k,v\n1,2\n3\n"), "--key", "k"],
        1,
        "line 3",
    );
    refused(
        &[
            "--input",
            &file("c.jsonl", "{\"k\":1}\n{oops\n"),
            "--key",
            "k",
        ],
        1,
        "line 2",
    );
    refused(
        &["--input", &file("d.csv", ""), "--key", "k"],
        1,
        "no records",
    );
    refused(
        &["--fault", "cut", "--authority", "alone"],
        2,
        "use --authority witness",
    );
    let full = dir.path().display().to_string();
    refused(&["--keep", &full], 1, "is not empty");
}
