//! The messages between table servers and their clients, as bytes, and the codec that finds them in a stream.
//!
//! A frame is an `int32` length and a message: `OPCODE int16`, `C_TYPE int16`, content. All integers are big-endian.
//!
//! Besides the operations of every table server there are some of ours. Two carry a request's identity, so that a write that
//! is sent again after a failover gets its first answer; with one a long list of keys is read in pieces; one is for servers. A server that does not know them
//! answers with an error or hangs up, and a client then does without.
//!
//! | opcode | request | reply |
//! |---|---|---|
//! | `OC_SESSION` 110 | `CT_RESULT` (value ignored): a new session | 111, `CT_VALUE`: its 8 bytes |
//! | `OC_ONCE` 120 | `CT_ONCE` 600: `SESSION int64`, `SEQ int64`, `DONE_BELOW int64`, then one PUT, CPUT or DEL as it would be sent alone | as for that alone; 99, `CT_RESULT`, −2: the session is not known (any more), nothing was done now |
//! | `OC_SERVERS` 130 | `CT_RESULT` (value ignored): which other servers this one knows of; answered by any server, whatever it has | 131, `CT_KEYS`: for each its number, a blank and its `ip:port`; a word about itself may stand beside them (`begins`, `lost`) |
//! | `OC_KEYS_AFTER` 140 | `CT_RESULT` (value ignored): the first keys in the order of their bytes, as many as fit; or `CT_KEY`: those behind this one | 141, `CT_KEYS`; 0 keys: there are no more |
//!
//! Nothing that was read is believed: sizes are compared with the bytes that are there before anything is allocated, and a
//! frame that is too large ends the conversation. Large ones share a [`Room`].

use super::room::{Place, Room};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::io;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio_util::codec::{Decoder, Encoder, LengthDelimitedCodec};

/// The operation codes of requests; a reply has the code after.
pub mod opcode {
    /// Stores an entry.
    pub const PUT: i16 = 10;
    /// Stores an entry if its key is new.
    pub const COND_PUT: i16 = 20;
    /// Reads an entry.
    pub const GET: i16 = 30;
    /// Removes an entry.
    pub const DEL: i16 = 40;
    /// Counts the entries.
    pub const SIZE: i16 = 50;
    /// Lists the keys.
    pub const GET_KEYS: i16 = 60;
    /// Any failure; itself a reply's code.
    pub const RT_ERROR: i16 = 99;
    /// Ours: opens a session.
    pub const SESSION: i16 = 110;
    /// Ours: a write with its identity.
    pub const ONCE: i16 = 120;
    /// Ours: which other servers this one knows of.
    pub const SERVERS: i16 = 130;
    /// Ours: some of the keys.
    pub const KEYS_AFTER: i16 = 140;
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What is asked or answered; see [`opcode`].
    pub opcode: i16,
    /// With what.
    pub content: Content,
}

