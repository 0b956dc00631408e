//! The task that owns a connection.
//!
//! The library's event loop is polled by one future that is never dropped half-way, for it loses what it was writing then;
//! everything else happens beside it. What became of a publication is told by the library's notices, which outlive a
//! connection; its events do not.

use super::broker::{self, BrokerLimits, Ended};
use super::event::{AckToken, Event, Rejection};
use super::hands::{Hands, Resume, next_fate};
use super::receipts::{Arrival, Verdict};
use super::suspects::Suspects;
use super::{Link, Loss, Phase, Session, Spec};
use crate::config::{MqttConfig, MqttTiming};
use bytes::Bytes;
use kvrep_core::backoff::Backoff;
use rumqttc::{
    AsyncClient, ConnAck, ConnectionError, EventLoop, Packet, Publish, QoS, SubAck,
    SubscribeFilter, SubscribeReasonCode,
};
use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, pending, poll_fn};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{debug, info, warn};
use xxhash_rust::xxh3::xxh3_64;

pub(super) struct Driver {
    eventloop: EventLoop,
    hands: Hands,
    spec: Spec,
    broker: String,
    timing: MqttTiming,
    backoff: Backoff,
    topics: BTreeMap<Bytes, Arc<str>>,
    stage: Stage,
    /// The last connection's session is one to go on with.
    resumable: Resumable,
    told: bool,
    up_since: Option<Instant>,
}

/// How far a connection is.
enum Stage {
    Greeting,
    Subscribing {
        by: Instant,
        resumed: bool,
        /// What came before the broker confirmed the subscriptions.
        early: Vec<Event>,
    },
    Up,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Resumable {
    /// There was none, or the subscriptions were not confirmed in it.
    No,
    Yes,
}

/// Why the event loop's turn brought nothing.
enum Stop {
    Failed(ConnectionError),
    /// The broker did not answer the subscriptions.
    Unanswered,
    /// The end did not come in time.
    Overdue,
}

impl Driver {
    pub(super) fn new(
        link: Arc<Link>,
        config: &MqttConfig,
        spec: Spec,
        client: AsyncClient,
        eventloop: EventLoop,
    ) -> Self {
        Self {
            eventloop,
            hands: Hands {
                link,
                client,
                under_way: VecDeque::new(),
                acks: VecDeque::new(),
                limits: None,
                suspects: Suspects::default(),
                unacknowledged_max: usize::from(config.limits.unacknowledged_max),
                has_room: true,
                untold: 0,
                ending: None,
                farewell_within: config.timing.farewell_within,
            },
            backoff: Backoff::new(
                config.timing.backoff_min,
                config.timing.backoff_max,
                xxh3_64(spec.client_id.as_bytes()),
            ),
            spec,
            broker: config.broker.clone(),
            timing: config.timing,
            topics: BTreeMap::new(),
            stage: Stage::Greeting,
            resumable: Resumable::No,
            told: false,
            up_since: None,
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            let ended = self.connection().await;
            self.disconnected();
            let Some(ended) = ended.filter(|_| !self.hands.is_closing()) else {
                break;
            };
            let retry_in = self.tell_end(ended);
            let retry_at = Instant::now() + retry_in;
            while !self.hands.is_closing()
                && timeout_at(retry_at, self.hands.link.work.notified())
                    .await
                    .is_ok()
            {}
        }
        self.finish();
    }

    /// One connection, from the attempt to its end; `None` when it was closed as planned.
    async fn connection(&mut self) -> Option<Ended> {
        self.stage = Stage::Greeting;
        loop {
            self.hands.wait_for_room().await;
            match self.turn().await {
                Ok(rumqttc::Event::Incoming(packet)) => {
                    if let Some(ended) = self.on_packet(packet) {
                        self.drop_connection();
                        return Some(ended);
                    }
                }
                Ok(rumqttc::Event::Outgoing(_) | rumqttc::Event::Auth(_)) => {}
                Err(Stop::Failed(ConnectionError::RequestsDone)) => return None,
                Err(Stop::Failed(error)) => {
                    let reached = match self.up_since {
                        Some(_) => broker::Reached::Up,
                        None => broker::Reached::Nothing,
                    };
                    let ended = broker::why(&error, &self.broker, reached);
                    let (Ended::Lost(why) | Ended::Poisoned(why)) = &ended else {
                        return Some(ended);
                    };
                    let blame = broker::blame(&error);
                    return Some(match self.hands.judge(blame, self.up_since, why) {
                        Resume::Yes => ended,
                        Resume::No => {
                            // Something was found out: the next connection is another attempt.
                            self.backoff.reset();
                            Ended::Poisoned(why.clone())
                        }
                    });
                }
                Err(Stop::Unanswered) => {
                    self.drop_connection();
                    let broker = &self.broker;
                    return Some(Ended::Lost(Loss::SubscriptionsUnanswered(broker.clone())));
                }
                Err(Stop::Overdue) => {
                    self.drop_connection();
                    return None;
                }
            }
        }
    }

