//! An ordered stream of messages through a broker, as the active scheme needs it: several topics on one connection, QoS 1
//! throughout, acknowledged by hand, with everything said that can go wrong.
//!
//! ```
//! # #[cfg(not(feature = "embedded-broker"))] fn main() {}
//! # #[cfg(feature = "embedded-broker")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use kvrep_transport_mqtt::ordered::{Event, OrderedTopic};
//! use kvrep_transport_mqtt::{EmbeddedBroker, MqttConfig};
//!
//! let broker = EmbeddedBroker::start("127.0.0.1:0")?;
//! let config = MqttConfig::new(broker.address().to_string());
//! let (publisher, mut deliveries) = OrderedTopic::new(config).subscribe("shop/orders").open()?;
//!
//! let sent = publisher.publish("shop/orders", "one tea")?; // queued at once, also before there is a connection
//! let mut missing = 2;
//! while missing > 0 {
//!     match deliveries.next().await.expect("open until it is closed") {
//!         Event::Acknowledged(id) => {
//!             assert_eq!(id, sent); // the broker has it
//!             missing -= 1;
//!         }
//!         Event::Delivered { payload, ack, .. } => {
//!             assert_eq!(payload, "one tea"); // … and everybody gets it in the same order
//!             ack.acknowledge(); // once it is dealt with
//!             missing -= 1;
//!         }
//!         Event::Connected { session_resumed, .. } => assert!(!session_resumed),
//!         Event::Disconnected { why, retry_in } => println!("{why}; again in {retry_in:?}"),
//!         other => panic!("{other:?}"),
//!     }
//! }
//! deliveries.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! # What holds
//!
//! - Publications leave in the order of the calls, and the broker has each at least once when it is
//!   [`Acknowledged`](Event::Acknowledged). One that is neither acknowledged nor [`Rejected`](Event::Rejected) is
//!   [`Abandoned`](Event::Abandoned); each ends in exactly one of the three.
//! - A connection that breaks is made again, with its session if the broker still has it: publications that were under way are
//!   then sent again (one that had reached the broker becomes a second message, [MQTT 5, 4.3.2]), and deliveries that come again
//!   are recognised.
//! - A process begins without a session, whatever an earlier one left under its name.
//! - Nobody waits in [`publish`](Publisher::publish), and no queue is without a bound.
//!
//! # What does not
//!
//! A broker promises the order of one publisher's messages on one topic. That all receivers see *one* order of all publishers is how
//! brokers are built, and nothing that MQTT promises; and a broker drops from its queue for a slow receiver without a
//! word. Whoever builds on the order verifies it.

use crate::config::MqttConfig;
use crate::link::{self, Kept, Link, Payload, Publication, Reader, Report, Session, Spec};
use crate::names::{TOPIC_BYTES_MAX, check_text, check_topic};
use bytes::Bytes;
use kvrep_core::transport::TransportError;
use std::sync::Arc;

pub use crate::link::{
    AckToken, BrokerLimits, Event, Limit, Loss, Objection, PublicationId, PublishError, Refusal,
    Rejection,
};

/// Settings of an ordered stream. See the [module](self).
#[derive(Clone, Debug)]
pub struct OrderedTopic {
    config: MqttConfig,
    topics: Vec<String>,
    will: Option<Publication>,
}

impl OrderedTopic {
    /// A stream over this broker. [`MqttConfig::client_id`] is the name of the session; without it, one is drawn.
    #[must_use]
    pub fn new(config: MqttConfig) -> Self {
        Self {
            config,
            topics: Vec::new(),
            will: None,
        }
    }

    /// Subscribes to a topic, too; MQTT's patterns (`+`, `#`) may be used.
    #[must_use]
    pub fn subscribe(mut self, topic: impl Into<String>) -> Self {
        self.topics.push(topic.into());
        self
    }

    /// Has the broker publish this when the connection ends without [`close`](Deliveries::close): others take it for a sign
    /// of death. It is no proof: a connection that merely breaks has the same effect.
    #[must_use]
    pub fn will(mut self, topic: impl Into<Arc<str>>, payload: impl Into<Bytes>) -> Self {
        self.will = Some(Publication {
            topic: topic.into(),
            payload: Payload::Whole(payload.into()),
            kept: Kept::No,
            reply_to: None,
        });
        self
    }

