//! What you write: a deterministic [`StateMachine`].
//!
//! Replicas that start equal and carry out the same commands in the same order stay equal, if carrying out a command
//! depends on nothing else. That *if* is the whole contract. Whatever a command would like to take from elsewhere (the
//! time, a random number) is in the [`ApplyContext`], equal on every replica.
//!
//! The types end here: [`Typed`] erases a machine once to bytes ([`RawStateMachine`]), and the rest of kvrep sees only
//! those. For a state of one value see [`Fold`](crate::Fold).
//!
//! Rules:
//!
//! * no clock, no randomness, no I/O, no iteration in hash order in `apply`; and no floating point whose rounding
//!   differs between the machines of the group;
//! * the same version of the code on every replica, or one that answers every command of the log in the same way;
//! * no panic, whatever the command: it would end every replica that carries the command out, and again at each start, for the
//!   command is in the log. What cannot be done is a response that says so;
//! * what [`snapshot`](StateMachine::snapshot) freezes is *everything* that later answers depend on.
//!
//! Caveats: `apply`, `query` and `snapshot` run on the node's own task, so what takes long there delays heartbeats.
//! Whether the rules are kept is checked in debug builds, where a node carries some commands out twice (`node::Guard`), and by
//! the simulator (feature `sim`) after every command; in production compare `Node::digest`.

use crate::id::Index;
use crate::scratch::Scratch;
use crate::streamed;
use crate::time::Timestamp;
use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::any::Any;
use std::io::{self, Read, Write};

/// What `apply` may know besides the state and the command. Equal on every replica.
///
/// ```
/// use kvrep_core::{ApplyContext, Index, Timestamp};
///
/// let context = || ApplyContext::new(Index(7), Timestamp(1_000_000), 42);
/// let (mut here, mut there) = (context(), context());
/// assert_eq!(here.random(), there.random()); // the same draw on every replica
/// ```
#[derive(Clone, Debug)]
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

    /// Whether there are commands. A service whose answers depend on nothing but the query says `false`: then any replica may
    /// answer without the others ([`lowest`](crate::protocol::lowest)).
    const TAKES_COMMANDS: bool = true;

    /// Carries out a command.
    fn apply(&mut self, context: &mut ApplyContext, command: Self::Command) -> Self::Response;

    /// Answers a query.
    fn query(&self, query: Self::Query) -> Self::Response;

    /// Freezes the state: fast (a clone, or a shared structure); the result is serialised elsewhere.
    fn snapshot(&self) -> Self::Snapshot;

    /// Replaces the state.
    fn restore(&mut self, state: Self::Snapshot);

    /// A number that differs when the state differs, if it can be had cheaply: kept up to date by `apply`, or of a small
    /// state. With it replicas find out which of them has gone wrong (`Limits::digest_every_entries`), and repair it. It must
    /// be a function of the state alone: equal after [`restore`](Self::restore).
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
///
/// ```
/// use bytes::Bytes;
/// use kvrep_core::state_machine::FrozenState;
/// use kvrep_core::{ApplyContext, Index, Malformed, RawStateMachine, Timestamp};
/// use std::io::{self, Read, Write};
///
/// /// A text that grows: its commands are what is appended, its only query is the empty one.
/// #[derive(Default)]
/// struct Text(Vec<u8>);
///
/// impl RawStateMachine for Text {
///     fn apply(&mut self, _: &mut ApplyContext, command: &[u8]) -> Result<Bytes, Malformed> {
///         self.0.extend_from_slice(command);
///         Ok(Bytes::new())
///     }
///     fn query(&self, query: &[u8]) -> Result<Bytes, Malformed> {
///         if !query.is_empty() {
///             return Err(Malformed("a text is only read as a whole".into()));
///         }
///         Ok(self.0.clone().into())
///     }
///     fn freeze(&self) -> FrozenState {
///         let text = self.0.clone();
///         Box::new(move |out: &mut dyn Write| out.write_all(&text))
///     }
///     fn restore(&mut self, state: &mut dyn Read) -> io::Result<()> {
///         self.0.clear();
///         state.read_to_end(&mut self.0).map(drop)
///     }
///     fn digest(&self) -> Option<u64> {
///         None
///     }
/// }
///
/// let mut text = Text::default();
/// let mut context = ApplyContext::new(Index(1), Timestamp(0), 0);
/// text.apply(&mut context, b"to be").unwrap();
/// let mut snapshot = Vec::new();
/// text.freeze()(&mut snapshot).unwrap();
/// let mut copy = Text::default();
/// copy.restore(&mut snapshot.as_slice()).unwrap();
/// assert_eq!(copy.query(b"").unwrap(), "to be");
/// ```
pub trait RawStateMachine: Send + 'static {
    /// Carries out a command.
    ///
    /// # Errors
    /// [`Malformed`]: the bytes are no command; nothing was changed.
    fn apply(&mut self, context: &mut ApplyContext, command: &[u8]) -> Result<Bytes, Malformed>;

    /// Carries out a command whose response nobody wants, as on a backup: the state afterwards is the same. Only
    /// worth implementing where making the response takes time.
    ///
    /// # Errors
    /// [`Malformed`]: the bytes are no command; nothing was changed.
    fn apply_unanswered(
        &mut self,
        context: &mut ApplyContext,
        command: &[u8],
    ) -> Result<(), Malformed> {
        self.apply(context, command).map(drop)
    }

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

    /// See [`StateMachine::TAKES_COMMANDS`].
    fn takes_commands(&self) -> bool {
        true
    }

    /// The state itself, for closures that look at it in its own type (`Node::read_local`). Without it only queries
    /// read the state.
    fn as_any(&self) -> Option<&dyn Any> {
        None
    }
}

