//! What is done beside the event loop while that is polled: publications and acknowledgements are handed over to the MQTT library, and what became of
//! them is told.

use super::broker::{self, BrokerLimits};
use super::event::{Event, Objection, PublicationId, Rejection};
use super::outbox::{Kept, Publication, Waiting};
use super::suspects::{Blame, Judgement, Suspects};
use super::{Link, Loss, Phase, Report};
use bytes::Bytes;
use rumqttc::{
    AsyncClient, ClientError, ManualAck, PubAck, PublishNoticeError, PublishOptions,
    PublishProperties, PublishResult,
};
use std::collections::VecDeque;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::Instant;
use tracing::warn;

/// What is used beside the event loop while that is polled.
pub(super) struct Hands {
    pub(super) link: Arc<Link>,
    pub(super) client: AsyncClient,
    /// Publications that the library has, in order, and what will become of them.
    pub(super) under_way: VecDeque<UnderWay>,
    /// Acknowledgements that the library had no room for.
    pub(super) acks: VecDeque<u16>,
    pub(super) limits: Option<BrokerLimits>,
    pub(super) suspects: Suspects,
    pub(super) unacknowledged_max: usize,
    /// Publications were acknowledged, or the connection is new: more may be handed over.
    pub(super) has_room: bool,
    /// Events that the reader was not woken for yet.
    pub(super) untold: usize,
    /// When the end was asked for, and by when it comes.
    pub(super) ending: Option<Ending>,
    pub(super) farewell_within: Duration,
}

/// A publication that the library has.
pub(super) struct UnderWay {
    pub(super) sent: Sent,
    at: Instant,
    notice: Notice,
}

/// What is remembered of it.
pub(super) struct Sent {
    /// None of a farewell.
    pub(super) id: Option<PublicationId>,
    topic: Arc<str>,
    payload: Bytes,
}

/// Whether a session is one to go on with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Resume {
    Yes,
    No,
}

pub(super) struct Ending {
    pub(super) by: Instant,
    pub(super) disconnecting: bool,
}

pub(super) type Notice =
    Pin<Box<dyn Future<Output = Result<PublishResult, PublishNoticeError>> + Send>>;

impl Hands {
    pub(super) fn is_closing(&self) -> bool {
        matches!(self.link.state().phase, Phase::Closing | Phase::Closed)
    }

    pub(super) fn tell(&mut self, event: Event) {
        self.link.tell(event);
        self.untold += 1;
        if self.untold >= TOLD_TOGETHER {
            self.wake_reader();
        }
    }

    pub(super) fn wake_reader(&mut self) {
        if self.untold > 0 {
            self.untold = 0;
            self.link.news.notify_one();
        }
    }

    /// Waits while the reader has too much before it.
    pub(super) async fn wait_for_room(&mut self) {
        while self.untold == 0 && self.link.is_full() && !self.is_closing() {
            self.link.work.notified().await;
        }
    }

    /// Gives the library what it may have now.
    pub(super) fn hand_over(&mut self, up: bool) {
        while let Some(fate) = fate_now(&mut self.under_way) {
            self.tell_fate(fate);
            self.has_room = true;
        }
        let asked = self.link.has_work.swap(false, Ordering::AcqRel);
        if !asked && !self.has_room && self.acks.is_empty() && self.ending.is_none() {
            return;
        }
        self.has_room = false;
        let closing = self.is_closing();
        if closing && self.ending.is_none() {
            self.ending = Some(Ending {
                by: Instant::now() + self.farewell_within,
                disconnecting: false,
            });
        }
        if !up || self.ending.as_ref().is_some_and(|e| e.disconnecting) {
            return;
        }
        self.hand_over_acks();
        let granted = self
            .limits
            .map_or(usize::MAX, |l| usize::from(l.unacknowledged_max));
        let in_flight_max = self.unacknowledged_max.min(granted);
        let in_flight_max = in_flight_max.min(self.suspects.in_flight_max());
        while self.under_way.len() < in_flight_max {
            let waiting = {
                let mut state = self.link.state();
                let waiting = state.outbox.pop();
                if waiting.is_some() && self.link.report == Report::Acknowledgements {
                    state.reported += 1;
                }
                waiting
            };
            let Some(waiting) = waiting else { break };
            if !self.hand_over_one(waiting) {
                return;
            }
        }
        if closing && self.under_way.len() < in_flight_max {
            self.say_farewell();
        }
    }

