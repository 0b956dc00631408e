//! What the demo says at the end: a short table for people, or JSON for programs.

use super::pair::{Pair, word};
use serde::{Serialize, Serializer};
use std::fmt::Write as _;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

/// Everything that a run showed. In JSON, durations are milliseconds (`…_ms`).
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// What was loaded, for people.
    pub input: String,
    /// Number of replica processes.
    pub replicas: usize,
    /// Who replicates how, over what. In JSON `scheme`, `transport`, and `authority`: who decides on the primary, `witness`, `alone` or `none`.
    #[serde(flatten, serialize_with = "words_of")]
    pub pair: Pair,
    /// Records in the input.
    pub records: u64,
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// From the first write sent to the last acknowledged.
    #[serde(rename = "elapsed_ms", serialize_with = "ms")]
    pub elapsed: Duration,
    /// Median time from a write to its acknowledgement.
    #[serde(rename = "latency_p50_ms", serialize_with = "ms")]
    pub latency_p50: Duration,
    /// 99th percentile of the same.
    #[serde(rename = "latency_p99_ms", serialize_with = "ms")]
    pub latency_p99: Duration,
    /// One for each kill.
    pub takeovers: Vec<Takeover>,
    /// One for each replica that was restarted.
    pub catch_ups: Vec<CatchUp>,
    /// What was verified.
    pub checks: Vec<Check>,
    /// Where the timeline was written.
    pub timeline: Option<PathBuf>,
}

/// From one primary to the next.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Takeover {
    /// The primary that was killed.
    pub from: String,
    /// Its successor.
    pub to: String,
    /// From the kill to the next acknowledged write.
    #[serde(rename = "after_ms", serialize_with = "ms")]
    pub after: Duration,
}

/// A return.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct CatchUp {
    /// Who came back.
    pub replica: String,
    /// From its start until it counted as in sync.
    #[serde(rename = "after_ms", serialize_with = "ms")]
    pub after: Duration,
}

/// One thing verified.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Check {
    /// The claim.
    pub claim: String,
    /// What was found.
    pub outcome: Outcome,
    /// Numbers, or why not.
    pub detail: String,
}

/// What became of a claim.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It is true.
    Holds,
    /// It is false.
    Fails,
}

/// Whether to colour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Colour {
    /// With ANSI escapes.
    Ansi,
    /// Plain text.
    Plain,
}

impl Colour {
    /// Colours if standard output is a terminal and `NO_COLOR` is not set.
    #[must_use]
    pub fn for_stdout() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        if wanted && std::io::stdout().is_terminal() {
            Self::Ansi
        } else {
            Self::Plain
        }
    }

    fn paint(self, code: &str, text: &str) -> String {
        match self {
            Self::Ansi => format!("\x1b[{code}m{text}\x1b[0m"),
            Self::Plain => text.to_owned(),
        }
    }
}

impl Report {
    /// Whether there were checks and all hold: only then is the demo's exit code 0.
    #[must_use]
    pub fn holds(&self) -> bool {
        !self.checks.is_empty()
            && self
                .checks
                .iter()
                .all(|check| check.outcome == Outcome::Holds)
    }

    /// One JSON object with `holds` and everything else.
    #[must_use]
    pub fn json(&self) -> String {
        #[derive(Serialize)]
        struct WithVerdict<'a> {
            holds: bool,
            throughput_per_s: u64,
            #[serde(flatten)]
            report: &'a Report,
        }
        let whole = WithVerdict {
            holds: self.holds(),
            throughput_per_s: self.throughput_per_s(),
            report: self,
        };
        serde_json::to_string_pretty(&whole).expect("a report is plain data with text keys")
    }

    /// The table.
    #[must_use]
    pub fn table(&self, colour: Colour) -> String {
        let mut text = String::new();
        for (name, value) in self.rows() {
            let name = colour.paint("1", &format!("{name:>14}"));
            writeln!(text, "{name}  {value}").expect(TO_A_STRING);
        }
        text.push('\n');
        let wide = self
            .checks
            .iter()
            .map(|check| check.claim.chars().count())
            .max();
        for Check {
            claim,
            outcome,
            detail,
        } in &self.checks
        {
            let (mark, code) = match outcome {
                Outcome::Holds => ("✔", "32"),
                Outcome::Fails => ("✘", "1;31"),
            };
            let mark = colour.paint(code, mark);
            let line = format!("{claim:wide$}   {detail}", wide = wide.unwrap_or(0));
            writeln!(text, "  {mark} {}", line.trim_end()).expect(TO_A_STRING);
        }
        text
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let Self {
            input,
            replicas,
            pair,
            ..
        } = self;
        let words = pair.words();
        let mut rows = vec![
            (
                "group",
                format!("{replicas} replicas, {}", pair.described()),
            ),
            (
                "acknowledged",
                format!(
                    "{} writes, {} records of {input}",
                    grouped(self.acknowledged),
                    grouped(self.records)
                ),
            ),
            (
                "throughput",
                format!(
                    "{} writes/s over {}",
                    grouped(self.throughput_per_s()),
                    time(self.elapsed)
                ),
            ),
            (
                "latency",
                format!(
                    "p50 {}   p99 {}",
                    time(self.latency_p50),
                    time(self.latency_p99)
                ),
            ),
        ];
        let takeovers: Vec<_> = self
            .takeovers
            .iter()
            .map(|takeover| {
                format!(
                    "{} → {} {}",
                    takeover.from,
                    takeover.to,
                    time(takeover.after)
                )
            })
            .collect();
        if !takeovers.is_empty() {
            let list = takeovers.join("   ");
            rows.push(("takeovers", format!("{list}   ({})", words.takeover)));
        }
        let catch_ups: Vec<_> = self
            .catch_ups
            .iter()
            .map(|catch_up| format!("{} {}", catch_up.replica, time(catch_up.after)))
            .collect();
        if !catch_ups.is_empty() {
            let list = catch_ups.join("   ");
            rows.push(("caught up", format!("{list}   ({})", words.caught_up)));
        }
        if let Some(what) = words.not_promised {
            rows.push(("not promised", what.to_owned()));
        }
        if let Some(path) = &self.timeline {
            rows.push(("timeline", path.display().to_string()));
        }
        rows
    }

    fn throughput_per_s(&self) -> u64 {
        let micros = self.elapsed.as_micros().max(1);
        u64::try_from(u128::from(self.acknowledged) * 1_000_000 / micros).unwrap_or(u64::MAX)
    }
}

