//! Sends a request to the pair: to the one that was primary last, then to the other; both again after a while; then it gives up.
//!
//! The exact order is primary, secondary, wait, primary, secondary. Whoever answers is the primary from then on. A server
//! counts as dead when it cannot be reached, hangs up, or does not answer in time; its connection is then closed, so that a
//! late answer is never taken for the answer to another request.
//!
//! A write carries its identity where the server knows such ([`opcode::SESSION`]), so that sending it again gets its first answer. With
//! others it is carried out once for each time that it arrives.

use super::message::{
    Content, Dialect, LARGE_BYTES, Message, NO_SESSION, Side, TableCodec, opcode,
};
use crate::common::conversation::{Conversation, Ended, Manners, dial};
use bytes::BytesMut;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::sleep;

/// How a client speaks, and how patient it is.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Between the two rounds; a server that does not answer for so long counts as dead.
    pub timeout: Duration,
    /// What is written before a frame.
    pub dialect: Dialect,
    /// Whether writes carry their identity.
    pub identity: Identity,
}

/// Whether writes carry their identity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Identity {
    /// Where the server knows what that is.
    #[default]
    WherePossible,
    /// Never: the plain wire.
    Never,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            timeout: TIMEOUT,
            dialect: Dialect::Plain,
            identity: Identity::WherePossible,
        }
    }
}

/// `TIMEOUT`, if nothing else is said.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// What happens on the way, for whoever watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// This server failed; the other one is tried.
    Other {
        /// The one that failed.
        failed: String,
        /// How.
        why: String,
        /// The other.
        next: String,
    },
    /// Both failed; both are tried again after this.
    Again {
        /// How the second of them failed.
        why: String,
        /// When.
        after: Duration,
    },
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoAnswer {
    /// Neither server answered, twice. A write may have been carried out.
    #[error("neither server answers ({0})")]
    GaveUp(String),
    /// The request is larger than any message may be: nothing was sent, and the servers are as they were.
    #[error("{0}; nothing was sent")]
    Unsendable(String),
    /// Between two attempts of a write its identity was forgotten: whether it was carried out cannot be told.
    #[error("the servers forgot this client between two attempts; look before writing again")]
    Forgotten,
}

/// A client of the pair. Requests go out one at a time.
pub struct NetworkClient {
    servers: [String; 2],
    /// The one that is taken for the primary.
    primary: usize,
    talk: Option<Conversation<TcpStream, TableCodec>>,
    patience: Patience,
    session: Session,
    on_turn: Box<dyn FnMut(&Turn) + Send>,
}

/// Who this client is to the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Session {
    /// Not asked yet.
    New,
    /// This one; writes so far.
    Open { id: u64, seq: u64 },
    /// They know no such thing.
    None,
}

impl NetworkClient {
    /// A client of these two; nothing is connected before the first request.
    #[must_use]
    pub fn new(primary: String, secondary: String, patience: Patience) -> Self {
        Self {
            servers: [primary, secondary],
            primary: 0,
            talk: None,
            patience,
            session: match patience.identity {
                Identity::WherePossible => Session::New,
                Identity::Never => Session::None,
            },
            on_turn: Box::new(|_| ()),
        }
    }

    /// Tells of failures on the way.
    #[must_use]
    pub fn on_turn(mut self, on_turn: impl FnMut(&Turn) + Send + 'static) -> Self {
        self.on_turn = Box::new(on_turn);
        self
    }

    /// The server that is taken for the primary.
    #[must_use]
    pub fn primary(&self) -> &str {
        &self.servers[self.primary]
    }