/// What a message carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// `CT_ENTRY` 100.
    Entry {
        /// Reserved; 0 for now.
        timestamp: i64,
        /// The key.
        key: Bytes,
        /// The data.
        data: Bytes,
    },
    /// `CT_KEY` 200.
    Key(Bytes),
    /// `CT_KEYS` 300.
    Keys(Vec<Bytes>),
    /// `CT_VALUE` 400.
    Value(Bytes),
    /// `CT_RESULT` 500.
    Result(i32),
    /// `CT_ONCE` 600, ours.
    Once {
        /// The client's session.
        session: u64,
        /// The write's number in it, from 1.
        seq: u64,
        /// The client has the answers to everything below.
        done_below: u64,
        /// The write.
        write: Box<Message>,
    },
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotAMessage(&'static str);

impl Message {
    /// A message.
    #[must_use]
    pub fn new(opcode: i16, content: Content) -> Self {
        Self { opcode, content }
    }

    /// The reply to whatever could not be done.
    #[must_use]
    pub fn failure() -> Self {
        Self::new(opcode::RT_ERROR, Content::Result(FAILED))
    }

    /// Its bytes, without the frame's length.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_i16(self.opcode);
        out.put_i16(self.content.code());
        match &self.content {
            Content::Entry {
                timestamp,
                key,
                data,
            } => {
                out.put_i64(*timestamp);
                put_sized(key, out);
                put_sized(data, out);
            }
            Content::Key(bytes) | Content::Value(bytes) => put_sized(bytes, out),
            Content::Keys(keys) => {
                out.put_i32(size(keys.len()));
                for key in keys {
                    put_sized(key, out);
                }
            }
            Content::Result(number) => out.put_i32(*number),
            Content::Once {
                session,
                seq,
                done_below,
                write,
            } => {
                out.put_u64(*session);
                out.put_u64(*seq);
                out.put_u64(*done_below);
                write.encode(out);
            }
        }
    }

    /// The message that these bytes are, all of them.
    ///
    /// # Errors
    /// [`NotAMessage`], with the reason.
    pub fn decode(mut bytes: Bytes) -> Result<Self, NotAMessage> {
        let message = Self::decode_next(&mut bytes, Wrapped::Maybe)?;
        if bytes.is_empty() {
            Ok(message)
        } else {
            Err(NotAMessage("bytes behind the end"))
        }
    }

    fn decode_next(bytes: &mut Bytes, wrapped: Wrapped) -> Result<Self, NotAMessage> {
        let opcode = bytes.try_get_i16().map_err(cut)?;
        let content = match bytes.try_get_i16().map_err(cut)? {
            ENTRY => Content::Entry {
                timestamp: bytes.try_get_i64().map_err(cut)?,
                key: sized(bytes)?,
                data: sized(bytes)?,
            },
            KEY => Content::Key(sized(bytes)?),
            KEYS => {
                let count = usize::try_from(bytes.try_get_i32().map_err(cut)?);
                let count = count.map_err(|_| NotAMessage("a negative number of keys"))?;
                // Each takes at least the four bytes of its size.
                if count > bytes.len() / 4 {
                    return Err(NotAMessage("more keys than bytes"));
                }
                Content::Keys((0..count).map(|_| sized(bytes)).collect::<Result<_, _>>()?)
            }
            VALUE => Content::Value(sized(bytes)?),
            RESULT => Content::Result(bytes.try_get_i32().map_err(cut)?),
            ONCE if wrapped == Wrapped::Maybe => Content::Once {
                session: bytes.try_get_u64().map_err(cut)?,
                seq: bytes.try_get_u64().map_err(cut)?,
                done_below: bytes.try_get_u64().map_err(cut)?,
                write: Box::new(Self::decode_next(bytes, Wrapped::Never)?),
            },
            _ => return Err(NotAMessage("an unknown type of content")),
        };
        Ok(Self { opcode, content })
    }
}

/// Whether a message may carry another one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wrapped {
    Maybe,
    Never,
}

impl Content {
    fn code(&self) -> i16 {
        match self {
            Self::Entry { .. } => ENTRY,
            Self::Key(_) => KEY,
            Self::Keys(_) => KEYS,
            Self::Value(_) => VALUE,
            Self::Result(_) => RESULT,
            Self::Once { .. } => ONCE,
        }
    }
}

fn sized(bytes: &mut Bytes) -> Result<Bytes, NotAMessage> {
    let size = usize::try_from(bytes.try_get_i32().map_err(cut)?);
    let size = size.map_err(|_| NotAMessage("a negative size"))?;
    if size > bytes.len() {
        return Err(NotAMessage("a size beyond the end"));
    }
    Ok(bytes.split_to(size))
}

fn put_sized(bytes: &[u8], out: &mut BytesMut) {
    out.put_i32(size(bytes.len()));
    out.put_slice(bytes);
}

/// A frame is far smaller than an `int32` can say: larger ones are refused when they are framed.
fn size(bytes: usize) -> i32 {
    i32::try_from(bytes).unwrap_or(i32::MAX)
}

fn cut<E>(_: E) -> NotAMessage {
    NotAMessage("it ends too early")
}

/// What is written before a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// Nothing.
    #[default]
    Plain,
    /// One byte: `c` from a client, `s` from a server.
    Prefixed,
}

/// Whose messages a codec writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// A client's.
    Client,
    /// A server's.
    Server,
}

/// Finds frames in a stream, and writes them. It takes either dialect, whichever it writes, and the word `00000001` that some
/// clients say once, before anything else: neither can be the length of a frame.
#[derive(Debug)]
pub struct TableCodec {
    frames: LengthDelimitedCodec,
    side: Side,
    dialect: Dialect,
    frame_bytes_max: usize,
    room: Option<Room>,
    /// The length of the frame that has begun and is not complete; with the room that it takes.
    inside: Option<usize>,
    taken: Option<Place>,
    given_up: Arc<Notify>,
}

