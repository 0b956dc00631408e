//! The report as JSON: every run of every row, for whoever wants to look closer.

use crate::report::Report;

/// One object.
pub(crate) fn of(report: &Report) -> Result<String, String> {
    serde_json::to_string_pretty(report).map_err(|e| e.to_string())
}