    /// Polls the event loop until it has something, and meanwhile hands over what there is to send.
    async fn turn(&mut self) -> Result<rumqttc::Event, Stop> {
        let (up, answer_by) = match &self.stage {
            Stage::Greeting => (false, None),
            Stage::Subscribing { by, .. } => (false, Some(*by)),
            Stage::Up => (true, None),
        };
        let poll = self.eventloop.poll();
        tokio::pin!(poll);
        let hands = &mut self.hands;
        hands.hand_over(up);
        // Most turns find something at once; the reader is woken for many of them together.
        let at_once = poll_fn(|context| Poll::Ready(poll.as_mut().poll(context)));
        if let Poll::Ready(polled) = at_once.await {
            return polled.map_err(Stop::Failed);
        }
        hands.wake_reader();
        loop {
            if !up && hands.ending.is_some() {
                return Err(Stop::Overdue);
            }
            let end_by = hands.ending.as_ref().map(|ending| ending.by);
            tokio::select! {
                biased;
                fate = next_fate(&mut hands.under_way) => {
                    hands.tell_fate(fate);
                    hands.has_room = true;
                }
                polled = &mut poll => return polled.map_err(Stop::Failed),
                () = hands.link.work.notified() => {}
                () = until(answer_by) => return Err(Stop::Unanswered),
                () = until(end_by) => return Err(Stop::Overdue),
            }
            hands.hand_over(up);
            hands.wake_reader();
        }
    }

    /// Returns why the connection cannot go on.
    fn on_packet(&mut self, packet: Packet) -> Option<Ended> {
        match packet {
            Packet::ConnAck(connack) => self.on_connack(&connack),
            Packet::SubAck(suback) => self.on_suback(&suback),
            Packet::Publish(publish) => self.on_publish(publish),
            // What became of our publications is told by their notices.
            _ => None,
        }
    }

    fn on_connack(&mut self, connack: &ConnAck) -> Option<Ended> {
        let limits = BrokerLimits::of(connack);
        for warning in limits.losses(self.hands.link.payload_bytes_max) {
            if !self.told {
                warn!(broker = %self.broker, "{warning}");
            }
        }
        self.told = true;
        self.hands.limits = Some(limits);
        let resumed = connack.session_present && self.resumable == Resumable::Yes;
        {
            let mut state = self.hands.link.state();
            state.broker = Some(limits);
            if resumed {
                state.receipts.resume_session();
            } else {
                state.receipts.begin_session();
            }
        }
        if !resumed {
            self.hands.abandon_sent();
            if self.resumable == Resumable::Yes {
                self.hands.abandon_waiting();
            }
            self.resumable = Resumable::No;
        }
        if resumed {
            self.stage = Stage::Up;
            self.up(true, Vec::new());
            return None;
        }
        self.stage = Stage::Subscribing {
            by: Instant::now() + self.timing.connect_within,
            resumed,
            early: Vec::new(),
        };
        if self.spec.subscriptions.is_empty() {
            return self.subscribed();
        }
        let filters = self.spec.subscriptions.iter();
        let filters = filters.map(|topic| SubscribeFilter::new(topic.as_str(), QoS::AtLeastOnce));
        let asked = self.hands.client.try_subscribe_many(filters);
        asked.err().map(|error| {
            Ended::Lost(Loss::Otherwise {
                broker: self.broker.clone(),
                why: format!("cannot subscribe: {error}"),
            })
        })
    }

    fn on_suback(&mut self, suback: &SubAck) -> Option<Ended> {
        let refused = suback
            .return_codes
            .iter()
            .zip(&self.spec.subscriptions)
            .find(|(code, _)| {
                !matches!(
                    code,
                    SubscribeReasonCode::Success(QoS::AtLeastOnce | QoS::ExactlyOnce)
                )
            });
        if let Some((code, topic)) = refused {
            let rejection = Rejection::Subscription {
                topic: topic.clone(),
                why: match code {
                    SubscribeReasonCode::Success(_) => "it grants QoS 0 only".into(),
                    code => format!("{code:?}; check what this user may read"),
                },
            };
            return Some(Ended::Refused(rejection));
        }
        self.subscribed()
    }

    fn subscribed(&mut self) -> Option<Ended> {
        if let Stage::Subscribing { resumed, early, .. } =
            std::mem::replace(&mut self.stage, Stage::Up)
        {
            self.resumable = match self.spec.session {
                Session::Fresh => Resumable::No,
                Session::Kept => Resumable::Yes,
            };
            self.up(resumed, early);
        }
        None
    }

    fn up(&mut self, session_resumed: bool, early: Vec<Event>) {
        self.up_since = Some(Instant::now());
        if self.spec.session == Session::Kept {
            self.eventloop.options.set_clean_start(false);
        }
        info!(broker = %self.broker, client = %self.spec.client_id, session_resumed, "connected to the broker");
        let limits = self
            .hands
            .limits
            .unwrap_or_else(|| unreachable!("it was told with the connection"));
        {
            let mut state = self.hands.link.state();
            if state.phase == Phase::Connecting {
                state.phase = Phase::Up;
            }
        }
        self.hands.has_room = true;
        self.hands.tell(Event::Connected {
            session_resumed,
            limits,
        });
        for event in early {
            self.hands.tell(event);
        }
    }

