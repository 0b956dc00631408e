//! `table-client`: commands from the keyboard or a script, one a line, and what they say.

use super::client_stub::{ClientStub, Outcome};
use super::message::FRAME_SENT_BYTES_MAX;
use super::network_client::{NetworkClient, NoAnswer, Patience, Turn};
use super::policy::REQUEST_BYTES_MAX;
use super::server_console::shown;
use crate::common::prompt::{self, OnPipe, Prompt};
use bytes::Bytes;
use std::io::{self, Write as _};

/// What can be typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Typed {
    /// `put <data> <key>`
    Put(Bytes, Bytes),
    /// `cput <data> <key>`
    CondPut(Bytes, Bytes),
    /// `get <key>`
    Get(Bytes),
    /// `del <key>`
    Del(Bytes),
    /// `size`
    Size,
    /// `getkeys`
    GetKeys,
    /// `quit`
    Quit,
}

/// The command that a line is. The key is the last word; data may contain spaces.
///
/// # Errors
/// How commands look.
pub fn typed(line: &str) -> Result<Typed, &'static str> {
    let line = line.trim();
    let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let entry = || {
        let (data, key) = rest.rsplit_once(char::is_whitespace)?;
        Some((bytes(key), bytes(data.trim_end())))
    };
    let key = || (!rest.is_empty() && !rest.contains(char::is_whitespace)).then(|| bytes(rest));
    let typed = match command {
        "put" => entry().map(|(key, data)| Typed::Put(key, data)),
        "cput" => entry().map(|(key, data)| Typed::CondPut(key, data)),
        "get" => key().map(Typed::Get),
        "del" => key().map(Typed::Del),
        "size" if rest.is_empty() => Some(Typed::Size),
        "getkeys" if rest.is_empty() => Some(Typed::GetKeys),
        "quit" if rest.is_empty() => Some(Typed::Quit),
        _ => None,
    };
    typed.ok_or(USAGE)
}

/// How a client ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By `quit`, or with its input.
    Quit,
    /// Neither server answers.
    GaveUp,
}

/// Reads commands from standard input until that ends: with a line editor on a terminal, plain lines on a pipe.
///
/// # Errors
/// When the input cannot be read.
pub async fn run(primary: String, secondary: String, patience: Patience) -> io::Result<Ended> {
    let network = NetworkClient::new(primary, secondary, patience).on_turn(told);
    let mut table = ClientStub::new(network);
    let mut prompt = Prompt::new(PROMPT, OnPipe::Silent, LINE_BYTES_MAX)?;
    loop {
        let line = match prompt.ask()? {
            prompt::Typed::Line(line) => line,
            prompt::Typed::Unfit(why) => {
                eprintln!("table-client: {why}");
                continue;
            }
            prompt::Typed::End => return Ok(Ended::Quit),
        };
        if line.trim().is_empty() {
            continue;
        }
        match typed(&line) {
            Ok(Typed::Quit) => return Ok(Ended::Quit),
            Ok(command) => match answer(&mut table, command).await {
                Ok(text) => print(&text),
                Err(why @ NoAnswer::Unsendable(_)) => eprintln!("table-client: {why}"),
                Err(why) => {
                    eprintln!("table-client: {why}");
                    print("Abortar . . .\n");
                    return Ok(Ended::GaveUp);
                }
            },
            Err(usage) => eprintln!("{usage}"),
        }
    }
}

