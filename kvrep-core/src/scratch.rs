//! Where small values are serialised: on the stack, so that their bytes are allocated once, in their size, or not at all.

use bytes::{Bytes, BytesMut};
use postcard::ser_flavors::Flavor;
use serde::Serialize;

/// The encoding of a value: on the stack while it fits there.
#[derive(Debug)]
pub(crate) struct Scratch {
    inline: [u8; INLINE_BYTES],
    len: usize,
    /// Everything, once it was too much for `inline`.
    spilled: Vec<u8>,
}

impl Scratch {
    /// Serialises plain data.
    ///
    /// # Panics
    /// When the value's `Serialize` fails.
    pub(crate) fn of<T: Serialize + ?Sized>(value: &T) -> Self {
        let mut scratch = Self {
            inline: [0; INLINE_BYTES],
            len: 0,
            spilled: Vec::new(),
        };
        postcard::serialize_with_flavor(value, To(|bytes: &[u8]| scratch.extend(bytes)))
            .expect("plain data serialises");
        scratch
    }

    #[inline]
    fn extend(&mut self, bytes: &[u8]) {
        let Self {
            inline,
            len,
            spilled,
        } = self;
        if spilled.is_empty() {
            let end = *len + bytes.len();
            if let Some(room) = inline.get_mut(*len..end) {
                room.copy_from_slice(bytes);
                *len = end;
                return;
            }
            spilled.reserve(2 * end);
            spilled.extend_from_slice(&inline[..*len]);
        }
        spilled.extend_from_slice(bytes);
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        if self.spilled.is_empty() {
            &self.inline[..self.len]
        } else {
            &self.spilled
        }
    }

    pub(crate) fn into_bytes(self) -> Bytes {
        if self.spilled.is_empty() {
            Bytes::copy_from_slice(&self.inline[..self.len])
        } else {
            self.spilled.into()
        }
    }
}

/// Serialises plain data to the end of `out`.
///
/// # Panics
/// When the value's `Serialize` fails.
pub(crate) fn append<T: Serialize + ?Sized>(value: &T, out: &mut BytesMut) {
    postcard::serialize_with_flavor(value, To(|bytes: &[u8]| out.extend_from_slice(bytes)))
        .expect("plain data serialises");
}

/// Hands on what is serialised.
struct To<F>(F);

impl<F: FnMut(&[u8])> Flavor for To<F> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.try_extend(&[byte])
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        (self.0)(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

const INLINE_BYTES: usize = 96;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_the_usual_encoding() {
        for length in 0..3 * INLINE_BYTES {
            let value = (7_u64, vec![b'x'; length], "end");
            let expected = postcard::to_stdvec(&value).unwrap();
            let scratch = Scratch::of(&value);
            assert_eq!(scratch.as_slice(), expected, "{length}");
            assert_eq!(scratch.into_bytes(), expected, "{length}");
            let mut appended = BytesMut::from(&b"before"[..]);
            append(&value, &mut appended);
            assert_eq!(appended[6..], expected, "{length}");
        }
        assert!(Scratch::of(&()).into_bytes().is_empty());
    }
}
