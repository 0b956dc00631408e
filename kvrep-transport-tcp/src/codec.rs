//! Another dialect between members: what a group's frames look like on the wire.
//!
//! Some systems fix what travels between servers, as JSON lines for example. A [`Codec`] writes the members' frames in such a
//! dialect and reads them back; the protocol does not notice. It goes into [`TcpConfig::codec`](crate::TcpConfig::codec), the
//! same on every member. Without one, members speak kvrep's own binary wire, and nothing here is on their path.
//!
//! # What the codec is asked
//!
//! A member says [frames](MemberFrame): greetings, the first ones of a connection and signs of life, and the protocol's messages.
//! The codec appends the bytes of one to a buffer, and takes one off the front of what was read. It keeps no state
//! between frames.
//!
//! # What holds
//!
//! - What a connection is, is decided by its first bytes: kvrep's own clients are served as ever, those that begin with
//!   the codec's [opening](Codec::opening) are members, all others go to the [foreign service](crate::ForeignService).
//! - No frame is waited for beyond [`encoded_bytes_max`](Codec::encoded_bytes_max), nor longer than any other; a frame that cannot be
//!   read ends its connection.
//!
//! # Caveats
//!
//! - [`decode`](Codec::decode) reads what anybody may have sent: it must not panic, nor allocate more than it was given.
//! - kvrep's wire has a checksum beside TCP's; a dialect that wants one carries it itself.
//! - Frames are encoded where they are sent, on the node's own task.

use bytes::{Bytes, BytesMut};
use kvrep_core::wire::{FrameKind, MAGIC, encode_frame};

pub use crate::greeting::{Cause, Greeting, PeerHello, Refusal};

/// What one member says to another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MemberFrame {
    /// Who speaks to whom, and whether they are there. At most 512 bytes in kvrep's own wire.
    Greeting(Greeting),
    /// An [`Envelope`](kvrep_core::wire::Envelope) and what the protocol has to say.
    Message(Bytes),
}

/// These bytes are no frame of the dialect; the connection they came from has lost its framing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a frame of this dialect: {0}")]
pub struct NotAFrame(pub String);

/// How members' frames are written and read. See the [module](self).
///
/// One JSON value a line would be a codec; so is this, in which a frame is a line of hexadecimal digits:
///
/// ```
/// use bytes::{Buf, BytesMut};
/// use kvrep_transport_tcp::codec::{Codec, Greeting, MemberFrame, NotAFrame};
/// use kvrep_transport_tcp::{TcpConfig, TcpTransport};
/// use std::sync::Arc;
///
/// struct HexLines;
///
/// impl Codec for HexLines {
///     fn opening(&self) -> &[u8] {
///         b"member "
///     }
///
///     fn encode(&self, frame: &MemberFrame, out: &mut BytesMut) {
///         let (word, body) = match frame {
///             MemberFrame::Greeting(greeting) => ("member ", greeting.to_body()),
///             MemberFrame::Message(body) => ("says ", body.clone()),
///         };
///         let hex: String = body.iter().map(|byte| format!("{byte:02x}")).collect();
///         out.extend_from_slice(format!("{word}{hex}\n").as_bytes());
///     }
///
///     fn decode(&self, buffer: &mut BytesMut) -> Result<Option<MemberFrame>, NotAFrame> {
///         let Some(end) = buffer.iter().position(|byte| *byte == b'\n') else {
///             return Ok(None);
///         };
///         let line = buffer.split_to(end);
///         buffer.advance(1);
///         let wrong = || NotAFrame("no line of hexadecimal digits".into());
///         let line = std::str::from_utf8(&line).map_err(|_| wrong())?;
///         let (word, hex) = line.split_once(' ').ok_or_else(wrong)?;
///         let digits = (hex.len() / 2 * 2 == hex.len()).then_some(hex.as_bytes()).ok_or_else(wrong)?;
///         let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
///         let body: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
///         let body = body.ok_or_else(wrong)?;
///         match word {
///             "member" => Greeting::from_body(&body).map(MemberFrame::Greeting),
///             "says" => Some(MemberFrame::Message(body.into())),
///             _ => None,
///         }
///         .map(Some)
///         .ok_or_else(wrong)
///     }
///
///     fn encoded_bytes_max(&self, body_bytes_max: usize) -> usize {
///         2 * body_bytes_max + 8
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let config = TcpConfig::new("127.0.0.1:0").codec(Arc::new(HexLines));
/// let transport = TcpTransport::bind(config).await?;
/// # Ok(()) }
/// ```
pub trait Codec: Send + Sync + 'static {
    /// The bytes with which every connection of a member begins: those of a [`Greeting::Peer`]. 1 to 64 of them, and not how
    /// kvrep's own frames begin. What begins so is not given to the foreign service.
    fn opening(&self) -> &[u8];

    /// Appends the frame to `out`.
    fn encode(&self, frame: &MemberFrame, out: &mut BytesMut);

    /// Takes one frame off the front of `buffer`; `Ok(None)` when not all of it is there yet, `buffer` is then left as it was.
    /// Called again with more.
    ///
    /// # Errors
    /// When the bytes are no frame.
    fn decode(&self, buffer: &mut BytesMut) -> Result<Option<MemberFrame>, NotAFrame>;

    /// The largest encoding of a frame whose body, in kvrep's own wire, has at most so many bytes. A connection that sends more
    /// without finishing a frame ends.
    fn encoded_bytes_max(&self, body_bytes_max: usize) -> usize;
}

