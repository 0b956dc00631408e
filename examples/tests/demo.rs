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

#[test]
fn the_demo_survives_a_kill_of_its_primary_and_proves_it() {
    for authority in ["witness", "alone"] {
        let dir = tempfile::tempdir().expect("a directory");
        let input = orders(dir.path());
        let args = [
            "--input",
            &input,
            "--key",
            "order",
            "--kills",
            "1",
            "--clients",
            "8",
            "--json",
            "--authority",
            authority,
        ];
        let output = demo(dir.path(), &args);
        let said = String::from_utf8_lossy(&output.stderr);
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{authority}: {said}\n{printed}");
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(report["holds"], true, "{report}");
        assert_eq!(report["takeovers"].as_array().map(Vec::len), Some(1));
        assert!(report["acknowledged"].as_u64() >= Some(400), "{report}");
        let svg = std::fs::read_to_string(dir.path().join("timeline.svg")).expect("the timeline");
        assert!(svg.starts_with("<svg"), "{svg:.80}");
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
        1,
        "use --authority witness",
    );
    let full = dir.path().display().to_string();
    refused(&["--keep", &full], 1, "is not empty");
}
