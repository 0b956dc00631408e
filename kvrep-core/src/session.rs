//! Exactly-once client sessions, wrapped around the state machine.
//!
//! A client opens a session with a command of its own; the session's id is the chained hash of the log at that command,
//! so it is never given twice, not even by two histories that were parted, and is known to be old when it is not in the
//! table any more. Each request carries (session, seq). The
//! first arrival in the log is carried out and its answer kept; a repeated one gets the kept answer. The table is
//! part of every snapshot.
//!
//! Invariants:
//! * a (session, seq) changes the state at most once, whatever is retried, and across failovers;
//! * everything here depends only on the log, so every replica keeps the same table;
//! * the table is bounded: in sessions, in answers per session and in bytes of answers. What goes is *expired
//!   explicitly*: the client gets an error, never a silent second execution.
//!
//! Caveat: requests of one session that are under way together are carried out in the order in which they reach the
//! log, which is not necessarily that of their numbers.
//!
//! ```
//! use kvrep_core::session::{Applied, Envelope, Machine};
//! use kvrep_core::state_machine::encode;
//! use kvrep_core::{
//!     Entry, EntryKind, Fold, Limits, LogPoint, ReplicaId, Seq, Term, Timestamp, Typed,
//! };
//!
//! let sum = Typed(Fold::new(0_i64, |sum, by: i64| *sum += by));
//! let mut machine = Machine::new(Box::new(sum), &Limits::default()).unwrap();
//! let mut end = LogPoint::ZERO;
//! let mut apply = |machine: &mut Machine, command: &Envelope| {
//!     let term = Term::ZERO.next_for(ReplicaId(1));
//!     let payload = command.encode();
//!     let entry = Entry::following(end, term, Timestamp(0), 0, EntryKind::Command, payload);
//!     end = entry.point();
//!     machine.apply(&entry).unwrap()
//! };
//!
//! let Applied::Opened(session) = apply(&mut machine, &Envelope::Open) else { unreachable!() };
//! let command = encode(&5_i64);
//! let add = Envelope::Command { session, seq: Seq(1), done_below: Seq(1), command };
//! let first = apply(&mut machine, &add);
//! assert_eq!(first, Applied::Response(encode(&5_i64)));
//! assert_eq!(apply(&mut machine, &add), first); // sent again: answered again, not carried out again
//! assert_eq!(machine.query(&encode(&())).unwrap(), encode(&5_i64));
//! ```

use crate::config::Limits;
use crate::entry::{Entry, EntryKind};
use crate::id::{Seq, SessionId};
use crate::state_machine::{ApplyContext, FrozenState, Malformed, RawStateMachine};
use crate::time::Timestamp;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::collections::{BTreeMap, VecDeque, btree_map};
use std::io::{self, Read};

/// A command as it stands in an entry's payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Envelope {
    /// Carried out once for each time it is in the log.
    Plain(Bytes),
    /// Opens a session.
    Open,
    /// Carried out once for each (session, seq).
    Command {
        /// The session.
        session: SessionId,
        /// Number in the session.
        seq: Seq,
        /// Answers below are not needed any more.
        done_below: Seq,
        /// The state machine's command.
        command: Bytes,
    },
    /// Ends a session.
    Close(SessionId),
}

impl Envelope {
    /// Bytes that an envelope adds to a command, at most.
    pub const BYTES_MAX: usize = 1 + 3 * 8;

    /// The payload of an entry.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(Self::BYTES_MAX + self.command_bytes());
        self.encode_to(&mut out);
        out.freeze()
    }

    /// Appends the payload of an entry.
    pub(crate) fn encode_to(&self, out: &mut BytesMut) {
        match self {
            Self::Plain(command) => {
                out.put_u8(0);
                out.put_slice(command);
            }
            Self::Open => out.put_u8(1),
            Self::Command {
                session,
                seq,
                done_below,
                command,
            } => {
                let mut head = [2; Self::BYTES_MAX];
                head[1..9].copy_from_slice(&session.0.to_be_bytes());
                head[9..17].copy_from_slice(&seq.0.to_be_bytes());
                head[17..].copy_from_slice(&done_below.0.to_be_bytes());
                out.put_slice(&head);
                out.put_slice(command);
            }
            Self::Close(session) => {
                out.put_u8(3);
                out.put_u64(session.0);
            }
        }
    }

    /// Reads the payload of an entry.
    ///
    /// # Errors
    /// [`Malformed`] when it is not one.
    pub fn decode(payload: Bytes) -> Result<Self, Malformed> {
        let command = |command: &[u8]| payload.slice_ref(command);
        Ok(match Opened::of(&payload)? {
            Opened::Plain(bytes) => Self::Plain(command(bytes)),
            Opened::Open => Self::Open,
            Opened::Command {
                session,
                seq,
                done_below,
                command: bytes,
            } => Self::Command {
                session,
                seq,
                done_below,
                command: command(bytes),
            },
            Opened::Close(session) => Self::Close(session),
        })
    }

    /// Whether the payload of an entry is a command of the state machine. What cannot be read counts as one.
    pub(crate) fn is_command(payload: &[u8]) -> bool {
        match Opened::of(payload) {
            Ok(Opened::Plain(_) | Opened::Command { .. }) | Err(_) => true,
            Ok(Opened::Open | Opened::Close(_)) => false,
        }
    }

    pub(crate) fn command_bytes(&self) -> usize {
        match self {
            Self::Plain(command) | Self::Command { command, .. } => command.len(),
            Self::Open | Self::Close(_) => 0,
        }
    }
}

