//! What a user of the client sees: a question, a request, an answer.

use super::client::{Patience, ask};
use super::expression::{INVALID_EXPRESSION, TEXT_BYTES_MAX};
use super::words;
use crate::common::prompt::{OnPipe, Prompt, Typed};
use kvrep_transport_multicast::MulticastConfig;
use std::io::{self, Write as _};

/// What became of the requests so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Each has a result.
    Results,
    /// One was invalid, or had no answer.
    Failed,
}

/// Asks servers and tells of it.
#[derive(Debug)]
pub struct Menu {
    group: MulticastConfig,
    patience: Patience,
    outcome: Outcome,
    /// Expressions have no answer yet.
    waits: bool,
}

impl Menu {
    /// Nothing was asked yet.
    #[must_use]
    pub fn new(group: MulticastConfig, patience: Patience) -> Self {
        Self {
            group,
            patience,
            outcome: Outcome::Results,
            waits: false,
        }
    }

    /// What became of the requests. One that waits, because its user has waited for long enough, has no answer.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        if self.waits {
            Outcome::Failed
        } else {
            self.outcome
        }
    }

    /// One expression after the other, as they were given. May be dropped at any time, as when the program is to end.
    ///
    /// # Errors
    /// When nothing can be printed any more.
    pub async fn given(&mut self, expressions: &[String]) -> io::Result<()> {
        self.waits = true;
        for expression in expressions {
            self.evaluate(expression).await?;
        }
        self.waits = false;
        Ok(())
    }

    /// Each line of the standard input, until it ends. May be dropped at any time, too.
    ///
    /// # Errors
    /// When nothing can be read or printed any more.
    pub async fn typed(&mut self) -> io::Result<()> {
        let mut prompt = Some(Prompt::new("", OnPipe::Silent, TEXT_BYTES_MAX)?);
        // A read cannot be taken back; it has a thread of its own, so that Ctrl-C ends the program meanwhile.
        while let Some(mut reader) = prompt.take() {
            say(words::TYPE_THE_EXPRESSION)?;
            let reading = tokio::task::spawn_blocking(move || (reader.ask(), reader));
            let (typed, reader) = reading.await.map_err(io::Error::other)?;
            match typed? {
                Typed::Line(line) if line.trim().is_empty() => {}
                Typed::Line(line) => {
                    self.waits = true;
                    self.evaluate(line.trim()).await?;
                    self.waits = false;
                }
                Typed::Unfit(why) => self.fail(&why),
                Typed::End => break,
            }
            prompt = Some(reader);
        }
        Ok(())
    }

    async fn evaluate(&mut self, expression: &str) -> io::Result<()> {
        say(&words::requesting(expression))?;
        match ask(expression, &self.group, self.patience).await {
            Ok(answer) => {
                if answer.text == INVALID_EXPRESSION {
                    self.outcome = Outcome::Failed;
                }
                say(&words::answered(&answer.text, answer.from))
            }
            Err(error) => {
                self.fail(&error.to_string());
                Ok(())
            }
        }
    }

    fn fail(&mut self, why: &str) {
        self.outcome = Outcome::Failed;
        eprintln!("calc-client: {why}");
    }
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
