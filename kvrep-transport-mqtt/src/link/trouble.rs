//! What is wrong between a link and its broker, as types: a program may say it in its own words. Their [`Display`](std::fmt::Display) says it in English.

use super::event::Rejection;

/// Why there is no connection to the broker (any more).
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Loss {
    /// Nobody listens at this address.
    #[error("nobody listens at {0}: start the broker, or give its address")]
    NobodyListens(String),
    /// The broker at this address closed the connection.
    #[error("{0} closed the connection")]
    Closed(String),
    /// The same, before it had taken it.
    #[error(
        "{0} closed the connection (some brokers do so without a word when user or password are wrong)"
    )]
    ClosedAtOnce(String),
    /// Whatever is at this address did not answer in time.
    #[error("{0} did not answer in time: is it a broker, and this its address?")]
    Unanswered(String),
    /// The broker at this address did not answer the subscriptions in time.
    #[error("{0} did not answer the subscriptions in time")]
    SubscriptionsUnanswered(String),
    /// What is at this address is no broker.
    #[error("{0} does not answer as a broker does")]
    NoBroker(String),
    /// The broker at this address fell silent.
    #[error("{0} gives no sign of life")]
    Silent(String),
    /// The broker takes no connection for now.
    #[error("{broker} refuses for now: {code}")]
    RefusedForNow {
        /// Its address.
        broker: String,
        /// Its code.
        code: String,
    },
    /// The broker refuses.
    #[error(transparent)]
    Refused(Rejection),
    /// The broker ended the connection.
    #[error("the broker ended the connection: {0}")]
    Ended(String),
    /// Another process connected to the broker at this address under this one's name.
    #[error("another process connected to {0} under this client id: give each its own")]
    NameTaken(String),
    /// The broker has a session of an earlier process under this one's name.
    #[error("{0} has a session of an earlier process under this client id; a new one is begun")]
    EarlierSession(String),
    /// What came cannot be read.
    #[error("{broker} sent what cannot be read: {why}")]
    Unreadable {
        /// The broker's address.
        broker: String,
        /// In which respect.
        why: String,
    },
    /// A publication is larger than the broker at this address takes.
    #[error("{0} refuses a publication as too large")]
    TooLarge(String),
    /// It sent more at once than there are numbers for.
    #[error("{0} has more messages under way than MQTT allows")]
    TooMuchUnderWay(String),
    /// Something else, mostly the system's.
    #[error("{broker}: {why}")]
    Otherwise {
        /// The broker's address.
        broker: String,
        /// The system's words.
        why: String,
    },
}

/// What of a broker makes it slow, or a loss likely.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Limit {
    /// It takes messages of QoS 0 only.
    #[error(
        "the broker takes messages of QoS 0 only: whatever is published may be lost; use another broker"
    )]
    AtMostOnce,
    /// It keeps no retained messages.
    #[error(
        "the broker keeps no retained messages: who starts does not learn who is there; allow them (mosquitto: retain_available true)"
    )]
    NothingRetained,
    /// It takes small packets only.
    #[error(
        "the broker takes packets of up to {packet_bytes_max} bytes, payloads here may have {payload_bytes_max}: larger ones are refused; raise its limit (mosquitto: max_packet_size), or lower ours and the group's"
    )]
    SmallPackets {
        /// Its limit.
        packet_bytes_max: usize,
        /// What payloads may have here.
        payload_bytes_max: usize,
    },
    /// It takes few publications at a time.
    #[error(
        "the broker takes {0} unacknowledged publications at a time, which bounds the rate to so many a round trip; raise it (mosquitto: max_inflight_messages), and with it what it queues for slow receivers before it drops silently (max_queued_messages)"
    )]
    FewInFlight(u16),
}
