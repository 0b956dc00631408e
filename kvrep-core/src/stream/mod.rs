//! The ordered stream under the [active scheme](crate::protocol::active), as one member sees it: what is put into it comes out of it at every
//! member, in one order. Who keeps that order is the stream's own matter: a broker's topic, or a hub in memory.
//!
//! Beside the stream a member speaks to others ([`Message`]: heartbeats, a state for a newcomer) and answers clients; how both travel,
//! and in which encoding, belongs to the stream, too. So a group can speak another program's language without knowing it.
//!
//! # What a stream must keep
//!
//! * What a member publishes comes back to it, at its place. All members get the same items in the same order, or this is noticed by the
//!   protocol, which verifies the order and does not believe in it.
//! * An item is published until the stream has it; a second copy does no harm.
//! * [`Answered`](StreamEvent::Answered) comes when an answer is where nothing but its receiver can lose it, and in any case some day: an answer that
//!   cannot be given is told as given, and counted.
//! * `publish`, `send` and `answer` never wait; every queue has a bound. Of answers at most 1,024 are under way.
//! * What cannot be read is an item all the same: [`Item::Unreadable`](crate::protocol::active::Item::Unreadable), with the hash of its bytes.

#[cfg(any(feature = "runtime", feature = "sim"))]
pub mod log;
#[cfg(feature = "runtime")]
pub mod memory;

use crate::client_wire::{Op, Outcome};
use crate::id::{GroupId, Incarnation, ReplicaId};
use crate::protocol::active::{AnswerNumber, Message, Published};
use crate::transport::{Destination, TransportError};
use async_trait::async_trait;
use bytes::Bytes;
use std::time::Duration;

/// Who opens a stream.
#[derive(Clone, Debug)]
pub struct StreamMember {
    /// The group.
    pub group: GroupId,
    /// This replica.
    pub replica: ReplicaId,
    /// This life of it.
    pub incarnation: Incarnation,
    /// All members, this one among them.
    pub members: Vec<ReplicaId>,
    /// Hash of everything the group must agree on. A member that says another one is told of
    /// ([`ConfiguredOtherwise`](StreamEvent::ConfiguredOtherwise)), and what it says is not believed.
    pub config_hash: u64,
    /// Largest request, in bytes.
    pub request_bytes_max: usize,
    /// Largest state that a newcomer takes over, in bytes.
    pub state_bytes_max: usize,
}

/// What a stream tells its member.
#[derive(Debug)]
#[non_exhaustive]
pub enum StreamEvent {
    /// What is published from now on is delivered here: the first event, apart from [`Trouble`](Self::Trouble).
    Opened,
    /// An item, at the next position.
    Delivered {
        /// What.
        published: Published,
        /// Of its bytes, the same at every member.
        hash: u64,
    },
    /// A message of another member.
    Message(Message),
    /// An answer is where it goes, or never will be.
    Answered(AnswerNumber),
    /// Something may be missing from here on: the connection to whoever keeps the order is a new one.
    Reset,
    /// A member has another configuration than this one.
    ConfiguredOtherwise(ReplicaId),
    /// The stream itself has ended, for another process has taken this replica's name in it. (Where it goes on, the scheme finds out by itself.)
    Superseded,
    /// What an operator should know, in a sentence: the stream's keeper is away, or refuses something.
    Trouble(String),
}

/// An ordered stream. See the [module](self).
#[async_trait]
pub trait OrderedStream: Send + 'static {
    /// Begins. When what is published from now on will be delivered here, it tells so ([`Opened`](StreamEvent::Opened)).
    ///
    /// # Errors
    /// When a setting is wrong. Whoever keeps the order may be away: that is waited for.
    async fn open(&mut self, me: StreamMember) -> Result<(), TransportError>;

    /// What happens next; `None` when the stream has ended. Nothing is lost when the future is dropped. A call says, too, that what
    /// the last one returned is dealt with.
    async fn next(&mut self) -> Option<StreamEvent>;

    /// Puts this into the stream, behind everything that was put there before.
    fn publish(&mut self, published: &Published);

    /// Tells others something beside the stream.
    fn send(&mut self, to: Destination, message: &Message);

    /// Answers a client.
    fn answer(&mut self, number: AnswerNumber, reply_to: &Bytes, outcome: &Outcome);

    /// What is published does not come back: gives the connection up and makes another, if there is one, and says so
    /// ([`Trouble`](StreamEvent::Trouble)); then tells of a [`Reset`](StreamEvent::Reset). Where there is none it is being made already: nothing
    /// is done or said.
    fn reconnect(&mut self) {}

    /// Sends what waits, as far as that is soon done, and ends.
    async fn close(&mut self);
}

/// After how long a client that has no answer puts its request into the stream again: it stood there perhaps where no history was. `None` for a
/// command without a session, which would be carried out twice.
#[must_use]
pub fn repeat_after(op: &Op) -> Option<Duration> {
    match op {
        Op::Plain(_) => None,
        Op::OpenSession
        | Op::Command { .. }
        | Op::Query { .. }
        | Op::Status
        | Op::CloseSession(_)
        | Op::Manage(_) => Some(REPEAT_AFTER),
    }
}

const REPEAT_AFTER: Duration = Duration::from_millis(500);
