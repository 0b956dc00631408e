//! `table-client`: commands from the keyboard or a script, one a line, and what they say.

use super::client_stub::{ClientStub, Outcome};
use super::network_client::{NetworkClient, NoAnswer, Patience, Turn};
use super::server_console::shown;
use bytes::Bytes;
use std::io::{self, IsTerminal as _, Write as _};
use tokio::io::{AsyncBufReadExt, BufReader};

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

/// Reads commands from standard input until that ends.
pub async fn run(primary: String, secondary: String, patience: Patience) -> Ended {
    let network = NetworkClient::new(primary, secondary, patience).on_turn(told);
    let mut table = ClientStub::new(network);
    let prompt = if io::stdin().is_terminal() {
        PROMPT
    } else {
        ""
    };
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    loop {
        print(prompt);
        let line = match lines.next_line().await {
            Ok(Some(line)) => line,
            Ok(None) => return Ended::Quit,
            Err(e) => {
                eprintln!("table-client: {e}");
                continue;
            }
        };
        if line.trim().is_empty() {
            continue;
        }
        match typed(&line) {
            Ok(Typed::Quit) => return Ended::Quit,
            Ok(command) => match answer(&mut table, command).await {
                Ok(text) => print(&text),
                Err(why) => {
                    eprintln!("table-client: {why}");
                    print("Abortar . . .\n");
                    return Ended::GaveUp;
                }
            },
            Err(usage) => eprintln!("{usage}"),
        }
    }
}

async fn answer(table: &mut ClientStub, command: Typed) -> Result<String, NoAnswer> {
    Ok(match command {
        Typed::Put(key, data) => done("put", &table.put(key, data).await?),
        Typed::CondPut(key, data) => done("cput", &table.cond_put(key, data).await?),
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

fn failed(operation: &str) -> String {
    format!("Operacao {operation} falhou!\n")
}

fn told(turn: &Turn) {
    match turn {
        Turn::Other { failed, next } => {
            eprintln!("O primario {failed} falhou; vai ligar ao secundario-> {next}");
        }
        Turn::Again(after) => eprintln!(
            "Os dois servidores falharam; vai tentar outra vez em {} segundos",
            after.as_secs_f64()
        ),
    }
}

fn print(text: &str) {
    let mut out = io::stdout();
    // Whoever closed the other end does not want to read it.
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

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
