//! The ordered stream of the active scheme through a broker: [`MqttStream`] for its members, [`connect_stream`] for their clients.
//!
//! ```
//! # #[cfg(not(feature = "embedded-broker"))] fn main() {}
//! # #[cfg(feature = "embedded-broker")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use kvrep_core::{ActiveNode, Fold, ReplicaId};
//! use kvrep_transport_mqtt::stream::{MqttStream, connect_stream};
//! use kvrep_transport_mqtt::{EmbeddedBroker, MqttConfig};
//!
//! type Counter = Fold<i64, i64>;
//!
//! let broker = EmbeddedBroker::start("127.0.0.1:0")?; // or one that runs anyway
//! let config = MqttConfig::new(broker.address().to_string());
//!
//! let members = [1, 2, 3].map(ReplicaId);
//! let mut replicas = Vec::new();
//! for me in members {
//!     let replica = ActiveNode::builder("counter", me)
//!         .members(members)
//!         .stream(MqttStream::new(config.clone()))
//!         .state_machine(Counter::new(0, |sum, by| *sum += by));
//!     replicas.push(replica.start().await?);
//! }
//!
//! let client = connect_stream::<Counter>("counter", config); // in any process
//! assert_eq!(client.execute(2).await?, 2);
//! # Ok(())
//! # }
//! ```
//!
//! # How it works
//!
//! ```text
//!   PREFIX/all/s     the ordered stream: requests of clients, and what members have to say to all
//!   PREFIX/all/h     heartbeats, heard by every member
//!   PREFIX/j/2       for member 2: the state, piece by piece, while it joins
//!   PREFIX/a/NAME    answers for the client NAME
//! ```
//!
//! That is the library's own [`Dialect`]; with another one, a group speaks on other topics and in another language
//! ([`MqttStream::dialect`]).
//!
//! What a member publishes is sent again in its order when the broker has lost the session; answers leave together where they wait
//! together. What was delivered is acknowledged to the broker when it was carried out.
//!
//! # Caveats
//!
//! - Retained messages on the ordered topic are ignored: each member would find them at another place.
//! - A member whose process comes back is a new one to the broker; what was published meanwhile it gets from the others.

mod answers;
mod client;
mod dialect;
mod own;
mod trouble;
mod unacknowledged;

pub use client::{MqttStreamLink, connect_stream};
pub use dialect::{Addressed, Dialect, Heard, StreamTopics};
pub use own::OwnDialect;
pub use trouble::Trouble;

use crate::config::MqttConfig;
use crate::link::{
    self, AckToken, Event, Kept, Limit, Link, Objection, Payload, Publication, PublishError,
    Reader, Rejection, Report, Session, Spec,
};
use crate::names::check_topic;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use kvrep_core::client_wire::Outcome;
use kvrep_core::protocol::active::{AnswerNumber, Message, Published};
use kvrep_core::stream::{OrderedStream, StreamEvent, StreamMember};
use kvrep_core::transport::{Destination, TransportError};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use tracing::{debug, info, warn};
use unacknowledged::{Carried, Outgoing, Unacknowledged};
use xxhash_rust::xxh3::xxh3_64;

/// One member's end of an ordered stream through a broker.
pub struct MqttStream {
    config: MqttConfig,
    dialect: Box<dyn Dialect>,
    open: Option<Open>,
}

struct Open {
    me: StreamMember,
    name: String,
    subscriptions: Vec<String>,
    /// How many were made anew on purpose, and the first.
    connections: u32,
    link: Arc<Link>,
    reader: Reader,
    ordered: Arc<str>,
    ready: VecDeque<Ready>,
    /// Of the delivery that `ready` is from.
    ack: Option<AckToken>,
    unacknowledged: Unacknowledged,
    /// Answers that leave together, by topic.
    joined: BTreeMap<Arc<str>, (BytesMut, Vec<Carried>)>,
    /// What the broker does not take, for its size: the answers in it are yet to be given otherwise.
    oversized: Vec<Outgoing>,
    joined_answers: usize,
    connected_before: bool,
    connected: bool,
    /// The limits of the broker that were told.
    warned: BTreeSet<Limit>,
    /// Topics for which its packets are too small, told.
    too_small: BTreeSet<Arc<str>>,
    /// That the broker takes few publications at a time, where it was not said yet.
    slowness: Option<Limit>,
    batch_bytes_max: usize,
    payload_bytes_max: usize,
}

