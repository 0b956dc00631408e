//! Where a message ends: at a line's end, at the end of the connection, or when its JSON object closes.
//!
//! Programs of others send bare objects without a line's end, ours always end a line. So a message is taken as soon as its
//! brackets are balanced. Finding that out reads every byte once, however slowly they come; only then is the text parsed.
//!
//! After an object that is complete nobody can know whether a line's end is still under way, so nobody waits for it: [`Framed::ended_line`] tells
//! whether it was there, and one that comes later is passed over ([`talk`]). What is a message depends on no cut between two reads.

use crate::common::conversation::{Conversation, Manners};
use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr3;
use tokio_util::codec::{Decoder, Encoder};

/// Largest message that is read, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 256 << 10;

/// What stands on a line beside its message.
pub(super) const BLANKS: &[u8] = b" \t\r";

/// And between two of them.
const BETWEEN: &[u8] = b" \t\r\n";

/// Messages over a connection of which these bytes were read already. A line's end that comes after its message was taken begins none.
pub fn talk<S>(stream: S, first: &[u8], manners: Manners) -> Conversation<S, Framing> {
    Conversation::continued(stream, first, Framing::default(), manners).passing_over(BETWEEN)
}

/// A message's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Framed {
    /// The JSON object, or what stood in its place.
    pub json: Bytes,
    /// Whether a line's end was seen behind it already. That it was not says nothing: it may come.
    pub ended_line: bool,
}

/// Why the bytes are no message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FramingError {
    /// Larger than [`MESSAGE_BYTES_MAX`].
    #[error("uma mensagem tem no máximo {MESSAGE_BYTES_MAX} bytes")]
    TooLarge,
    /// It does not begin as an object.
    #[error("uma mensagem é um objeto JSON")]
    NoObject,
    /// From the connection.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Reads and writes messages.
#[derive(Debug, Default)]
pub struct Framing {
    /// How much of the buffer was looked at, and what was found there.
    scanned: usize,
    depth: usize,
    in_text: bool,
    escaped: bool,
}

impl Framing {
    /// The end of the message that the buffer begins with, if it is there.
    fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        while let Some(mut byte) = bytes.get(self.scanned) {
            if self.in_text && !self.escaped {
                // Most of a message is text, of which only these matter.
                let Some(passed) = memchr3(b'"', b'\\', b'\n', &bytes[self.scanned..]) else {
                    self.scanned = bytes.len();
                    return None;
                };
                self.scanned += passed;
                byte = &bytes[self.scanned];
            }
            self.scanned += 1;
            match byte {
                // No text of JSON has a bare line's end in it.
                b'\n' => return Some(self.scanned - 1),
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_text => self.escaped = true,
                b'"' => self.in_text = !self.in_text,
                _ if self.in_text => {}
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Some(self.scanned);
                    }
                }
                _ => {}
            }
        }
        None
    }

    fn take(&mut self, from: &mut BytesMut, end: usize) -> Framed {
        *self = Self::default();
        let json = from.split_to(end).freeze();
        let blank = from.iter().position(|byte| !BLANKS.contains(byte));
        let ended_line = from.get(blank.unwrap_or(from.len())) == Some(&b'\n');
        if ended_line {
            from.advance(blank.unwrap_or(0) + 1);
        }
        Framed { json, ended_line }
    }
}

impl Decoder for Framing {
    type Item = Framed;
    type Error = FramingError;

    fn decode(&mut self, from: &mut BytesMut) -> Result<Option<Framed>, FramingError> {
        if self.scanned == 0 {
            let blanks = from.iter().take_while(|byte| BETWEEN.contains(byte));
            from.advance(blanks.count());
            if from.first().is_some_and(|byte| *byte != b'{') {
                return Err(FramingError::NoObject);
            }
        }
        let end = self.end(from);
        if end.unwrap_or(from.len()) > MESSAGE_BYTES_MAX {
            return Err(FramingError::TooLarge);
        }
        Ok(end.map(|end| self.take(from, end)))
    }

