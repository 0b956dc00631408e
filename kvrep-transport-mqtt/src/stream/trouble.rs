//! What an operator should know of a member's broker, as a type: a [`Dialect`](super::Dialect) may say it in its own words.

use crate::link::{Limit, Loss, PublishError, Rejection};
use std::sync::Arc;

/// What is wrong between a member and its broker.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Trouble {
    /// There is no connection. It is tried again.
    #[error(transparent)]
    Lost(Loss),
    /// The broker refuses something.
    #[error(transparent)]
    Refused(Rejection),
    /// One of the broker's limits.
    #[error(transparent)]
    Limit(Limit),
    /// The broker's packets are too small for what members tell each other.
    #[error(
        "{topic}: the broker takes {bytes_max} bytes there at most, which is too little: no state reaches a newcomer, or no sign of life the others; raise its limit of a packet (mosquitto: max_packet_size)"
    )]
    SmallPackets {
        /// Where it was to go.
        topic: Arc<str>,
        /// What the broker takes there.
        bytes_max: usize,
    },
    /// Something is given up that can never be published.
    #[error("{topic}: {why}")]
    GivenUp {
        /// Where it was to go.
        topic: Arc<str>,
        /// Why it cannot.
        why: PublishError,
    },
    /// What this member publishes does not come back to it.
    #[error("what this replica publishes does not come back to it: it connects anew")]
    ConnectsAnew,
    /// It should connect anew, and cannot.
    #[error("cannot connect anew: {0}")]
    CannotConnectAnew(String),
}