/// What is to be told.
enum Ready {
    Event(StreamEvent),
    Trouble(Trouble),
}

impl MqttStream {
    /// A stream over this broker, in the library's own dialect.
    #[must_use]
    pub fn new(config: MqttConfig) -> Self {
        let own = OwnDialect::new(&config);
        Self {
            config,
            dialect: Box::new(own),
            open: None,
        }
    }

    /// Speaks otherwise.
    #[must_use]
    pub fn dialect(mut self, dialect: impl Dialect) -> Self {
        self.dialect = Box::new(dialect);
        self
    }
}

#[async_trait]
impl OrderedStream for MqttStream {
    async fn open(&mut self, me: StreamMember) -> Result<(), TransportError> {
        let topics = self.dialect.open(&me).map_err(TransportError::Config)?;
        let client_id = self.config.client_id.clone();
        let named = || {
            format!(
                "kvrep-{:016x}-{}-{:016x}",
                me.group.0, me.replica.0, me.incarnation.0
            )
        };
        let subscriptions = topics.subscriptions;
        let name = client_id.unwrap_or_else(named);
        let connection = connection(&name, 1, subscriptions.clone());
        let (link, reader) =
            link::open(&self.config, connection).map_err(TransportError::Config)?;
        self.open = Some(Open {
            me,
            name,
            subscriptions,
            connections: 1,
            link,
            reader,
            ordered: topics.ordered,
            ready: VecDeque::new(),
            ack: None,
            unacknowledged: Unacknowledged::default(),
            joined: BTreeMap::new(),
            oversized: Vec::new(),
            joined_answers: 0,
            connected_before: false,
            connected: false,
            warned: BTreeSet::new(),
            too_small: BTreeSet::new(),
            slowness: None,
            batch_bytes_max: self.config.limits.batch_bytes_max,
            payload_bytes_max: self.config.limits.payload_bytes_max,
        });
        Ok(())
    }

    async fn next(&mut self) -> Option<StreamEvent> {
        let Self { dialect, open, .. } = self;
        let open = open.as_mut()?;
        loop {
            open.answer_oversized(dialect.as_mut());
            match open.ready.pop_front() {
                Some(Ready::Event(event)) => return Some(event),
                Some(Ready::Trouble(trouble)) => {
                    return Some(StreamEvent::Trouble(dialect.word(&trouble)));
                }
                None => {}
            }
            // All of the last delivery is dealt with.
            if let Some(ack) = open.ack.take() {
                ack.acknowledge();
            }
            let event = match open.reader.try_next() {
                Some(event) => event,
                None => {
                    open.flush();
                    open.reader.next().await?
                }
            };
            open.on_event(event, dialect.as_mut());
        }
    }

    fn publish(&mut self, published: &Published) {
        let payload = self.dialect.item(published);
        if let Some(open) = &mut self.open {
            open.publish(Outgoing {
                topic: Arc::clone(&open.ordered),
                payload,
                answers: Vec::new(),
            });
        }
    }

    fn send(&mut self, to: Destination, message: &Message) {
        let Some(open) = &mut self.open else {
            return;
        };
        open.say(to, message, self.dialect.as_mut());
    }

    fn answer(&mut self, number: AnswerNumber, reply_to: &Bytes, outcome: &Outcome) {
        let Some(open) = &mut self.open else {
            return;
        };
        let answer = (number, reply_to);
        match self.dialect.answer(reply_to, outcome) {
            Some((topic, payload)) if payload.len() > open.link.payload_bytes_max(&topic) => {
                open.say_too_large(&topic, payload.len(), answer, self.dialect.as_mut());
            }
            addressed => open.put(addressed, answer, self.dialect.as_ref()),
        }
    }

    fn reconnect(&mut self) {
        let Self { config, open, .. } = self;
        // While there is none, the link is at work on it.
        let Some(open) = open.as_mut().filter(|open| open.connected) else {
            return;
        };
        // Under another name, where that is ours to choose: the broker may have lost its way in the session of this one.
        open.connections += u32::from(config.client_id.is_none());
        let spec = connection(&open.name, open.connections, open.subscriptions.clone());
        match link::open(config, spec) {
            Ok((link, reader)) => {
                (open.link, open.reader) = (link, reader);
                (open.ack, open.connected) = (None, false);
                open.unacknowledged.all_again();
                open.trouble(Trouble::ConnectsAnew);
            }
            Err(why) => {
                open.trouble(Trouble::CannotConnectAnew(why));
            }
        }
    }

