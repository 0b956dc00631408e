//! An application's own wire on one connection: messages in, messages out, each with a deadline and a bound.
//!
//! A codec of [`tokio_util::codec`] says where a message ends; this adds what a server needs that strangers talk to. The
//! library hands such a connection over with the bytes it has read already ([`ForeignService::serve`]), so a conversation
//! begins with those.
//!
//! # Invariants
//!
//! * Every wait has a deadline: for the next message to begin, for the rest of one that has begun (however many bytes
//!   trickle in meanwhile), for the other side to take an answer.
//! * It holds one message each way (or what was [fed](Conversation::feed)) and a chunk more, and gives large buffers back once they are empty. How large a message
//!   may be, the codec decides: give it a limit.
//! * It reads only when asked to: whoever sends requests faster than they are answered is slowed down by TCP.
//! * Whatever the other side sends, the worst that happens is that this conversation ends, with the reason.
//!
//! Caveat: after [`Ended`] nothing more can be read: where a message began is not known any more.
//!
//! ```
//! use kvrep_examples::common::conversation::{Conversation, Manners};
//! use tokio_util::codec::LinesCodec;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (one, other) = tokio::io::duplex(64); // in a server: the TcpStream and the first bytes
//! let lines = || LinesCodec::new_with_max_length(100);
//! let mut client = Conversation::new(one, lines(), Manners::default());
//! let mut server = Conversation::new(other, lines(), Manners::default());
//! client.send("ping").await?;
//! assert_eq!(server.next().await?, Some("ping".to_owned()));
//! drop(client);
//! assert_eq!(server.next().await?, None);
//! # Ok(())
//! # }
//! ```
//!
//! [`ForeignService::serve`]: kvrep_transport_tcp::ForeignService::serve

use bytes::{Buf, BytesMut};
use std::fmt::Display;
use std::io;
use std::pin::Pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_util::codec::{Decoder, Encoder};

/// How long each side of a conversation waits for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manners {
    /// For the next message to begin. 5 minutes by default.
    pub idle: Duration,
    /// For the rest of a message that has begun. 10 s by default.
    pub message: Duration,
    /// For the other side to take what is sent. 10 s by default.
    pub write: Duration,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(300),
            message: Duration::from_secs(10),
            write: Duration::from_secs(10),
        }
    }
}

/// Why a conversation is over, other than by the other side's good-bye between two messages.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Ended {
    /// No message began in time.
    #[error("nothing came for {0:?}")]
    Idle(Duration),
    /// A message began and did not end in time.
    #[error("a message was not complete after {0:?}")]
    Slow(Duration),
    /// The other side went in the middle of a message.
    #[error("it ended in the middle of a message")]
    Cut,
    /// The other side did not take what was sent in time.
    #[error("what was sent was not taken within {0:?}")]
    Unread(Duration),
    /// The bytes are no message, or a larger one than allowed.
    #[error("not a message of this protocol: {0}")]
    Malformed(String),
    /// What was to be sent is no message; nothing was sent.
    #[error("cannot be sent: {0}")]
    Unsendable(String),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
}

/// How the other side left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// It will say no more; whether it still listens cannot be told.
    SaidAll,
    /// It has gone.
    Broken,
}

/// Messages of codec `C` over a connection.
#[derive(Debug)]
pub struct Conversation<S, C> {
    stream: S,
    codec: C,
    manners: Manners,
    received: BytesMut,
    /// How much is read at once.
    chunk_bytes: usize,
    outgoing: BytesMut,
    /// Bytes that belong to no message.
    between: &'static [u8],
    /// When the first byte of the message came that is not complete yet.
    begun: Option<Instant>,
    /// Goes off at the deadline of what is waited for, or earlier.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl<S, C> Conversation<S, C> {
    /// A conversation that begins now. Over one half of a connection it only listens, or only speaks.
    pub fn new(stream: S, codec: C, manners: Manners) -> Self {
        Self::continued(stream, &[], codec, manners)
    }

    /// A conversation of which these bytes were read already.
    pub fn continued(stream: S, first: &[u8], codec: C, manners: Manners) -> Self {
        Self {
            stream,
            codec,
            manners,
            received: BytesMut::from(first),
            chunk_bytes: CHUNK_BYTES,
            outgoing: BytesMut::new(),
            between: &[],
            begun: (!first.is_empty()).then(Instant::now),
            alarm: None,
        }
    }

