//! The conversation at the prompt: lines in, what they came to out.

use super::args::HELP;
use super::line::{Line, parse};
use super::remote::Remote;
use super::shown::{shown, tame};
use crate::common::prompt::{OnPipe, Prompt, Typed};
use crate::document_store::wire::{Response, brief};
use std::io::{self, Write as _};

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
    let mut prompt = Prompt::new(PROMPT, OnPipe::Printed, LINE_BYTES_MAX)?;
    let mut session = Session::Good;
    loop {
        let done = match prompt.ask()? {
            Typed::End => break,
            Typed::Unfit(why) => Err(why),
            Typed::Line(line) => carry_out(remote, &line).await,
        };
        match done {
            Ok(Done::Exit) => break,
            Ok(Done::Said(text)) if text.is_empty() => {}
            Ok(Done::Said(text)) => say(&text)?,
            Err(why) => {
                say(&format!("Error: {}", tame(&brief(&why))))?;
                if !prompt.is_at_terminal() {
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
const LINE_BYTES_MAX: usize = 1 << 20;