/// An [`Envelope`] read where it lies.
enum Opened<'a> {
    Plain(&'a [u8]),
    Open,
    Command {
        session: SessionId,
        seq: Seq,
        done_below: Seq,
        command: &'a [u8],
    },
    Close(SessionId),
}

impl<'a> Opened<'a> {
    fn of(payload: &'a [u8]) -> Result<Self, Malformed> {
        let short = || Malformed("a command without its session header".into());
        let (kind, mut rest) = payload.split_first().ok_or_else(short)?;
        match kind {
            0 => Ok(Self::Plain(rest)),
            1 if rest.is_empty() => Ok(Self::Open),
            2 if rest.len() >= 24 => Ok(Self::Command {
                session: SessionId(rest.get_u64()),
                seq: Seq(rest.get_u64()),
                done_below: Seq(rest.get_u64()),
                command: rest,
            }),
            3 if rest.len() == 8 => Ok(Self::Close(SessionId(rest.get_u64()))),
            _ => Err(short()),
        }
    }
}

/// What became of an applied command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The state machine's response, of now or of the first time.
    Response(Bytes),
    /// A session was opened.
    Opened(SessionId),
    /// A session was closed, or there was none.
    Closed,
    /// The session is not in the table: not carried out.
    Expired,
    /// The number is outside the window, or its answer is gone: not carried out.
    OutOfWindow,
    /// Not a command: nothing changed.
    Malformed(String),
}

/// The state machine with its sessions: what a node applies entries to.
pub struct Machine {
    inner: Box<dyn RawStateMachine>,
    sessions: Sessions,
    initial: Vec<u8>,
    executed: u64,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Machine({} sessions)", self.sessions.table.len())
    }
}

impl Machine {
    /// Wraps `inner`, whose state now is the initial one.
    ///
    /// # Errors
    /// When the initial state cannot be written.
    pub fn new(inner: Box<dyn RawStateMachine>, limits: &Limits) -> io::Result<Self> {
        let mut initial = Vec::new();
        inner.freeze()(&mut initial)?;
        Ok(Self {
            inner,
            sessions: Sessions::new(limits),
            initial,
            executed: 0,
        })
    }

    /// Applies a decided entry; `None` for one that is not a command.
    pub fn apply(&mut self, entry: &Entry) -> Option<Applied> {
        match entry.kind {
            EntryKind::Noop => None,
            EntryKind::Command => Some(self.carry_out(entry)),
        }
    }

    /// The same when nobody waits for the outcome: what is not needed later either is not made.
    pub fn apply_unanswered(&mut self, entry: &Entry) {
        if entry.kind == EntryKind::Command
            && let Ok(Opened::Plain(command)) = Opened::of(&entry.payload)
        {
            let mut context = ApplyContext::new(entry.index, entry.timestamp, entry.seed);
            let done = self.inner.apply_unanswered(&mut context, command);
            self.executed += u64::from(done.is_ok());
        } else {
            self.apply(entry);
        }
    }

    fn carry_out(&mut self, entry: &Entry) -> Applied {
        let mut context = ApplyContext::new(entry.index, entry.timestamp, entry.seed);
        let envelope = match Opened::of(&entry.payload) {
            Ok(envelope) => envelope,
            Err(Malformed(why)) => return Applied::Malformed(why),
        };
        match envelope {
            Opened::Plain(command) => {
                execute(&mut *self.inner, &mut self.executed, &mut context, command).into()
            }
            Opened::Open => {
                let id = SessionId(entry.hash);
                self.sessions.open(id, (entry.index.0, entry.timestamp));
                Applied::Opened(id)
            }
            Opened::Close(id) => {
                self.sessions.close(id);
                Applied::Closed
            }
            Opened::Command {
                session,
                seq,
                done_below,
                command,
            } => {
                let at = (entry.index.0, entry.timestamp);
                match self.sessions.admit(session, seq, done_below, at) {
                    Admission::Repeated(answer) => answer.into(),
                    Admission::Expired => Applied::Expired,
                    Admission::OutOfWindow => Applied::OutOfWindow,
                    Admission::First(place) => {
                        let answer =
                            execute(&mut *self.inner, &mut self.executed, &mut context, command);
                        place.keep(answer.clone());
                        self.sessions.trim();
                        answer.into()
                    }
                }
            }
        }
    }

