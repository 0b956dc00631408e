//! A run is a function of its seed: in this process, and in another one.
#![cfg(feature = "sim")]

mod sim_support;

use kvrep_core::sim::Cell;
use sim_support::run_all;
use std::process::Command;

const CHILD: &str = "KVREP_SIM_PRINTS_HASHES";
const NAME: &str = "fifty_seeds_give_the_same_traces_in_another_process";

fn hashes() -> Vec<String> {
    let cells = Cell::all().into_iter().cycle();
    let runs: Vec<_> = cells.zip(1_000..1_050).collect();
    let reports = run_all(&runs);
    reports
        .iter()
        .map(|r| format!("hash {} {} {:016x}", r.seed, r.cell, r.hash))
        .collect()
}

#[test]
fn fifty_seeds_give_the_same_traces_in_another_process() {
    let mine = hashes();
    if std::env::var_os(CHILD).is_some() {
        println!();
        for line in mine {
            println!("{line}");
        }
        return;
    }
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program)
        .args(["--exact", NAME, "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let theirs: Vec<&str> = text.lines().filter(|l| l.starts_with("hash ")).collect();
    assert_eq!(mine.len(), 50);
    assert_eq!(mine, theirs);
    let mut distinct = mine;
    distinct.sort_unstable_by_key(|line| line.rsplit(' ').next().map(str::to_owned));
    distinct.dedup_by_key(|line| line.rsplit(' ').next().map(str::to_owned));
    assert_eq!(distinct.len(), 50, "different seeds, different traces");
}
