//! What servers say to each other: one JSON object a line, like everything else on this system's wire.
//!
//! The library's protocol is the passive scheme; this gives its frames the words of the text where it has words for them:
//!
//! | `tipo` | what it is to the library |
//! |---|---|
//! | `JOIN` | the greeting of a member that dials, with its address in `servidor` |
//! | `REPLICATION` | an `Append` that carries one write: `key`, `value`, `timestamp`, and beside them its place in the log |
//! | `REPLICATION_OK` | an `Appended` up to a write: its `key` and `timestamp` |
//! | `SAUDACAO` | the other greetings: welcome, refusal, signs of life |
//! | `MENSAGEM` | everything else, heartbeats and batches of writes too: base64 in `corpo`, with a checksum in `soma` |
//!
//! Extra fields of the first three hold what the protocol needs besides, so that a frame comes back with the same bytes. The
//! codec makes sure: a frame that would not, goes as `MENSAGEM`.
//!
//! # Invariants
//!
//! * A frame that is read has the checksum (CRC-32) of the bytes that were sent: what was damaged on the way, or made by hand
//!   without it, ends the connection.
//! * Reading allocates no more than a small multiple of the line, whose length the transport bounds.
//!
//! Caveat: `timestamp` in a `REPLICATION` is for people and other programs. The replica that applies it counts for itself,
//! and comes to the same number.

use super::recent::{Recent, Written};
use super::table::Change;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Buf, Bytes, BytesMut};
use kvrep_core::protocol::passive::Message;
use kvrep_core::session;
use kvrep_core::state_machine::encode;
use kvrep_core::wire::Envelope;
use kvrep_core::{Entry, EntryKind, GroupId, Incarnation, Index, ReplicaId, Term, Timestamp};
use kvrep_transport_tcp::codec::{Codec, Greeting, MemberFrame, NotAFrame};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::Arc;

/// Members' frames as lines of JSON.
#[derive(Debug)]
pub struct JsonLines {
    recent: Arc<Recent>,
}

impl JsonLines {
    /// With the words for what was written last.
    #[must_use]
    pub fn new(recent: Arc<Recent>) -> Self {
        Self { recent }
    }

    /// The first bytes of every connection that a member makes.
    #[must_use]
    pub fn opening_of_members() -> &'static [u8] {
        OPENING
    }

    fn line_of(&self, frame: &MemberFrame) -> Line {
        match frame {
            MemberFrame::Greeting(Greeting::Peer(hello)) => Line::Join(Join {
                grupo: hello.group,
                servidor: hello.listens.clone(),
                saudacao: Greeting::Peer(hello.clone()),
            }),
            MemberFrame::Greeting(greeting) => Line::Saudacao(Saudacao {
                saudacao: greeting.clone(),
            }),
            MemberFrame::Message(body) => self.in_words(body).unwrap_or_else(|| {
                Line::Mensagem(InBase64 {
                    corpo: BASE64.encode(body),
                    soma: crc32fast::hash(body),
                })
            }),
        }
    }

    /// The message in the words of the text, if it has some for it.
    fn in_words(&self, body: &Bytes) -> Option<Line> {
        if body.len() > WORDS_BYTES_MAX {
            return None;
        }
        let mut rest = body.clone();
        let de = Between::of(Envelope::decode(&mut rest).ok()?);
        let mensagem = Message::decode(&mut rest).ok()?;
        let soma = crc32fast::hash(body);
        if let Message::Append { prev, .. } = &mensagem {
            let entry = Entry::decode(&mut rest, prev.hash).ok()?;
            if !rest.is_empty() {
                return None;
            }
            let (key, value) = put_of(&entry)?;
            let line = Replication {
                key,
                value,
                timestamp: self.recent.at(entry.index)?.timestamp,
                entrada: Place::of(&entry),
                de,
                mensagem,
                soma,
            };
            let same = line.body().as_ref() == Some(body);
            return same.then_some(Line::Replication(line));
        }
        let Message::Appended { matched, .. } = &mensagem else {
            return None;
        };
        let Written { key, timestamp } = self.recent.at(*matched)?;
        let line = ReplicationOk {
            key,
            timestamp,
            de,
            mensagem,
            soma,
        };
        let same = line.body().as_ref() == Some(body);
        same.then_some(Line::ReplicationOk(line))
    }
}

