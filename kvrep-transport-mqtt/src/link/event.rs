//! What a link to a broker tells whoever reads it.

use super::{BrokerLimits, Link, Loss};
use bytes::Bytes;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// One publication of ours, numbered from 1 in the order of the calls.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PublicationId(pub u64);

/// What happened on the connection, in the order in which it did.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A message came.
    Delivered {
        /// On which topic.
        topic: Arc<str>,
        /// What it says.
        payload: Bytes,
        /// It was kept by the broker, from before the subscription. Nobody may have said it lately.
        retained: bool,
        /// It may be a second copy of one that was delivered and acknowledged before: the session was just resumed, nothing new
        /// has come on this topic since, and one with the same content was acknowledged, perhaps in vain. Copies that are
        /// certain are not delivered.
        duplicate: bool,
        /// Where the answer to it is to go, if its publisher said so. May be any text.
        reply_to: Option<Arc<str>>,
        /// Acknowledges it, once it is dealt with.
        ack: AckToken,
    },
    /// The broker has this publication of ours.
    Acknowledged(PublicationId),
    /// The session in which this publication was made is lost: whether it reached the broker is not known. It is not sent
    /// (again).
    Abandoned(PublicationId),
    /// Connected and subscribed.
    Connected {
        /// The broker still had our session: what was published meanwhile is delivered, what we had not acknowledged comes again
        /// (and is recognised), and what it had not acknowledged was sent to it again. Otherwise this is a new session; of what was
        /// said before it, nothing comes.
        session_resumed: bool,
        /// What the broker says about its limits.
        limits: BrokerLimits,
    },
    /// Not connected (any more). It is tried again.
    Disconnected {
        /// Why, and what can be done about it.
        why: Loss,
        /// When it is tried again.
        retry_in: Duration,
    },
    /// The broker refused something.
    Rejected(Rejection),
}

/// What a broker refused, and why.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// The connection. It is tried again, after the longest wait.
    #[error("the broker refuses the connection: {code}; {refusal}")]
    Connection {
        /// In which respect.
        refusal: Refusal,
        /// The broker's code.
        code: String,
    },
    /// A subscription. The connection is made anew, after the longest wait.
    #[error("the broker refuses the subscription to {topic}: {why}")]
    Subscription {
        /// Which.
        topic: String,
        /// Why.
        why: String,
    },
    /// A publication. Nobody gets it.
    #[error("a publication to {topic} of {bytes} bytes is given up: {why}")]
    Publication {
        /// Which.
        id: PublicationId,
        /// Where it was to go.
        topic: Arc<str>,
        /// How large its payload is.
        bytes: usize,
        /// Why.
        why: Objection,
    },
}

/// Why a publication is given up. Its `Display` says what to do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Objection {
    /// The broker refuses it, with this code.
    #[error("the broker refuses it ({0}); check what this user may write")]
    Said(String),
    /// It is larger than the broker takes, by its own word or as it was found out.
    #[error("the broker takes {bytes_max} bytes there at most")]
    TooLarge {
        /// What it takes.
        bytes_max: usize,
    },
    /// The broker has just refused it as too large, and does not say how much it takes: this is how much it gets from now on.
    #[error(
        "it is larger than the broker takes; from now on it gets no more than {bytes_max} bytes at a time: raise its limit of a message (mosquitto: message_size_limit)"
    )]
    FoundTooLarge {
        /// What it is sent at most.
        bytes_max: usize,
    },
    /// With it under way, the connection ended again and again.
    #[error("with it, the connection to the broker ended {breaks} times in a row: {why}")]
    EndsConnections {
        /// How often.
        breaks: u32,
        /// What the broker said at the last end.
        why: Box<Loss>,
    },
    /// The library that speaks MQTT does not take it.
    #[error("{0}")]
    Otherwise(String),
}

/// In which respect a broker refuses a connection. Its `Display` says what to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It does not know this user, or not with this password, or does not let them in.
    #[error("check user and password")]
    Credentials,
    /// It does not speak this version of MQTT.
    #[error("it must speak MQTT 5")]
    Protocol,
    /// It does not take this name of a client.
    #[error("choose another client id")]
    ClientId,
    /// Its packets are too small.
    #[error(
        "what it is told by who connects is too large for it: raise its limit (mosquitto: max_packet_size)"
    )]
    SmallPackets,
    /// It keeps no retained messages.
    #[error("it must keep retained messages")]
    NothingRetained,
    /// In another one.
    #[error("see its log")]
    Otherwise,
}

/// Acknowledges one delivered message to the broker.
///
/// Acknowledgements leave in the order of the deliveries, whatever the order of the calls. A token that is dropped
/// acknowledges nothing: its message comes again if the session is resumed, and later ones are held up; when
/// [`deliveries_max`](crate::MqttLimits::deliveries_max) of them are, the broker sends no more.
#[derive(Clone)]
pub struct AckToken {
    link: Weak<Link>,
    number: Option<u64>,
}

impl AckToken {
    pub(super) fn new(link: &Arc<Link>, number: Option<u64>) -> Self {
        Self {
            link: Arc::downgrade(link),
            number,
        }
    }

    /// The message is dealt with. The second call does nothing.
    pub fn acknowledge(&self) {
        if let (Some(number), Some(link)) = (self.number, self.link.upgrade()) {
            link.acknowledge(number);
        }
    }
}

impl fmt::Debug for AckToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            Some(number) => write!(f, "AckToken({number})"),
            None => f.write_str("AckToken(none)"),
        }
    }
}

/// Why a publication was not taken. Nothing of it is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// Too much waits for the broker, or for its events to be read. Retry when something was acknowledged.
    #[error("the queue of publications is full: wait for acknowledgements")]
    Full,
    /// Larger than allowed, by us or by the broker.
    #[error("a payload of {bytes} bytes; at most {bytes_max} are allowed")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// No topic to publish to.
    #[error("not a topic that can be published to")]
    Topic,
    /// The link was closed.
    #[error("the link to the broker is closed")]
    Closed,
}