    fn decode_eof(&mut self, from: &mut BytesMut) -> Result<Option<Framed>, FramingError> {
        if let Some(message) = self.decode(from)? {
            return Ok(Some(message));
        }
        if from.is_empty() {
            return Ok(None);
        }
        // Cut off: whoever parses it says what is missing.
        let end = from.len();
        Ok(Some(self.take(from, end)))
    }
}

/// Writes a message and a line's end.
impl Encoder<&[u8]> for Framing {
    type Error = FramingError;

    fn encode(&mut self, json: &[u8], out: &mut BytesMut) -> Result<(), FramingError> {
        out.reserve(json.len() + 1);
        out.extend_from_slice(json);
        out.extend_from_slice(b"\n");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(chunks: &[&[u8]]) -> Vec<(String, bool)> {
        let (mut framing, mut buffer, mut found) = (Framing::default(), BytesMut::new(), vec![]);
        for chunk in chunks {
            buffer.extend_from_slice(chunk);
            while let Some(message) = framing.decode(&mut buffer).unwrap() {
                found.push(message);
            }
        }
        found.extend(framing.decode_eof(&mut buffer).unwrap());
        found
            .into_iter()
            .map(|m| (String::from_utf8(m.json.to_vec()).unwrap(), m.ended_line))
            .collect()
    }

    #[test]
    fn a3_1_a_message_ends_at_its_line_at_its_bracket_or_with_the_connection() {
        let (line, bare) = (true, false);
        let said = |json: &str, how| (json.to_owned(), how);
        assert_eq!(all(&[b"{\"a\":1}\n"]), [said("{\"a\":1}", line)]);
        assert_eq!(all(&[b"{\"a\":1}"]), [said("{\"a\":1}", bare)]);
        assert_eq!(all(&[b"{\"a\":", b"1} \r\n"]), [said("{\"a\":1}", line)]);
        assert_eq!(
            all(&[b"\r\n {\"a\":[{}]}{\"b\":2}\n"]),
            [said("{\"a\":[{}]}", bare), said("{\"b\":2}", line)]
        );
        // Brackets and quotes in texts count for nothing.
        let tricky = r#"{"a}\"]":"\\","b":"{["}"#;
        assert_eq!(all(&[tricky.as_bytes()]), [said(tricky, bare)]);
        assert_eq!(all(&[b"{\"a\":\n"]), [said("{\"a\":", line)]);
        assert_eq!(all(&[b"{\"a\":"]), [said("{\"a\":", bare)]);
        assert_eq!(all(&[b" \n\n"]), []);
    }

    #[test]
    fn a_message_is_the_same_however_its_bytes_come() {
        let text = "{\"tipo\":\"PUT\",\"key\":\"{\\\"ç\",\"value\":\"[\"} \r\n\n{\"tipo\":\"GET\"}{}\n{\"a\":\n{\"b\"".as_bytes();
        let whole = all(&[text]);
        assert_eq!(whole.len(), 5);
        let texts = |found: &[(String, bool)]| -> Vec<String> {
            found.iter().map(|(json, _)| json.clone()).collect()
        };
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(texts(&all(&bytes)), texts(&whole));
        for cut in 0..=text.len() {
            let (before, after) = text.split_at(cut);
            let found = all(&[before, after]);
            assert_eq!(texts(&found), texts(&whole), "cut at {cut}");
            for ((json, ended), (_, in_one)) in found.iter().zip(&whole) {
                // The one whose line's end is behind the cut is not told from a bare one, and no other differs.
                let ends_here =
                    json.ends_with('}') && before.trim_ascii_end().ends_with(json.as_bytes());
                assert_eq!(
                    *ended,
                    *in_one && (!ends_here || before.ends_with(b"\n")),
                    "cut at {cut}: {json}"
                );
            }
        }
    }

    #[test]
    fn what_is_too_large_or_no_object_is_refused() {
        let mut buffer = BytesMut::from("GET / HTTP/1.1");
        let refused = Framing::default().decode(&mut buffer);
        assert!(matches!(refused, Err(FramingError::NoObject)));
        let mut buffer = BytesMut::from("{\"a\":\"");
        buffer.resize(MESSAGE_BYTES_MAX + 1, b'x');
        let refused = Framing::default().decode(&mut buffer);
        assert!(matches!(refused, Err(FramingError::TooLarge)));
    }
}
