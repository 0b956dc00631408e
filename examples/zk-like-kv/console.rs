//! The server's console: exactly the lines of the text, on standard output.
//!
//! A thread of its own prints them, so that a terminal that is slow, or a pipe that nobody reads, holds up no
//! replica. If so many lines wait that memory would suffer, further ones are dropped and counted on standard error.
//!
//! Keys and values come from clients: what would move the cursor or begin another line is printed escaped.

use super::message::{Answer, TRY};
use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Where the lines go.
#[derive(Debug)]
pub struct Console {
    lines: SyncSender<Line>,
    dropped: Arc<AtomicU64>,
    waiting_bytes: Arc<AtomicUsize>,
}

#[derive(Debug)]
enum Line {
    Text(String),
    /// Tell when everything before this is printed.
    Printed(SyncSender<()>),
}

/// Lines that were kept instead of being printed.
#[derive(Debug)]
pub struct Kept(Mutex<(Receiver<Line>, Vec<String>)>);

impl Console {
    /// A console on standard output.
    ///
    /// # Errors
    /// When the system makes no thread.
    pub fn on_stdout() -> io::Result<Self> {
        let (console, printed) = Self::with_room(LINES_WAITING_MAX);
        let waiting = Arc::clone(&console.waiting_bytes);
        let dropped = Arc::clone(&console.dropped);
        let print = move || print_all(&printed, &waiting, &dropped);
        thread::Builder::new()
            .name("console".into())
            .spawn(print)
            .map(|_| console)
    }

    /// A console whose lines are kept, for tests.
    #[must_use]
    pub fn kept() -> (Self, Kept) {
        let (console, lines) = Self::with_room(LINES_WAITING_MAX);
        (console, Kept(Mutex::new((lines, Vec::new()))))
    }

    fn with_room(lines_max: usize) -> (Self, Receiver<Line>) {
        let (lines, printed) = sync_channel(lines_max);
        let console = Self {
            lines,
            dropped: Arc::default(),
            waiting_bytes: Arc::default(),
        };
        (console, printed)
    }

    /// The leader was asked to write.
    pub fn put(&self, client: SocketAddr, key: &str, value: &str) {
        let (key, value) = (Shown(key), Shown(value));
        self.print(format!("Cliente {client} PUT key:{key} value:{value}\n"));
    }

    /// A follower passes a write on.
    pub fn forward(&self, key: &str, value: &str) {
        let (key, value) = (Shown(key), Shown(value));
        self.print(format!("Encaminhando PUT key:{key} value:{value}\n"));
    }

    /// A follower was told of a write.
    pub fn replication(&self, key: &str, value: &str, timestamp: u64) {
        let (key, value) = (Shown(key), Shown(value));
        self.print(format!(
            "REPLICATION key:{key} value:{value} ts:{timestamp}\n"
        ));
    }

    /// All have the write.
    pub fn put_ok(&self, client: SocketAddr, key: &str, timestamp: u64) {
        let key = Shown(key);
        self.print(format!(
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
            Answer::PutOk { .. } | Answer::JoinOk { .. } => (0, "?"),
        };
        let (key, given) = (Shown(key), Shown(given));
        self.print(format!(
            "Cliente {client} GET key:{key} ts:{timestamp}. Meu ts é {mine}, portanto devolvendo {given}\n"
        ));
    }

    fn print(&self, line: String) {
        let bytes = line.len();
        let waiting = self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = waiting == 0 || waiting + bytes <= WAITING_BYTES_MAX;
        if !fits || self.lines.try_send(Line::Text(line)).is_err() {
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything so far is printed, but not longer than `within`.
    pub fn drain(&self, within: Duration) {
        let (tell, printed) = sync_channel(1);
        if self.lines.try_send(Line::Printed(tell)).is_ok() {
            let _ = printed.recv_timeout(within);
        }
    }
}

impl Kept {
    /// The lines so far, without their ends.
    pub fn so_far(&self) -> Vec<String> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new: Vec<Line> = kept.0.try_iter().collect();
        kept.1.extend(new.into_iter().filter_map(|line| match line {
            Line::Text(text) => Some(text.trim_end_matches('\n').to_owned()),
            Line::Printed(_) => None,
        }));
        kept.1.clone()
    }
}

fn print_all(lines: &Receiver<Line>, waiting_bytes: &AtomicUsize, dropped: &AtomicU64) {
    let (mut together, mut told) = (String::new(), 0);
    let mut next = lines.recv().ok();
    while let Some(line) = next.take() {
        let mut asked = None;
        match line {
            Line::Text(text) => together.push_str(&text),
            Line::Printed(tell) => asked = Some(tell),
        }
        if asked.is_none() && together.len() < TOGETHER_BYTES {
            next = lines.try_recv().ok();
        }
        if next.is_none() {
            let mut out = io::stdout().lock();
            // Whoever closed the other end does not want to read it.
            let _ = out
                .write_all(together.as_bytes())
                .and_then(|()| out.flush());
            waiting_bytes.fetch_sub(together.len(), Ordering::Relaxed);
            together.clear();
            let now = dropped.load(Ordering::Relaxed);
            if now > told {
                eprintln!("{} linhas não couberam no console", now - told);
                told = now;
            }
            if let Some(tell) = asked {
                let _ = tell.send(());
            }
            next = lines.recv().ok();
        }
    }
}

/// A text of a client, without what would disturb the console.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
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

const LINES_WAITING_MAX: usize = 65_536;
const WAITING_BYTES_MAX: usize = 16 << 20;
const TOGETHER_BYTES: usize = 64 << 10;

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
        let (console, printed) = Console::with_room(2);
        for n in 0..5 {
            console.replication("a", "1", n);
        }
        assert_eq!(console.dropped.load(Ordering::Relaxed), 3);
        assert_eq!(printed.try_iter().count(), 2);
        let (console, _printed) = Console::with_room(LINES_WAITING_MAX);
        let large = "x".repeat(WAITING_BYTES_MAX / 2);
        for n in 0..5 {
            console.replication("a", &large, n);
        }
        assert_eq!(console.dropped.load(Ordering::Relaxed), 4);
    }
}
