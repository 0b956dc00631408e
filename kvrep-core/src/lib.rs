//! kvrep keeps replicas of one deterministic state machine on several machines, through crashes.

pub mod client_wire;
pub mod config;
pub mod detector;
pub mod engine;
pub mod entry;
pub mod error;
mod fold;
pub mod id;
pub mod membership;
pub mod protocol;
pub mod random;
pub mod session;
pub mod state_machine;
pub mod storage;
pub mod time;
pub mod transport;
pub mod wire;

#[cfg(feature = "check")]
pub mod check;
#[cfg(feature = "runtime")]
pub mod node;
#[cfg(feature = "sim")]
pub mod sim;
#[cfg(feature = "testing")]
pub mod testing;

pub use config::{Ack, Authority, GroupConfig, Limits, Read, Takeover, Timing, Token};
pub use entry::{Entry, EntryKind};
pub use error::{ProposeError, ReadError};
pub use fold::Fold;
pub use id::{
    Configuration, GroupId, Incarnation, Index, LogPoint, Nonce, PersistToken, ReplicaId, Seq,
    SessionId, StoreId, Term, Ticket, Version,
};
pub use state_machine::{ApplyContext, Malformed, RawStateMachine, StateMachine, Typed};
pub use time::{Time, Timestamp};

#[cfg(feature = "runtime")]
pub use node::{Client, Node};
