//! A follower's way to the leader: one connection, over which every client's PUT is passed on without waiting for the one before.
//!
//! The text has a follower pass a PUT on as the same message with `cliente` in it; nothing says that each needs a connection, or
//! must wait. A connection for each costs four times what the write does. So they share one: the leader answers in the order in
//! which it was asked, and what is ready at once travels together.
//!
//! # Invariants
//!
//! * An answer belongs to the oldest question that has none. One that speaks of another key ends the connection.
//! * Whoever asks is told one of three things by the deadline: what the leader said, that nothing was done (it was not sent), or that
//!   the outcome is unknown.
//! * What waits and what is under way are bounded in number; beyond that clients wait, and TCP slows them down.
//!
//! Caveat: what is under way when the connection breaks has an unknown outcome. It is not sent again: it could be written twice.

use super::console::Console;
use super::framing;
use super::message::Answer;
use super::store::{Put, nothing_done, unclear};
use crate::common::conversation::{Manners, dial};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// Passes writes on to the leader. See the [module](self).
#[derive(Debug)]
pub struct Forwarder {
    me: SocketAddr,
    leader: SocketAddr,
    console: Arc<Console>,
    /// How long a PUT may take.
    within: Duration,
    questions: mpsc::Sender<Question>,
}

/// A PUT that is to be passed on.
#[derive(Debug)]
struct Question {
    json: Vec<u8>,
    awaited: Awaited,
}

/// A [`Mensagem`](super::message::Mensagem) with a PUT and who asked for it; its texts need not be copied. That it says which server
/// passes it on is the mark by which another follower, if it is taken for the leader, knows that it must not pass it on again.
#[derive(Serialize)]
struct PassedOn<'a> {
    tipo: &'static str,
    key: &'a str,
    value: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<u64>,
    cliente: SocketAddr,
    servidor: SocketAddr,
}

/// Whoever waits for the answer.
#[derive(Debug)]
struct Awaited {
    key: String,
    deadline: Instant,
    answer: oneshot::Sender<Result<Heard, NotSent>>,
}

/// What the leader said.
#[derive(Debug)]
enum Heard {
    /// All have it, with this timestamp.
    PutOk(u64),
    /// What went wrong.
    Erro(String),
}

/// What an answer says, as far as it is not known here.
#[derive(Deserialize)]
struct Said<'a> {
    #[serde(borrow)]
    tipo: Cow<'a, str>,
    /// Missing where the leader did not understand the question.
    #[serde(borrow, default)]
    key: Cow<'a, str>,
    timestamp: Option<u64>,
    erro: Option<String>,
}

/// Why nothing was done.
#[derive(Debug)]
struct NotSent(String);

impl Forwarder {
    /// Passes on, as the server `me`, to this leader, which may still have to start. Must be called within a runtime: the connection has a task of its
    /// own, which ends with the forwarder.
    #[must_use]
    pub fn new(
        me: SocketAddr,
        leader: SocketAddr,
        console: Arc<Console>,
        within: Duration,
    ) -> Self {
        let (questions, waiting) = mpsc::channel(WAITING_MAX);
        tokio::spawn(carry(leader, waiting));
        Self {
            me,
            leader,
            console,
            within,
            questions,
        }
    }

    /// Who that is.
    #[must_use]
    pub fn leader(&self) -> SocketAddr {
        self.leader
    }

    /// Lets the leader write for this client, and relays its answer.
    pub async fn put(&self, client: SocketAddr, put: Put) -> Answer {
        let Put {
            key, value, seen, ..
        } = put;
        self.console.forward(&key, &value);
        let put = PassedOn {
            tipo: "PUT",
            key: &key,
            value: &value,
            timestamp: (seen > 0).then_some(seen),
            cliente: client,
            servidor: self.me,
        };
        match self.ask(&put).await {
            Ok(Ok(Heard::PutOk(timestamp))) => Answer::PutOk {
                key,
                value,
                timestamp,
            },
            Ok(Ok(Heard::Erro(erro))) => Answer::Erro {
                key: Some(key),
                erro,
            },
            Ok(Err(NotSent(why))) => nothing_done(key, why),
            Err(why) => unclear(key, why),
        }
    }

