//! What the demo asks its processes, whatever scheme they run and whatever carries it: lines of JSON into a process's standard input, and
//! out of its standard output.
//!
//! Each question has a number, and its answer the same one; who stops waiting passes over a late answer. Whatever else a process
//! prints is for people: a line that is no answer is passed over, too.

use super::catalog::{Answer, Query};
use super::member::{Member, Standing};
use kvrep_core::Token;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::Write as _;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

/// What is asked.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Question {
    /// How does it stand?
    Standing,
    /// What does it have, once it has everything up to the token?
    Read {
        /// What is wanted.
        query: Query,
        /// What somebody has seen.
        at_least: Token,
    },
}

/// What is answered.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Told {
    /// How it stands.
    Standing(Standing),
    /// What it has.
    Read(Answer),
    /// Why there is no answer.
    Failed(String),
}

#[derive(Serialize, Deserialize)]
struct Line<T> {
    number: u64,
    said: T,
}

/// A question is short.
const QUESTION_BYTES_MAX: u64 = 64 << 10;
/// A page of rows is not.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// Answers that nobody has taken; what does not fit is asked for again.
const ANSWERS_MAX: usize = 4;

/// Answers what is asked on standard input, until that ends: the parent holds the other end, and it is closed however the parent ends.
pub async fn answer_all(member: &Member) {
    let mut questions = BufReader::new(tokio::io::stdin());
    while let Some(line) = next_line(&mut questions, QUESTION_BYTES_MAX).await {
        let Some(Line { number, said }) = read::<Question>(&line) else {
            continue;
        };
        let said = match said {
            Question::Standing => Told::Standing(member.standing()),
            Question::Read { query, at_least } => match member.read(query, at_least).await {
                Ok(answer) => Told::Read(answer),
                Err(why) => Told::Failed(why),
            },
        };
        // Whoever closed the other end does not want to read it.
        drop(std::io::stdout().write_all(&written(number, said)));
    }
}

/// The parent's end: one question at a time.
pub struct Asking(Mutex<Open>);

struct Open {
    questions: ChildStdin,
    answers: mpsc::Receiver<Line<Told>>,
    asked: u64,
    /// Reads what the process prints, so that it never waits for that. Aborted when dropped.
    _reader: JoinSet<()>,
}

impl Asking {
    /// The ends of a process's standard input and output.
    #[must_use]
    pub fn new(questions: ChildStdin, printed: ChildStdout) -> Self {
        let (tell, answers) = mpsc::channel(ANSWERS_MAX);
        let mut reader = JoinSet::new();
        reader.spawn(async move {
            let mut printed = BufReader::new(printed);
            while let Some(line) = next_line(&mut printed, ANSWER_BYTES_MAX).await {
                if let Some(answer) = read(&line) {
                    drop(tell.try_send(answer));
                }
            }
        });
        Self(Mutex::new(Open {
            questions,
            answers,
            asked: 0,
            _reader: reader,
        }))
    }

    /// Asks, and waits so long; `None` when no answer came.
    pub async fn ask(&self, question: Question, patience: Duration) -> Option<Told> {
        let deadline = Instant::now() + patience;
        let mut open = self.0.lock().await;
        open.asked += 1;
        let number = open.asked;
        let line = written(number, question);
        let asked = timeout_at(deadline, open.questions.write_all(&line)).await;
        asked.ok()?.ok()?;
        loop {
            let answer = timeout_at(deadline, open.answers.recv()).await.ok()??;
            if answer.number == number {
                return Some(answer.said);
            }
        }
    }
}

/// `None` at the end. What is longer than that comes in parts, none of which is a line of ours.
async fn next_line(
    from: &mut BufReader<impl AsyncRead + Unpin>,
    bytes_max: u64,
) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    let read = from.take(bytes_max).read_until(b'\n', &mut line).await;
    matches!(read, Ok(bytes) if bytes > 0).then_some(line)
}

fn read<T: DeserializeOwned>(line: &[u8]) -> Option<Line<T>> {
    serde_json::from_slice(line).ok()
}

fn written<T: Serialize>(number: u64, said: T) -> Vec<u8> {
    let line = Line { number, said };
    let mut bytes =
        serde_json::to_vec(&line).expect("what is asked and answered has names for keys");
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_process_prints_for_people_is_no_answer() {
        let told = Told::Failed("why".into());
        let mut printed = b"n1: waits for n2\n".to_vec();
        printed.extend(written(7, told.clone()));
        let mut printed = BufReader::new(printed.as_slice());
        let mut lines = Vec::new();
        while let Some(line) = next_line(&mut printed, ANSWER_BYTES_MAX).await {
            lines.push(read::<Told>(&line).map(|line| (line.number, line.said)));
        }
        assert_eq!(lines, [None, Some((7, told))]);
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_comes_in_parts_and_those_behind_it_are_read() {
        let mut typed = [vec![b'x'; 100], vec![b'\n']].concat();
        typed.extend(written(1, Question::Standing));
        let mut typed = BufReader::new(typed.as_slice());
        let mut questions = Vec::new();
        while let Some(line) = next_line(&mut typed, 40).await {
            assert!(line.len() <= 40);
            questions.extend(read::<Question>(&line).map(|line| line.said));
        }
        assert_eq!(questions, [Question::Standing]);
    }
}
