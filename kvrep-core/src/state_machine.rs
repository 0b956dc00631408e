//! What the user writes: a deterministic [`StateMachine`]; and how it is erased once to bytes ([`RawStateMachine`]).

use crate::id::Index;
use crate::time::Timestamp;
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use std::io::{self, Read, Write};

/// What `apply` may know besides the state and the command. Equal on every replica.
#[derive(Debug)]
pub struct ApplyContext {
    /// Position of the command in the log.
    pub index: Index,
    /// The primary's time when it took the command; never goes back from one command to the next.
    pub timestamp: Timestamp,
    seed: u64,
}

impl ApplyContext {
    /// The context of the entry at `index`.
    #[must_use]
    pub fn new(index: Index, timestamp: Timestamp, seed: u64) -> Self {
        Self {
            index,
            timestamp,
            seed,
        }
    }

    /// The next number of this entry's random source (SplitMix64, seeded by the primary): the same numbers in the
    /// same order on every replica.
    pub fn random(&mut self) -> u64 {
        crate::random::splitmix(&mut self.seed)
    }
}

/// A deterministic state machine. `apply` must depend on nothing but the state, the context and the command: no clock,
/// no randomness of its own, no hash order.
///
/// ```
/// use kvrep_core::{ApplyContext, StateMachine};
///
/// #[derive(Default)]
/// struct Counter(i64);
///
/// impl StateMachine for Counter {
///     type Command = i64;
///     type Query = ();
///     type Response = i64;
///     type Snapshot = i64;
///
///     fn apply(&mut self, _: &mut ApplyContext, by: i64) -> i64 {
///         self.0 += by;
///         self.0
///     }
///     fn query(&self, (): ()) -> i64 {
///         self.0
///     }
///     fn snapshot(&self) -> i64 {
///         self.0
///     }
///     fn restore(&mut self, state: i64) {
///         self.0 = state;
///     }
/// }
/// ```
pub trait StateMachine: Send + 'static {
    /// What changes the state.
    type Command: Serialize + DeserializeOwned + Send;
    /// What only looks at it.
    type Query: Serialize + DeserializeOwned + Send;
    /// The answer to either. A failure that the state decides ("exists already") is part of it.
    type Response: Serialize + DeserializeOwned + Send;
    /// A frozen view of the state that can be written by another thread while `apply` goes on.
    type Snapshot: Serialize + DeserializeOwned + Send + 'static;

    /// Carries out a command.
    fn apply(&mut self, context: &mut ApplyContext, command: Self::Command) -> Self::Response;

    /// Answers a query.
    fn query(&self, query: Self::Query) -> Self::Response;

    /// Freezes the state: fast (a clone, or a shared structure); the result is serialised elsewhere.
    fn snapshot(&self) -> Self::Snapshot;

    /// Replaces the state.
    fn restore(&mut self, state: Self::Snapshot);

    /// A number that differs when the state differs, if it can be had cheaply.
    fn digest(&self) -> Option<u64> {
        None
    }
}

/// The command or query is not one of this state machine's: nothing was changed. Deterministic, so every replica
/// says the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed: {0}")]
pub struct Malformed(pub String);

/// A frozen state, still to be written.
pub type FrozenState = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + Send>;

/// A state machine over bytes: what the rest of kvrep sees. Implement it directly for a state that is too large to
/// be one serde value.
pub trait RawStateMachine: Send + 'static {
    /// Carries out a command.
    ///
    /// # Errors
    /// [`Malformed`]: the bytes are no command; nothing was changed.
    fn apply(&mut self, context: &mut ApplyContext, command: &[u8]) -> Result<Bytes, Malformed>;

    /// Answers a query.
    ///
    /// # Errors
    /// [`Malformed`]: the bytes are no query.
    fn query(&self, query: &[u8]) -> Result<Bytes, Malformed>;

    /// Freezes the state.
    fn freeze(&self) -> FrozenState;

    /// Replaces the state by one that was written by `freeze`.
    ///
    /// # Errors
    /// When the bytes are not such a state; the state is then unspecified and must not be used.
    fn restore(&mut self, state: &mut dyn Read) -> io::Result<()>;

    /// See [`StateMachine::digest`].
    fn digest(&self) -> Option<u64>;
}

/// Erases a [`StateMachine`] to bytes (postcard).
#[derive(Debug, Default)]
pub struct Typed<S>(pub S);

impl<S: StateMachine> RawStateMachine for Typed<S> {
    fn apply(&mut self, context: &mut ApplyContext, command: &[u8]) -> Result<Bytes, Malformed> {
        Ok(encode(&self.0.apply(context, decode(command)?)))
    }

    fn query(&self, query: &[u8]) -> Result<Bytes, Malformed> {
        Ok(encode(&self.0.query(decode(query)?)))
    }

    fn freeze(&self) -> FrozenState {
        let frozen = self.0.snapshot();
        Box::new(move |out| {
            postcard::to_io(&frozen, out)
                .map(drop)
                .map_err(io::Error::other)
        })
    }

    fn restore(&mut self, state: &mut dyn Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        state.read_to_end(&mut bytes)?;
        let (snapshot, rest) = postcard::take_from_bytes(&bytes)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        if !rest.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "bytes behind the end of the state",
            ));
        }
        self.0.restore(snapshot);
        Ok(())
    }

    fn digest(&self) -> Option<u64> {
        self.0.digest()
    }
}

/// The encoding of commands, queries and responses.
///
/// # Panics
/// When the value's `Serialize` fails, which plain data does not.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Bytes {
    postcard::to_stdvec(value)
        .expect("commands, queries and responses are plain data")
        .into()
}

/// The inverse of [`encode`].
///
/// # Errors
/// [`Malformed`] when the bytes are not exactly one value of the type.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Malformed> {
    let (value, rest) = postcard::take_from_bytes(bytes).map_err(|e| Malformed(e.to_string()))?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(Malformed(format!("{} bytes too many", rest.len())))
    }
}
