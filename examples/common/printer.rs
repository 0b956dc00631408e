//! Lines for somebody who may not read them: a terminal that was paused, a pipe that nobody empties.
//!
//! A thread of its own prints them, so that whoever has something to say is never held up. It is woken for a line that comes alone, and looks every other millisecond
//! while more come: waking it for each would cost more than making the line. If so much waits that memory would suffer, further texts are dropped and counted, and that is
//! said in their place as soon as there is room.

use std::fmt::{self, Write as _};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Where the lines go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Out {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Prints in its own time.
#[derive(Debug)]
pub struct Printer(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    inner: Mutex<Inner>,
    /// There is something to print, and the thread does not look by itself.
    wake: Condvar,
    /// Everything is printed.
    printed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: String,
    doing: Doing,
    dropped: u64,
}

/// What the thread does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Doing {
    /// It is writing, or will look again soon.
    #[default]
    Busy,
    /// It waits to be woken.
    Asleep,
}

/// Lines that are kept instead of being printed.
#[derive(Debug)]
pub struct Kept(Arc<Shared>);

impl Printer {
    /// A printer on one of this process's streams. How many texts were dropped is put into words by `dropped`.
    ///
    /// # Errors
    /// When the system makes no thread.
    pub fn on(out: Out, dropped: fn(u64) -> String) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let printed = Arc::clone(&shared);
        let print = move || print_all(&printed, out, dropped);
        thread::Builder::new()
            .name("printer".into())
            .spawn(print)
            .map(|_| Self(shared))
    }

    /// One whose lines are kept, for tests.
    #[must_use]
    pub fn kept() -> (Self, Kept) {
        let shared = Arc::new(Shared::default());
        (Self(Arc::clone(&shared)), Kept(shared))
    }

    /// Prints this some time soon.
    pub fn print(&self, text: fmt::Arguments<'_>) {
        let mut inner = self.0.inner();
        let before = inner.waiting.len();
        // Writing to memory does not fail.
        let _ = inner.waiting.write_fmt(text);
        if before > 0 && inner.waiting.len() > WAITING_BYTES_MAX {
            inner.waiting.truncate(before);
            inner.dropped += 1;
        }
        if inner.doing == Doing::Asleep {
            inner.doing = Doing::Busy;
            self.0.wake.notify_one();
        }
    }

    /// Waits until everything so far is printed, but not longer than `within`.
    pub fn drain(&self, within: Duration) {
        let inner = self.0.inner();
        let busy = |inner: &mut Inner| !inner.waiting.is_empty() || inner.doing == Doing::Busy;
        let waited = self.0.printed.wait_timeout_while(inner, within, busy);
        drop(waited);
    }
}

impl Kept {
    /// The lines so far, without their ends.
    #[must_use]
    pub fn so_far(&self) -> Vec<String> {
        self.0.inner().waiting.lines().map(Into::into).collect()
    }
}

impl Shared {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn print_all(shared: &Shared, out: Out, dropped_words: fn(u64) -> String) {
    let mut together = String::new();
    loop {
        let mut inner = shared.inner();
        if inner.waiting.is_empty() {
            inner.doing = Doing::Asleep;
            shared.printed.notify_all();
            let asleep = |inner: &mut Inner| inner.doing == Doing::Asleep;
            let woken = shared.wake.wait_while(inner, asleep);
            inner = woken.unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(&mut inner.waiting, &mut together);
        let dropped = std::mem::take(&mut inner.dropped);
        drop(inner);
        if dropped > 0 {
            together.push_str(&dropped_words(dropped));
            together.push('\n');
        }
        // Whoever closed the other end does not want to read it.
        let _ = match out {
            Out::Stdout => write_to(&mut io::stdout().lock(), &together),
            Out::Stderr => write_to(&mut io::stderr().lock(), &together),
        };
        if together.capacity() > KEPT_BYTES_MAX {
            together = String::new();
        }
        together.clear();
        thread::sleep(LOOK_AGAIN);
    }
}

fn write_to(out: &mut impl io::Write, text: &str) -> io::Result<()> {
    out.write_all(text.as_bytes())?;
    out.flush()
}

const WAITING_BYTES_MAX: usize = 16 << 20;
const KEPT_BYTES_MAX: usize = 256 << 10;
/// How late a line may be that comes right behind another.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printer_that_nobody_reads_holds_nobody_up() {
        let (printer, lines) = Printer::kept();
        let large = "x".repeat(WAITING_BYTES_MAX / 2);
        for n in 0..5 {
            printer.print(format_args!("{n} {large}\n"));
        }
        assert_eq!(lines.so_far().len(), 1);
        assert_eq!(lines.0.inner().dropped, 4);
    }
}
