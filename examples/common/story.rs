//! A story played with real processes: numbered steps, what was seen at each, and claims that hold or do not.
//!
//! A story is a program for people, and a test: it prints what happens as it happens, and its exit code is 0 only if every
//! claim held and the story came to its end. A story without a claim fails.
//!
//! ```
//! use kvrep_examples::common::story::{Printed, Story};
//!
//! let mut story = Story::begin("two and two", Printed::Text);
//! story.step("add them");
//! let sum = 2 + 2;
//! story.saw(format!("{sum}"));
//! story.equal("the sum is right", &sum, &4);
//! assert!(story.end(Ok(())));
//! ```

use serde::Serialize;
use std::fmt::Debug;
use std::io::{IsTerminal as _, Write as _};

/// How a story is printed on standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Printed {
    /// As it happens, for people.
    Text,
    /// One JSON object at the end, for programs.
    Json,
}

/// In which language a story says how it ended; all else in it is its teller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// English.
    English,
    /// Portuguese.
    Portuguese,
}

/// A story that is being told.
#[derive(Debug)]
pub struct Story {
    printed: Printed,
    language: Language,
    colours: bool,
    report: Report,
}

#[derive(Debug, Serialize)]
struct Report {
    story: String,
    holds: bool,
    steps: Vec<Step>,
    #[serde(skip_serializing_if = "Option::is_none")]
    broken_off: Option<String>,
}

#[derive(Debug, Serialize)]
struct Step {
    what: String,
    saw: Vec<String>,
    checks: Vec<Check>,
}

#[derive(Debug, Serialize)]
struct Check {
    claim: String,
    holds: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
}

impl Story {
    /// Begins with its title.
    pub fn begin(title: impl Into<String>, printed: Printed) -> Self {
        let story = Self {
            printed,
            language: Language::English,
            colours: std::io::stdout().is_terminal(),
            report: Report {
                story: title.into(),
                holds: false,
                steps: Vec::new(),
                broken_off: None,
            },
        };
        story.print(&format!("{}\n", story.report.story));
        story
    }

    /// The next step: what is done now.
    pub fn step(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.print(&format!("{:>2}. {what}", self.report.steps.len() + 1));
        self.report.steps.push(Step {
            what,
            saw: Vec::new(),
            checks: Vec::new(),
        });
    }

    /// Says in this language how it ended.
    #[must_use]
    pub fn language(mut self, language: Language) -> Self {
        self.language = language;
        self
    }

    /// What was seen in this step, as it was printed by a program or measured.
    pub fn saw(&mut self, what: impl Into<String>) {
        let what = what.into();
        for line in what.lines() {
            self.print(&format!("      | {line}"));
        }
        self.current().saw.push(what);
    }

    /// A claim, and what was found: `Ok` with a detail (may be empty) if it holds, `Err` with the reason if not.
    pub fn check(&mut self, claim: impl Into<String>, found: Result<String, String>) {
        let claim = claim.into();
        let holds = found.is_ok();
        let (Ok(detail) | Err(detail)) = found;
        let mark = match (holds, self.colours) {
            (true, true) => "\x1b[32mok\x1b[0m    ",
            (true, false) => "ok    ",
            (false, true) => "\x1b[31mFAILED\x1b[0m",
            (false, false) => "FAILED",
        };
        let dash = if detail.is_empty() { "" } else { ": " };
        self.print(&format!("    {mark} {claim}{dash}{detail}"));
        self.current().checks.push(Check {
            claim,
            holds,
            detail,
        });
    }

    /// The claim that two values are equal.
    pub fn equal<T: PartialEq + Debug>(&mut self, claim: impl Into<String>, found: &T, wanted: &T) {
        let found = if found == wanted {
            Ok(String::new())
        } else {
            Err(format!("{found:?} instead of {wanted:?}"))
        };
        self.check(claim, found);
    }

    /// Ends the story: with an error if it was broken off. Whether it and every claim in it held.
    #[must_use = "a story that failed must end its program with a failure"]
    pub fn end(mut self, told: Result<(), String>) -> bool {
        let checks = || self.report.steps.iter().flat_map(|step| &step.checks);
        let (all, held) = (checks().count(), checks().filter(|c| c.holds).count());
        self.report.holds = told.is_ok() && all > 0 && held == all;
        self.report.broken_off = told.err();
        if let Some(why) = &self.report.broken_off {
            let broken_off = match self.language {
                Language::English => "The story was broken off",
                Language::Portuguese => "A história foi interrompida",
            };
            self.print(&format!("\n{broken_off}: {why}"));
        }
        self.print(&match self.language {
            Language::English => format!("\n{held} of {all} checks hold."),
            Language::Portuguese => format!("\n{held} de {all} verificações conferem."),
        });
        if self.printed == Printed::Json {
            match serde_json::to_string_pretty(&self.report) {
                Ok(json) => say(&json),
                Err(e) => eprintln!("cannot print the report: {e}"),
            }
        }
        self.report.holds
    }

    fn current(&mut self) -> &mut Step {
        if self.report.steps.is_empty() {
            self.step("begin");
        }
        let last = self.report.steps.len() - 1;
        &mut self.report.steps[last]
    }

    fn print(&self, line: &str) {
        if self.printed == Printed::Text {
            say(line);
        }
    }
}

fn say(line: &str) {
    // Whoever closed the other end does not want to read it.
    drop(writeln!(std::io::stdout(), "{line}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_story_holds_only_if_it_came_to_its_end_and_every_claim_held() {
        let begun = || Story::begin("a story", Printed::Json);
        assert!(!begun().end(Ok(())), "nothing was claimed");
        let claimed = |found| {
            let mut story = begun();
            story.step("try");
            story.equal("it is four", &found, &4);
            story
        };
        assert!(claimed(4).end(Ok(())));
        assert!(!claimed(5).end(Ok(())));
        assert!(!claimed(4).end(Err("no power".into())));
    }
}