    async fn ask(&self, put: &PassedOn<'_>) -> Result<Result<Heard, NotSent>, String> {
        let deadline = Instant::now() + self.within + RELAY_SLACK;
        let leader = self.leader;
        let not_sent = |why: &str| Ok(Err(NotSent(format!("o líder {leader} {why}"))));
        // What is added to key and value is short.
        let mut json = Vec::with_capacity(put.key.len() + put.value.len() + WORDS_BYTES);
        let Ok(()) = serde_json::to_writer(&mut json, put) else {
            return not_sent("não entenderia o pedido");
        };
        let (answer, answered) = oneshot::channel();
        let awaited = Awaited {
            key: put.key.to_owned(),
            deadline,
            answer,
        };
        let question = Question { json, awaited };
        if let Err(TrySendError::Full(question) | TrySendError::Closed(question)) =
            self.questions.try_send(question)
        {
            let sent = timeout_at(deadline, self.questions.send(question)).await;
            if !matches!(sent, Ok(Ok(()))) {
                return not_sent("está ocupado");
            }
        }
        match timeout_at(deadline + OWN_SLACK, answered).await {
            Ok(Ok(said)) => Ok(said),
            Ok(Err(_)) => Err(format!(
                "a conexão com o líder {leader} terminou sem resposta"
            )),
            Err(_) => Err(format!("o líder {leader} não respondeu a tempo")),
        }
    }
}

/// Carries questions to the leader, over one connection after another, as long as somebody may ask.
async fn carry(leader: SocketAddr, mut questions: mpsc::Receiver<Question>) {
    let mut unsent = VecDeque::new();
    loop {
        let Some(next) = (match unsent.pop_front() {
            Some(next) => Some(next),
            None => questions.recv().await,
        }) else {
            return;
        };
        let Some(stream) = reach(leader, next.awaited.deadline).await else {
            next.give_back(leader);
            continue;
        };
        unsent.push_front(next);
        let (from, to) = stream.into_split();
        let (sent, awaited) = mpsc::channel(IN_FLIGHT_MAX);
        let why = tokio::select! {
            why = speak(to, leader, &mut questions, &mut unsent, sent) => why,
            why = listen(from, awaited) => why,
        };
        if let Err(why) = why {
            tracing::debug!(%leader, why, "the connection to the leader ended");
            sleep(REACH_AGAIN).await;
        }
    }
}

/// Sends what is asked, as much together as there is; until nothing is asked for a while.
async fn speak(
    to: OwnedWriteHalf,
    leader: SocketAddr,
    questions: &mut mpsc::Receiver<Question>,
    unsent: &mut VecDeque<Question>,
    sent: mpsc::Sender<Awaited>,
) -> Result<(), String> {
    let mut talk = framing::talk(to, &[], MANNERS);
    loop {
        if unsent.is_empty() {
            match timeout(IDLE, questions.recv()).await {
                Ok(Some(question)) => unsent.push_back(question),
                Ok(None) => return Ok(()),
                Err(_) if sent.capacity() == sent.max_capacity() => return Ok(()),
                Err(_) => continue,
            }
        }
        gather(questions, unsent).await;
        while let Some(next) = unsent.front() {
            if next.awaited.deadline <= Instant::now() {
                if let Some(late) = unsent.pop_front() {
                    late.give_back(leader);
                }
                continue;
            }
            let place = match sent.try_reserve() {
                Ok(place) => place,
                Err(_) => {
                    talk.flush().await.map_err(|ended| ended.to_string())?;
                    sent.reserve().await.map_err(|error| error.to_string())?
                }
            };
            let Some(Question { json, awaited }) = unsent.pop_front() else {
                break;
            };
            place.send(awaited);
            let bytes = talk.feed(&json[..]).map_err(|ended| ended.to_string())?;
            if bytes >= TOGETHER_BYTES {
                talk.flush().await.map_err(|ended| ended.to_string())?;
            }
        }
        talk.flush().await.map_err(|ended| ended.to_string())?;
    }
}

