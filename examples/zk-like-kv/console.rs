//! The server's console: exactly the lines of the text, on standard output.
//!
//! A [`Printer`] prints them: a terminal that is slow, or a pipe that nobody reads, holds up no replica.
//!
//! Keys and values come from clients: what would move the cursor or begin another line is printed escaped.

use super::message::{Answer, TRY};
use crate::common::printer::{Kept, Out, Printer};
use std::fmt::{self, Write as _};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Where the lines go.
#[derive(Debug)]
pub struct Console(Printer);

impl Console {
    /// A console on standard output.
    ///
    /// # Errors
    /// When the system makes no thread.
    pub fn on_stdout() -> io::Result<Self> {
        let dropped = |lines| format!("{lines} linhas não couberam no console");
        Printer::on(Out::Stdout, dropped).map(Self)
    }

    /// A console whose lines are kept, for tests.
    #[must_use]
    pub fn kept() -> (Self, Kept) {
        let (printer, kept) = Printer::kept();
        (Self(printer), kept)
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
        self.0.print(line);
    }

    /// Waits until everything so far is printed, but not longer than `within`.
    pub fn drain(&self, within: Duration) {
        self.0.drain(within);
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
}