    fn on_publish(&mut self, publish: Publish) -> Option<Ended> {
        let Some(topic) = self.topic(&publish.topic) else {
            // Not text, which MQTT forbids: the library should have refused it.
            return Some(Ended::Poisoned(Loss::Unreadable {
                broker: self.broker.clone(),
                why: "a topic that is not text".into(),
            }));
        };
        let link = &self.hands.link;
        let mut duplicate = false;
        let number = if publish.qos == QoS::AtMostOnce {
            if link.state().events.len() >= link.deliveries_max {
                link.counters
                    .dropped_deliveries
                    .fetch_add(1, Ordering::Relaxed);
                return None;
            }
            None
        } else {
            let arrival = Arrival {
                marked: publish.dup,
                topic: &topic,
                payload: &publish.payload,
                packet: publish.pkid,
            };
            let verdict = link.state().receipts.arrived(arrival);
            match verdict {
                Verdict::New { number } => Some(number),
                Verdict::PerhapsAgain { number } => {
                    duplicate = true;
                    Some(number)
                }
                Verdict::Again => {
                    link.counters.copies.fetch_add(1, Ordering::Relaxed);
                    // It may be dealt with already: its acknowledgement may leave now.
                    link.has_work.store(true, Ordering::Release);
                    return None;
                }
                Verdict::TooMany => {
                    // The same session would bring the same again.
                    return Some(Ended::Poisoned(Loss::TooMuchUnderWay(self.broker.clone())));
                }
            }
        };
        let reply_to = publish.properties.and_then(|said| said.response_topic);
        let event = Event::Delivered {
            topic,
            payload: publish.payload,
            retained: publish.retain,
            duplicate,
            reply_to: reply_to.map(Into::into),
            ack: AckToken::new(link, number),
        };
        match &mut self.stage {
            Stage::Subscribing { early, .. } => early.push(event),
            Stage::Greeting | Stage::Up => self.hands.tell(event),
        }
        None
    }

    fn topic(&mut self, name: &Bytes) -> Option<Arc<str>> {
        if let Some(topic) = self.topics.get(name) {
            return Some(Arc::clone(topic));
        }
        let topic: Arc<str> = std::str::from_utf8(name).ok()?.into();
        if self.topics.len() < TOPICS_REMEMBERED_MAX {
            // Not the payload's memory along with it.
            let name = Bytes::copy_from_slice(name);
            self.topics.insert(name, Arc::clone(&topic));
        }
        Some(topic)
    }

    /// Ends the connection from this side, at once.
    fn drop_connection(&mut self) {
        self.eventloop.clean();
    }

    fn disconnected(&mut self) {
        // Two that take each other's place again and again, for instance, do so ever more slowly.
        let up_for = self.up_since.take().map(|since| since.elapsed());
        if up_for.is_some_and(|time| time >= SHORT_LIFE) {
            self.backoff.reset();
        }
        self.hands.acks.clear();
        self.hands.limits = None;
        let mut state = self.hands.link.state();
        state.broker = None;
        if state.phase == Phase::Up {
            state.phase = Phase::Connecting;
        }
    }

    /// Tells why the connection ended, and returns when to try again.
    fn tell_end(&mut self, ended: Ended) -> Duration {
        let (why, retry_in) = match ended {
            Ended::Lost(why) if self.hands.suspects.are_there() => (why, self.timing.backoff_min),
            Ended::Lost(why) => (why, self.backoff.next()),
            Ended::Refused(rejection) => {
                self.hands.tell(Event::Rejected(rejection.clone()));
                (Loss::Refused(rejection), self.backoff.longest())
            }
            Ended::Displaced(why) => (why, self.backoff.longest()),
            Ended::Poisoned(why) => {
                self.eventloop.options.set_clean_start(true);
                (why, self.backoff.next())
            }
        };
        warn!(broker = %self.broker, client = %self.spec.client_id, ?retry_in, "not connected to the broker: {why}");
        self.hands.tell(Event::Disconnected { why, retry_in });
        self.hands.wake_reader();
        retry_in
    }

    /// Nothing more is sent: what waits is reported.
    fn finish(mut self) {
        self.hands.abandon_sent();
        for one in std::mem::take(&mut self.hands.under_way) {
            self.hands.tell_abandoned(one.sent.id);
        }
        self.hands.abandon_waiting();
        self.hands.link.state().phase = Phase::Closed;
        self.hands.link.news.notify_one();
        debug!(client = %self.spec.client_id, "the link to the broker is closed");
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}

/// A connection that ended sooner is no success.
const SHORT_LIFE: Duration = Duration::from_secs(1);
/// Names of topics that are not made anew for each message.
const TOPICS_REMEMBERED_MAX: usize = 256;
