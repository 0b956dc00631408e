//! A client's way to a whole group: one connection to the broker, and the replicas that say there that they live.
//!
//! Invariants:
//! - A call is answered, lost or refused at the latest when its deadline passes; all that are under way at a replica are lost as
//!   soon as it is said to be gone, and all of them when the connection to the broker breaks.
//! - What was not put into the queue was not sent ([`LinkError::NotSent`]).
//!
//! Caveat: that a group is of this name cannot be told from a group that does not run: both are silent.

use crate::config::MqttConfig;
use crate::heading::{Heading, Said};
use crate::link::{self, Event, Link, PublishError, Reader, Rejection, Report, Session, Spec};
use crate::topics::Topics;
use async_trait::async_trait;
use bytes::Bytes;
use kvrep_core::client_wire::{Op, Outcome, Reply, Request};
use kvrep_core::node::{Client, ClientLink, LinkError};
use kvrep_core::wire::{self, FrameKind, HEADER_BYTES};
use kvrep_core::{GroupId, Incarnation, ReplicaId};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

/// A client of the group of this name, through its broker. `S` is the group's state machine.
///
/// Nothing is connected before the first call, and no replica is listed: whoever lives is found. For other options than the
/// default ones, give an [`MqttGroupLink`] to [`Client::with_options`].
///
/// ```
/// # #[cfg(not(feature = "embedded-broker"))] fn main() {}
/// # #[cfg(feature = "embedded-broker")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use kvrep_core::{Fold, Node, Read, ReplicaId};
/// use kvrep_transport_mqtt::{EmbeddedBroker, MqttConfig, MqttTransport, connect};
///
/// let broker = EmbeddedBroker::start("127.0.0.1:0")?;
/// let config = MqttConfig::new(broker.address().to_string());
/// let node = Node::builder("counters", ReplicaId(1))
///     .transport(MqttTransport::new(config.clone()))
///     .state_machine(Fold::new(0_i64, |sum, by: i64| *sum += by))
///     .start()
///     .await?;
///
/// let client = connect::<Fold<i64, i64>>("counters", config);
/// assert_eq!(client.execute(2).await?, 2);
/// assert_eq!(client.query(Read::Linearizable, ()).await?, 2);
/// # node.shutdown().await?;
/// # Ok(())
/// # }
/// ```
pub fn connect<S>(group: &str, config: MqttConfig) -> Client<S> {
    Client::new(MqttGroupLink::new(group, config))
}

/// Reaches the replicas of one group through its broker. See [`connect`].
///
/// ```
/// use kvrep_core::Fold;
/// use kvrep_core::node::{Client, ClientError, ClientOptions};
/// use kvrep_transport_mqtt::{MqttConfig, MqttGroupLink};
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let options = ClientOptions::default().deadline(Duration::from_millis(50));
/// let link = MqttGroupLink::new("counter", MqttConfig::new("127.0.0.1:1")); // nobody is there
/// let client = Client::<Fold<i64, i64>>::with_options(link, options);
/// let error = client.execute(1).await.unwrap_err();
/// assert!(matches!(error, ClientError::Unavailable { .. })); // certainly nothing was done
/// # }
/// ```
pub struct MqttGroupLink {
    group: GroupId,
    config: MqttConfig,
    /// Made at the first call, and again when the runtime that it ran on has ended.
    open: Mutex<Option<Open>>,
    shared: Arc<Shared>,
}

struct Open {
    link: Arc<Link>,
    replies: Arc<str>,
    task: AbortHandle,
}

struct Shared {
    group: GroupId,
    topics: Topics,
    state: Mutex<State>,
    /// Somebody may have come, or the connection be there.
    changed: Notify,
    reply_bytes_max: usize,
}

#[derive(Default)]
struct State {
    /// In the order in which they were heard of: the numbers of the targets.
    replicas: Vec<Known>,
    calls: BTreeMap<u64, Call>,
    next_id: u64,
    connected: bool,
    /// Why not, as far as it was tried.
    why: Option<Why>,
}

struct Known {
    replica: ReplicaId,
    requests: Arc<str>,
    /// In which life it is here, and how large a request it reads.
    here: Option<(Incarnation, u64)>,
    latest: Incarnation,
}

struct Call {
    replica: ReplicaId,
    answer: oneshot::Sender<Result<Outcome, LinkError>>,
}

#[derive(Clone)]
enum Why {
    ForNow(String),
    UntilChanged(String),
}

impl MqttGroupLink {
    /// A link to the group of this name. Connects when it is first used.
    #[must_use]
    pub fn new(group_name: &str, config: MqttConfig) -> Self {
        let group = GroupId::named(group_name);
        let shared = Shared {
            group,
            topics: Topics::new(&config, group),
            state: Mutex::default(),
            changed: Notify::new(),
            reply_bytes_max: config.limits.payload_bytes_max,
        };
        Self {
            group,
            config,
            open: Mutex::default(),
            shared: Arc::new(shared),
        }
    }

