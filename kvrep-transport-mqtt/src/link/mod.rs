//! One connection to one broker: kept up, resumed or begun anew, with bounded queues in both directions.
//!
//! Whoever publishes puts a message into a queue under a lock and never waits. One task, the *driver*, owns the connection: it
//! hands over to the MQTT library what the broker may have now, puts what comes into a queue for the reader, and connects
//! again when the connection ends. Acknowledgements of deliveries go through the driver, too: one that reached a connection on
//! which its message did not come would end it.
//!
//! Invariants:
//! - What was put in is sent in order, at most [`unacknowledged_max`](crate::MqttLimits::unacknowledged_max) at a time, or refused
//!   at the door, or reported.
//! - A reader that does not read stops the driver from reading, then the broker from sending; nothing is dropped here but
//!   QoS 0 beyond the limit.
//! - Everything said to the reader is said in the order in which it happened.

mod broker;
mod driver;
mod event;
mod gathering;
mod hands;
mod learnt;
mod options;
mod outbox;
mod receipts;
mod suspects;
mod trouble;

pub use broker::BrokerLimits;
pub use event::{AckToken, Event, Objection, PublicationId, PublishError, Refusal, Rejection};
pub(crate) use outbox::{Kept, Payload, Publication};
pub use trouble::{Limit, Loss};

use crate::config::MqttConfig;
use bytes::Bytes;
use learnt::Learnt;
use outbox::{Lane, Outbox};
use receipts::Receipts;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// What a link is made for.
pub(crate) struct Spec {
    pub(crate) client_id: String,
    pub(crate) subscriptions: Vec<String>,
    /// What the broker publishes when the connection ends without a farewell.
    pub(crate) will: Option<Publication>,
    pub(crate) session: Session,
    pub(crate) report: Report,
}

/// What a broken connection leaves at the broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Session {
    /// Nothing.
    Fresh,
    /// What it takes to go on.
    Kept,
}

/// Whether the reader hears what became of each publication.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Report {
    Nothing,
    Acknowledgements,
}

/// Opens a link and starts its driver. The link is closed when the reader is dropped.
pub(crate) fn open(config: &MqttConfig, spec: Spec) -> Result<(Arc<Link>, Reader), String> {
    config.validate()?;
    let (client, eventloop) = options::client(config, &spec)?;
    let limits = config.limits;
    let link = Arc::new(Link {
        state: Mutex::new(State {
            outbox: Outbox::new(limits.queue_publications_max, limits.queue_bytes_max),
            receipts: Receipts::new(
                PACKET_NUMBERS,
                SETTLED_MAX.max(2 * usize::from(limits.deliveries_max)),
            ),
            events: VecDeque::new(),
            event_bytes: 0,
            reported: 0,
            phase: Phase::Connecting,
            broker: None,
            learnt: Learnt::default(),
            farewell: None,
        }),
        work: Notify::new(),
        has_work: AtomicBool::new(true),
        news: Notify::new(),
        counters: Counters::default(),
        report: spec.report,
        payload_bytes_max: limits.payload_bytes_max,
        publications_max: limits.queue_publications_max,
        deliveries_max: usize::from(limits.deliveries_max),
        delivery_bytes_max: limits.delivery_bytes_max,
        batch_bytes_max: limits.batch_bytes_max,
    });
    let driver = driver::Driver::new(Arc::clone(&link), config, spec, client, eventloop);
    let reader = Reader {
        link: Arc::clone(&link),
        driver: Some(tokio::spawn(driver.run())),
    };
    Ok((link, reader))
}

/// The half that publishes; shared with the driver.
pub(crate) struct Link {
    state: Mutex<State>,
    /// For the driver: something to hand over, room again, or the end.
    work: Notify,
    /// There is such a thing since the driver last looked.
    has_work: AtomicBool,
    /// For the reader.
    news: Notify,
    counters: Counters,
    report: Report,
    payload_bytes_max: usize,
    publications_max: usize,
    deliveries_max: usize,
    delivery_bytes_max: usize,
    batch_bytes_max: usize,
}

