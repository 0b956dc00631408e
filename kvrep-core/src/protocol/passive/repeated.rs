//! What every append of a reign begins with: its term and configuration. They are written once and read once, and
//! then only compared; how an append is encoded does not depend on it.

use super::message::Message;
use crate::id::{Configuration, Index, LogPoint, Nonce, Term};
use crate::scratch::Scratch;
use crate::state_machine::{Malformed, decode};
use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What is said anew in each append, behind term and configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Advance {
    pub(super) prev: LogPoint,
    pub(super) last: Index,
    pub(super) commit: Index,
    pub(super) round: Nonce,
}

impl Advance {
    fn after(self, reign: &Reign) -> Message {
        Message::Append {
            term: reign.term,
            configuration: Arc::clone(&reign.configuration),
            prev: self.prev,
            last: self.last,
            commit: self.commit,
            round: self.round,
        }
    }

    fn of(message: &Message) -> Option<(Reign, Self)> {
        let Message::Append {
            term,
            configuration,
            prev,
            last,
            commit,
            round,
        } = message
        else {
            return None;
        };
        let reign = Reign {
            term: *term,
            configuration: Arc::clone(configuration),
        };
        let advance = Self {
            prev: *prev,
            last: *last,
            commit: *commit,
            round: *round,
        };
        Some((reign, advance))
    }
}

/// What stays the same.
#[derive(Clone, Debug)]
pub(super) struct Reign {
    pub(super) term: Term,
    pub(super) configuration: Arc<Configuration>,
}

/// How the appends of the last reign that was spoken of begin.
#[derive(Debug, Default)]
pub(super) struct Repeated(Option<(Reign, Vec<u8>)>);

impl Repeated {
    /// Appends the encoding of an [`Append`](Message::Append), as [`Message::encode`] does, and what follows it.
    pub(super) fn encode(
        &mut self,
        reign: &Reign,
        advance: Advance,
        raw: &[u8],
        out: &mut BytesMut,
    ) {
        let is_known = self.0.as_ref().is_some_and(|(known, _)| {
            known.term == reign.term && Arc::ptr_eq(&known.configuration, &reign.configuration)
        });
        if !is_known {
            self.learn(reign.clone(), advance);
        }
        let tail = Scratch::of(&advance);
        let (prefix, tail) = (self.prefix(), tail.as_slice());
        let length = u16::try_from(prefix.len() + tail.len());
        out.reserve(2 + prefix.len() + tail.len() + raw.len());
        out.put_u16(length.expect("a configuration has at most 64 members"));
        out.put_slice(prefix);
        out.put_slice(tail);
        out.put_slice(raw);
    }

    /// Takes a message off the front, as [`Message::decode`] does.
    pub(super) fn decode(&mut self, body: &mut Bytes) -> Result<Message, Malformed> {
        let head = Message::split_head(body)?;
        if let Some((reign, prefix)) = &self.0
            && let Some(tail) = head.strip_prefix(prefix.as_slice())
        {
            return decode::<Advance>(tail).map(|advance| advance.after(reign));
        }
        let message: Message = decode(&head)?;
        // Only of what is written as it would be written here it is known where the beginning ends.
        if let Some((reign, advance)) = Advance::of(&message)
            && Scratch::of(&message).as_slice() == &head[..]
        {
            self.learn(reign, advance);
        }
        Ok(message)
    }

    fn prefix(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |(_, prefix)| prefix)
    }

    fn learn(&mut self, reign: Reign, advance: Advance) {
        let whole = Scratch::of(&advance.after(&reign)).into_bytes();
        let tail = Scratch::of(&advance).as_slice().len();
        let prefix = whole[..whole.len() - tail].to_vec();
        self.0 = Some((reign, prefix));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Departed, MemberKind, Origin, ReplicaId, StoreId, Version};

    fn reign(number: u64, version: u64) -> Reign {
        let term = Term {
            number,
            replica: ReplicaId(1),
        };
        let configuration = Configuration {
            origin: Origin(1),
            term,
            version: Version(version),
            in_sync: [(ReplicaId(1), StoreId(7))].into(),
            members: [1, 2].map(|id| (ReplicaId(id), MemberKind::Full)).into(),
            departed: Departed::default(),
        };
        Reign {
            term,
            configuration: Arc::new(configuration),
        }
    }

    fn advance(index: u64) -> Advance {
        Advance {
            prev: LogPoint {
                index: Index(index),
                ..LogPoint::ZERO
            },
            last: Index(index + 1),
            commit: Index(index),
            round: Nonce(index * 300),
        }
    }

    #[test]
    fn it_writes_and_reads_what_a_message_does_through_every_change_of_reign() {
        let (mut writer, mut reader) = (Repeated::default(), Repeated::default());
        for (number, version) in [(1, 1), (1, 1), (1, 2), (300, 2), (1, 1)] {
            let reign = reign(number, version);
            for index in [0, 5, 1_000_000] {
                let mut expected = BytesMut::new();
                let message = advance(index).after(&reign);
                message.encode(&mut expected);
                let mut bytes = BytesMut::new();
                writer.encode(&reign, advance(index), b"raw", &mut bytes);
                expected.put_slice(b"raw");
                assert_eq!(bytes, expected);
                let mut body = bytes.freeze();
                assert_eq!(reader.decode(&mut body).unwrap(), message);
                assert_eq!(body, "raw");
            }
        }
    }

    #[test]
    fn what_is_not_an_append_of_the_known_reign_is_read_as_ever() {
        let mut reader = Repeated::default();
        let mut append = BytesMut::new();
        advance(3).after(&reign(2, 2)).encode(&mut append);
        reader.decode(&mut append.clone().freeze()).unwrap();
        for cut in 0..append.len() {
            let cut = append.clone().freeze().slice(..cut);
            assert!(reader.decode(&mut cut.clone()).is_err());
        }
        for bit in 0..append.len() * 8 {
            let mut bytes = append.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let bytes = bytes.freeze();
            let expected = Message::decode(&mut bytes.clone());
            assert_eq!(reader.decode(&mut bytes.clone()), expected, "bit {bit}");
        }
        let mut other = BytesMut::new();
        Message::Leave.encode(&mut other);
        assert_eq!(reader.decode(&mut other.freeze()).unwrap(), Message::Leave);
    }
}
