//! Values read from a stream (postcard), without the whole encoding in memory.
//!
//! Memory beside the value itself: [`WINDOW_BYTES`], the largest single string or byte string that is longer than that, and
//! a copy of every string that the value's type reads *borrowed* (most types do not). A length that the stream announces
//! allocates nothing by itself: room is made as bytes come.

use postcard::Deserializer;
use postcard::de_flavors::Flavor;
use serde::de::DeserializeOwned;
use std::cell::OnceCell;
use std::io::{self, ErrorKind, Read};

/// Reads one value, which must be all there is.
///
/// # Errors
/// The stream's own; [`ErrorKind::InvalidData`] when the bytes are not exactly one value of the type.
pub(crate) fn read_value<T: DeserializeOwned>(from: &mut dyn Read) -> io::Result<T> {
    let kept = Kept::default();
    let mut deserializer = Deserializer::from_flavor(Source::new(from, &kept));
    let value = T::deserialize(&mut deserializer);
    let mut rest = deserializer.finalize().map_err(invalid)?;
    if let Some(failed) = rest.failed {
        return Err(failed);
    }
    let value = value.map_err(invalid)?;
    if rest.start < rest.end || read_some(&mut rest.from, &mut [0])? > 0 {
        return Err(io::Error::new(
            ErrorKind::InvalidData,
            "bytes behind the end of the state",
        ));
    }
    Ok(value)
}

fn invalid(error: postcard::Error) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}

fn read_some(from: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    loop {
        match from.read(into) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// Where the deserialiser takes its bytes from.
struct Source<'de, R> {
    from: R,
    /// What was read ahead is in `window[start..end]`.
    window: Vec<u8>,
    start: usize,
    end: usize,
    /// What does not fit into the window.
    large: Vec<u8>,
    /// Where the next borrowed bytes are kept.
    kept: &'de Kept,
    /// Why the stream cannot be read; the deserialiser's own errors cannot say.
    failed: Option<io::Error>,
}

impl<'de, R: Read> Source<'de, R> {
    fn new(from: R, kept: &'de Kept) -> Self {
        Self {
            from,
            window: vec![0; WINDOW_BYTES],
            start: 0,
            end: 0,
            large: Vec::new(),
            kept,
            failed: None,
        }
    }

    fn failed(&mut self, error: io::Error) -> postcard::Error {
        self.failed = Some(error);
        postcard::Error::DeserializeUnexpectedEnd
    }

    /// Has `bytes`, at most a window's, read ahead.
    fn read_ahead(&mut self, bytes: usize) -> postcard::Result<()> {
        if self.end - self.start >= bytes {
            return Ok(());
        }
        self.window.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        while self.end < bytes {
            match read_some(&mut self.from, &mut self.window[self.end..]) {
                Ok(0) => return Err(postcard::Error::DeserializeUnexpectedEnd),
                Ok(read) => self.end += read,
                Err(error) => return Err(self.failed(error)),
            }
        }
        Ok(())
    }

    fn take(&mut self, bytes: usize) -> postcard::Result<&[u8]> {
        if bytes <= self.window.len() {
            self.read_ahead(bytes)?;
            let taken = self.start..self.start + bytes;
            self.start = taken.end;
            return Ok(&self.window[taken]);
        }
        self.large.clear();
        self.large
            .extend_from_slice(&self.window[self.start..self.end]);
        self.start = self.end;
        let missing = (bytes - self.large.len()) as u64;
        // Grows with what comes, not with what was announced.
        let read = (&mut self.from).take(missing).read_to_end(&mut self.large);
        read.map_err(|error| self.failed(error))?;
        if self.large.len() < bytes {
            return Err(postcard::Error::DeserializeUnexpectedEnd);
        }
        Ok(&self.large)
    }
}

impl<'de, R: Read + 'de> Flavor<'de> for Source<'de, R> {
    type Remainder = Self;
    type Source = R;

    fn pop(&mut self) -> postcard::Result<u8> {
        self.read_ahead(1)?;
        let byte = self.window[self.start];
        self.start += 1;
        Ok(byte)
    }

    fn try_take_n(&mut self, bytes: usize) -> postcard::Result<&'de [u8]> {
        let taken = self.take(bytes)?.into();
        let (bytes, next) = self.kept.keep(taken);
        self.kept = next;
        Ok(bytes)
    }

    fn try_take_n_temp<'a>(&'a mut self, bytes: usize) -> postcard::Result<&'a [u8]>
    where
        'de: 'a,
    {
        self.take(bytes)
    }

    fn finalize(self) -> postcard::Result<Self> {
        Ok(self)
    }
}