impl Codec for JsonLines {
    fn opening(&self) -> &[u8] {
        OPENING
    }

    fn encode(&self, frame: &MemberFrame, out: &mut BytesMut) {
        let json = serde_json::to_vec(&self.line_of(frame)).expect("plain data serialises");
        out.reserve(json.len() + 1);
        out.extend_from_slice(&json);
        out.extend_from_slice(b"\n");
    }

    fn decode(&self, buffer: &mut BytesMut) -> Result<Option<MemberFrame>, NotAFrame> {
        // A line's end stands in no text of JSON.
        let Some(end) = buffer.iter().position(|byte| *byte == b'\n') else {
            return Ok(None);
        };
        let line = buffer.split_to(end);
        buffer.advance(1);
        Line::read(&line)?.into_frame().map(Some)
    }

    fn encoded_bytes_max(&self, body_bytes_max: usize) -> usize {
        // Base64; or words, each byte of which may take six.
        (body_bytes_max / 3 + 1) * 4 + 6 * WORDS_BYTES_MAX.min(body_bytes_max) + LINE_BYTES_MAX
    }
}

/// One line.
#[derive(Debug, Serialize)]
#[serde(tag = "tipo")]
enum Line {
    #[serde(rename = "JOIN")]
    Join(Join),
    #[serde(rename = "SAUDACAO")]
    Saudacao(Saudacao),
    #[serde(rename = "REPLICATION")]
    Replication(Replication),
    #[serde(rename = "REPLICATION_OK")]
    ReplicationOk(ReplicationOk),
    #[serde(rename = "MENSAGEM")]
    Mensagem(InBase64),
}

/// What a line says it is; the rest is read when that is known.
#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(borrow)]
    tipo: Cow<'a, str>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Join {
    grupo: GroupId,
    servidor: Option<String>,
    saudacao: Greeting,
}

#[derive(Debug, Serialize, Deserialize)]
struct Saudacao {
    saudacao: Greeting,
}

#[derive(Debug, Serialize, Deserialize)]
struct Replication {
    key: String,
    value: String,
    timestamp: u64,
    entrada: Place,
    de: Between,
    mensagem: Message,
    soma: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct ReplicationOk {
    key: String,
    timestamp: u64,
    de: Between,
    mensagem: Message,
    soma: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct InBase64 {
    corpo: String,
    soma: u32,
}

/// Who speaks to whom: an [`Envelope`].
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Between {
    grupo: GroupId,
    replica: ReplicaId,
    vida: Incarnation,
    vida_do_outro: Incarnation,
}

/// What an [`Entry`] is besides its command.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Place {
    term: Term,
    index: Index,
    hash: u64,
    relogio: Timestamp,
    semente: u64,
}

impl Line {
    fn read(json: &[u8]) -> Result<Self, NotAFrame> {
        let Kind { tipo } = read(json)?;
        match &*tipo {
            "JOIN" => read(json).map(Self::Join),
            "SAUDACAO" => read(json).map(Self::Saudacao),
            "REPLICATION" => read(json).map(Self::Replication),
            "REPLICATION_OK" => read(json).map(Self::ReplicationOk),
            "MENSAGEM" => read(json).map(Self::Mensagem),
            _ => Err(NotAFrame("an unknown tipo".into())),
        }
    }

