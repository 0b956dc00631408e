//! The task that owns the replica and its stream.
//!
//! It takes what is there, item by item; the clock is looked at when nothing is there, and after a few items in any case, so that
//! a replica under load is heard, and one that catches up tells of it once and not at every item.

use super::super::runner::wall_clock;
use super::super::start::panic_text;
use super::{ActiveDigest, ActiveEvent, ActiveIdentity, NodeError};
use crate::id::{Index, ReplicaId};
use crate::protocol::active::{Active, Effect, End, Event, Status};
use crate::state_machine::Look;
use crate::stream::{OrderedStream, StreamEvent};
use crate::time::Time;
use crate::transport::Destination;
use bytes::Bytes;
use metrics::{Counter, Gauge, counter, gauge};
use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::Instant;

/// What is asked of the task.
pub(super) enum Asked {
    Look {
        look: Look,
        reply: oneshot::Sender<Index>,
    },
    Digest(oneshot::Sender<ActiveDigest>),
    Stop,
}

pub(super) struct Runner {
    active: Active,
    stream: Box<dyn OrderedStream>,
    origin: Instant,
    out: Vec<Effect>,
    keeping: Keeping,
    status: watch::Sender<Status>,
    events: broadcast::Sender<ActiveEvent>,
    strangers: BTreeSet<ReplicaId>,
    /// The stream is open, and the replica has begun.
    started: bool,
    /// The protocol has ended this life, and why.
    over: Option<End>,
    counts: Counts,
}

struct Counts {
    delivered: Counter,
    answers: Counter,
    fenced: Counter,
    serving: Gauge,
    owed: Gauge,
}

type Ended = (Box<dyn OrderedStream>, Result<(), NodeError>);

impl Runner {
    pub(super) fn new(
        active: Active,
        stream: Box<dyn OrderedStream>,
        (group, replica): (&str, ReplicaId),
        keeping: Keeping,
        (status, events): (watch::Sender<Status>, broadcast::Sender<ActiveEvent>),
    ) -> Self {
        let labels = [
            ("group", group.to_owned()),
            ("replica", replica.to_string()),
        ];
        Self {
            active,
            stream,
            origin: Instant::now(),
            out: Vec::new(),
            keeping,
            status,
            events,
            strangers: BTreeSet::new(),
            started: false,
            over: None,
            counts: Counts {
                delivered: counter!("kvrep_delivered_total", &labels),
                answers: counter!("kvrep_answers_total", &labels),
                fenced: counter!("kvrep_fenced_total", &labels),
                serving: gauge!("kvrep_serving", &labels),
                owed: gauge!("kvrep_answers_owed", &labels),
            },
        }
    }

    pub(super) async fn run(mut self, mut asked: mpsc::Receiver<Asked>) -> Ended {
        let ended = self.attend(&mut asked).await;
        // If it holds a state that nobody else was heard with, it says so.
        self.active.stop(&mut self.out);
        self.carry_out();
        (self.stream, ended)
    }

    async fn attend(&mut self, asked: &mut mpsc::Receiver<Asked>) -> Result<(), NodeError> {
        let mut row = 0_u32;
        let alarm = tokio::time::sleep_until(self.deadline());
        tokio::pin!(alarm);
        loop {
            if let Some(why) = self.over {
                return Err(self.ended_by(why));
            }
            let deadline = self.deadline();
            if alarm.deadline() != deadline {
                alarm.as_mut().reset(deadline);
            }
            tokio::select! {
                biased;
                question = asked.recv() => match question {
                    Some(Asked::Stop) | None => return Ok(()),
                    Some(question) => self.answer(question),
                },
                event = self.stream.next() => {
                    let Some(event) = event else {
                        let why = "the ordered stream has ended".into();
                        return Err(NodeError::Fatal(why));
                    };
                    self.on_event(event)?;
                    row += 1;
                    if row >= ROW_MAX {
                        row = 0;
                        self.tick_if_due();
                        // There may be more at once, for ever: others of this runtime want to run, too.
                        tokio::task::yield_now().await;
                    }
                }
                () = &mut alarm => {
                    row = 0;
                    self.tick_if_due();
                }
            }
        }
    }

    #[allow(clippy::disallowed_methods, reason = "this is where time comes in")]
    fn now(&self) -> Time {
        Time::ZERO + self.origin.elapsed()
    }

    fn ended_by(&self, why: End) -> NodeError {
        match why {
            End::AlreadyRunning => NodeError::AlreadyRunning(self.active.status().replica),
            End::Superseded => NodeError::Superseded,
        }
    }

    fn deadline(&self) -> Instant {
        if !self.started {
            return Instant::now() + NOT_YET;
        }
        self.origin + (self.active.next_deadline() - Time::ZERO)
    }

    fn tick_if_due(&mut self) {
        let now = self.now();
        if !self.started || now < self.active.next_deadline() {
            return;
        }
        self.active.on_tick(now, wall_clock(), &mut self.out);
        self.carry_out();
        self.publish_status();
    }