    /// Sends a request and returns the reply to it.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub async fn send_receive(&mut self, request: &Message) -> Result<Message, NoAnswer> {
        let writes = matches!(request.opcode, opcode::PUT | opcode::COND_PUT | opcode::DEL);
        let mut numbered = None;
        let (mut last, mut maybe_done) = (String::new(), false);
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                self.turn(attempt, &last).await;
            }
            let reply = self.attempt(request, writes, &mut numbered).await;
            match reply {
                Ok(reply) if is_forgotten(&reply) => {
                    self.session = Session::New;
                    if maybe_done {
                        return Err(NoAnswer::Forgotten);
                    }
                    // Nothing was done: the session had expired before.
                    numbered = None;
                    match self.attempt(request, writes, &mut numbered).await {
                        Ok(reply) => return Ok(reply),
                        Err(failed) => {
                            (last, maybe_done) = (self.said(&failed), failed.sent == Sent::Maybe);
                        }
                    }
                }
                Ok(reply) => return Ok(reply),
                Err(failed) if failed.sent == Sent::Never => {
                    return Err(NoAnswer::Unsendable(failed.why));
                }
                Err(failed) => {
                    last = self.said(&failed);
                    maybe_done |= failed.sent == Sent::Maybe;
                }
            }
        }
        self.talk = None;
        Err(NoAnswer::GaveUp(last))
    }

    /// Which server failed, and how.
    fn said(&self, failed: &Failed) -> String {
        format!("{}: {}", self.primary(), failed.why)
    }

    /// To the other server, after a while if both were tried.
    async fn turn(&mut self, attempt: usize, why: &str) {
        self.talk = None;
        let why = why.to_owned();
        let failed = self.primary().to_owned();
        self.primary = 1 - self.primary;
        if attempt.is_multiple_of(2) {
            let after = self.patience.timeout;
            (self.on_turn)(&Turn::Again { why, after });
            sleep(after).await;
        } else {
            let next = self.primary().to_owned();
            (self.on_turn)(&Turn::Other { failed, why, next });
        }
    }

    /// One attempt with the server that is taken for the primary. `numbered` is the request with its identity, the same in
    /// every attempt.
    async fn attempt(
        &mut self,
        request: &Message,
        writes: bool,
        numbered: &mut Option<Message>,
    ) -> Result<Message, Failed> {
        if writes && numbered.is_none() {
            if self.session == Session::New {
                // The write itself was not sent.
                let opened = self.open_session().await;
                self.session = opened.map_err(|failed| Failed::unsent(failed.why))?;
            }
            if let Session::Open { id, seq } = &mut self.session {
                *seq += 1;
                let content = Content::Once {
                    session: *id,
                    seq: *seq,
                    done_below: *seq,
                    write: Box::new(request.clone()),
                };
                *numbered = Some(Message::new(opcode::ONCE, content));
            }
        }
        let sent = numbered.as_ref().unwrap_or(request);
        self.exchange(sent, request.opcode).await
    }

    /// Asks the server for a session. One that answers otherwise, or that hangs up and answers what everybody knows, has
    /// none to give.
    async fn open_session(&mut self) -> Result<Session, Failed> {
        let ask = Message::new(opcode::SESSION, Content::Result(0));
        match self.exchange(&ask, opcode::SESSION).await {
            Ok(Message {
                content: Content::Value(id),
                ..
            }) if id.len() == 8 => {
                let id = id.iter().fold(0, |id, byte| id << 8 | u64::from(*byte));
                Ok(Session::Open { id, seq: 0 })
            }
            Ok(_) => Ok(Session::None),
            Err(_) => {
                let size = Message::new(opcode::SIZE, Content::Result(0));
                self.exchange(&size, opcode::SIZE).await?;
                Ok(Session::None)
            }
        }
    }

    /// Sends to the server that is taken for the primary, and waits for its answer to an operation.
    async fn exchange(&mut self, message: &Message, operation: i16) -> Result<Message, Failed> {
        let exchanged = self.exchange_on_connection(message, operation).await;
        match &exchanged {
            // A late answer must not be taken for that to another request.
            Err(_) => self.talk = None,
            // Whoever finds a request too large says so and listens no longer.
            Ok(reply) if reply.opcode == opcode::RT_ERROR && is_large(message) => self.talk = None,
            Ok(_) => {}
        }
        exchanged
    }

    async fn exchange_on_connection(
        &mut self,
        message: &Message,
        operation: i16,
    ) -> Result<Message, Failed> {
        let timeout = self.patience.timeout;
        let talk = match &mut self.talk {
            Some(talk) => talk,
            None => {
                let address = &self.servers[self.primary];
                let stream = dial(address, timeout).await;
                let stream = stream.map_err(|e| Failed::unsent(e.to_string()))?;
                let codec = TableCodec::new(Side::Client, self.patience.dialect, REPLY_BYTES_MAX);
                let manners = Manners {
                    idle: timeout,
                    message: timeout,
                    write: timeout,
                };
                self.talk.insert(Conversation::new(stream, codec, manners))
            }
        };
        match talk.send(message.clone()).await {
            Ok(()) => {}
            Err(e @ Ended::Unsendable(_)) => {
                return Err(Failed {
                    why: e.to_string(),
                    sent: Sent::Never,
                });
            }
            // It may have been refused before all of it was sent: what the server said then is still to be read.
            Err(e) => {
                return match talk.next().await {
                    Ok(Some(Ok(reply))) if reply.opcode == opcode::RT_ERROR => Ok(reply),
                    Ok(_) | Err(_) => Err(Failed::maybe(e.to_string())),
                };
            }
        }
        let reply = match talk.next().await {
            Ok(Some(Ok(reply))) => reply,
            Ok(Some(Err(e))) => {
                return Err(Failed::maybe(format!("the answer cannot be read: {e}")));
            }
            Ok(None) => return Err(Failed::maybe("it hung up".into())),
            Err(e) => return Err(Failed::maybe(e.to_string())),
        };
        // Servers repeat the operation's code, or add one to it.
        match reply.opcode {
            code if code == operation || code == operation + 1 => Ok(reply),
            opcode::RT_ERROR => Ok(reply),
            code => Err(Failed::maybe(format!(
                "an answer to another question ({code})"
            ))),
        }
    }
}

/// An attempt without an answer.
struct Failed {
    why: String,
    sent: Sent,
}

/// Whether the server may have got the request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    No,
    Maybe,
    /// And never will be, to whomever.
    Never,
}

impl Failed {
    fn unsent(why: String) -> Self {
        let sent = Sent::No;
        Self { why, sent }
    }

    fn maybe(why: String) -> Self {
        let sent = Sent::Maybe;
        Self { why, sent }
    }
}

fn is_large(message: &Message) -> bool {
    let mut bytes = BytesMut::new();
    message.encode(&mut bytes);
    bytes.len() > LARGE_BYTES
}

fn is_forgotten(reply: &Message) -> bool {
    *reply == Message::new(opcode::RT_ERROR, Content::Result(NO_SESSION))
}

/// Primary, secondary, and both again.
const ATTEMPTS: usize = 4;
const REPLY_BYTES_MAX: usize = 16 << 20;

#[cfg(test)]
#[path = "network_client_tests.rs"]
mod tests;
