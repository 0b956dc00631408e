//! An ordered stream without a broker: the log of the [passive scheme](crate::protocol::passive) is the order.
//!
//! Each member runs a node of the log beside its replica, over any transport. What members and clients put into the stream is a command of that log's state
//! machine; its primary numbers the commands, and when that one dies another takes over, so that there is no third protocol that orders anything. A member
//! hears what its own node applies ([`Node::subscribe`](crate::node::Node::subscribe)). What members tell each other beside the stream, and the answers to clients, travel in the log, too:
//! whatever connects the nodes of the log is all that is needed.
//!
//! The group's [`Timing`](crate::protocol::active::Timing) counts in commands of the log: `suspect_after` and `resend_every` must be longer than one takes, and
//! where nobody is to be taken for dead while the log changes its primary, `suspect_after` longer than that, too. A log without a
//! [witness](crate::Authority::Witness) may part into two histories when links are cut: what the one that does not count had, its members lose without counting it
//! (they say so: [`Trouble`](super::StreamEvent::Trouble)).
//!
//! While the log has no primary nothing is heard, heartbeats neither; nobody is accused then, for the accusation would stand in the log. So a group notices a
//! dead member after the log's own timeout and the active scheme's, one after the other, at the worst.
//!
//! ```no_run
//! use kvrep_core::node::{ActiveNode, Client, ClientLink, Node};
//! use kvrep_core::stream::log::{LogLink, LogStream};
//! use kvrep_core::transport::Transport;
//! use kvrep_core::{Fold, ReplicaId};
//!
//! type Counter = Fold<i64, i64>;
//!
//! /// One member; `link` leads to the nodes of the log, as `TcpGroupLink::new("counter/log", addresses)` and
//! /// `MulticastGroupLink::new("counter/log", config)` do.
//! async fn member(me: ReplicaId, transport: impl Transport, link: impl ClientLink)
//! -> Result<ActiveNode, Box<dyn std::error::Error>> {
//!     let members = [1, 2, 3].map(ReplicaId);
//!     let log = Node::builder("counter/log", me).members(members).transport(transport);
//!     let replica = ActiveNode::builder("counter", me)
//!         .members(members)
//!         .stream(LogStream::new(log, link))
//!         .state_machine(Counter::new(0, |sum, by| *sum += by));
//!     Ok(replica.start().await?)
//! }
//!
//! async fn add(link: impl ClientLink) -> Result<i64, Box<dyn std::error::Error>> {
//!     let client = Client::<Counter>::new(LogLink::new("counter", link));
//!     Ok(client.execute(2).await?)
//! }
//! ```

#[cfg(feature = "runtime")]
mod client;
mod ear;
#[cfg(feature = "runtime")]
mod member;
#[cfg(feature = "sim")]
mod mutation;
mod puts;
mod sequencer;

#[cfg(feature = "runtime")]
pub use client::LogLink;
#[cfg(feature = "runtime")]
pub use member::LogStream;
#[cfg(feature = "sim")]
pub use mutation::Mutation;

#[cfg(feature = "sim")]
pub(crate) use ear::Ear;
#[cfg(feature = "sim")]
pub(crate) use puts::{Put, Puts};
#[cfg(feature = "sim")]
pub(crate) use sequencer::{CallId, Record, Sequencer};

#[cfg(all(test, feature = "runtime"))]
mod tests;
