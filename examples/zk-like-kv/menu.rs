//! The client's menu: INIT, PUT and GET, and the two lines that it prints.
//!
//! Questions are asked on a terminal only. What comes through a pipe is a script: one answer a line, and nothing but the
//! lines of the text goes to standard output. Whatever goes wrong is told on standard error.
//!
//! Invariant: what is written is what was typed. A line that a message cannot carry unaltered (it is no UTF-8) or that is too long is
//! passed over as a whole, the choice that it belongs to does nothing and says why, and the next line is the next answer.

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

/// What was typed.
#[derive(Debug)]
enum Typed {
    /// A line, without its end.
    Line(String),
    /// What cannot be an answer, and why.
    Unfit(String),
    /// Nothing will be any more.
    End,
}

impl Typed {
    /// The answer, or why `choice` gets none.
    fn answers(self, choice: &str) -> Result<String, String> {
        match self {
            Self::Line(line) => Ok(line),
            Self::Unfit(why) => Err(format!("{choice}: nada foi feito: {why}")),
            Self::End => Err(format!("{choice}: faltam respostas")),
        }
    }
}

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
        loop {
            let choice = match self.question("[1] INIT  [2] PUT  [3] GET: ").await? {
                Typed::Line(choice) => choice,
                Typed::Unfit(why) => {
                    failed += 1;
                    eprintln!("{why}");
                    continue;
                }
                Typed::End => return Ok(failed),
            };
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
    }

    async fn init(&mut self) -> io::Result<Result<(), String>> {
        let mut servers = Vec::new();
        for port in [10_097, 10_098, 10_099] {
            let number = servers.len() + 1;
            let ip = format!("IP do servidor {number} [127.0.0.1]: ");
            let ip = self.question(&ip).await?;
            let asked = format!("porta do servidor {number} [{port}]: ");
            let typed = self.question(&asked).await?;
            let (ip, typed) = match (ip.answers("INIT"), typed.answers("INIT")) {
                (Ok(ip), Ok(typed)) => (ip, typed),
                (Err(why), _) | (_, Err(why)) => return Ok(Err(why)),
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
        let key = self.question("key: ").await?.answers("PUT");
        // Also after an unfit key: it is no choice.
        let value = self.question("value: ").await?.answers("PUT");
        let (key, value) = match (key, value) {
            (Ok(key), Ok(value)) => (key, value),
            (Err(why), _) | (_, Err(why)) => return Ok(Err(why)),
        };
        let line = match self.session.put(&key, &value).await {
            Ok(written) => {
                if written.timestamp <= written.sent {
                    let Written {
                        sent,
                        timestamp,
                        server,
                    } = &written;
                    eprintln!(
                        "{server} gravou com o timestamp {timestamp}, e este cliente já viu {sent}: os servidores têm outra tabela do que antes"
                    );
                }
                put_line(&key, &value, &written)
            }
            Err(why) => return Ok(Err(format!("PUT key: {key}: {why}"))),
        };
        self.print(&line).await.map(Ok)
    }

    async fn get(&mut self) -> io::Result<Result<(), String>> {
        let key = match self.question("key: ").await?.answers("GET") {
            Ok(key) => key,
            Err(why) => return Ok(Err(why)),
        };
        let line = match self.session.get(&key).await {
            Ok(found) => get_line(&key, &found),
            Err(why) => return Ok(Err(format!("GET key: {key}: {why}"))),
        };
        self.print(&line).await.map(Ok)
    }

    /// Asks if somebody sits there, and reads a line.
    async fn question(&mut self, words: &str) -> io::Result<Typed> {
        if self.questions == Questions::Asked {
            self.output.write_all(words.as_bytes()).await?;
            self.output.flush().await?;
        }
        let mut line = Vec::new();
        let mut bounded = (&mut self.input).take(LINE_BYTES_MAX);
        let read = bounded.read_until(b'\n', &mut line).await?;
        if read == 0 {
            return Ok(Typed::End);
        }
        if read as u64 == LINE_BYTES_MAX && !line.ends_with(b"\n") {
            self.pass_over().await?;
            let why = format!("uma linha tem menos de {LINE_BYTES_MAX} bytes, e esta tem mais");
            return Ok(Typed::Unfit(why));
        }
        Ok(match String::from_utf8(line) {
            Ok(mut line) => {
                let end = ["\r\n", "\n"].into_iter().find(|end| line.ends_with(end));
                line.truncate(line.len() - end.map_or(0, str::len));
                Typed::Line(line)
            }
            Err(error) => {
                let at = error.utf8_error().valid_up_to() + 1;
                Typed::Unfit(format!("escreva em UTF-8: o byte {at} da linha não é"))
            }
        })
    }

    /// Reads to the end of a line, and keeps nothing of it.
    async fn pass_over(&mut self) -> io::Result<()> {
        loop {
            let found = self.input.fill_buf().await?;
            let end = found.iter().position(|byte| *byte == b'\n');
            let (passed, over) = match end {
                Some(at) => (at + 1, true),
                None => (found.len(), found.is_empty()),
            };
            self.input.consume(passed);
            if over {
                return Ok(());
            }
        }
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
    let Written {
        server, timestamp, ..
    } = written;
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
            sent: 0,
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

    async fn typed(questions: Questions, script: impl AsRef<[u8]>) -> (u64, String) {
        let mut output = Vec::new();
        let patience = Duration::from_secs(30);
        let menu = Menu::new(
            (script.as_ref(), &mut output),
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
    async fn a_line_that_is_unfit_is_passed_over_as_a_whole_with_the_choice_that_it_belongs_to() {
        let long = "x".repeat(usize::try_from(3 * LINE_BYTES_MAX).unwrap());
        // Choices that fail: the two PUTs, the GET, INIT, and a choice that is no text. None of their answers is taken for a choice.
        let script = [
            &b"PUT\na\xff\n4\nPUT\na\n"[..],
            long.as_bytes(),
            b"\nGET\n\xc3\nINIT\n\xff\n1\n\xfe\nINIT\n\n\n\n\n\n\n",
        ]
        .concat();
        let (failed, said) = typed(Questions::Known, script).await;
        assert_eq!((failed, said.as_str()), (5, ""));
    }

    #[tokio::test]
    async fn a3_13_a_script_is_asked_nothing_and_what_is_wrong_in_it_does_not_end_it() {
        let script = "4\nINIT\n127.0.0.1\nx\nINIT\n127.0.0.1\n0\nPUT\na\n1\nGET\na\nPUT\nINIT\n";
        let (failed, said) = typed(Questions::Known, script).await;
        assert_eq!((failed, said.as_str()), (6, ""));
    }
}