    /// The connection, which may still be under way.
    fn opened(&self) -> Result<(Arc<Link>, Arc<str>), LinkError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = open.as_ref().filter(|open| !open.task.is_finished()) {
            return Ok((Arc::clone(&open.link), Arc::clone(&open.replies)));
        }
        let client_id = self.config.client_id.clone();
        let client_id =
            client_id.unwrap_or_else(|| format!("kvrep-client-{:016x}", crate::drawn()));
        let topics = &self.shared.topics;
        let replies = topics.replies(&client_id);
        let spec = Spec {
            client_id,
            subscriptions: vec![replies.to_string(), topics.every_life()],
            will: None,
            session: Session::Fresh,
            report: Report::Nothing,
        };
        let (link, reader) = link::open(&self.config, spec).map_err(LinkError::Hopeless)?;
        let hearing = hear(
            Arc::clone(&self.shared),
            Arc::clone(&link),
            reader,
            Arc::clone(&replies),
        );
        *open = Some(Open {
            link: Arc::clone(&link),
            replies: Arc::clone(&replies),
            task: tokio::spawn(hearing).abort_handle(),
        });
        Ok((link, replies))
    }
}

#[async_trait]
impl ClientLink for MqttGroupLink {
    /// One as long as nobody was heard of: the first who will be.
    fn targets(&self) -> usize {
        self.shared.state().replicas.len().max(1)
    }

    fn resolve(&self, replica: ReplicaId, _: Option<&str>) -> Option<usize> {
        let mut state = self.shared.state();
        let known = state.replicas.iter().position(|k| k.replica == replica);
        known.or_else(|| state.remember(replica, &self.shared.topics))
    }

    async fn call(&self, target: usize, op: Op, deadline: Instant) -> Result<Outcome, LinkError> {
        let (link, replies) = self.opened()?;
        let found = timeout_at(deadline, self.shared.found(target)).await;
        let found = found.unwrap_or_else(|_| Err(self.shared.silence(&self.config.broker)))?;
        let (answer, outcome) = oneshot::channel();
        let (id, frame) = {
            let mut state = self.shared.state();
            // It may be gone by now, and its calls given up.
            if let Some(known) = state.replicas.get(target) {
                known.asked()?;
            }
            if state.calls.len() >= CALLS_MAX {
                return Err(LinkError::NotSent("too many calls are under way".into()));
            }
            state.next_id += 1;
            let id = state.next_id;
            let frame = Request { id, op }.to_frame();
            let bytes = (frame.len() - HEADER_BYTES) as u64;
            if bytes > found.request_bytes_max {
                let bytes_max = found.request_bytes_max;
                return Ok(Outcome::TooLarge { bytes, bytes_max });
            }
            let replica = found.replica;
            state.calls.insert(id, Call { replica, answer });
            (id, frame)
        };
        let _forget = Forget {
            shared: &self.shared,
            id,
        };
        match link.join(&found.requests, Some(&replies), &frame, Bytes::new) {
            Ok(()) => {}
            Err(PublishError::TooLarge { bytes, bytes_max }) => {
                let (bytes, bytes_max) = (bytes as u64, bytes_max as u64);
                return Ok(Outcome::TooLarge { bytes, bytes_max });
            }
            Err(error @ (PublishError::Full | PublishError::Topic | PublishError::Closed)) => {
                return Err(LinkError::NotSent(error.to_string()));
            }
        }
        match timeout_at(deadline, outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(LinkError::Lost("the connection to the broker ended".into())),
            Err(_) => Err(LinkError::Lost(format!(
                "no reply from {} in time",
                found.replica
            ))),
        }
    }
}

impl Drop for MqttGroupLink {
    fn drop(&mut self) {
        let open = self.open.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = open {
            open.link.close(None);
        }
    }
}

impl fmt::Debug for MqttGroupLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.state();
        let replicas: Vec<_> = state.replicas.iter().map(|k| k.replica).collect();
        let broker = &self.config.broker;
        write!(
            f,
            "MqttGroupLink({:?} at {broker}: {replicas:?})",
            self.group
        )
    }
}

/// Takes a call off the list when its caller stops waiting.
struct Forget<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.shared.state().calls.remove(&self.id);
    }
}

