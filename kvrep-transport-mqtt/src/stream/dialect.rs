//! How a group speaks on a broker's topics: which they are, and what stands on them.

use super::trouble::Trouble;
use bytes::Bytes;
use kvrep_core::ReplicaId;
use kvrep_core::client_wire::Outcome;
use kvrep_core::protocol::active::{Message, Published};
use kvrep_core::stream::StreamMember;
use kvrep_core::transport::Destination;
use std::sync::Arc;

/// Where a payload goes.
pub type Addressed = (Arc<str>, Bytes);

/// The topics of one member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StreamTopics {
    /// The one whose order counts.
    pub ordered: Arc<str>,
    /// What it subscribes to: the ordered topic, and what it reads beside it; MQTT's patterns may be used, and no topic may be in two. Where one pattern
    /// takes the ordered topic and the heartbeats in, no broker lets those wait behind the other for longer than for its turn.
    pub subscriptions: Vec<String>,
}

/// What came on a topic beside the stream.
#[derive(Debug)]
pub enum Heard {
    /// A message of another member (or of this one, which hears itself where all publish on one topic: that does no harm).
    Message(Message),
    /// A part of one: more is to come.
    Part,
    /// The word of a member that has another configuration.
    ConfiguredOtherwise(ReplicaId),
    /// Nothing of this group's, or nothing that can be read: why.
    Nothing(String),
}

/// What a member says, in bytes. The members of a group, and whoever speaks with them, use the same.
///
/// What comes is anybody's: nothing of it may panic, or be kept without a bound.
pub trait Dialect: Send + 'static {
    /// Begins. Called once, first.
    ///
    /// # Errors
    /// A sentence that says what to change.
    fn open(&mut self, me: &StreamMember) -> Result<StreamTopics, String>;

    /// An item of this member's, for the ordered topic.
    fn item(&mut self, published: &Published) -> Bytes;

    /// What stands on the ordered topic: an item for each position that it takes, at least one. **The same at every member, whatever else it
    /// knows**; bytes that say nothing are one [`Item::Unreadable`](kvrep_core::protocol::active::Item::Unreadable).
    fn read_items(&mut self, payload: &Bytes) -> Vec<Published>;

    /// A message beside the stream, as one or several payloads.
    fn message(&mut self, to: Destination, message: &Message, out: &mut Vec<Addressed>);

    /// What came beside the stream.
    fn read_message(&mut self, topic: &str, payload: &Bytes) -> Heard;

    /// The answer to a client, by what its request said; `None` where there is nobody to be answered.
    fn answer(&mut self, reply_to: &Bytes, outcome: &Outcome) -> Option<Addressed>;

    /// What an operator is told of this.
    fn word(&self, trouble: &Trouble) -> String {
        trouble.to_string()
    }

    /// Whether answers to one topic may leave as one payload, one behind the other.
    fn joins_answers(&self) -> bool {
        false
    }
}