/// Looks at the state in its own type; gets `None` where the machine does not show it.
pub type Look = Box<dyn FnOnce(Option<&dyn Any>) + Send>;

/// Erases a [`StateMachine`] to bytes (postcard).
///
/// ```
/// use kvrep_core::state_machine::{decode, encode};
/// use kvrep_core::{ApplyContext, Fold, Index, RawStateMachine, Timestamp, Typed};
///
/// let mut raw = Typed(Fold::new(1_u32, |product, by: u32| *product *= by));
/// let mut context = ApplyContext::new(Index(1), Timestamp(0), 0);
/// let answer = raw.apply(&mut context, &encode(&6_u32)).unwrap();
/// assert_eq!(decode::<u32>(&answer), Ok(6));
/// assert!(raw.apply(&mut context, b"").is_err()); // no command: nothing was changed
/// ```
#[derive(Debug, Default)]
pub struct Typed<S>(pub S);

impl<S: StateMachine> RawStateMachine for Typed<S> {
    fn apply(&mut self, context: &mut ApplyContext, command: &[u8]) -> Result<Bytes, Malformed> {
        Ok(encode(&self.0.apply(context, decode(command)?)))
    }

    fn apply_unanswered(
        &mut self,
        context: &mut ApplyContext,
        command: &[u8],
    ) -> Result<(), Malformed> {
        self.0.apply(context, decode(command)?);
        Ok(())
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
        self.0.restore(streamed::read_value(state)?);
        Ok(())
    }

    fn takes_commands(&self) -> bool {
        S::TAKES_COMMANDS
    }

    fn digest(&self) -> Option<u64> {
        self.0.digest()
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(&self.0)
    }
}

/// The encoding of commands, queries and responses.
///
/// # Panics
/// When the value's `Serialize` fails, which plain data does not.
///
/// ```
/// use kvrep_core::state_machine::{decode, encode};
/// let bytes = encode(&("orders", 7_u64));
/// assert_eq!(decode::<(String, u64)>(&bytes), Ok(("orders".into(), 7)));
/// assert!(decode::<u64>(&bytes).is_err()); // what is left over is refused too
/// ```
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Bytes {
    Scratch::of(value).into_bytes()
}

/// The inverse of [`encode`].
///
/// # Errors
/// [`Malformed`] when the bytes are not exactly one value of the type.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Malformed> {
    let (value, rest) = postcard::take_from_bytes(bytes).map_err(|e| Malformed(e.to_string()))?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(Malformed(format!("{} bytes too many", rest.len())))
    }
}
