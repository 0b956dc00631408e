//! A peer's program on a leash: it ends when this process is told to, or is left alone.

use super::until_input_ends;
use std::process::{Command, Stdio};

pub(super) fn run(command: &[String]) -> Result<(), String> {
    let (program, arguments) = command.split_first().ok_or("which program?")?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .spawn()
        .map_err(|e| format!("{program}: {e}"))?;
    until_input_ends();
    child.kill().map_err(|e| format!("{program}: {e}"))?;
    child.wait().map_err(|e| format!("{program}: {e}"))?;
    Ok(())
}
