//! The client's menu: INIT, PUT and GET, and the two lines that it prints.
//!
//! Questions are asked on a terminal only. What comes through a pipe is a script: one answer a line, and nothing but the
//! lines of the text goes to standard output. Whatever goes wrong is told on standard error.

use super::console::shown;
use super::message::TRY;
use super::session::{Found, Session, Value, Written};
use std::io;
use std::num::NonZeroU16;
use std::time::Duration;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Where questions go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Questions {
    /// To whoever sits there.
    Asked,
    /// Nowhere: a script knows them.
    Known,
}

/// The menu over one input and output.
#[derive(Debug)]
pub struct Menu<I, O> {
    input: I,
    output: O,
    questions: Questions,
    session: Session,
}

/// What was typed, or that nothing will be any more.
type Typed = io::Result<Option<String>>;

impl<I: AsyncBufRead + Unpin, O: AsyncWrite + Unpin> Menu<I, O> {
    /// A menu. `servers` may be known beforehand; otherwise INIT asks for them.
    pub fn new(
        (input, output): (I, O),
        questions: Questions,
        servers: Vec<String>,
        seed: u64,
        patience: Duration,
    ) -> Self {
        Self {
            input,
            output,
            questions,
            session: Session::new(servers, seed, patience),
        }
    }

    /// Serves until the input ends. How many choices failed.
    ///
    /// # Errors
    /// When input or output breaks.
    pub async fn run(mut self) -> io::Result<u64> {
        let mut failed = 0;
        while let Some(choice) = self.question("[1] INIT  [2] PUT  [3] GET: ").await? {
            let done = match choice.trim().to_uppercase().as_str() {
                "" => Ok(()),
                "1" | "INIT" => self.init().await?,
                "2" | "PUT" => self.put().await?,
                "3" | "GET" => self.get().await?,
                other => Err(format!(
                    "{}: escolha INIT, PUT ou GET",
                    shown(&other.chars().take(40).collect::<String>())
                )),
            };
            if let Err(why) = done {
                failed += 1;
                eprintln!("{}", shown(&why));
            }
        }
        Ok(failed)
    }

    async fn init(&mut self) -> io::Result<Result<(), String>> {
        let mut servers = Vec::new();
        for port in [10_097, 10_098, 10_099] {
            let number = servers.len() + 1;
            let ip = format!("IP do servidor {number} [127.0.0.1]: ");
            let Some(ip) = self.question(&ip).await? else {
                return Ok(Err("INIT: faltam respostas".into()));
            };
            let asked = format!("porta do servidor {number} [{port}]: ");
            let Some(typed) = self.question(&asked).await? else {
                return Ok(Err("INIT: faltam respostas".into()));
            };
            let ip = if ip.trim().is_empty() {
                "127.0.0.1"
            } else {
                ip.trim()
            };
            let port = match typed.trim() {
                "" => Ok(port),
                typed => typed.parse::<NonZeroU16>().map(u16::from),
            };
            let Ok(port) = port else {
                return Ok(Err(format!("INIT: {typed:?} não é uma porta (1 a 65535)")));
            };
            servers.push(match ip.contains(':') {
                true => format!("[{ip}]:{port}"),
                false => format!("{ip}:{port}"),
            });
        }
        self.session.ask_at(servers);
        Ok(Ok(()))
    }

    async fn put(&mut self) -> io::Result<Result<(), String>> {
        let (Some(key), Some(value)) = (
            self.question("key: ").await?,
            self.question("value: ").await?,
        ) else {
            return Ok(Err("PUT: faltam key e value".into()));
        };
        let line = match self.session.put(&key, &value).await {
            Ok(written) => put_line(&key, &value, &written),
            Err(why) => return Ok(Err(format!("PUT key: {key}: {why}"))),
        };
        self.print(&line).await.map(Ok)
    }

    async fn get(&mut self) -> io::Result<Result<(), String>> {
        let Some(key) = self.question("key: ").await? else {
            return Ok(Err("GET: falta key".into()));
        };
        let line = match self.session.get(&key).await {
            Ok(found) => get_line(&key, &found),
            Err(why) => return Ok(Err(format!("GET key: {key}: {why}"))),
        };
        self.print(&line).await.map(Ok)
    }

