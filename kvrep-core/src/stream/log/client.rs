//! A client's way to an active group whose order is a log.

use super::sequencer::{CallId, Record, Sequencer};
use crate::client_wire::{Op, Outcome};
use crate::id::{GroupId, ReplicaId};
use crate::node::{Client, ClientError, ClientLink, LinkError};
use crate::protocol::active::{Item, Published, Request};
use crate::state_machine::{decode, encode};
use crate::stream::repeat_after;
use async_trait::async_trait;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout_at};

/// For [`Client::new`](crate::node::Client::new): reaches the active group of the first name through the log under it, to which `link` leads.
///
/// A request is put into the log; its answer comes there, too, and is asked for, at first after a fraction of a millisecond, then less often. See the
/// [module](super) for an example.
pub struct LogLink {
    log: Client<Sequencer>,
    group: GroupId,
    me: u64,
    calls: AtomicU64,
}

impl LogLink {
    /// `group` is the active group's name, and `link` leads to the nodes of its log.
    #[must_use]
    pub fn new(group: &str, link: impl ClientLink) -> Self {
        Self {
            log: Client::new(link),
            group: GroupId::named(group),
            me: RandomState::new().hash_one(0_u8),
            calls: AtomicU64::new(0),
        }
    }

    /// Puts the request into the log again and again, as long as it may be, until its answer is there.
    async fn answered(
        &self,
        call: CallId,
        request: &Record,
        repeat: Option<Duration>,
        deadline: Instant,
    ) -> Result<Outcome, LinkError> {
        let mut is_there = false;
        loop {
            let put = self.log.execute_until(deadline, vec![request.clone()]);
            match put.await {
                Ok(_) => is_there = true,
                Err(ClientError::TooLarge { bytes, bytes_max }) => {
                    return Ok(Outcome::TooLarge { bytes, bytes_max });
                }
                Err(error) if is_there => return Err(lost(error)),
                Err(error) => return Err(self.not_put(error)),
            }
            let again = repeat.map_or(deadline, |repeat| deadline.min(Instant::now() + repeat));
            let mut pause = PAUSE_MIN;
            loop {
                sleep_until(again.min(Instant::now() + pause)).await;
                pause = (pause * 3 / 2).min(PAUSE_MAX);
                let now = Instant::now();
                if now >= deadline {
                    let why = "the request is in the log, and no replica has answered it in time";
                    return Err(LinkError::Lost(why.into()));
                }
                if now >= again {
                    break;
                }
                let kept = self.log.query_until(deadline, call).await;
                if let Some(outcome) = kept.map_err(not_read)? {
                    return decode(&outcome).map_err(|error| LinkError::Lost(error.to_string()));
                }
            }
        }
    }

    /// Why the log does not have a request that was put there once.
    fn not_put(&self, error: ClientError) -> LinkError {
        match error {
            ClientError::Unavailable { last } if self.log.is_hopeless() => {
                LinkError::Hopeless(format!("the log cannot be reached ({last})"))
            }
            ClientError::Unavailable { last } => {
                LinkError::NotSent(format!("the log took nothing ({last})"))
            }
            other => lost(other),
        }
    }
}

#[async_trait]
impl ClientLink for LogLink {
    /// The group: whoever owns a request answers it.
    fn targets(&self) -> usize {
        1
    }

    fn resolve(&self, _: ReplicaId, _: Option<&str>) -> Option<usize> {
        Some(0)
    }

    async fn call(&self, _: usize, op: Op, deadline: Instant) -> Result<Outcome, LinkError> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let client = self.me;
        let call = CallId { client, number };
        let repeat = repeat_after(&op);
        let request = match Request::of_op(op, number, encode(&call)) {
            Ok(request) => request,
            Err(outcome) => return Ok(outcome),
        };
        let item = Item::Request(request);
        let record = Record::Item(Published { stamp: None, item }.encode(self.group));
        // A little sooner, so that the reason is here in time.
        let left = deadline.saturating_duration_since(Instant::now());
        let sooner = deadline - (left / 8).min(SOONER_MAX);
        let answered = self.answered(call, &record, repeat, sooner);
        match timeout_at(deadline, answered).await {
            Ok(outcome) => outcome,
            Err(_) => Err(LinkError::Lost("no answer in time".into())),
        }
    }
}

/// Why nobody knows what the answer is, if there is one.
fn not_read(error: ClientError) -> LinkError {
    match error {
        ClientError::Unavailable { last } => LinkError::Lost(format!(
            "the log took the request, and then nothing ({last})"
        )),
        other => lost(other),
    }
}

fn lost(error: ClientError) -> LinkError {
    LinkError::Lost(error.to_string())
}

impl fmt::Debug for LogLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogLink({:?})", self.group)
    }
}

const PAUSE_MIN: Duration = Duration::from_micros(300);
const PAUSE_MAX: Duration = Duration::from_millis(20);
/// By so much, at most, the log is given up before the call must return.
const SOONER_MAX: Duration = Duration::from_millis(50);
