//! The prompt: a line editor with a history on a terminal, plain lines on a pipe.

use super::args::HELP;
use super::line::{Line, parse};
use super::remote::Remote;
use super::shown::shown;
use crate::document_store::wire::Response;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

/// Where lines come from.
enum Input {
    Terminal(Box<DefaultEditor>),
    Pipe,
}

/// How it went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Session {
    /// Every command was done, or a person saw which was not.
    Good,
    /// A command of a script failed.
    Failed,
}

/// Asks for lines and carries them out, until `exit` or the end of the input.
///
/// # Errors
/// When the terminal cannot be used.
pub async fn converse(remote: &Remote) -> io::Result<Session> {
    let mut input = if io::stdin().is_terminal() && io::stdout().is_terminal() {
        Input::Terminal(Box::new(DefaultEditor::new().map_err(io::Error::other)?))
    } else {
        Input::Pipe
    };
    let mut session = Session::Good;
    while let Some(line) = input.next()? {
        match carry_out(remote, &line).await {
            Ok(Done::Exit) => break,
            Ok(Done::Said(text)) if text.is_empty() => {}
            Ok(Done::Said(text)) => say(&text)?,
            Err(why) => {
                say(&format!("Error: {why}"))?;
                if matches!(input, Input::Pipe) {
                    session = Session::Failed;
                }
            }
        }
    }
    say("Bye")?;
    Ok(session)
}

enum Done {
    Said(String),
    Exit,
}

async fn carry_out(remote: &Remote, line: &str) -> Result<Done, String> {
    match parse(line)? {
        Line::Empty => Ok(Done::Said(String::new())),
        Line::Help => Ok(Done::Said(HELP.into())),
        Line::Exit => Ok(Done::Exit),
        Line::Ask { command, request } => match remote.ask(&request).await {
            Ok(Response::Ok(result)) => {
                let result = serde_json::from_str(&result).map_err(|e| e.to_string())?;
                Ok(Done::Said(shown(command, &result)))
            }
            Ok(Response::Ko(why)) => Err(why),
            Err(why) => Err(why.to_string()),
        },
    }
}

impl Input {
    /// The next line; `None` at the end.
    fn next(&mut self) -> io::Result<Option<String>> {
        match self {
            Self::Terminal(editor) => match editor.readline(PROMPT) {
                Ok(line) => {
                    // A line that is not remembered is no reason to stop.
                    let _ = editor.add_history_entry(&line);
                    Ok(Some(line))
                }
                Err(ReadlineError::Eof | ReadlineError::Interrupted) => Ok(None),
                Err(error) => Err(io::Error::other(error)),
            },
            Self::Pipe => {
                print(PROMPT)?;
                let mut line = Vec::new();
                let limited = &mut io::Read::take(io::stdin().lock(), LINE_BYTES_MAX);
                if limited.read_until(b'\n', &mut line)? == 0 {
                    return Ok(None);
                }
                Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned()))
            }
        }
    }
}

fn say(text: &str) -> io::Result<()> {
    print(&format!("{text}\n"))
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

const PROMPT: &str = "db > ";
/// No request of a longer line could be sent.
const LINE_BYTES_MAX: u64 = 1 << 20;