    /// Asks if somebody sits there, and reads a line; `None` at the end of the input.
    async fn question(&mut self, words: &str) -> Typed {
        if self.questions == Questions::Asked {
            self.output.write_all(words.as_bytes()).await?;
            self.output.flush().await?;
        }
        let mut line = Vec::new();
        let mut bounded = (&mut self.input).take(LINE_BYTES_MAX);
        let read = bounded.read_until(b'\n', &mut line).await?;
        if read as u64 == LINE_BYTES_MAX {
            let error = format!("uma linha tem no máximo {LINE_BYTES_MAX} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        }
        let line = String::from_utf8_lossy(&line);
        let line = line.strip_suffix('\n').unwrap_or(&line);
        let line = line.strip_suffix('\r').unwrap_or(line);
        Ok((read > 0).then(|| line.to_owned()))
    }

    async fn print(&mut self, line: &str) -> io::Result<()> {
        self.output
            .write_all(format!("{line}\n").as_bytes())
            .await?;
        self.output.flush().await
    }
}

/// What a client prints of a write.
#[must_use]
pub fn put_line(key: &str, value: &str, written: &Written) -> String {
    let Written { server, timestamp } = written;
    let (key, value) = (shown(key), shown(value));
    format!("PUT_OK key: {key} value {value} timestamp {timestamp} realizada no servidor {server}")
}

/// What a client prints of a read.
#[must_use]
pub fn get_line(key: &str, found: &Found) -> String {
    let Found {
        server,
        value,
        sent,
        timestamp,
    } = found;
    let value = match value {
        Value::Of(value) => shown(value),
        Value::Null => "NULL".into(),
        Value::Behind => TRY.into(),
    };
    let key = shown(key);
    format!(
        "GET key: {key} value: {value} obtido do servidor {server}, meu timestamp {sent} e do servidor {timestamp}"
    )
}

const LINE_BYTES_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r3_17_r3_18_a3_10_the_lines_are_those_of_the_text() {
        let server = || "127.0.0.1:10098".to_owned();
        let written = Written {
            server: server(),
            timestamp: 3,
        };
        assert_eq!(
            put_line("a", "1", &written),
            "PUT_OK key: a value 1 timestamp 3 realizada no servidor 127.0.0.1:10098"
        );
        let found = |value, sent, timestamp| Found {
            server: server(),
            value,
            sent,
            timestamp,
        };
        assert_eq!(
            get_line("a", &found(Value::Of("1".into()), 2, 3)),
            "GET key: a value: 1 obtido do servidor 127.0.0.1:10098, meu timestamp 2 e do servidor 3"
        );
        assert_eq!(
            get_line("a", &found(Value::Null, 0, 0)),
            "GET key: a value: NULL obtido do servidor 127.0.0.1:10098, meu timestamp 0 e do servidor 0"
        );
        assert_eq!(
            get_line("a", &found(Value::Behind, 3, 1)),
            "GET key: a value: TRY_OTHER_SERVER_OR_LATER obtido do servidor 127.0.0.1:10098, meu timestamp 3 e do servidor 1"
        );
    }

    async fn typed(questions: Questions, script: &str) -> (u64, String) {
        let mut output = Vec::new();
        let patience = Duration::from_secs(30);
        let menu = Menu::new(
            (script.as_bytes(), &mut output),
            questions,
            vec![],
            1,
            patience,
        );
        let failed = menu.run().await.unwrap();
        (failed, String::from_utf8(output).unwrap())
    }

    #[tokio::test]
    async fn r3_10_r3_16_the_menu_has_three_entries_and_init_asks_with_the_usual_ports() {
        let (failed, said) = typed(Questions::Asked, "INIT\n\n\n\n\n\n\n").await;
        assert_eq!(failed, 0);
        for words in [
            "[1] INIT  [2] PUT  [3] GET: ",
            "IP do servidor 1 [127.0.0.1]: ",
            "porta do servidor 1 [10097]: ",
            "porta do servidor 2 [10098]: ",
            "porta do servidor 3 [10099]: ",
        ] {
            assert!(said.contains(words), "{said}");
        }
    }

    #[tokio::test]
    async fn a3_13_a_script_is_asked_nothing_and_what_is_wrong_in_it_does_not_end_it() {
        let script = "4\nINIT\n127.0.0.1\nx\nINIT\n127.0.0.1\n0\nPUT\na\n1\nGET\na\nPUT\nINIT\n";
        let (failed, said) = typed(Questions::Known, script).await;
        assert_eq!((failed, said.as_str()), (6, ""));
    }
}
