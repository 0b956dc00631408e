//! A client's way to a group of the active scheme: one connection to the broker, requests into the stream, answers out of a topic of its own.
//!
//! Nobody is addressed: whoever owns a request answers it. A request without an answer is put into the stream again, if that does it no harm; requests
//! that wait for the broker together leave as one publication.

use super::own::{ReplyPlace, record, requests};
use crate::client::next_reply;
use crate::config::MqttConfig;
use crate::link::{self, Event, Link, PublishError, Reader, Rejection, Report, Session, Spec};
use async_trait::async_trait;
use bytes::Bytes;
use kvrep_core::client_wire::{Op, Outcome, Reply};
use kvrep_core::node::{Client, ClientLink, LinkError};
use kvrep_core::protocol::active::{Item, Published, Request};
use kvrep_core::state_machine::encode;
use kvrep_core::stream::repeat_after;
use kvrep_core::{GroupId, ReplicaId};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};
use xxhash_rust::xxh3::xxh3_64;

/// A client of the group of this name, whose members run the active scheme over this broker. `S` is the group's state machine. See the
/// [module](super) for an example.
pub fn connect_stream<S>(group: &str, config: MqttConfig) -> Client<S> {
    Client::new(MqttStreamLink::new(group, config))
}

/// Reaches a group of the active scheme through its broker. See [`connect_stream`].
pub struct MqttStreamLink {
    group: GroupId,
    config: MqttConfig,
    ordered: Arc<str>,
    /// Made at the first call, and again when the runtime that it ran on has ended.
    open: Mutex<Option<Open>>,
    shared: Arc<Shared>,
}

struct Open {
    link: Arc<Link>,
    replies: Arc<str>,
    name_hash: u64,
    task: AbortHandle,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    reply_bytes_max: usize,
}

#[derive(Default)]
struct State {
    calls: BTreeMap<u64, oneshot::Sender<Outcome>>,
    next_id: u64,
    /// Why the broker is not reached.
    why: Option<String>,
}

impl MqttStreamLink {
    /// A link to the group of this name. Connects when it is first used.
    #[must_use]
    pub fn new(group_name: &str, config: MqttConfig) -> Self {
        let group = GroupId::named(group_name);
        let (_, ordered) = requests(&config, group);
        let shared = Shared {
            state: Mutex::default(),
            reply_bytes_max: config.limits.payload_bytes_max,
        };
        Self {
            group,
            config,
            ordered,
            open: Mutex::default(),
            shared: Arc::new(shared),
        }
    }

    /// The connection, which may still be under way; where answers come, and a hash of who this is.
    fn opened(&self) -> Result<(Arc<Link>, Arc<str>, u64), LinkError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = open.as_ref().filter(|open| !open.task.is_finished()) {
            return Ok((
                Arc::clone(&open.link),
                Arc::clone(&open.replies),
                open.name_hash,
            ));
        }
        let client_id = self.config.client_id.clone();
        let client_id =
            client_id.unwrap_or_else(|| format!("kvrep-client-{:016x}", crate::drawn()));
        let (topics, _) = requests(&self.config, self.group);
        let (replies, name_hash) = (topics.replies(&client_id), xxh3_64(client_id.as_bytes()));
        let spec = Spec {
            client_id,
            subscriptions: vec![replies.to_string()],
            will: None,
            session: Session::Fresh,
            report: Report::Nothing,
        };
        let (link, reader) = link::open(&self.config, spec).map_err(LinkError::Hopeless)?;
        let hearing = hear(Arc::clone(&self.shared), reader);
        *open = Some(Open {
            link: Arc::clone(&link),
            replies: Arc::clone(&replies),
            name_hash,
            task: tokio::spawn(hearing).abort_handle(),
        });
        Ok((link, replies, name_hash))
    }
}

#[async_trait]
impl ClientLink for MqttStreamLink {
    /// The group.
    fn targets(&self) -> usize {
        1
    }