    fn into_frame(self) -> Result<MemberFrame, NotAFrame> {
        let (body, soma) = match self {
            Self::Join(Join { saudacao, .. }) | Self::Saudacao(Saudacao { saudacao }) => {
                return Ok(MemberFrame::Greeting(saudacao));
            }
            Self::Replication(line) => (line.body(), line.soma),
            Self::ReplicationOk(line) => (line.body(), line.soma),
            Self::Mensagem(line) => (BASE64.decode(line.corpo).ok().map(Bytes::from), line.soma),
        };
        match body {
            Some(body) if crc32fast::hash(&body) == soma => Ok(MemberFrame::Message(body)),
            Some(_) => Err(NotAFrame("its soma is another".into())),
            None => Err(NotAFrame("it stands for no message".into())),
        }
    }
}

fn read<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, NotAFrame> {
    serde_json::from_slice(json).map_err(|error| NotAFrame(error.to_string()))
}

impl Replication {
    /// The body that this line stands for.
    fn body(&self) -> Option<Bytes> {
        let Message::Append { prev, .. } = &self.mensagem else {
            return None;
        };
        let (key, value) = (self.key.clone(), self.value.clone());
        let command = encode(&Change::Put { key, value });
        let payload = session::Envelope::Plain(command).encode();
        let Place {
            term,
            relogio,
            semente,
            ..
        } = self.entrada;
        if prev.index.0.checked_add(1) != Some(self.entrada.index.0) {
            return None;
        }
        let kind = EntryKind::Command;
        let entry = Entry::following(*prev, term, relogio, semente, kind, payload);
        let mut body = body_of(self.de, &self.mensagem)?;
        entry.encode(&mut body);
        Some(body.freeze())
    }
}

impl ReplicationOk {
    /// The body that this line stands for.
    fn body(&self) -> Option<Bytes> {
        body_of(self.de, &self.mensagem).map(BytesMut::freeze)
    }
}

fn body_of(de: Between, message: &Message) -> Option<BytesMut> {
    // Only the two kinds that have words, and no more members than are ever written in them: the line may be anybody's.
    let members = if let Message::Append { configuration, .. } = message {
        configuration.members.len() + configuration.in_sync.len()
    } else if let Message::Appended { .. } = message {
        0
    } else {
        return None;
    };
    if members > MEMBERS_MAX {
        return None;
    }
    let mut body = BytesMut::new();
    de.envelope().encode(&mut body);
    message.encode(&mut body);
    Some(body)
}

/// Key and value of the write in an entry, if it is one.
fn put_of(entry: &Entry) -> Option<(String, String)> {
    let Ok(session::Envelope::Plain(command)) = session::Envelope::decode(entry.payload.clone())
    else {
        return None;
    };
    match kvrep_core::state_machine::decode(&command) {
        Ok(Change::Put { key, value }) if entry.kind == EntryKind::Command => Some((key, value)),
        Ok(Change::Put { .. } | Change::Skip { .. }) | Err(_) => None,
    }
}

impl Between {
    fn of(envelope: Envelope) -> Self {
        Self {
            grupo: envelope.group,
            replica: envelope.from,
            vida: envelope.incarnation,
            vida_do_outro: envelope.to_incarnation,
        }
    }

    fn envelope(self) -> Envelope {
        Envelope {
            group: self.grupo,
            from: self.replica,
            incarnation: self.vida,
            to_incarnation: self.vida_do_outro,
        }
    }
}

impl Place {
    fn of(entry: &Entry) -> Self {
        Self {
            term: entry.term,
            index: entry.index,
            hash: entry.hash,
            relogio: entry.timestamp,
            semente: entry.seed,
        }
    }
}

/// A member's first line begins so; a mere registration has no group.
const OPENING: &[u8] = b"{\"tipo\":\"JOIN\",\"grupo\":";
/// Larger messages go as base64: words for many bytes help nobody.
const WORDS_BYTES_MAX: usize = 64 << 10;
/// Of a line besides what it carries.
const LINE_BYTES_MAX: usize = 16 << 10;
/// In a configuration that is written in words, twice.
const MEMBERS_MAX: usize = 16;

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