async fn answer(table: &mut ClientStub, command: Typed) -> Result<String, NoAnswer> {
    Ok(match command {
        Typed::Put(key, data) => {
            let bytes = key.len() + data.len();
            large(bytes, done("put", &table.put(key, data).await?))
        }
        Typed::CondPut(key, data) => {
            let bytes = key.len() + data.len();
            large(bytes, done("cput", &table.cond_put(key, data).await?))
        }
        Typed::Del(key) => done("del", &table.del(key).await?),
        Typed::Get(key) => match table.get(key.clone()).await? {
            Outcome::Done(Some(data)) => format!(
                "Operacao get bem sucedida! Os dados de \"{}\" sao:\n - \"{}\"\n",
                shown(&key),
                shown(&data)
            ),
            Outcome::Done(None) | Outcome::Failed => failed("get"),
        },
        Typed::Size => match table.size().await? {
            Outcome::Done(size) => {
                format!("Operacao size bem sucedida! Tamanho = {size}.\n")
            }
            Outcome::Failed => failed("size"),
        },
        Typed::GetKeys => match table.get_keys().await? {
            Outcome::Done(keys) if keys.is_empty() => "Nao existem keys!!\n".into(),
            Outcome::Done(keys) => {
                let head = "Operacao getkeys bem sucedida! As keys sao:\n".to_owned();
                keys.iter()
                    .fold(head, |text, key| text + &format!(" - \"{}\"\n", shown(key)))
            }
            Outcome::Failed => failed("getkeys"),
        },
        Typed::Quit => String::new(),
    })
}

fn done(operation: &str, outcome: &Outcome<()>) -> String {
    match outcome {
        Outcome::Done(()) => format!("Operacao {operation} bem sucedida!\n"),
        Outcome::Failed => failed(operation),
    }
}

/// The answer has no word for why it failed; where it is plain, it is said here.
fn large(bytes: usize, said: String) -> String {
    if bytes + ENVELOPE_BYTES_MAX > REQUEST_BYTES_MAX && said.ends_with("falhou!\n") {
        eprintln!(
            "table-client: key and data have {bytes} bytes; a table-server of ours takes {} at most",
            REQUEST_BYTES_MAX - ENVELOPE_BYTES_MAX
        );
    }
    said
}

fn failed(operation: &str) -> String {
    format!("Operacao {operation} falhou!\n")
}

fn told(turn: &Turn) {
    match turn {
        Turn::Other { failed, why, next } => {
            eprintln!("O primario {failed} falhou; vai ligar ao secundario-> {next}");
            eprintln!("table-client: {why}");
        }
        Turn::Again { why, after } => {
            eprintln!(
                "Os dois servidores falharam; vai tentar outra vez em {} segundos",
                after.as_secs_f64()
            );
            eprintln!("table-client: {why}");
        }
    }
}

fn print(text: &str) {
    let mut out = io::stdout();
    // Whoever closed the other end does not want to read it.
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

/// What a request has beside key and data: codes, sizes, the identity of a write.
const ENVELOPE_BYTES_MAX: usize = 48;
/// More than any request can have.
const LINE_BYTES_MAX: usize = FRAME_SENT_BYTES_MAX + 64;
const PROMPT: &str = "prompt$ ";
const USAGE: &str = "commands: put <data> <key>, cput <data> <key>, get <key>, del <key>, size, getkeys, quit; the key is the last word";

#[cfg(test)]
mod tests {
    use super::*;

    /// The client's commands: data first, the key is the last word.
    #[test]
    fn commands_are_read_as_they_are_written() {
        let entry = (Bytes::from("key"), Bytes::from("some data"));
        let put = Ok(Typed::Put(entry.0.clone(), entry.1.clone()));
        assert_eq!(typed("put some data key"), put);
        assert_eq!(typed("  put   some data   key \n"), put);
        assert_eq!(
            typed("cput some data key"),
            Ok(Typed::CondPut(entry.0, entry.1))
        );
        assert_eq!(typed("get k"), Ok(Typed::Get("k".into())));
        assert_eq!(typed("del k"), Ok(Typed::Del("k".into())));
        assert_eq!(typed("size"), Ok(Typed::Size));
        assert_eq!(typed("getkeys"), Ok(Typed::GetKeys));
        assert_eq!(typed("quit"), Ok(Typed::Quit));
        for wrong in [
            "put", "put key", "get", "get a b", "size 1", "PUT a b", "hello",
        ] {
            assert_eq!(typed(wrong), Err(USAGE), "{wrong}");
        }
    }
}
