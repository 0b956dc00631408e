//! What the measuring programs do alike: a runtime, and an exit code with a reason.

use kvrep_examples::common::runtime;
use std::process::ExitCode;
use tokio::runtime::Builder;

/// Measures in a runtime of these threads. Where that fails, says why on standard error, behind the program's name.
pub fn measured(
    name: &str,
    threads: &mut Builder,
    measuring: impl Future<Output = Result<(), String>>,
) -> ExitCode {
    match runtime::run(threads, measuring).flatten() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{name}: {why}");
            ExitCode::FAILURE
        }
    }
}