    fn on_event(&mut self, event: StreamEvent) -> Result<(), NodeError> {
        let (now, wall) = (self.now(), wall_clock());
        match event {
            StreamEvent::Delivered { published, hash } => {
                self.counts.delivered.increment(1);
                self.active
                    .on_delivered(now, wall, published, hash, &mut self.out);
            }
            StreamEvent::Message(message) => {
                self.active.on_message(now, wall, message, &mut self.out);
            }
            StreamEvent::Answered(number) => self.active.on_answered(number, &mut self.out),
            StreamEvent::Reset => self.active.on_stream_reset(now, wall, &mut self.out),
            StreamEvent::ConfiguredOtherwise(other) => {
                if self.active.status().at.is_none() {
                    return Err(NodeError::ConfiguredOtherwise(other));
                }
                if self.strangers.insert(other) {
                    tracing::warn!(%other, "has another configuration and is not believed");
                    self.tell(ActiveEvent::ConfiguredOtherwise(other));
                }
            }
            StreamEvent::Opened => {
                if !std::mem::replace(&mut self.started, true) {
                    self.active.start(now, wall, &mut self.out);
                }
            }
            StreamEvent::Superseded => return Err(NodeError::Superseded),
            StreamEvent::Trouble(why) => {
                tracing::warn!(%why, "the ordered stream");
                self.tell(ActiveEvent::Trouble(why));
            }
        }
        self.carry_out();
        Ok(())
    }

    fn carry_out(&mut self) {
        let mut news = false;
        let mut effects = std::mem::take(&mut self.out);
        for effect in effects.drain(..) {
            match effect {
                Effect::Publish(published) => self.stream.publish(&published),
                Effect::Broadcast(message) => self.stream.send(Destination::Group, &message),
                Effect::Send { to, message } => self.stream.send(Destination::One(to), &message),
                Effect::Answer {
                    number,
                    reply_to,
                    at: _,
                    outcome,
                } => {
                    self.counts.answers.increment(1);
                    self.stream.answer(number, &reply_to, &outcome);
                }
                Effect::SetAside { at, state } => {
                    self.keeping.keep(at, state, &self.events);
                }
                Effect::Reconnect => self.stream.reconnect(),
                Effect::End(why) => self.over = Some(why),
                Effect::Event(event) => {
                    tracing::info!(?event, "active");
                    if matches!(event, Event::Fenced { .. }) {
                        self.counts.fenced.increment(1);
                    }
                    news = true;
                    self.tell(ActiveEvent::Protocol(event));
                }
            }
        }
        // (Its memory is used again.)
        self.out = effects;
        if news {
            self.publish_status();
        }
    }

    fn tell(&self, event: ActiveEvent) {
        // Nobody may listen.
        drop(self.events.send(event));
    }

    fn publish_status(&self) {
        let status = self.active.status();
        self.counts.serving.set(f64::from(u8::from(status.serving)));
        self.counts.owed.set(status.owed as f64);
        self.status.send_replace(status);
    }

    fn answer(&self, question: Asked) {
        let at = self.active.status().at;
        match question {
            Asked::Look { look, reply } => {
                look(self.active.machine().as_any());
                let _ = reply.send(at.unwrap_or(Index::ZERO));
            }
            Asked::Digest(reply) => {
                let _ = reply.send(ActiveDigest {
                    at,
                    chain: self.active.status().chain,
                    digest: self.active.machine().full_digest(),
                });
            }
            Asked::Stop => {}
        }
    }
}

/// Where states of histories that do not count are kept.
pub(super) struct Keeping {
    directory: Option<PathBuf>,
    name: String,
    kept: VecDeque<PathBuf>,
}

impl Keeping {
    pub(super) fn new(directory: Option<PathBuf>, who: &ActiveIdentity) -> Self {
        let clean = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        let group: String = who.group.chars().map(clean).collect();
        Self {
            directory,
            name: format!("{group}-{}-{}", who.replica, who.incarnation.0),
            kept: VecDeque::new(),
        }
    }

    fn keep(&mut self, at: Index, state: Bytes, events: &broadcast::Sender<ActiveEvent>) {
        let Some(directory) = &self.directory else {
            let why =
                format!("the state at {at} was thrown away: no directory is set for such states");
            drop(events.send(ActiveEvent::NotSetAside(why)));
            return;
        };
        let path = directory.join(format!("{}-{}.state", self.name, at.0));
        self.kept.push_back(path.clone());
        let old = (self.kept.len() > KEPT_MAX).then(|| self.kept.pop_front());
        let (directory, events) = (directory.clone(), events.clone());
        tokio::task::spawn_blocking(move || {
            if let Some(old) = old.flatten() {
                drop(std::fs::remove_file(old));
            }
            let written =
                std::fs::create_dir_all(directory).and_then(|()| std::fs::write(&path, state));
            let event = match written {
                Ok(()) => ActiveEvent::SetAside(path),
                Err(error) => ActiveEvent::NotSetAside(format!("{}: {error}", path.display())),
            };
            drop(events.send(event));
        });
    }
}

pub(super) fn close_timed_out() -> NodeError {
    NodeError::ShutdownTimedOut("the ordered stream did not close")
}

pub(super) fn panicked(error: tokio::task::JoinError) -> NodeError {
    NodeError::Panicked(panic_text(error))
}

/// Until the stream is open nothing is due.
const NOT_YET: std::time::Duration = std::time::Duration::from_secs(3_600);
/// Events in a row after which the clock is looked at.
const ROW_MAX: u32 = 64;
/// States that are kept aside.
const KEPT_MAX: usize = 8;