    pub(super) fn hand_over_acks(&mut self) {
        loop {
            let next = self.acks.pop_front();
            let next = next.or_else(|| self.link.state().receipts.next_to_send());
            let Some(packet) = next else { return };
            let ack = ManualAck::PubAck(PubAck::new(packet, None));
            if self.client.try_manual_ack(ack).is_err() {
                self.acks.push_front(packet);
                return;
            }
        }
    }

    /// Returns whether there may be room for more.
    pub(super) fn hand_over_one(&mut self, waiting: Waiting) -> bool {
        let Waiting {
            id, publication, ..
        } = waiting;
        let (topic, bytes) = (Arc::clone(&publication.topic), publication.payload.len());
        // It was put in before the limit was known.
        let bytes_max = self.link.payload_bytes_max(&topic);
        if bytes > bytes_max {
            self.tell_rejected(id, topic, bytes, Objection::TooLarge { bytes_max });
            return true;
        }
        if let Err(error) = self.publish(Some(id), publication) {
            self.tell_rejected(id, topic, bytes, Objection::Otherwise(error.to_string()));
        }
        true
    }

    fn publish(
        &mut self,
        id: Option<PublicationId>,
        publication: Publication,
    ) -> Result<(), ClientError> {
        let Publication {
            topic,
            payload,
            kept,
            reply_to,
        } = publication;
        let mut options = PublishOptions::at_least_once().retain(kept == Kept::Retained);
        if let Some(reply_to) = reply_to {
            options = options.properties(PublishProperties {
                response_topic: Some(reply_to.to_string()),
                ..PublishProperties::default()
            });
        }
        let payload = payload.into_bytes();
        // The library's channel holds more than may be in flight.
        let notice = self
            .client
            .try_publish_tracked(&*topic, payload.clone(), options)?;
        self.under_way.push_back(UnderWay {
            sent: Sent { id, topic, payload },
            at: Instant::now(),
            notice: Box::pin(notice.wait_async()),
        });
        Ok(())
    }

    /// Once nothing else waits: the last word, and when that is acknowledged, the end.
    pub(super) fn say_farewell(&mut self) {
        let farewell = self.link.state().farewell.take();
        if let Some(farewell) = farewell
            && let Err(error) = self.publish(None, farewell)
        {
            warn!("cannot say farewell: {error}");
        }
        if let Some(ending) = &mut self.ending
            && self.under_way.is_empty()
            && self
                .client
                .try_disconnect_with_timeout(self.farewell_within)
                .is_ok()
        {
            ending.disconnecting = true;
        }
    }

    pub(super) fn tell_fate(&mut self, (sent, fate): Fate) {
        let Sent { id, topic, payload } = sent;
        if let Ok(PublishResult::Qos1(_)) = fate {
            self.suspects.answered();
        }
        let Some(id) = id else { return };
        match fate {
            Ok(PublishResult::Qos1(ack)) if broker::is_refusal(ack.reason) => {
                let why = Objection::Said(format!("{:?}", ack.reason));
                self.tell_rejected(id, topic, payload.len(), why);
            }
            Ok(_) => {
                self.link.state().learnt.took(payload.len());
                if self.link.report == Report::Acknowledgements {
                    self.tell(Event::Acknowledged(id));
                }
            }
            Err(PublishNoticeError::SessionReset | PublishNoticeError::Recv) => {
                self.tell_abandoned(Some(id));
            }
            Err(error) => {
                let why = Objection::Otherwise(error.to_string());
                self.tell_rejected(id, topic, payload.len(), why);
            }
        }
    }

    pub(super) fn tell_rejected(
        &mut self,
        id: PublicationId,
        topic: Arc<str>,
        bytes: usize,
        why: Objection,
    ) {
        let rejection = Rejection::Publication {
            id,
            topic,
            bytes,
            why,
        };
        warn!("{rejection}");
        if self.link.report == Report::Acknowledgements {
            self.tell(Event::Rejected(rejection));
        }
    }