/// The smallest of `sorted` that `percent` of them do not exceed (nearest rank); zero of none.
#[must_use]
pub fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

fn words_of<S: Serializer>(pair: &Pair, serializer: S) -> Result<S::Ok, S::Error> {
    use serde::ser::SerializeMap as _;
    let mut map = serializer.serialize_map(None)?;
    map.serialize_entry("scheme", &word(pair.scheme))?;
    map.serialize_entry("transport", &word(pair.over))?;
    map.serialize_entry("authority", pair.authority_word().unwrap_or("none"))?;
    if let Some(what) = pair.words().not_promised {
        map.serialize_entry("not_promised", what)?;
    }
    map.end()
}

fn ms<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_micros() as f64 / 1_000.0)
}

/// Three digits or so, with a unit.
fn time(duration: Duration) -> String {
    let ms = duration.as_secs_f64() * 1_000.0;
    if ms < 1.0 {
        format!("{:.0} µs", ms * 1_000.0)
    } else if ms < 10.0 {
        format!("{ms:.1} ms")
    } else if ms < 1_000.0 {
        format!("{ms:.0} ms")
    } else {
        format!("{:.1} s", ms / 1_000.0)
    }
}

/// `1234567` as `1,234,567`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

const TO_A_STRING: &str = "writing to a string does not fail";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::pair::{Over, Scheme};

    fn sample() -> Report {
        let check = |claim: &str, outcome, detail: &str| Check {
            claim: claim.into(),
            outcome,
            detail: detail.into(),
        };
        Report {
            input: "the bundled cities.csv".into(),
            replicas: 3,
            pair: Pair::new(Scheme::Passive, Over::Tcp, None).unwrap(),
            records: 34_006,
            acknowledged: 34_006,
            elapsed: Duration::from_millis(4_200),
            latency_p50: Duration::from_micros(840),
            latency_p99: Duration::from_micros(8_400),
            takeovers: vec![Takeover {
                from: "n1".into(),
                to: "n2".into(),
                after: Duration::from_millis(43),
            }],
            catch_ups: vec![CatchUp {
                replica: "n1".into(),
                after: Duration::from_millis(310),
            }],
            checks: vec![
                check(
                    "every acknowledged record is on every replica",
                    Outcome::Holds,
                    "34,006 × 3",
                ),
                check("digests are equal", Outcome::Fails, "n3 differs"),
            ],
            timeline: Some("/tmp/timeline.svg".into()),
        }
    }

    #[test]
    fn the_table_reads_like_this() {
        let expected = "         group  3 replicas, passive over tcp, authority: witness
  acknowledged  34,006 writes, 34,006 records of the bundled cities.csv
    throughput  8,096 writes/s over 4.2 s
       latency  p50 840 µs   p99 8.4 ms
     takeovers  n1 → n2 43 ms   (from the loss of the primary to the next acknowledged write)
     caught up  n1 310 ms   (from restart to in sync)
      timeline  /tmp/timeline.svg

  ✔ every acknowledged record is on every replica   34,006 × 3
  ✘ digests are equal                               n3 differs
";
        assert_eq!(sample().table(Colour::Plain), expected);
    }

    #[test]
    fn colours_change_nothing_but_escapes() {
        let mut plain = sample().table(Colour::Ansi);
        for code in ["\x1b[0m", "\x1b[1m", "\x1b[32m", "\x1b[1;31m"] {
            plain = plain.replace(code, "");
        }
        assert_eq!(plain, sample().table(Colour::Plain));
    }

    #[test]
    fn a_report_holds_only_if_there_were_checks_and_all_hold() {
        let mut report = sample();
        assert!(!report.holds());
        report.checks.pop();
        assert!(report.holds());
        report.checks.clear();
        assert!(!report.holds());
    }

    #[test]
    fn json_has_the_verdict_and_milliseconds() {
        let value: serde_json::Value = serde_json::from_str(&sample().json()).unwrap();
        assert_eq!(value["holds"], false);
        for (field, word) in [
            ("scheme", "passive"),
            ("transport", "tcp"),
            ("authority", "witness"),
        ] {
            assert_eq!(value[field], word);
        }
        assert_eq!(value["throughput_per_s"], 8_096);
        assert_eq!(value["latency_p50_ms"], 0.84);
        assert_eq!(value["takeovers"][0]["after_ms"], 43.0);
        assert_eq!(value["checks"][1]["outcome"], "fails");
    }

    #[test]
    fn percentiles_are_the_nearest_rank() {
        let sorted: Vec<_> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&sorted, 50), Duration::from_millis(100));
        assert_eq!(percentile(&sorted, 99), Duration::from_millis(198));
        assert_eq!(percentile(&sorted[..1], 99), Duration::from_millis(1));
        assert_eq!(percentile(&[], 99), Duration::ZERO);
    }
}
