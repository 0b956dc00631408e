//! The tables of the systems' READMEs tell the truth: every test that they name is there, in the file or module that they name.
//!
//! A test is named in backticks, shortened with `…` or `*`, behind its module (`steps::c2_4_*`) or behind its file in the same clause (`start.rs`:
//! `arguments_decide_…`); core's and the transports' tests are named, too.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on says why it stops"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// Where a test is, and what it is called.
struct Test {
    file: PathBuf,
    name: String,
}

/// A test as a README names it.
#[derive(Debug)]
struct Named<'a> {
    pattern: &'a str,
    /// Its file's name, or the end of its path, if one is said.
    file: Option<&'a str>,
    /// Its module, if one is said.
    module: Option<&'a str>,
}

/// All tests below a directory.
fn tests_in(directory: &Path, found: &mut Vec<Test>) {
    for entry in fs::read_dir(directory).unwrap() {
        let file = entry.unwrap().path();
        if file.is_dir() {
            tests_in(&file, found);
        } else if file.extension().is_some_and(|rs| rs == "rs") {
            let text = fs::read_to_string(&file).unwrap();
            let names = tests_of(&text).into_iter();
            found.extend(names.map(|name| Test {
                file: file.clone(),
                name,
            }));
        }
    }
}

/// The names of the functions in a file that are tests.
fn tests_of(text: &str) -> Vec<String> {
    let (mut names, mut is_test) = (Vec::new(), false);
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some((_, name)) = line.split_once("fn ") {
            if is_test {
                let end = name.find(['(', '<']).unwrap_or(name.len());
                names.push(name[..end].to_owned());
            }
            is_test = false;
        }
    }
    names
}

/// The tests that a README's tables name.
fn named(readme: &str) -> Vec<Named<'_>> {
    let rows = readme.lines().filter(|line| line.starts_with("| "));
    rows.flat_map(|row| row.split(['|', ';']))
        .flat_map(|clause| {
            let mut file = None;
            let quoted = clause.split('`').skip(1).step_by(2);
            quoted.filter_map(move |word| {
                if word.ends_with(".rs") {
                    file = Some(word);
                }
                name_in(word, file)
            })
        })
        .collect()
}

/// Words with underscores, or the beginning of some.
fn name_in<'a>(word: &'a str, file: Option<&'a str>) -> Option<Named<'a>> {
    let (module, pattern) = match word.split_once("::") {
        Some((module, rest)) => (Some(module), rest.rsplit("::").next().unwrap_or(rest)),
        None => (None, word),
    };
    let is_cut = pattern.contains(['…', '*']);
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_…*".contains(c);
    let says_something = pattern.contains('_') && (is_cut || pattern.matches('_').count() >= 3);
    (says_something && pattern.chars().all(fits)).then_some(Named {
        pattern,
        file,
        module,
    })
}

impl Named<'_> {
    fn is(&self, test: &Test) -> bool {
        let in_file = self.file.is_none_or(|end| test.file.ends_with(end));
        let stems = test.file.iter().map(Path::new);
        let mut stems = stems.filter_map(|part| part.file_stem()?.to_str());
        let in_module = self.module.is_none_or(|module| {
            stems.any(|stem| stem.strip_suffix("_tests").unwrap_or(stem) == module)
        });
        let mut parts = self.pattern.split(['…', '*']);
        let begin = parts.next().unwrap_or_default();
        let end = parts.next_back();
        let is_named = match end {
            None => test.name == begin,
            Some(end) => test.name.starts_with(begin) && test.name.ends_with(end),
        };
        in_file && in_module && is_named
    }
}

#[test]
fn every_test_that_a_readme_of_a_system_names_exists_where_it_says() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = Vec::new();
    for crates in fs::read_dir(examples.parent().unwrap()).unwrap() {
        let path = crates.unwrap().path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() && (name.starts_with("kvrep-") || path == examples) {
            tests_in(&path, &mut tests);
        }
    }
    let mut missing = Vec::new();
    for (system, at_least) in [
        ("mqtt-kv", 40),
        ("primary-backup-table", 60),
        ("document-store", 60),
        ("zk-like-kv", 40),
        ("multicast-calculator", 20),
    ] {
        let readme = fs::read_to_string(examples.join(system).join("README.md")).unwrap();
        let named = named(&readme);
        assert!(named.len() >= at_least, "{system}: only {}", named.len());
        let absent = named
            .into_iter()
            .filter(|named| !tests.iter().any(|test| named.is(test)));
        missing.extend(absent.map(|named| format!("{system}: {named:?}")));
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn a_test_is_found_by_its_name_or_the_ends_of_it_in_its_file_or_module_and_nowhere_else() {
    let test = Test {
        file: "examples/zk/start.rs".into(),
        name: "arguments_decide_the_role".into(),
    };
    for (readme, is) in [
        ("| R1 | `arguments_decide_the_role` |", true),
        ("| R1 | `arguments_decide_the_roles` |", false),
        ("| R1 | `arguments_…` |", true),
        ("| R1 | `arguments_…_role` |", true),
        ("| R1 | `arguments_…_place` |", false),
        ("| R1 | `start.rs`: `arguments_*` |", true),
        ("| R1 | `zk/start.rs`: `arguments_*` |", true),
        ("| R1 | `end.rs`: `arguments_*` |", false),
        ("| R1 | `end.rs`; `arguments_*` |", true),
        ("| R1 | `zk::start::arguments_*` |", true),
        ("| R1 | `stop::arguments_*` |", false),
    ] {
        let named = named(readme);
        assert_eq!(named.len(), 1, "{readme}");
        assert_eq!(named[0].is(&test), is, "{readme}");
    }
    for nothing in [
        "| `--no-lugar-de` |",
        "| `zk-kv-story` |",
        "`a_b_c_d` outside of a table",
    ] {
        assert!(named(nothing).is_empty(), "{nothing}");
    }
    let text = "#[test]\nfn one() {}\nfn two() {}\n#[tokio::test(start_paused = true)]\nasync fn three() {}\n";
    assert_eq!(tests_of(text), ["one", "three"]);
}
