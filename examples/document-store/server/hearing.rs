//! What the server prints: never waiting for whoever reads it.
//!
//! A server that prints a line for each client must not stand still because a terminal is stopped or a pipe is full. Lines go
//! through a bounded queue to a thread of their own; what finds it full is counted and said later.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// The way to standard output.
#[derive(Clone, Debug)]
pub struct Hearing {
    lines: SyncSender<String>,
    missed: Arc<AtomicU64>,
}

impl Hearing {
    /// Begins to print.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn begin() -> std::io::Result<Self> {
        let (lines, told) = sync_channel(LINES_MAX);
        let missed = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&missed);
        thread::Builder::new()
            .name("printer".into())
            .spawn(move || print(&told, &counted))?;
        Ok(Self { lines, missed })
    }

    /// Prints a line of the server's.
    pub fn tell(&self, what: &str) {
        if self.lines.try_send(format!("[Server] {what}")).is_err() {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn print(told: &Receiver<String>, missed: &AtomicU64) {
    let mut out = std::io::stdout();
    while let Ok(line) = told.recv() {
        let unsaid = missed.swap(0, Ordering::Relaxed);
        let written = if unsaid > 0 {
            writeln!(out, "[Server] {unsaid} lines were not printed\n{line}")
        } else {
            writeln!(out, "{line}")
        };
        if written.is_err() {
            // Whoever closed the other end does not want to read it.
            return;
        }
    }
}

const LINES_MAX: usize = 1_024;