    /// Carries out a command that is in no log.
    #[cfg(feature = "sim")]
    pub(crate) fn disturb(&mut self, command: &[u8]) {
        let mut context = ApplyContext::new(crate::id::Index::ZERO, Timestamp(0), 0);
        self.inner
            .apply(&mut context, command)
            .expect("a disturbance is a command");
    }

    /// How many commands the state machine itself has carried out in this object's life: a repeated one, which gets
    /// its first answer again, is not among them.
    #[must_use]
    pub fn executed(&self) -> u64 {
        self.executed
    }

    /// The state in its own type, where the machine shows it.
    #[must_use]
    pub fn as_any(&self) -> Option<&dyn Any> {
        self.inner.as_any()
    }

    /// Answers a query.
    ///
    /// # Errors
    /// [`Malformed`]: the bytes are no query.
    pub fn query(&self, query: &[u8]) -> Result<Bytes, Malformed> {
        self.inner.query(query)
    }

    /// Freezes state and sessions.
    #[must_use]
    pub fn freeze(&self) -> FrozenState {
        self.freeze_with(Keep::Sessions)
    }

    /// Freezes with or without the sessions (the simulator plants their absence).
    pub(crate) fn freeze_with(&self, keep: Keep) -> FrozenState {
        let table = match keep {
            Keep::Sessions => self.sessions.table.clone(),
            #[cfg(feature = "sim")]
            Keep::Nothing => BTreeMap::new(),
        };
        let state = self.inner.freeze();
        Box::new(move |out| {
            let head = postcard::to_stdvec(&table).map_err(io::Error::other)?;
            out.write_all(&(head.len() as u64).to_be_bytes())?;
            out.write_all(&head)?;
            state(out)
        })
    }

    /// Replaces state and sessions by what [`freeze`](Self::freeze) wrote.
    ///
    /// # Errors
    /// When the bytes are not that. The machine must not be used then.
    pub fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        let mut length = [0; 8];
        from.read_exact(&mut length)?;
        let length = u64::from_be_bytes(length);
        let mut head = Vec::new();
        from.take(length).read_to_end(&mut head)?;
        if head.len() as u64 != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let table = postcard::from_bytes(&head)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        self.inner.restore(from)?;
        self.sessions.replace(table);
        Ok(())
    }

    /// Back to the state it was made with.
    ///
    /// # Errors
    /// When the state machine refuses its own initial state.
    pub fn reset(&mut self) -> io::Result<()> {
        self.inner.restore(&mut self.initial.as_slice())?;
        self.sessions.replace(BTreeMap::new());
        Ok(())
    }

    /// A number that differs when state or sessions differ, computed from the frozen state: as expensive as a snapshot.
    ///
    /// # Panics
    /// When the state machine cannot write its state to memory.
    #[must_use]
    pub fn full_digest(&self) -> u64 {
        let mut bytes = Vec::new();
        self.freeze()(&mut bytes).expect("a state can be written to memory");
        xxhash_rust::xxh3::xxh3_64(&bytes)
    }

    /// The state machine's own digest, if it has one.
    #[must_use]
    pub fn digest(&self) -> Option<u64> {
        self.inner.digest()
    }
}

fn execute(
    inner: &mut dyn RawStateMachine,
    executed: &mut u64,
    context: &mut ApplyContext,
    command: &[u8],
) -> Answer {
    match inner.apply(context, command) {
        Ok(response) => {
            *executed += 1;
            Answer::Response(response)
        }
        Err(Malformed(why)) => Answer::Malformed(why),
    }
}

/// What a snapshot keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// State and sessions.
    Sessions,
    /// The state alone: a planted bug.
    #[cfg(feature = "sim")]
    Nothing,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Answer {
    Response(Bytes),
    Malformed(String),
}

impl Answer {
    fn bytes(&self) -> usize {
        match self {
            Self::Response(bytes) => bytes.len(),
            Self::Malformed(why) => why.len(),
        }
    }
}

