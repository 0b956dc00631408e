//! The server's console: exactly the lines of the text, on standard output.
//!
//! A thread of its own prints them, so that a terminal that is slow, or a pipe that nobody reads, holds up no
//! replica. It is woken for a line that comes alone, and looks every other millisecond while more come: waking it for each
//! would cost the server more than making the line. If so much waits that memory would suffer, further lines are dropped and
//! counted on standard error.
//!
//! Keys and values come from clients: what would move the cursor or begin another line is printed escaped.

use super::message::{Answer, TRY};
use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Where the lines go.
#[derive(Debug)]
pub struct Console(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    inner: Mutex<Inner>,
    /// There is something to print, and the printer does not look by itself.
    wake: Condvar,
    /// Everything is printed.
    printed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: String,
    printer: Printer,
    dropped: u64,
}

/// What the thread does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Printer {
    /// It is writing, or will look again soon.
    #[default]
    Busy,
    /// It waits to be woken.
    Asleep,
}

/// Lines that are kept instead of being printed.
#[derive(Debug)]
pub struct Kept(Arc<Shared>);

impl Console {
    /// A console on standard output.
    ///
    /// # Errors
    /// When the system makes no thread.
    pub fn on_stdout() -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let printed = Arc::clone(&shared);
        let print = move || print_all(&printed);
        thread::Builder::new()
            .name("console".into())
            .spawn(print)
            .map(|_| Self(shared))
    }

    /// A console whose lines are kept, for tests.
    #[must_use]
    pub fn kept() -> (Self, Kept) {
        let shared = Arc::new(Shared::default());
        (Self(Arc::clone(&shared)), Kept(shared))
    }

    /// The leader was asked to write.
    pub fn put(&self, client: SocketAddr, key: &str, value: &str) {
        let (key, value) = (Shown(key), Shown(value));
        self.print(format_args!(
            "Cliente {client} PUT key:{key} value:{value}\n"
        ));
    }

    /// A follower passes a write on.
    pub fn forward(&self, key: &str, value: &str) {
        let (key, value) = (Shown(key), Shown(value));
        self.print(format_args!("Encaminhando PUT key:{key} value:{value}\n"));
    }

    /// A follower was told of a write.
    pub fn replication(&self, key: &str, value: &str, timestamp: u64) {
        let (key, value) = (Shown(key), Shown(value));
        self.print(format_args!(
            "REPLICATION key:{key} value:{value} ts:{timestamp}\n"
        ));
    }

    /// All have the write.
    pub fn put_ok(&self, client: SocketAddr, key: &str, timestamp: u64) {
        let key = Shown(key);
        self.print(format_args!(
            "Enviando PUT_OK ao Cliente {client} da key:{key} ts:{timestamp}\n"
        ));
    }

    /// A client asked for a key, having seen `timestamp` of it.
    pub fn get(&self, client: SocketAddr, key: &str, timestamp: u64, answer: &Answer) {
        let (mine, given) = match answer {
            Answer::GetOk {
                value, timestamp, ..
            } => (*timestamp, value.as_str()),
            Answer::TryOtherServerOrLater { timestamp, .. } => (*timestamp, TRY),
            Answer::Null { .. } => (0, "NULL"),
            Answer::Erro { erro, .. } => (0, erro.as_str()),
            Answer::PutOk { .. } | Answer::JoinOk { .. } | Answer::ItIs => (0, "?"),
        };
        let (key, given) = (Shown(key), Shown(given));
        self.print(format_args!("Cliente {client} GET key:{key} ts:{timestamp}. Meu ts é {mine}, portanto devolvendo {given}\n"));
    }

    fn print(&self, line: fmt::Arguments<'_>) {
        let mut inner = self.0.inner();
        let before = inner.waiting.len();
        // Writing to memory does not fail.
        let _ = inner.waiting.write_fmt(line);
        if before > 0 && inner.waiting.len() > WAITING_BYTES_MAX {
            inner.waiting.truncate(before);
            inner.dropped += 1;
        }
        if inner.printer == Printer::Asleep {
            inner.printer = Printer::Busy;
            self.0.wake.notify_one();
        }
    }

    /// Waits until everything so far is printed, but not longer than `within`.
    pub fn drain(&self, within: Duration) {
        let inner = self.0.inner();
        let busy = |inner: &mut Inner| !inner.waiting.is_empty() || inner.printer == Printer::Busy;
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

fn print_all(shared: &Shared) {
    let mut together = String::new();
    loop {
        let mut inner = shared.inner();
        if inner.waiting.is_empty() {
            inner.printer = Printer::Asleep;
            shared.printed.notify_all();
            let asleep = |inner: &mut Inner| inner.printer == Printer::Asleep;
            let woken = shared.wake.wait_while(inner, asleep);
            inner = woken.unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(&mut inner.waiting, &mut together);
        let dropped = std::mem::take(&mut inner.dropped);
        drop(inner);
        let mut out = io::stdout().lock();
        // Whoever closed the other end does not want to read it.
        let _ = out
            .write_all(together.as_bytes())
            .and_then(|()| out.flush());
        drop(out);
        if together.capacity() > KEPT_BYTES_MAX {
            together = String::new();
        }
        together.clear();
        if dropped > 0 {
            eprintln!("{dropped} linhas não couberam no console");
        }
        thread::sleep(LOOK_AGAIN);
    }
}

/// A text of a client, without what would disturb the console.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        // Most texts have none, and are not looked at letter by letter: a control character begins with one of these bytes.
        let suspicious = |byte: &u8| matches!(byte, 0..0x20 | 0x7f | 0xc2);
        if !rest.as_bytes().iter().any(suspicious) {
            return f.write_str(rest);
        }
        while let Some(at) = rest.find(char::is_control) {
            let (before, from) = rest.split_at(at);
            f.write_str(before)?;
            let mut characters = from.chars();
            for escaped in characters.next().into_iter().flat_map(char::escape_default) {
                f.write_char(escaped)?;
            }
            rest = characters.as_str();
        }
        f.write_str(rest)
    }
}