    /// Passes over these bytes where a message could begin: a line's end that comes late begins none. Nor does it make the other side's
    /// silence shorter.
    #[must_use]
    pub fn passing_over(mut self, between: &'static [u8]) -> Self {
        self.between = between;
        self.begun = None;
        self.begin();
        self
    }

    /// Notes when a message begins, once a byte of it is here.
    fn begin(&mut self) {
        if self.begun.is_some() {
            return;
        }
        let passed = (self.received.iter()).take_while(|byte| self.between.contains(byte));
        self.received.advance(passed.count());
        self.begun = (!self.received.is_empty()).then(Instant::now);
    }

    /// The next message; `None` when the other side has said everything.
    ///
    /// May be dropped at any await: what was read stays for the next call.
    ///
    /// # Errors
    /// [`Ended`]: there will be no more.
    pub async fn next(&mut self) -> Result<Option<C::Item>, Ended>
    where
        S: AsyncRead + Unpin,
        C: Decoder,
        C::Error: Display,
    {
        // What came while nobody asked for it is late from now on.
        self.begin();
        let mut silent_since = None;
        loop {
            if let Some(message) = self.codec.decode(&mut self.received).map_err(malformed)? {
                self.begun = None;
                self.begin();
                return Ok(Some(message));
            }
            give_back(&mut self.received);
            self.received.reserve(self.chunk_bytes);
            let room = self.received.capacity() - self.received.len();
            let since = *silent_since.get_or_insert_with(Instant::now);
            let read = self.read_in_time(since).await?;
            if read == 0 {
                let last = self.codec.decode_eof(&mut self.received);
                return match last.map_err(malformed)? {
                    None if self.begun.take().is_some() => Err(Ended::Cut),
                    last => Ok(last),
                };
            }
            if read == room {
                // There is more than one such read takes.
                self.chunk_bytes = (2 * self.chunk_bytes).min(CHUNK_BYTES_MAX);
            }
            self.begin();
        }
    }

    /// Reads once, and waits for no longer than the manners say.
    async fn read_in_time(&mut self, silent_since: Instant) -> Result<usize, Ended>
    where
        S: AsyncRead + Unpin,
    {
        let deadline = match self.begun {
            None => silent_since + self.manners.idle,
            Some(begun) => begun + self.manners.message,
        };
        let alarm = (self.alarm).get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if deadline < alarm.deadline() {
            alarm.as_mut().reset(deadline);
        }
        loop {
            tokio::select! {
                biased;
                read = self.stream.read_buf(&mut self.received) => return Ok(read?),
                () = alarm.as_mut() => {
                    if Instant::now() >= deadline {
                        return Err(match self.begun {
                            None => Ended::Idle(self.manners.idle),
                            Some(_) => Ended::Slow(self.manners.message),
                        });
                    }
                    // It was set for an earlier message: only now is it worth a timer for this one.
                    alarm.as_mut().reset(deadline);
                }
            }
        }
    }

    /// Ends when the other side has said everything, or the connection is broken: for whoever works on an answer and would rather not
    /// for somebody who has left. What else it says meanwhile is kept for [`next`](Self::next), up to a chunk; one that says more
    /// is not watched any longer, and this never ends.
    ///
    /// May be dropped at any await.
    pub async fn farewell(&mut self) -> Farewell
    where
        S: AsyncRead + Unpin,
    {
        while self.received.len() < CHUNK_BYTES {
            self.received.reserve(CHUNK_BYTES);
            match self.stream.read_buf(&mut self.received).await {
                Ok(0) => return Farewell::SaidAll,
                Ok(_) => {}
                Err(_) => return Farewell::Broken,
            }
        }
        std::future::pending().await
    }

    /// Whether the other side says anything but these bytes within this time, or ends what it says: [`next`](Self::next) tells which, and
    /// nothing is lost for it. Beyond a chunk of these bytes it is taken for more.
    ///
    /// May be dropped at any await.
    pub async fn says_more_than(&mut self, these: &[u8], within: Duration) -> bool
    where
        S: AsyncRead + Unpin,
    {
        let said = async {
            while self.received.len() < CHUNK_BYTES
                && self.received.iter().all(|byte| these.contains(byte))
            {
                self.received.reserve(CHUNK_BYTES);
                match self.stream.read_buf(&mut self.received).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
            }
        };
        timeout(within, said).await.is_ok()
    }

