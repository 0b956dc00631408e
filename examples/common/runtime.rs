//! A program's runtime, which is left without waiting for the keyboard.
//!
//! Standard input is read by a thread of the runtime, and a read cannot be taken back: a runtime that is merely dropped waits for it, and
//! the program for a line that nobody types. So whoever reads standard input runs here.
//!
//! ```
//! use kvrep_examples::common::runtime::run;
//! use tokio::runtime::Builder;
//!
//! assert_eq!(run(&mut Builder::new_current_thread(), async { 1 + 1 }), Ok(2));
//! ```

use tokio::runtime::Builder;

/// Runs a program to its end; what is still under way then is not waited for.
///
/// # Errors
/// Why there is no runtime, in words for whoever started the program. Nothing was run.
pub fn run<T>(threads: &mut Builder, program: impl Future<Output = T>) -> Result<T, String> {
    let runtime = threads
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    let done = runtime.block_on(program);
    runtime.shutdown_background();
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_read_that_still_waits_is_not_waited_for() {
        let (keyboard, nobody_types) = mpsc::channel::<()>();
        let program = async {
            tokio::task::spawn_blocking(move || nobody_types.recv());
            "done"
        };
        // While the keyboard is held here, the read goes on.
        assert_eq!(run(&mut Builder::new_current_thread(), program), Ok("done"));
        drop(keyboard);
    }
}
