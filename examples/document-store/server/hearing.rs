//! What the server prints: never waiting for whoever reads it.
//!
//! A server that prints a line for each client must not stand still because a terminal is stopped or a pipe is full. Lines go
//! through a bounded queue to a thread of their own; what finds it full is counted and said later. A server that ends waits a moment for
//! the last of them, so that they come before what the process says at its very end, or at all.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// The way to standard output.
#[derive(Clone, Debug)]
pub struct Hearing {
    lines: SyncSender<Told>,
    missed: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Told {
    Line(String),
    /// Everything before it is printed when this is dropped.
    Mark(SyncSender<()>),
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
        let line = Told::Line(format!("[Server] {what}"));
        if self.lines.try_send(line).is_err() {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything so far is printed, but not much longer than `within`. Blocks the thread.
    pub fn drain(&self, within: Duration) {
        let began = Instant::now();
        let (mark, printed) = sync_channel(0);
        let mut mark = Told::Mark(mark);
        while let Err(TrySendError::Full(again)) = self.lines.try_send(mark) {
            if began.elapsed() > within {
                return;
            }
            mark = again;
            thread::sleep(within / 100);
        }
        // Nothing is ever sent: it ends when the mark is dropped.
        let _ = printed.recv_timeout(within);
    }
}

fn print(told: &Receiver<Told>, missed: &AtomicU64) {
    let mut out = std::io::stdout();
    while let Ok(told) = told.recv() {
        let line = match told {
            Told::Line(line) => line,
            Told::Mark(mark) => {
                drop(mark);
                continue;
            }
        };
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
