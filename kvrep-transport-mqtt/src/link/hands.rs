//! What is done beside the event loop while that is polled: publications and acknowledgements are handed over to the MQTT library, and what became of
//! them is told.

use super::broker::{self, BrokerLimits};
use super::event::{Event, PublicationId, Rejection};
use super::outbox::{Kept, Publication, Waiting};
use super::{Link, Phase, Report};
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
    pub(super) notices: VecDeque<(Option<PublicationId>, Notice)>,
    /// Acknowledgements that the library had no room for.
    pub(super) acks: VecDeque<u16>,
    pub(super) limits: Option<BrokerLimits>,
    pub(super) unacknowledged_max: usize,
    /// Publications were acknowledged, or the connection is new: more may be handed over.
    pub(super) has_room: bool,
    /// Events that the reader was not woken for yet.
    pub(super) untold: usize,
    /// When the end was asked for, and by when it comes.
    pub(super) ending: Option<Ending>,
    pub(super) farewell_within: Duration,
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
        while let Some(fate) = fate_now(&mut self.notices) {
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
        while self.notices.len() < in_flight_max {
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
        if closing && self.notices.len() < in_flight_max {
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
        let topic = &publication.topic;
        let bytes_max = self
            .limits
            .map_or(usize::MAX, |l| l.payload_bytes_max(topic));
        let bytes = publication.payload.len();
        if bytes > bytes_max {
            let why = format!("a payload of {bytes} bytes; the broker takes {bytes_max} at most");
            self.tell_rejected(id, why);
            return true;
        }
        match self.publish(publication) {
            Ok(notice) => self.notices.push_back((Some(id), notice)),
            Err(error) => self.tell_rejected(id, error.to_string()),
        }
        true
    }

    pub(super) fn publish(&self, publication: Publication) -> Result<Notice, ClientError> {
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
        // The library's channel holds more than may be in flight.
        let notice = self
            .client
            .try_publish_tracked(&*topic, payload.into_bytes(), options)?;
        Ok(Box::pin(notice.wait_async()))
    }

    /// Once nothing else waits: the last word, and when that is acknowledged, the end.
    pub(super) fn say_farewell(&mut self) {
        let farewell = self.link.state().farewell.take();
        if let Some(farewell) = farewell {
            match self.publish(farewell) {
                Ok(notice) => self.notices.push_back((None, notice)),
                Err(error) => warn!("cannot say farewell: {error}"),
            }
        }
        if let Some(ending) = &mut self.ending
            && self.notices.is_empty()
            && self
                .client
                .try_disconnect_with_timeout(self.farewell_within)
                .is_ok()
        {
            ending.disconnecting = true;
        }
    }

    pub(super) fn tell_fate(&mut self, (id, fate): Fate) {
        let Some(id) = id else { return };
        match fate {
            Ok(PublishResult::Qos1(ack)) if broker::is_refusal(ack.reason) => {
                self.tell_rejected(
                    id,
                    format!("{:?}; check what this user may write", ack.reason),
                );
            }
            Ok(_) => {
                if self.link.report == Report::Acknowledgements {
                    self.tell(Event::Acknowledged(id));
                }
            }
            Err(PublishNoticeError::SessionReset | PublishNoticeError::Recv) => {
                self.tell_abandoned(Some(id));
            }
            Err(error) => self.tell_rejected(id, error.to_string()),
        }
    }

    pub(super) fn tell_rejected(&mut self, id: PublicationId, why: String) {
        warn!("publication {} was refused: {why}", id.0);
        if self.link.report == Report::Acknowledgements {
            let rejection = Rejection::Publication { id, why };
            self.tell(Event::Rejected(rejection));
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
        while let Some(fate) = fate_now(&mut self.notices) {
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

pub(super) type Fate = (
    Option<PublicationId>,
    Result<PublishResult, PublishNoticeError>,
);

/// What became of the oldest publication; never, when there is none. Nothing is lost when the future is dropped.
pub(super) async fn next_fate(notices: &mut VecDeque<(Option<PublicationId>, Notice)>) -> Fate {
    let Some((id, notice)) = notices.front_mut() else {
        return pending().await;
    };
    let fate = (*id, notice.as_mut().await);
    notices.pop_front();
    fate
}

/// What became of the oldest one, if it is known by now.
fn fate_now(notices: &mut VecDeque<(Option<PublicationId>, Notice)>) -> Option<Fate> {
    // Whoever waits for it polls again with a waker of its own.
    let mut context = Context::from_waker(Waker::noop());
    let (id, notice) = notices.front_mut()?;
    match notice.as_mut().poll(&mut context) {
        Poll::Ready(fate) => {
            let fate = (*id, fate);
            notices.pop_front();
            Some(fate)
        }
        Poll::Pending => None,
    }
}

/// Events for which the reader is woken once, if they come together.
const TOLD_TOGETHER: usize = 64;
