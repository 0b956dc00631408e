//! The command line: what is typed, what is sent, what is shown.

pub mod args;
pub mod console;
pub mod line;
pub mod remote;
pub mod shown;