/// How one connection speaks.
#[derive(Clone, Copy)]
pub(crate) enum Dialect<'a> {
    Kvrep,
    Own(&'a dyn Codec),
}

impl Dialect<'_> {
    pub(crate) fn greeting(self, greeting: Greeting) -> Bytes {
        match self {
            Self::Kvrep => greeting.to_frame(),
            Self::Own(codec) => encoded(codec, &MemberFrame::Greeting(greeting)),
        }
    }

    /// `frame` is a whole one of kvrep's own wire, `body` what is in it.
    pub(crate) fn message(self, frame: Bytes, body: Bytes) -> Bytes {
        match self {
            Self::Kvrep => frame,
            Self::Own(codec) => encoded(codec, &MemberFrame::Message(body)),
        }
    }
}

/// What is wrong with a codec, if that shows without a peer.
pub(crate) fn check(codec: &dyn Codec) -> Result<(), String> {
    let opening = codec.opening();
    if !(1..=OPENING_BYTES_MAX).contains(&opening.len()) {
        return Err(format!(
            "a codec's opening must have 1 to {OPENING_BYTES_MAX} bytes"
        ));
    }
    if opening.starts_with(&MAGIC) || MAGIC.starts_with(opening) {
        return Err("a codec's opening must not be how kvrep's own frames begin".into());
    }
    let hello = MemberFrame::Greeting(Greeting::Peer(PeerHello::sample()));
    let mut bytes = BytesMut::from(&encoded(codec, &hello)[..]);
    if !bytes.starts_with(opening) {
        return Err("a codec must begin a peer's greeting with its opening".into());
    }
    if codec.decode(&mut bytes) != Ok(Some(hello)) {
        return Err("a codec must read the greeting that it wrote".into());
    }
    Ok(())
}

fn encoded(codec: &dyn Codec, frame: &MemberFrame) -> Bytes {
    let mut out = BytesMut::new();
    codec.encode(frame, &mut out);
    out.freeze()
}

impl Greeting {
    /// This greeting as the body of a frame of kvrep's own wire: for a codec that has no better words.
    ///
    /// # Panics
    /// Never: a greeting is plain data.
    #[must_use]
    pub fn to_body(&self) -> Bytes {
        let body = postcard::to_stdvec(self).expect("plain data serialises");
        body.into()
    }

    /// The greeting of [`to_body`](Self::to_body); `None` when these bytes are none.
    #[must_use]
    pub fn from_body(body: &[u8]) -> Option<Self> {
        postcard::from_bytes(body).ok()
    }

    /// A whole frame of kvrep's own wire.
    pub(crate) fn to_frame(&self) -> Bytes {
        encode_frame(FrameKind::Handshake, &self.to_body())
    }
}

const OPENING_BYTES_MAX: usize = 64;