/// A text of a client or server as it is shown on a console: without what would move the cursor or begin another line.
#[must_use]
pub fn shown(text: &str) -> String {
    Shown(text).to_string()
}

const WAITING_BYTES_MAX: usize = 16 << 20;
const KEPT_BYTES_MAX: usize = 256 << 10;
/// How late a line may be that comes right behind another.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r3_28_to_r3_32_the_lines_are_those_of_the_text() {
        let (console, lines) = Console::kept();
        let client = "127.0.0.1:51000".parse().unwrap();
        let key = || "a".to_owned();
        console.put(client, "a", "1");
        console.forward("a", "1");
        console.replication("a", "1", 7);
        console.put_ok(client, "a", 7);
        let (value, timestamp) = ("1".into(), 7);
        let found = Answer::GetOk {
            key: key(),
            value,
            timestamp,
        };
        let behind = Answer::TryOtherServerOrLater {
            key: key(),
            timestamp: 2,
        };
        console.get(client, "a", 3, &found);
        console.get(client, "a", 3, &behind);
        console.get(client, "a", 0, &Answer::Null { key: key() });
        assert_eq!(
            lines.so_far(),
            [
                "Cliente 127.0.0.1:51000 PUT key:a value:1",
                "Encaminhando PUT key:a value:1",
                "REPLICATION key:a value:1 ts:7",
                "Enviando PUT_OK ao Cliente 127.0.0.1:51000 da key:a ts:7",
                "Cliente 127.0.0.1:51000 GET key:a ts:3. Meu ts é 7, portanto devolvendo 1",
                "Cliente 127.0.0.1:51000 GET key:a ts:3. Meu ts é 2, portanto devolvendo TRY_OTHER_SERVER_OR_LATER",
                "Cliente 127.0.0.1:51000 GET key:a ts:0. Meu ts é 0, portanto devolvendo NULL",
            ]
        );
    }

    #[test]
    fn a_key_cannot_print_a_line_of_its_own_nor_clear_the_screen() {
        assert_eq!(
            shown("a\nREPLICATION \u{1b}[2J ç"),
            "a\\nREPLICATION \\u{1b}[2J ç"
        );
    }

    #[test]
    fn a_console_that_nobody_reads_holds_nobody_up() {
        let (console, lines) = Console::kept();
        let large = "x".repeat(WAITING_BYTES_MAX / 2);
        for n in 0..5 {
            console.replication("a", &large, n);
        }
        assert_eq!(lines.so_far().len(), 1);
        assert_eq!(lines.0.inner().dropped, 4);
    }
}
