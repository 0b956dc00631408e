//! What a program logs beside what it prints for its user: on standard error, as much as `RUST_LOG` asks for.

use std::io::IsTerminal as _;
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
