//! What the systems share besides the library: a conversation over a connection, what an operator hears and how it is printed, whether a directory has a log, a runtime that waits for
//! no keyboard, and stories played with real processes.

pub mod address;
pub mod conversation;
pub mod log_dir;
pub mod logging;
pub mod open_files;
pub mod operator;
pub mod printer;
pub mod processes;
pub mod prompt;
pub mod relay;
pub mod runtime;
pub mod story;