/// Takes what is asked, once those who are about to ask have done so: the first of many clients wakes this task, and a message to
/// the leader for each of them costs both sides more than the write does. It stands back once only, so that the leader begins with the
/// first ones while this server still reads the next ones.
async fn gather(questions: &mut mpsc::Receiver<Question>, unsent: &mut VecDeque<Question>) {
    tokio::task::yield_now().await;
    while unsent.len() < WAITING_MAX
        && let Ok(question) = questions.try_recv()
    {
        unsent.push_back(question);
    }
}

/// Gives each answer to whoever waits for it.
async fn listen(from: OwnedReadHalf, mut awaited: mpsc::Receiver<Awaited>) -> Result<(), String> {
    let mut talk = framing::talk(from, &[], MANNERS);
    let mut oldest: Option<Awaited> = None;
    loop {
        let Ok(heard) = timeout(LOOK_EVERY, talk.next()).await else {
            oldest = oldest.or_else(|| awaited.try_recv().ok());
            if oldest.as_ref().is_some_and(Awaited::is_overdue) {
                return Err("it does not answer".into());
            }
            continue;
        };
        let message = heard.map_err(|ended| ended.to_string())?;
        let message = message.ok_or("it was closed")?;
        let said: Said<'_> =
            serde_json::from_slice(&message.json).map_err(|error| error.to_string())?;
        let Some(asked) = oldest.take().or_else(|| awaited.try_recv().ok()) else {
            return Err(format!("an answer to nothing: {}", said.tipo));
        };
        if !said.key.is_empty() && said.key != asked.key {
            return Err("an answer to another question".into());
        }
        let heard = match (&*said.tipo, said.timestamp) {
            ("PUT_OK", Some(timestamp)) => Heard::PutOk(timestamp),
            (tipo, _) => Heard::Erro(said.erro.unwrap_or_else(|| tipo.into())),
        };
        // Whoever asked may have gone.
        let _ = asked.answer.send(Ok(heard));
    }
}

impl Question {
    fn give_back(self, leader: SocketAddr) {
        let why = NotSent(format!("o líder {leader} não responde"));
        let _ = self.awaited.answer.send(Err(why));
    }
}

impl Awaited {
    fn is_overdue(&self) -> bool {
        Instant::now() > self.deadline + OVERDUE
    }
}

/// A connection to the leader, which may be about to start.
async fn reach(leader: SocketAddr, deadline: Instant) -> Option<TcpStream> {
    while Instant::now() < deadline {
        if let Ok(stream) = dial(&leader.to_string(), REACH_WITHIN).await {
            return Some(stream);
        }
        sleep(REACH_AGAIN).await;
    }
    None
}

/// How long the leader is waited for. When it says nothing at all is noticed by who waits for its answers.
const MANNERS: Manners = Manners {
    idle: Duration::from_secs(24 * 3_600),
    message: Duration::from_secs(10),
    write: Duration::from_secs(10),
};
/// The leader ends a connection that says nothing for a minute; a question must not cross that.
const IDLE: Duration = Duration::from_secs(20);
/// A follower waits a little longer than the leader, so that the leader's word about the bound gets through.
const RELAY_SLACK: Duration = Duration::from_secs(1);
/// So that the word of the connection's task, which knows more, comes first.
const OWN_SLACK: Duration = Duration::from_millis(300);
/// How long after its deadline an answer is waited for: the leader may have a longer one.
const OVERDUE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_secs(1);
const REACH_WITHIN: Duration = Duration::from_secs(1);
const REACH_AGAIN: Duration = Duration::from_millis(50);
/// Not sent yet.
const WAITING_MAX: usize = 1_024;
/// Not answered yet; the leader reads as many.
const IN_FLIGHT_MAX: usize = 1_024;
/// Questions that are asked at once are sent together.
const TOGETHER_BYTES: usize = 32 << 10;
const WORDS_BYTES: usize = 128;

#[cfg(test)]
#[path = "forward_tests.rs"]
mod tests;