    fn resolve(&self, _: ReplicaId, _: Option<&str>) -> Option<usize> {
        Some(0)
    }

    async fn call(&self, _: usize, op: Op, deadline: Instant) -> Result<Outcome, LinkError> {
        let (link, replies, name_hash) = self.opened()?;
        let repeat = repeat_after(&op).unwrap_or(NEVER);
        let (answer, mut answered) = oneshot::channel();
        let id = {
            let mut state = self.shared.state();
            if state.calls.len() >= CALLS_MAX {
                return Err(LinkError::NotSent("too many calls are under way".into()));
            }
            state.next_id += 1;
            let id = state.next_id;
            state.calls.insert(id, answer);
            id
        };
        let _forget = Forget {
            shared: &self.shared,
            id,
        };
        // Requests of one client are answered by all members in turn.
        let request = Request::of_op(
            op,
            name_hash.wrapping_add(id),
            encode::<ReplyPlace>(&(&replies, id)),
        );
        let item = match request {
            Ok(request) => Item::Request(request),
            Err(outcome) => return Ok(outcome),
        };
        let published = record(&Published { stamp: None, item }, self.group);
        let mut sent = false;
        loop {
            match link.join(&self.ordered, None, &published, Bytes::new) {
                Ok(()) => sent = true,
                Err(PublishError::TooLarge { bytes, bytes_max }) => {
                    let (bytes, bytes_max) = (bytes as u64, bytes_max as u64);
                    return Ok(Outcome::TooLarge { bytes, bytes_max });
                }
                // The first is still under way.
                Err(PublishError::Full) if sent => {}
                Err(error @ (PublishError::Full | PublishError::Topic | PublishError::Closed)) => {
                    return Err(self.lost(sent, &error.to_string()));
                }
            }
            let again = deadline.min(Instant::now() + repeat);
            match timeout_at(again, &mut answered).await {
                Ok(Ok(outcome)) => return Ok(outcome),
                Ok(Err(_)) => return Err(self.lost(sent, "the link was closed")),
                Err(_) if again < deadline => {}
                Err(_) => return Err(self.lost(sent, "no answer in time")),
            }
        }
    }
}

impl MqttStreamLink {
    fn lost(&self, sent: bool, what: &str) -> LinkError {
        let why = self.shared.state().why.clone();
        let text = why.map_or_else(|| what.to_owned(), |why| format!("{what}; {why}"));
        if sent {
            LinkError::Lost(text)
        } else {
            LinkError::NotSent(text)
        }
    }
}

impl Drop for MqttStreamLink {
    fn drop(&mut self) {
        let open = self.open.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = open {
            open.link.close(None);
        }
    }
}

impl fmt::Debug for MqttStreamLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "MqttStreamLink({:?} at {})",
            self.group, self.config.broker
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

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn on_replies(&self, mut payload: Bytes) {
        while let Some(Reply { id, outcome }) = next_reply(&mut payload, self.reply_bytes_max) {
            let call = self.state().calls.remove(&id);
            if let Some(call) = call {
                // Its caller may have stopped waiting.
                drop(call.send(outcome));
            }
        }
    }
}

/// Reads what comes for this client, as long as it is open.
async fn hear(shared: Arc<Shared>, mut reader: Reader) {
    while let Some(event) = reader.next().await {
        match event {
            Event::Delivered { payload, ack, .. } => {
                shared.on_replies(payload);
                ack.acknowledge();
            }
            Event::Connected { .. } => shared.state().why = None,
            Event::Disconnected { why, .. } => shared.state().why = Some(why.to_string()),
            Event::Rejected(rejection) => {
                if !matches!(rejection, Rejection::Publication { .. }) {
                    shared.state().why = Some(rejection.to_string());
                }
            }
            Event::Acknowledged(_) | Event::Abandoned(_) => {}
        }
    }
    shared.state().calls.clear();
}

/// Calls under way.
const CALLS_MAX: usize = 65_536;
/// Longer than any deadline.
const NEVER: Duration = Duration::from_secs(365 * 86_400);