    /// Starts to connect. Runs on the tokio runtime of the caller until the deliveries are closed or dropped.
    ///
    /// # Errors
    /// When a setting is wrong.
    pub fn open(self) -> Result<(Publisher, Deliveries), TransportError> {
        let Self {
            config,
            topics,
            will,
        } = self;
        for topic in &topics {
            check_filter(topic).map_err(TransportError::Config)?;
        }
        if let Some(will) = &will {
            check_topic(&will.topic).map_err(TransportError::Config)?;
        }
        let client_id = config.client_id.clone();
        let spec = Spec {
            client_id: client_id.unwrap_or_else(|| format!("kvrep-{:016x}", crate::drawn())),
            subscriptions: topics,
            will,
            session: Session::Kept,
            report: Report::Acknowledgements,
        };
        let (link, reader) = link::open(&config, spec).map_err(TransportError::Config)?;
        Ok((Publisher { link }, Deliveries { reader }))
    }
}

/// The half that publishes. Clones are the same stream.
#[derive(Clone, Debug)]
pub struct Publisher {
    link: Arc<Link>,
}

impl Publisher {
    /// Queues a message. Never waits. What becomes of it is told by the [deliveries](Deliveries).
    ///
    /// # Errors
    /// When it is not taken; nothing of it is sent then.
    pub fn publish(
        &self,
        topic: impl Into<Arc<str>>,
        payload: impl Into<Bytes>,
    ) -> Result<PublicationId, PublishError> {
        self.queue(topic.into(), payload.into(), Kept::No)
    }

    /// The same for a message that the broker keeps for who subscribes later, in place of the one before it.
    ///
    /// # Errors
    /// When it is not taken; nothing of it is sent then.
    pub fn publish_retained(
        &self,
        topic: impl Into<Arc<str>>,
        payload: impl Into<Bytes>,
    ) -> Result<PublicationId, PublishError> {
        self.queue(topic.into(), payload.into(), Kept::Retained)
    }

    fn queue(
        &self,
        topic: Arc<str>,
        payload: Bytes,
        kept: Kept,
    ) -> Result<PublicationId, PublishError> {
        check_topic(&topic).map_err(|_| PublishError::Topic)?;
        self.link.publish(Publication {
            topic,
            payload: Payload::Whole(payload),
            kept,
            reply_to: None,
        })
    }

    /// What the broker says about its limits, while connected.
    #[must_use]
    pub fn broker(&self) -> Option<BrokerLimits> {
        self.link.broker()
    }

    /// What was dropped, refused and recognised so far.
    #[must_use]
    pub fn counters(&self) -> OrderedCounters {
        let counters = self.link.counters();
        OrderedCounters {
            copies_recognised: counters.copies(),
            publications_refused: counters.refused(),
            deliveries_dropped: counters.dropped_deliveries(),
        }
    }
}

/// What a stream dropped, refused and recognised since its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct OrderedCounters {
    /// Deliveries that were certainly copies, and so not told.
    pub copies_recognised: u64,
    /// Publications that found the queue full.
    pub publications_refused: u64,
    /// Messages of QoS 0 that found the reader's queue full. Those of QoS 1 are not dropped here.
    pub deliveries_dropped: u64,
}

/// The half that is read. The stream ends when this is dropped.
#[derive(Debug)]
pub struct Deliveries {
    reader: Reader,
}

impl Deliveries {
    /// The next event; `None` when the stream is closed and everything was read. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Event> {
        self.reader.next().await
    }

    /// Sends what waits, as far as it can within [`farewell_within`](crate::MqttTiming::farewell_within), and ends the
    /// connection; the will is not published then. What is left to tell may still be [read](Self::next).
    pub async fn close(&mut self) {
        self.reader.close(None).await;
    }
}

/// A topic, or a pattern of topics.
fn check_filter(filter: &str) -> Result<(), String> {
    let levels: Vec<&str> = filter.split('/').collect();
    let sound = |(at, level): (usize, &&str)| match *level {
        "+" => true,
        "#" => at + 1 == levels.len(),
        level => !level.contains(['+', '#']),
    };
    check_text(filter)?;
    if filter.is_empty() || filter.len() > TOPIC_BYTES_MAX || !levels.iter().enumerate().all(sound)
    {
        return Err(format!(
            "{filter:?} is no topic to subscribe to: '+' stands for a whole level, '#' for all the rest"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_checked_before_the_broker_sees_them() {
        for sound in ["a", "a/b", "+/b", "a/#", "#", "/a"] {
            assert_eq!(check_filter(sound), Ok(()), "{sound}");
        }
        for wrong in ["", "a#", "a/#/b", "a+/b", "a\n", "\u{ffff}/#"] {
            assert!(check_filter(wrong).is_err(), "{wrong}");
        }
    }
}