    /// A connection that had been up since `since` ended, for which one of the publications under way may be to blame: that one is given up. Returns whether the
    /// others may be sent again all together, as they are when the session goes on.
    pub(super) fn judge(&mut self, blame: Blame, since: Option<Instant>, why: &Loss) -> Resume {
        while let Some(fate) = fate_now(&mut self.under_way) {
            self.tell_fate(fate);
        }
        let Some(since) = since else {
            // Nothing of ours was sent.
            self.suspects.absolve();
            return Resume::Yes;
        };
        if blame == Blame::TooLarge {
            self.give_up_largest();
            return Resume::No;
        }
        let first = self
            .under_way
            .front()
            .filter(|first| blame == Blame::Content || first.at.max(since).elapsed() <= MOMENTS);
        let first = first.map(|UnderWay { sent, .. }| (&sent.topic, &sent.payload));
        match self.suspects.broke(blame, first, self.under_way.len()) {
            Judgement::GoOn => Resume::Yes,
            Judgement::OneAtATime => Resume::No,
            Judgement::GiveUp { breaks } => {
                let why = Objection::EndsConnections {
                    breaks,
                    why: Box::new(why.clone()),
                };
                if let Some(guilty) = self.under_way.pop_front() {
                    self.give_up(guilty.sent, why);
                }
                Resume::No
            }
        }
    }

    /// One of those under way is too large for the broker; whichever it is, the largest is.
    fn give_up_largest(&mut self) {
        let sizes = self.under_way.iter().map(|one| one.sent.payload.len());
        let Some(largest) = sizes.max() else { return };
        let bytes_max = self.link.state().learnt.refused(largest);
        for one in std::mem::take(&mut self.under_way) {
            if one.sent.payload.len() == largest {
                self.give_up(one.sent, Objection::FoundTooLarge { bytes_max });
            } else {
                self.under_way.push_back(one);
            }
        }
    }

    fn give_up(&mut self, sent: Sent, why: Objection) {
        if let Sent {
            id: Some(id),
            topic,
            payload,
        } = sent
        {
            self.tell_rejected(id, topic, payload.len(), why);
        }
    }

    pub(super) fn tell_abandoned(&mut self, id: Option<PublicationId>) {
        if let Some(id) = id
            && self.link.report == Report::Acknowledgements
        {
            self.tell(Event::Abandoned(id));
        }
    }

    /// Tells of what was handed over in a session that is lost; the library has told us by now.
    pub(super) fn abandon_sent(&mut self) {
        while let Some(fate) = fate_now(&mut self.under_way) {
            self.tell_fate(fate);
        }
    }

    pub(super) fn abandon_waiting(&mut self) {
        let abandoned = {
            let mut state = self.link.state();
            let abandoned = state.outbox.clear();
            if self.link.report == Report::Acknowledgements {
                state.reported += abandoned.len();
            }
            abandoned
        };
        for id in abandoned {
            self.tell_abandoned(Some(id));
        }
    }
}

pub(super) type Fate = (Sent, Result<PublishResult, PublishNoticeError>);

/// What became of the oldest publication; never, when there is none. Nothing is lost when the future is dropped.
pub(super) async fn next_fate(under_way: &mut VecDeque<UnderWay>) -> Fate {
    loop {
        let Some(first) = under_way.front_mut() else {
            return pending().await;
        };
        let fate = first.notice.as_mut().await;
        if let Some(first) = under_way.pop_front() {
            return (first.sent, fate);
        }
    }
}

/// What became of the oldest one, if it is known by now.
fn fate_now(under_way: &mut VecDeque<UnderWay>) -> Option<Fate> {
    // Whoever waits for it polls again with a waker of its own.
    let mut context = Context::from_waker(Waker::noop());
    match under_way.front_mut()?.notice.as_mut().poll(&mut context) {
        Poll::Ready(fate) => under_way.pop_front().map(|first| (first.sent, fate)),
        Poll::Pending => None,
    }
}

/// A connection that ends so soon after something was sent may have ended for that.
const MOMENTS: Duration = Duration::from_secs(1);
/// Events for which the reader is woken once, if they come together.
const TOLD_TOGETHER: usize = 64;