    async fn close(&mut self) {
        if let Some(mut open) = self.open.take() {
            open.flush();
            open.reader.close(None).await;
        }
    }
}

/// What a connection is made for: the `number`th of the process of this name.
fn connection(name: &str, number: u32, subscriptions: Vec<String>) -> Spec {
    Spec {
        client_id: match number {
            1 => name.to_owned(),
            later => format!("{name}-{later}"),
        },
        subscriptions,
        will: None,
        session: Session::Kept,
        report: Report::Acknowledgements,
    }
}

impl Open {
    fn tell(&mut self, event: StreamEvent) {
        self.ready.push_back(Ready::Event(event));
    }

    fn trouble(&mut self, trouble: Trouble) {
        self.ready.push_back(Ready::Trouble(trouble));
    }

    fn on_event(&mut self, event: Event, dialect: &mut dyn Dialect) {
        match event {
            Event::Delivered {
                topic,
                payload,
                retained,
                ack,
                ..
            } => {
                if topic != self.ordered {
                    self.on_beside(&topic, &payload, dialect);
                } else if retained {
                    debug!("a retained message on the ordered topic is ignored");
                } else {
                    self.on_ordered(&payload, dialect);
                }
                self.ack = Some(ack);
            }
            Event::Acknowledged(id) => {
                let sent = self.unacknowledged.acknowledged(id);
                self.told(sent);
                self.send_waiting();
            }
            Event::Abandoned(id) => {
                self.unacknowledged.abandoned(id);
                if self.connected {
                    self.send_waiting();
                }
            }
            Event::Connected {
                session_resumed,
                limits,
            } => {
                for warning in limits.losses(self.payload_bytes_max) {
                    self.warn_once(warning);
                }
                // Only who has more to publish than that needs to know.
                self.slowness = limits.slowness();
                self.connected = true;
                if self.connected_before {
                    if !session_resumed {
                        // What waits would overtake what has to be sent again.
                        self.link.discard();
                        self.unacknowledged.all_again();
                    }
                    // Also of a session that it kept a broker may have thrown away what did not fit into its queue, and it tells nobody.
                    self.tell(StreamEvent::Reset);
                }
                info!(session_resumed, "connected to the broker");
                if !self.connected_before {
                    self.tell(StreamEvent::Opened);
                }
                self.connected_before = true;
                self.send_waiting();
            }
            Event::Disconnected { why, .. } => {
                self.connected = false;
                self.trouble(Trouble::Lost(why));
            }
            Event::Rejected(rejection) => {
                if let Rejection::Publication { id, why, .. } = &rejection {
                    let sent = self.unacknowledged.acknowledged(*id);
                    match why {
                        Objection::TooLarge { .. } | Objection::FoundTooLarge { .. } => {
                            self.oversized.extend(sent);
                        }
                        _ => self.told(sent),
                    }
                }
                self.trouble(Trouble::Refused(rejection));
            }
        }
    }