struct State {
    outbox: Outbox,
    receipts: Receipts,
    events: VecDeque<Event>,
    /// Payloads in `events`.
    event_bytes: usize,
    /// Publications whose fate is not read yet: handed over, or told in `events`.
    reported: usize,
    phase: Phase,
    broker: Option<BrokerLimits>,
    learnt: Learnt,
    farewell: Option<Publication>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Connecting,
    Up,
    Closing,
    Closed,
}

/// What a link did and dropped.
#[derive(Default, Debug)]
pub(crate) struct Counters {
    /// QoS 0 messages that found the reader's queue full.
    dropped_deliveries: AtomicU64,
    /// Copies that were recognised.
    copies: AtomicU64,
    /// Publications that were refused for want of room.
    refused: AtomicU64,
}

impl Counters {
    pub(crate) fn copies(&self) -> u64 {
        self.copies.load(Ordering::Relaxed)
    }

    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    pub(crate) fn dropped_deliveries(&self) -> u64 {
        self.dropped_deliveries.load(Ordering::Relaxed)
    }
}

impl Link {
    /// Queues a publication. Never waits.
    pub(crate) fn publish(&self, publication: Publication) -> Result<PublicationId, PublishError> {
        let bytes = publication.payload.len();
        let mut state = self.state();
        let queued = self
            .admit(&state, &publication.topic, bytes)
            .and_then(|()| {
                if self.report == Report::Acknowledgements
                    && state.outbox.len() + state.reported >= self.publications_max
                {
                    return Err(PublishError::Full);
                }
                state.outbox.push(publication)
            });
        drop(state);
        self.queued(queued)
    }

    /// Queues a frame together with others that wait for this topic; all of them with the same place for replies. `head`
    /// begins a new publication.
    pub(crate) fn join(
        &self,
        topic: &Arc<str>,
        reply_to: Option<&Arc<str>>,
        frame: &[u8],
        head: impl FnOnce() -> Bytes,
    ) -> Result<(), PublishError> {
        let mut state = self.state();
        let lane = Lane {
            topic,
            reply_to,
            batch_bytes_max: self.batch_bytes_max.min(self.bytes_max(&state, topic)),
        };
        let queued = self
            .admit(&state, topic, frame.len())
            .and_then(|()| state.outbox.join(lane, frame, head));
        drop(state);
        self.queued(queued)
    }

    fn admit(&self, state: &State, topic: &str, bytes: usize) -> Result<(), PublishError> {
        if matches!(state.phase, Phase::Closing | Phase::Closed) {
            return Err(PublishError::Closed);
        }
        let bytes_max = self.bytes_max(state, topic);
        if bytes > bytes_max {
            return Err(PublishError::TooLarge { bytes, bytes_max });
        }
        Ok(())
    }

    /// Largest payload for this topic, as far as is known by now.
    pub(crate) fn payload_bytes_max(&self, topic: &str) -> usize {
        self.bytes_max(&self.state(), topic)
    }

    fn bytes_max(&self, state: &State, topic: &str) -> usize {
        let broker = state.broker.map(|limits| limits.payload_bytes_max(topic));
        let learnt = state.learnt.bytes_max();
        self.payload_bytes_max
            .min(broker.unwrap_or(usize::MAX))
            .min(learnt)
    }

    fn queued<T>(&self, queued: Result<T, PublishError>) -> Result<T, PublishError> {
        match &queued {
            Ok(_) => self.wake_driver(),
            Err(PublishError::Full) => {
                self.counters.refused.fetch_add(1, Ordering::Relaxed);
            }
            Err(PublishError::TooLarge { .. } | PublishError::Topic | PublishError::Closed) => {}
        }
        queued
    }

    /// Drops what waits to be sent.
    pub(crate) fn discard(&self) -> usize {
        self.state().outbox.clear().len()
    }