impl TableCodec {
    /// A codec that writes the messages of this side in this dialect, and reads frames up to this size.
    #[must_use]
    pub fn new(side: Side, dialect: Dialect, frame_bytes_max: usize) -> Self {
        Self {
            frames: LengthDelimitedCodec::builder()
                .max_frame_length(frame_bytes_max)
                .new_codec(),
            side,
            dialect,
            frame_bytes_max,
            room: None,
            inside: None,
            taken: None,
            given_up: Arc::default(),
        }
    }

    /// Large frames share this room with those of others.
    #[must_use]
    pub fn room(mut self, room: Room) -> Self {
        self.room = Some(room);
        self
    }

    /// Is notified when the room that a frame takes is wanted for another one: this one is then not to be waited for any longer.
    #[must_use]
    pub fn given_up(&self) -> Arc<Notify> {
        Arc::clone(&self.given_up)
    }

    /// Passes what may come before a frame, and looks at the frame's length. Whether it is there.
    fn enter(&mut self, src: &mut BytesMut) -> io::Result<bool> {
        loop {
            if let Some(b'c' | b's') = src.first() {
                src.advance(1);
            }
            let Some(head) = src.first_chunk::<4>() else {
                return Ok(false);
            };
            match u32::from_be_bytes(*head) {
                CLIENT_HERE => src.advance(4),
                bytes if bytes as usize > self.frame_bytes_max => {
                    return Err(invalid(format!(
                        "a frame of {bytes} bytes; at most {} are taken",
                        self.frame_bytes_max
                    )));
                }
                bytes => {
                    self.inside = Some(bytes as usize);
                    return Ok(true);
                }
            }
        }
    }

    /// Whether a frame of so many bytes may be received on: a large one needs room, from when the first part of it is there.
    fn may_go_on(&mut self, bytes: usize, received: usize) -> bool {
        if bytes <= LARGE_BYTES || self.taken.is_some() {
            return true;
        }
        // Until then nothing is allocated for what it has announced.
        if received >= LARGE_BYTES {
            self.taken = self.room.as_ref().map(|room| room.take(&self.given_up));
            return true;
        }
        false
    }
}

impl Decoder for TableCodec {
    /// Bytes of a frame that are no message are for the caller to answer: the next frame is not lost by that.
    type Item = Result<Message, NotAMessage>;
    type Error = io::Error;

    fn decode(&mut self, src: &mut BytesMut) -> io::Result<Option<Self::Item>> {
        if self.inside.is_none() && !self.enter(src)? {
            return Ok(None);
        }
        let bytes = self.inside.unwrap_or_default();
        if !self.may_go_on(bytes, src.len()) {
            return Ok(None);
        }
        let Some(frame) = self.frames.decode(src)? else {
            return Ok(None);
        };
        self.inside = None;
        self.taken = None;
        Ok(Some(Message::decode(frame.freeze())))
    }
}

impl Encoder<Message> for TableCodec {
    type Error = io::Error;

    fn encode(&mut self, message: Message, dst: &mut BytesMut) -> io::Result<()> {
        if self.dialect == Dialect::Prefixed {
            dst.put_u8(match self.side {
                Side::Client => b'c',
                Side::Server => b's',
            });
        }
        let head = dst.len();
        dst.put_u32(0);
        message.encode(dst);
        let bytes = dst.len() - head - 4;
        match u32::try_from(bytes) {
            Ok(length) if bytes <= FRAME_SENT_BYTES_MAX => {
                dst[head..head + 4].copy_from_slice(&length.to_be_bytes());
                Ok(())
            }
            Ok(_) | Err(_) => Err(invalid(format!("a message of {bytes} bytes is too large"))),
        }
    }
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// The number in a failure's `CT_RESULT`.
pub const FAILED: i32 = -1;
/// The same, to a write of a session that is not known any more.
pub const NO_SESSION: i32 = -2;
/// A frame of more bytes takes a share of the server's [`Room`].
pub const LARGE_BYTES: usize = 64 << 10;
/// Largest frame that is sent.
pub const FRAME_SENT_BYTES_MAX: usize = 16 << 20;

const CLIENT_HERE: u32 = 1;
const ENTRY: i16 = 100;
const KEY: i16 = 200;
const KEYS: i16 = 300;
const VALUE: i16 = 400;
const RESULT: i16 = 500;
const ONCE: i16 = 600;

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
