//! The table of the README tells the truth: every test that it names is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const README: &str = include_str!("../../document-store/README.md");

/// The names of all functions below a directory that are tests.
fn tests_in(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests_in(&path, found);
            continue;
        }
        let text = fs::read_to_string(&path).unwrap_or_default();
        let mut is_test = false;
        for line in text.lines().map(str::trim) {
            if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                is_test = true;
            } else if let Some((_, name)) = line.split_once("fn ") {
                let name = name.split('(').next().unwrap_or_default();
                if is_test || text.contains("proptest!") {
                    found.insert(name.to_owned());
                }
                is_test = false;
            }
        }
    }
}

#[test]
fn every_test_that_the_readme_names_exists() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = BTreeSet::new();
    tests_in(&here.join("document-store"), &mut tests);
    tests_in(&here.join("tests/document_store"), &mut tests);
    let rows = README.lines().filter(|line| line.starts_with("| "));
    let quoted = rows.flat_map(|row| row.split('`').skip(1).step_by(2));
    let names = quoted.filter_map(|name| name.split_once("::").map(|(_, test)| test));
    let (mut named, mut missing) = (0, Vec::new());
    for name in names {
        named += 1;
        let parts: Vec<&str> = name.split(['*', '…']).collect();
        let fits = |test: &&String| {
            test.starts_with(parts[0])
                && (parts.len() > 1 || test.len() == name.len())
                && test.ends_with(parts[parts.len() - 1])
        };
        if !tests.iter().any(|test| fits(&test)) {
            missing.push(name);
        }
    }
    assert!(named > 40, "only {named} are named");
    assert!(missing.is_empty(), "{missing:#?}");
}
