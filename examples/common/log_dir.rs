//! What to say to an operator whose log cannot be looked at.

use std::io::{self, ErrorKind};

/// What to do where [`has_log`](kvrep_core::storage::wal::has_log) fails; `who` has the log, and may choose something else by `elsewhere`.
#[must_use]
pub fn advice(error: &io::Error, who: &str, elsewhere: &str) -> String {
    match error.kind() {
        ErrorKind::NotADirectory => format!(
            "the log is kept in a directory of that name: move away what is there instead, and put the log back if {who} had one; or choose {elsewhere}"
        ),
        _ => format!("see to it that {who} may read that directory"),
    }
}