/// Bytes that live as long as the deserialisation: a list that only grows.
#[derive(Default)]
struct Kept {
    bytes: OnceCell<Box<[u8]>>,
    next: OnceCell<Box<Kept>>,
}

impl Kept {
    /// Keeps `bytes`, here or where there is room; returns where the next ones go.
    fn keep(&self, bytes: Box<[u8]>) -> (&[u8], &Kept) {
        let kept = self.bytes.get_or_init(|| bytes);
        (kept, self.next.get_or_init(Box::default))
    }
}

impl Drop for Kept {
    /// Not by recursion: a list may be longer than the stack.
    fn drop(&mut self) {
        let mut next = self.next.take();
        while let Some(mut kept) = next {
            next = kept.next.take();
        }
    }
}

/// Bytes read at once.
const WINDOW_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use serde::{Deserialize, Serialize};
    use std::collections::BTreeMap;

    /// Gives at most so many bytes at once, and fails at a place if it is to.
    struct Trickle<'a> {
        bytes: &'a [u8],
        at_once: usize,
        fails: bool,
    }

    impl Read for Trickle<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            if self.bytes.is_empty() && self.fails {
                return Err(io::Error::other("the disk is gone"));
            }
            let at_once = self.at_once.min(out.len());
            self.bytes.read(&mut out[..at_once])
        }
    }

    /// Reads its text borrowed, as some types of other crates do.
    #[derive(Debug, PartialEq, Serialize)]
    struct Borrowing(String);

    impl<'de> Deserialize<'de> for Borrowing {
        fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            <&str>::deserialize(from).map(|text| Self(text.to_owned()))
        }
    }

    type State = (BTreeMap<u32, Bytes>, Vec<Borrowing>, Option<char>, f64);

    fn state() -> State {
        let lengths = [0, 1, WINDOW_BYTES - 1, WINDOW_BYTES, 5 * WINDOW_BYTES];
        let bytes = |n: usize| Bytes::from(vec![n as u8; n]);
        let texts = ["", "short"].map(str::to_owned).into_iter();
        (
            (7..).zip(lengths.map(bytes)).collect(),
            texts
                .chain(["x".repeat(2 * WINDOW_BYTES)])
                .map(Borrowing)
                .collect(),
            Some('é'),
            0.5,
        )
    }

    #[test]
    fn a_value_comes_out_as_it_went_in_however_the_stream_is_cut() {
        let encoded = postcard::to_stdvec(&state()).unwrap();
        for at_once in [1, 7, 1_000, usize::MAX] {
            let bytes = &encoded[..];
            let mut stream = Trickle {
                bytes,
                at_once,
                fails: false,
            };
            assert_eq!(read_value::<State>(&mut stream).unwrap(), state());
        }
    }

    #[test]
    fn too_few_bytes_too_many_and_the_streams_own_error_are_told_apart() {
        let encoded = postcard::to_stdvec(&state()).unwrap();
        for cut in (0..encoded.len()).step_by(997) {
            let bytes = &encoded[..cut];
            let stream = |fails| Trickle {
                bytes,
                at_once: 300,
                fails,
            };
            let short = read_value::<State>(&mut stream(false)).unwrap_err();
            assert_eq!(short.kind(), ErrorKind::InvalidData, "cut at {cut}");
            let failed = read_value::<State>(&mut stream(true)).unwrap_err();
            assert_eq!(failed.to_string(), "the disk is gone", "cut at {cut}");
        }
        let longer = [&encoded[..], &[0]].concat();
        let error = read_value::<State>(&mut longer.as_slice()).unwrap_err();
        assert_eq!(error.to_string(), "bytes behind the end of the state");
    }

    #[test]
    fn a_length_without_its_bytes_allocates_nothing() {
        let announced = postcard::to_stdvec(&(u64::MAX >> 1)).unwrap();
        let error = read_value::<Bytes>(&mut announced.as_slice()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        let error = read_value::<Borrowing>(&mut announced.as_slice()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
    }

    #[test]
    fn many_borrowed_strings_need_no_stack() {
        let texts: Vec<String> = (0..200_000).map(|n| n.to_string()).collect();
        let encoded = postcard::to_stdvec(&texts).unwrap();
        let read: Vec<Borrowing> = read_value(&mut encoded.as_slice()).unwrap();
        assert!(read.iter().map(|b| &b.0).eq(&texts));
    }
}