    /// Sends a message and waits until the system has taken it.
    ///
    /// # Errors
    /// [`Ended`]: the other side may have got a part of it.
    pub async fn send<M>(&mut self, message: M) -> Result<(), Ended>
    where
        S: AsyncWrite + Unpin,
        C: Encoder<M>,
        <C as Encoder<M>>::Error: Display,
    {
        self.feed(message)?;
        self.flush().await
    }

    /// Adds a message to what the next [`flush`](Self::flush) sends: several cost little more than one. Returns how many bytes are
    /// to be sent now; whoever feeds decides how many may be.
    ///
    /// # Errors
    /// [`Ended::Unsendable`]: nothing was added.
    pub fn feed<M>(&mut self, message: M) -> Result<usize, Ended>
    where
        C: Encoder<M>,
        <C as Encoder<M>>::Error: Display,
    {
        let before = self.outgoing.len();
        if let Err(error) = self.codec.encode(message, &mut self.outgoing) {
            self.outgoing.truncate(before);
            return Err(Ended::Unsendable(error.to_string()));
        }
        Ok(self.outgoing.len())
    }

    /// Waits until the system has taken everything that was fed.
    ///
    /// # Errors
    /// [`Ended`]: the other side may have got a part of it.
    pub async fn flush(&mut self) -> Result<(), Ended>
    where
        S: AsyncWrite + Unpin,
    {
        timeout(self.manners.write, async {
            while !self.outgoing.is_empty() {
                match self.stream.write(&self.outgoing).await? {
                    0 => return Err(io::ErrorKind::WriteZero.into()),
                    written => self.outgoing.advance(written),
                }
            }
            self.stream.flush().await
        })
        .await
        .map_err(|_| Ended::Unread(self.manners.write))??;
        give_back(&mut self.outgoing);
        Ok(())
    }

    /// Ends the conversation so that the other side gets what was sent last, even if it has said more than was read:
    /// closing with unread bytes would take those words back.
    pub async fn finish(mut self)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let within = self.manners.write.min(FINISH_WITHIN);
        // Whoever has gone already needs no good-bye.
        let _ = timeout(within, async {
            self.stream.shutdown().await?;
            // It is in the middle of what it says, and hears the answer only at the end of it.
            let mut rest = vec![0; FINISH_CHUNK_BYTES];
            let mut left = FINISH_BYTES_MAX;
            while left > 0 {
                let read = timeout(FINISH_PAUSE_MAX, self.stream.read(&mut rest)).await;
                match read {
                    Ok(Ok(read)) if read > 0 => left = left.saturating_sub(read),
                    Ok(Ok(_) | Err(_)) | Err(_) => break,
                }
            }
            io::Result::Ok(())
        })
        .await;
    }
}

/// Connects for requests and answers that are waited for.
///
/// # Errors
/// When nobody answers there in time.
pub async fn dial(address: &str, within: Duration) -> io::Result<TcpStream> {
    let stream = match timeout(within, TcpStream::connect(address)).await {
        Ok(connected) => connected?,
        Err(_) => {
            let what = format!("no answer from {address} within {within:?}");
            return Err(io::Error::new(io::ErrorKind::TimedOut, what));
        }
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn malformed(error: impl Display) -> Ended {
    Ended::Malformed(error.to_string())
}

/// An idle conversation holds no memory of its largest message.
fn give_back(buffer: &mut BytesMut) {
    if buffer.is_empty() && buffer.capacity() > KEPT_BYTES_MAX {
        *buffer = BytesMut::new();
    }
}

const CHUNK_BYTES: usize = 4 << 10;
/// Where much comes at once.
const CHUNK_BYTES_MAX: usize = 32 << 10;
const KEPT_BYTES_MAX: usize = 64 << 10;
const FINISH_WITHIN: Duration = Duration::from_secs(10);
/// Between two pieces of what is not listened to any more.
const FINISH_PAUSE_MAX: Duration = Duration::from_secs(1);
const FINISH_CHUNK_BYTES: usize = 16 << 10;
const FINISH_BYTES_MAX: usize = 32 << 20;

#[cfg(test)]
#[path = "conversation_tests.rs"]
mod tests;
