//! What the campaigns say at the end: a table for people, or JSON for programs.

use crate::sync_sites::SitesRow;
use serde::{Serialize, Serializer};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

/// One campaign. In JSON, durations are milliseconds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) authority: String,
    pub(crate) fault: String,
    /// How reads were confirmed.
    pub(crate) reads: String,
    pub(crate) cycles: u32,
    /// Faults that came to what they were meant to be.
    pub(crate) struck: usize,
    pub(crate) operations: Summary,
    /// In order of their length.
    #[serde(rename = "takeovers_ms", serialize_with = "all_ms")]
    pub(crate) takeovers: Vec<Duration>,
    /// Acknowledged writes that are missing.
    pub(crate) lost: usize,
    pub(crate) promise: String,
    pub(crate) violations: Vec<String>,
    /// Where data, logs and history of a violation are.
    pub(crate) kept: Option<PathBuf>,
    #[serde(rename = "took_ms", serialize_with = "ms")]
    pub(crate) took: Duration,
}

/// How the clients' operations ended.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) answered: u64,
    pub(crate) unknown: u64,
    pub(crate) refused: u64,
}

impl Row {
    /// Whether the promise was kept, and faults were done at all.
    pub(crate) fn holds(&self) -> bool {
        self.violations.is_empty() && (self.struck > 0 || self.cycles == 0)
    }
}

/// Whether all of them hold.
pub(crate) fn holds(rows: &[Row]) -> bool {
    rows.iter().all(Row::holds)
}

/// For programs.
pub(crate) fn json(rows: &[Row]) -> String {
    let report = serde_json::json!({ "holds": holds(rows), "campaigns": rows });
    format!("{report:#}")
}

/// For people.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<9} {:<12} {:<5} {:>6} {:>6} {:>9} {:>7} {:>7} {:>21} {:>6}  {:<13} {:>6}  {}\n",
        "authority",
        "fault",
        "reads",
        "cycles",
        "struck",
        "answered",
        "unknown",
        "refused",
        "takeover med/p95/max",
        "lost",
        "promise",
        "took",
        "verdict"
    );
    for row in rows {
        let verdict = match (row.holds(), row.violations.is_empty()) {
            (true, _) => "held",
            (false, true) => "NOTHING STRUCK",
            (false, false) => "VIOLATED",
        };
        let _ = writeln!(
            text,
            "{:<9} {:<12} {:<5} {:>6} {:>6} {:>9} {:>7} {:>7} {:>21} {:>6}  {:<13} {:>4} s  {verdict}",
            row.authority,
            row.fault,
            row.reads,
            row.cycles,
            row.struck,
            row.operations.answered,
            row.operations.unknown,
            row.operations.refused,
            takeovers(&row.takeovers),
            row.lost,
            row.promise,
            row.took.as_secs(),
        );
    }
    for row in rows {
        for why in &row.violations {
            let _ = writeln!(text, "\n{} {}: {why}", row.authority, row.fault);
        }
        if let Some(kept) = &row.kept {
            let _ = writeln!(text, "history, logs and data: {}", kept.display());
        }
    }
    text
}

/// Whether every life kept its promises, and at least one was struck in each row.
pub(crate) fn sites_hold(rows: &[SitesRow]) -> bool {
    rows.iter()
        .all(|row| row.violations.is_empty() && row.struck > 0)
}

/// For programs.
pub(crate) fn sites_json(rows: &[SitesRow]) -> String {
    let report = serde_json::json!({ "holds": sites_hold(rows), "sync_sites": rows });
    format!("{report:#}")
}

/// For people.
pub(crate) fn sites_table(rows: &[SitesRow]) -> String {
    let mut text =
        String::from("authority victim  strike       lives struck  syncs in a life  verdict\n");
    for row in rows {
        let verdict = if row.violations.is_empty() {
            "held"
        } else {
            "VIOLATED"
        };
        let _ = writeln!(
            text,
            "{:<9} {:<7} {:<12} {:>12} {:>16}  {verdict}",
            row.authority, row.victim, row.strike, row.struck, row.syncs
        );
        for why in &row.violations {
            let _ = writeln!(text, "  {why}");
        }
    }
    text
}

fn takeovers(sorted: &[Duration]) -> String {
    let at = |percent: usize| {
        let place = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        sorted.get(place).map_or(0, Duration::as_millis)
    };
    if sorted.is_empty() {
        return "-".into();
    }
    format!("{}/{}/{} ms", at(50), at(95), at(100))
}

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

fn ms<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(millis(*duration))
}

fn all_ms<S: Serializer>(durations: &[Duration], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(durations.iter().map(|d| millis(*d)))
}
