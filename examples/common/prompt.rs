//! Lines that are typed or piped to a client: a line editor with a history on a terminal, plain lines on a pipe.
//!
//! Invariants: no line takes more memory than its limit, however long the input is; one that is too long, or no text, is
//! passed over as a whole and said to be so, so that its rest is not taken for the next command.
//!
//! Caveat: waiting for a line blocks the thread. That is right for a client that has nothing else to do meanwhile.

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use std::io::{self, BufRead, IsTerminal as _, Write as _};

/// Asks for lines.
pub struct Prompt {
    words: &'static str,
    on_pipe: OnPipe,
    line_bytes_max: usize,
    editor: Option<Box<DefaultEditor>>,
}

/// Whether the prompt is printed where nobody sees it being typed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnPipe {
    /// It is.
    Printed,
    /// It is not.
    Silent,
}

/// What was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Typed {
    /// A line, without its end.
    Line(String),
    /// What is no line, and why.
    Unfit(String),
    /// There will be no more.
    End,
}

impl Prompt {
    /// Lines of the standard input.
    ///
    /// # Errors
    /// When the terminal cannot be used.
    pub fn new(words: &'static str, on_pipe: OnPipe, line_bytes_max: usize) -> io::Result<Self> {
        let editor = if io::stdin().is_terminal() && io::stdout().is_terminal() {
            Some(Box::new(DefaultEditor::new().map_err(io::Error::other)?))
        } else {
            None
        };
        Ok(Self {
            words,
            on_pipe,
            line_bytes_max,
            editor,
        })
    }

    /// Whether somebody sits there.
    #[must_use]
    pub fn is_at_terminal(&self) -> bool {
        self.editor.is_some()
    }

    /// The next line. Ctrl-C and Ctrl-D end the input.
    ///
    /// # Errors
    /// When the input cannot be read, or the prompt not be printed.
    pub fn ask(&mut self) -> io::Result<Typed> {
        match &mut self.editor {
            Some(editor) => match editor.readline(self.words) {
                Ok(line) => {
                    // A line that is not remembered is no reason to stop.
                    let _ = editor.add_history_entry(&line);
                    Ok(Typed::Line(line))
                }
                Err(ReadlineError::Eof | ReadlineError::Interrupted) => Ok(Typed::End),
                Err(error) => Err(io::Error::other(error)),
            },
            None => {
                if self.on_pipe == OnPipe::Printed || io::stdin().is_terminal() {
                    let mut out = io::stdout().lock();
                    out.write_all(self.words.as_bytes())?;
                    out.flush()?;
                }
                read(&mut io::stdin().lock(), self.line_bytes_max)
            }
        }
    }
}

fn read(input: &mut impl BufRead, bytes_max: usize) -> io::Result<Typed> {
    let (mut line, mut bytes) = (Vec::new(), 0);
    loop {
        let found = match input.fill_buf() {
            Ok(found) => found,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        if found.is_empty() && bytes == 0 {
            return Ok(Typed::End);
        }
        let end = found.iter().position(|byte| *byte == b'\n');
        let part = &found[..end.unwrap_or(found.len())];
        let room = bytes_max.saturating_sub(line.len());
        line.extend_from_slice(&part[..part.len().min(room)]);
        let taken = part.len() + usize::from(end.is_some());
        let at_end = end.is_some() || found.is_empty();
        bytes += taken;
        let length = bytes - usize::from(end.is_some());
        input.consume(taken);
        if !at_end {
            continue;
        }
        if length > bytes_max {
            return Ok(Typed::Unfit(format!(
                "a line of {length} bytes; at most {bytes_max} are taken"
            )));
        }
        return Ok(match String::from_utf8(line) {
            Ok(text) => Typed::Line(text.trim_end_matches('\r').to_owned()),
            Err(_) => Typed::Unfit("a line that is no text: write it in UTF-8".into()),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_pipe_come_one_by_one_and_one_that_is_unfit_is_passed_over_as_a_whole() {
        let line = |text: &str| Typed::Line(text.to_owned());
        let input = b"one\r\n\n0123456789\n0123456789x\n\xff\xfe\nlast";
        let mut small = io::BufReader::with_capacity(3, &input[..]);
        let mut next = || read(&mut small, 10).expect("readable");
        assert_eq!([next(), next()], [line("one"), line("")]);
        assert_eq!(next(), line("0123456789"));
        let long = next();
        assert!(
            matches!(&long, Typed::Unfit(why) if why.contains("11 bytes")),
            "{long:?}"
        );
        assert!(matches!(next(), Typed::Unfit(why) if why.contains("UTF-8")));
        assert_eq!(
            [next(), next(), next()],
            [line("last"), Typed::End, Typed::End]
        );
    }
}
