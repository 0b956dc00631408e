//! What a program logs beside what it prints for its user: on standard error, as much as `RUST_LOG` asks for.

use std::io::IsTerminal as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tracing_subscriber::EnvFilter;

/// Logs on standard error from now on, coloured only on a terminal: what `RUST_LOG` says, or `otherwise`, a filter such as `error`, where it says nothing.
/// For a program, once, at its beginning.
pub fn log_to_stderr(otherwise: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(otherwise));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}

/// The time of day in UTC, as `HH:MM:SS.mmm`, for lines that an operator compares with those of other processes.
#[must_use]
pub fn time_of_day() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    clock_face(since.unwrap_or_default())
}

fn clock_face(since_1970: Duration) -> String {
    let seconds = since_1970.as_secs() % 86_400;
    let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
    let millis = since_1970.subsec_millis();
    format!("{hours:02}:{minutes:02}:{:02}.{millis:03}", seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_day_has_hours_minutes_seconds_and_milliseconds() {
        assert_eq!(clock_face(Duration::ZERO), "00:00:00.000");
        // 2001-09-09, as `date -u -d @1000000000` has it.
        let known = Duration::from_millis(1_000_000_000_007);
        assert_eq!(clock_face(known), "01:46:40.007");
    }
}