    /// What the broker said of itself, while connected.
    pub(crate) fn broker(&self) -> Option<BrokerLimits> {
        self.state().broker
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Begins the end: what waits is sent as far as it can be soon, then the farewell, and the broker is told that it is planned.
    pub(crate) fn close(&self, farewell: Option<Publication>) {
        let mut state = self.state();
        if matches!(state.phase, Phase::Connecting | Phase::Up) {
            state.phase = Phase::Closing;
            state.farewell = farewell;
        }
        drop(state);
        self.wake_driver();
    }

    fn acknowledge(&self, number: u64) {
        let mut state = self.state();
        state.receipts.acknowledge(number);
        // A reader with more before it will acknowledge more: they leave together.
        let more = !state.events.is_empty() && !number.is_multiple_of(ACKS_TOGETHER);
        drop(state);
        self.has_work.store(true, Ordering::Release);
        if !more {
            self.work.notify_one();
        }
    }

    fn wake_driver(&self) {
        self.has_work.store(true, Ordering::Release);
        self.work.notify_one();
    }

    /// Puts an event before the reader, who is woken by the driver once there is no more to put there at once.
    fn tell(&self, event: Event) {
        let mut state = self.state();
        // A broker that is away for long is told of once.
        if matches!(event, Event::Disconnected { .. })
            && matches!(state.events.back(), Some(Event::Disconnected { .. }))
        {
            state.events.pop_back();
        }
        state.event_bytes += event_bytes(&event);
        state.events.push_back(event);
    }

    /// Whether the reader has so much before it that nothing more is to be read.
    fn is_full(&self) -> bool {
        let state = self.state();
        state.event_bytes >= self.delivery_bytes_max
            || state.events.len() >= self.deliveries_max + self.publications_max
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("Link")
            .field("phase", &state.phase)
            .field("waiting", &state.outbox.len())
            .field("unread", &state.events.len())
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

/// The half that reads. There is one.
#[derive(Debug)]
pub(crate) struct Reader {
    link: Arc<Link>,
    driver: Option<JoinHandle<()>>,
}

impl Reader {
    /// The next event; `None` once the link is closed and all was read. Nothing is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.try_next() {
                return Some(event);
            }
            {
                let state = self.link.state();
                if state.phase == Phase::Closed && state.events.is_empty() {
                    return None;
                }
            }
            self.link.news.notified().await;
        }
    }

    /// The next event, if it is there.
    pub(crate) fn try_next(&mut self) -> Option<Event> {
        let mut state = self.link.state();
        let event = state.events.pop_front()?;
        state.event_bytes -= event_bytes(&event);
        if told_fate(&event) {
            state.reported -= 1;
        }
        let caught_up = state.events.is_empty();
        drop(state);
        // The driver may have waited for room, or hold back what the reader acknowledged.
        if caught_up {
            self.link.wake_driver();
        }
        Some(event)
    }

    /// Closes the link, and returns when the connection has ended.
    pub(crate) async fn close(&mut self, farewell: Option<Publication>) {
        self.link.close(farewell);
        if let Some(driver) = self.driver.take() {
            // Its panic would be a bug of ours that tokio has reported already.
            let _ = driver.await;
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.link.close(None);
    }
}

/// A broker cannot have more in flight. Mosquitto has been seen to send far more than it was asked for.
const PACKET_NUMBERS: usize = 65_535;
/// Acknowledgements that leave together while the reader has more to read.
const ACKS_TOGETHER: u64 = 8;

fn event_bytes(event: &Event) -> usize {
    match event {
        Event::Delivered { payload, .. } => payload.len(),
        Event::Acknowledged(_)
        | Event::Abandoned(_)
        | Event::Connected { .. }
        | Event::Disconnected { .. }
        | Event::Rejected(_) => 0,
    }
}

/// Whether this tells what became of a publication that was reported on.
fn told_fate(event: &Event) -> bool {
    match event {
        Event::Acknowledged(_)
        | Event::Abandoned(_)
        | Event::Rejected(Rejection::Publication { .. }) => true,
        Event::Delivered { .. }
        | Event::Connected { .. }
        | Event::Disconnected { .. }
        | Event::Rejected(Rejection::Connection { .. } | Rejection::Subscription { .. }) => false,
    }
}

/// Deliveries that are remembered once they were acknowledged, at least: brokers were seen to send again what came a thousand messages before.
const SETTLED_MAX: usize = 8_192;