    fn on_ordered(&mut self, payload: &Bytes, dialect: &mut dyn Dialect) {
        let of_all = xxh3_64(payload);
        for (n, published) in dialect.read_items(payload).into_iter().enumerate() {
            let hash = of_all.wrapping_add((n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            self.tell(StreamEvent::Delivered { published, hash });
        }
    }

    fn on_beside(&mut self, topic: &str, payload: &Bytes, dialect: &mut dyn Dialect) {
        match dialect.read_message(topic, payload) {
            Heard::Message(message) => {
                self.tell(StreamEvent::Message(message));
            }
            Heard::Part => {}
            Heard::ConfiguredOtherwise(other) => {
                self.tell(StreamEvent::ConfiguredOtherwise(other));
            }
            Heard::Nothing(why) => debug!(%topic, %why, "what came is nothing"),
        }
    }

    fn warn_once(&mut self, limit: Limit) {
        if self.warned.insert(limit.clone()) {
            warn!(%limit, "the broker");
            self.trouble(Trouble::Limit(limit));
        }
    }

    fn told(&mut self, sent: Option<Outgoing>) {
        for answer in sent.into_iter().flat_map(|sent| sent.answers) {
            self.tell(StreamEvent::Answered(answer.number));
        }
    }

    fn join(&mut self, topic: Arc<str>, payload: &Bytes, answer: impl FnOnce(usize) -> Carried) {
        let bytes_max = self
            .batch_bytes_max
            .min(self.link.payload_bytes_max(&topic));
        let before = self
            .joined
            .get(&topic)
            .map_or(0, |(joined, _)| joined.len());
        if before + payload.len() > bytes_max {
            self.flush();
        }
        let (joined, answers) = self.joined.entry(topic).or_default();
        joined.extend_from_slice(payload);
        answers.push(answer(joined.len()));
        self.joined_answers += 1;
        if joined.len() >= bytes_max || self.joined_answers >= JOINED_MAX {
            self.flush();
        }
    }

    /// Sends the answers that were held back for company.
    fn flush(&mut self) {
        self.joined_answers = 0;
        for (topic, (joined, answers)) in std::mem::take(&mut self.joined) {
            self.publish(Outgoing {
                topic,
                payload: joined.freeze(),
                answers,
            });
        }
    }

    fn publish(&mut self, outgoing: Outgoing) {
        self.unacknowledged.push(outgoing);
        self.send_waiting();
    }

    fn send_waiting(&mut self) {
        while let Some(first) = self.unacknowledged.first_waiting() {
            let (topic, payload) = (Arc::clone(&first.topic), first.payload.clone());
            match self.hand_over(&topic, payload) {
                Ok(id) => self.unacknowledged.sent(id),
                // Later, when something was acknowledged.
                Err(PublishError::Full | PublishError::Closed) => {
                    let slowness = self.slowness.take().filter(|_| self.connected);
                    if let Some(warning) = slowness {
                        self.warn_once(warning);
                    }
                    return;
                }
                Err(error @ (PublishError::TooLarge { .. } | PublishError::Topic)) => {
                    let given_up = self.unacknowledged.give_up();
                    if matches!(error, PublishError::TooLarge { .. })
                        && let Some(answers) =
                            given_up.as_ref().filter(|out| !out.answers.is_empty())
                    {
                        debug!(%error, %topic, answers = answers.answers.len(), "given otherwise");
                        self.oversized.extend(given_up);
                        continue;
                    }
                    warn!(%error, %topic, "cannot be published");
                    self.trouble(Trouble::GivenUp { topic, why: error });
                    self.told(given_up);
                }
            }
        }
    }

    /// Says something beside the stream; a piece of a state that the broker does not take in one packet goes over in several.
    fn say(&mut self, to: Destination, message: &Message, dialect: &mut dyn Dialect) {
        let mut out = Vec::new();
        dialect.message(to, message, &mut out);
        for (topic, payload) in out {
            match self.hand_over(&topic, payload) {
                Ok(_) => {}
                Err(PublishError::TooLarge { bytes_max, .. }) => {
                    let Some(halves) = message.halves() else {
                        if self.too_small.len() < TOPICS_TOLD_MAX
                            && self.too_small.insert(Arc::clone(&topic))
                        {
                            let trouble = Trouble::SmallPackets { topic, bytes_max };
                            warn!(%trouble, "the broker");
                            self.trouble(trouble);
                        }
                        return;
                    };
                    for half in &halves {
                        self.say(to, half, dialect);
                    }
                    return;
                }
                // It may be lost: the scheme says again what matters.
                Err(error @ (PublishError::Full | PublishError::Topic | PublishError::Closed)) => {
                    debug!(%error, %topic, "not said");
                }
            }
        }
    }

    fn hand_over(
        &self,
        topic: &Arc<str>,
        payload: Bytes,
    ) -> Result<link::PublicationId, PublishError> {
        check_topic(topic).map_err(|_| PublishError::Topic)?;
        self.link.publish(Publication {
            topic: Arc::clone(topic),
            payload: Payload::Whole(payload),
            kept: Kept::No,
            reply_to: None,
        })
    }
}

impl fmt::Debug for MqttStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let me = self.open.as_ref().map(|open| open.me.replica);
        write!(f, "MqttStream({:?} at {})", me, self.config.broker)
    }
}

/// Answers that are held back at once.
const JOINED_MAX: usize = 64;
/// Topics of which it is told that the broker's packets are too small.
const TOPICS_TOLD_MAX: usize = 64;
