//! [`Console`]: what a server prints, without ever waiting for who reads it.
//!
//! Invariant: a terminal that is held (or a pipe that nobody empties) delays no heartbeat and no answer. Lines that find no room are dropped, and
//! said to have been.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

/// Prints lines, from a thread of its own.
#[derive(Clone, Debug)]
pub struct Console {
    lines: SyncSender<Line>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Line {
    Output(String),
    Trouble(String),
    /// Say when everything before it was printed.
    Flush(SyncSender<()>),
}

impl Console {
    /// On standard output and standard error.
    #[must_use]
    pub fn new() -> Self {
        let (lines, to_print) = sync_channel(LINES_WAITING_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let of_printer = Arc::clone(&dropped);
        thread::spawn(move || print(&to_print, &of_printer));
        Self { lines, dropped }
    }

    /// A line of the console.
    pub fn say(&self, line: impl Into<String>) {
        self.pass(Line::Output(line.into()));
    }

    /// What an operator must see to: on standard error.
    pub fn trouble(&self, line: impl Into<String>) {
        self.pass(Line::Trouble(line.into()));
    }

    /// Waits until everything is printed, but not for ever.
    pub fn flush(&self) {
        let (done, printed) = sync_channel(1);
        if self.lines.try_send(Line::Flush(done)).is_ok() {
            // Whoever holds the terminal does not want to read it now.
            let _ = printed.recv_timeout(FLUSHED_WITHIN);
        }
    }

    fn pass(&self, line: Line) {
        if self.lines.try_send(line).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Default for Console {
    fn default() -> Self {
        Self::new()
    }
}

fn print(lines: &Receiver<Line>, dropped: &AtomicU64) {
    // Whoever closed the other end does not want to read it: errors are passed over.
    for line in lines {
        match line {
            Line::Output(line) => drop(writeln!(std::io::stdout(), "{line}")),
            Line::Trouble(line) => drop(writeln!(std::io::stderr(), "calc-server: {line}")),
            Line::Flush(done) => {
                let _ = std::io::stdout().flush();
                let _ = done.try_send(());
            }
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            drop(writeln!(
                std::io::stderr(),
                "calc-server: {lost} lines were not printed: there was no room for them"
            ));
        }
    }
}

const LINES_WAITING_MAX: usize = 1_000;
const FLUSHED_WITHIN: Duration = Duration::from_secs(1);