impl From<Answer> for Applied {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Response(bytes) => Self::Response(bytes),
            Answer::Malformed(why) => Self::Malformed(why),
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Session {
    used_at: Timestamp,
    used_index: u64,
    done_below: Seq,
    /// Sorted by number; mostly a queue.
    answers: VecDeque<(Seq, Answer)>,
}

enum Admission<'a> {
    First(Place<'a>),
    Repeated(Answer),
    Expired,
    OutOfWindow,
}

/// Where the answer to a new request is kept.
struct Place<'a> {
    answers: &'a mut VecDeque<(Seq, Answer)>,
    at: usize,
    seq: Seq,
    answer_bytes: &'a mut usize,
}

impl Place<'_> {
    fn keep(self, answer: Answer) {
        *self.answer_bytes += answer.bytes();
        self.answers.insert(self.at, (self.seq, answer));
    }
}

struct Sessions {
    table: BTreeMap<SessionId, Session>,
    answer_bytes: usize,
    sessions_max: usize,
    answer_bytes_max: usize,
    window: u64,
    ttl_micros: u64,
}

impl Sessions {
    fn new(limits: &Limits) -> Self {
        Self {
            table: BTreeMap::new(),
            answer_bytes: 0,
            sessions_max: limits.sessions_max,
            answer_bytes_max: limits.session_answer_bytes_max,
            window: limits.session_window,
            ttl_micros: u64::try_from(limits.session_ttl.as_micros()).unwrap_or(u64::MAX),
        }
    }

    fn replace(&mut self, table: BTreeMap<SessionId, Session>) {
        self.answer_bytes = table.values().map(Session::answer_bytes).sum();
        self.table = table;
    }

    fn open(&mut self, id: SessionId, (index, now): (u64, Timestamp)) {
        if self.table.len() >= self.sessions_max {
            self.expire_oldest();
        }
        self.table.insert(
            id,
            Session {
                used_at: now,
                used_index: index,
                done_below: Seq(1),
                answers: VecDeque::new(),
            },
        );
    }

    fn close(&mut self, id: SessionId) {
        if let Some(gone) = self.table.remove(&id) {
            self.answer_bytes -= gone.answer_bytes();
        }
    }

    fn admit(
        &mut self,
        id: SessionId,
        seq: Seq,
        done_below: Seq,
        (index, now): (u64, Timestamp),
    ) -> Admission<'_> {
        let btree_map::Entry::Occupied(session) = self.table.entry(id) else {
            return Admission::Expired;
        };
        if now.0.saturating_sub(session.get().used_at.0) > self.ttl_micros {
            self.answer_bytes -= session.remove().answer_bytes();
            return Admission::Expired;
        }
        let session = session.into_mut();
        session.used_at = now;
        session.used_index = index;
        // A client cannot be done with what it has not asked yet.
        let done_below = done_below.min(seq).max(session.done_below);
        session.done_below = done_below;
        while let Some((first, answer)) = session.answers.front() {
            if *first >= done_below {
                break;
            }
            self.answer_bytes -= answer.bytes();
            session.answers.pop_front();
        }
        if seq < done_below || seq.0 >= done_below.0.saturating_add(self.window) {
            return Admission::OutOfWindow;
        }
        // A new number is mostly the highest: looked for where it would be.
        match session.position_of(seq) {
            Ok(at) => Admission::Repeated(session.answers[at].1.clone()),
            Err(at) => Admission::First(Place {
                answers: &mut session.answers,
                at,
                seq,
                answer_bytes: &mut self.answer_bytes,
            }),
        }
    }

    /// Lets sessions go until the answers fit their bound.
    fn trim(&mut self) {
        while self.answer_bytes > self.answer_bytes_max && !self.table.is_empty() {
            self.expire_oldest();
        }
    }

    /// Expires the least recently used quarter (at least one), so that its cost is shared by many openings.
    fn expire_oldest(&mut self) {
        let mut by_use: Vec<(u64, SessionId)> = self
            .table
            .iter()
            .map(|(id, s)| (s.used_index, *id))
            .collect();
        by_use.sort_unstable();
        for (_, id) in by_use.iter().take(by_use.len().div_ceil(4)) {
            self.close(*id);
        }
    }
}

impl Session {
    /// Where the answer to `seq` is, or belongs.
    fn position_of(&self, seq: Seq) -> Result<usize, usize> {
        match self.answers.back() {
            None => Err(0),
            Some((last, _)) if *last < seq => Err(self.answers.len()),
            Some(_) => self.answers.binary_search_by_key(&seq, |(s, _)| *s),
        }
    }

    fn answer_bytes(&self) -> usize {
        self.answers.iter().map(|(_, a)| a.bytes()).sum()
    }
}

#[cfg(test)]
mod tests;