/// A target that may be asked.
struct Found {
    replica: ReplicaId,
    requests: Arc<str>,
    request_bytes_max: u64,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the connection, and for somebody to ask if nobody is known.
    async fn found(&self, target: usize) -> Result<Found, LinkError> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let state = self.state();
                if let Some(Why::UntilChanged(why)) = &state.why {
                    return Err(LinkError::Hopeless(why.clone()));
                }
                match state.replicas.get(target) {
                    Some(known) if state.connected => return known.asked(),
                    None if state.connected && target > 0 => {
                        return Err(LinkError::NotSent(format!("no target {target}")));
                    }
                    Some(_) | None => {}
                }
            }
            changed.await;
        }
    }

    /// Why nobody was found in time.
    fn silence(&self, broker: &str) -> LinkError {
        let state = self.state();
        LinkError::NotSent(match &state.why {
            Some(Why::ForNow(why) | Why::UntilChanged(why)) => why.clone(),
            None if state.connected => format!(
                "no replica of this group says at {broker} that it lives: is the group's name right, and its prefix, and does it run?"
            ),
            None => format!("not connected to {broker} in time"),
        })
    }

    fn on_reply(&self, mut payload: Bytes) {
        while let Some(Reply { id, outcome }) = next_reply(&mut payload, self.reply_bytes_max) {
            let call = self.state().calls.remove(&id);
            if let Some(call) = call {
                // Its caller may have stopped waiting.
                let _ = call.answer.send(Ok(outcome));
            }
        }
    }

    fn on_life(&self, topic: &str, mut payload: Bytes) {
        // The witness has no part in serving.
        let about = self.topics.whose_life(topic);
        let Some(about) = about.filter(|about| *about != ReplicaId::WITNESS) else {
            return;
        };
        let heading = Heading::take(&mut payload);
        let Some(heading) = heading
            .ok()
            .filter(|h| h.from == about && h.group == self.group)
        else {
            debug!(topic, "what came as a word about a life is none");
            return;
        };
        let mut state = self.state();
        let known = state.replicas.iter().position(|k| k.replica == about);
        let known = known.or_else(|| match heading.said {
            Said::Alive { .. } => state.remember(about, &self.topics),
            Said::Gone | Said::Frames { .. } => None,
        });
        let Some(known) = known.and_then(|at| state.replicas.get_mut(at)) else {
            return;
        };
        if heading.incarnation < known.latest {
            return;
        }
        let same_life = heading.incarnation == known.latest;
        known.latest = heading.incarnation;
        known.here = match heading.said {
            Said::Alive { request_bytes_max } => Some((heading.incarnation, request_bytes_max)),
            Said::Gone | Said::Frames { .. } => None,
        };
        if known.here.is_none() || !same_life {
            state.lose(|call| call.replica == about, &format!("{about} is gone"));
        }
        drop(state);
        self.changed.notify_waiters();
    }
}

/// Takes the next of several replies in one payload; what is none ends it.
pub(crate) fn next_reply(payload: &mut Bytes, bytes_max: usize) -> Option<Reply> {
    if payload.is_empty() {
        return None;
    }
    let reply = match wire::split_frame(payload, bytes_max) {
        Ok((FrameKind::Reply, body)) => Reply::from_body(&body).ok(),
        Ok((FrameKind::Peer | FrameKind::Request | FrameKind::Handshake, _)) | Err(_) => None,
    };
    if reply.is_none() {
        debug!("what came as a reply is none");
    }
    reply
}

impl State {
    fn remember(&mut self, replica: ReplicaId, topics: &Topics) -> Option<usize> {
        if self.replicas.len() >= TARGETS_MAX {
            return None;
        }
        self.replicas.push(Known {
            replica,
            requests: topics.requests(replica),
            here: None,
            latest: Incarnation::UNKNOWN,
        });
        Some(self.replicas.len() - 1)
    }

    /// Ends calls without an answer.
    fn lose(&mut self, lost: impl Fn(&Call) -> bool, why: &str) {
        let calls = std::mem::take(&mut self.calls);
        for (id, call) in calls {
            if lost(&call) {
                let _ = call.answer.send(Err(LinkError::Lost(why.into())));
            } else {
                self.calls.insert(id, call);
            }
        }
    }
}

impl Known {
    fn asked(&self) -> Result<Found, LinkError> {
        let replica = self.replica;
        let Some((_, request_bytes_max)) = self.here else {
            return Err(LinkError::NotSent(format!(
                "{replica} is not connected to the broker"
            )));
        };
        Ok(Found {
            replica,
            requests: Arc::clone(&self.requests),
            request_bytes_max,
        })
    }
}

/// Reads what comes for this client, as long as it is open.
async fn hear(shared: Arc<Shared>, link: Arc<Link>, mut reader: Reader, replies: Arc<str>) {
    while let Some(event) = reader.next().await {
        match event {
            Event::Delivered {
                topic,
                payload,
                ack,
                ..
            } => {
                if topic == replies {
                    shared.on_reply(payload);
                } else {
                    shared.on_life(&topic, payload);
                }
                ack.acknowledge();
            }
            Event::Connected { .. } => {
                let mut state = shared.state();
                state.connected = true;
                state.why = None;
                drop(state);
                shared.changed.notify_waiters();
            }
            Event::Disconnected { why, .. } => {
                link.discard();
                let mut state = shared.state();
                state.connected = false;
                state.lose(|_| true, "the connection to the broker broke");
                state
                    .replicas
                    .iter_mut()
                    .for_each(|known| known.here = None);
                if !matches!(state.why, Some(Why::UntilChanged(_))) {
                    state.why = Some(Why::ForNow(why.to_string()));
                }
            }
            Event::Rejected(rejection) => {
                if !matches!(rejection, Rejection::Publication { .. }) {
                    shared.state().why = Some(Why::UntilChanged(rejection.to_string()));
                    shared.changed.notify_waiters();
                }
            }
            Event::Acknowledged(_) | Event::Abandoned(_) => {}
        }
    }
    shared.state().lose(|_| true, "the link was closed");
}

/// Replicas that are remembered.
const TARGETS_MAX: usize = 64;
/// Calls under way.
const CALLS_MAX: usize = 65_536;
