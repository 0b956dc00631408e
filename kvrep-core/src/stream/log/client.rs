//! A client's way to an active group whose order is a log.

use super::sequencer::{CallId, Record, Sequencer};
use crate::client_wire::{Op, Outcome};
use crate::config::Read;
use crate::id::{GroupId, ReplicaId};
use crate::node::{Client, ClientError, ClientLink, ClientOptions, LinkError};
use crate::protocol::active::{Item, Published, Request};
use crate::state_machine::{decode, encode};
use crate::stream::repeat_after;
use async_trait::async_trait;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

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
        let options = ClientOptions {
            deadline: NEVER,
            ..ClientOptions::default()
        };
        Self {
            log: Client::with_options(link, options),
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
    ) -> Result<Outcome, LinkError> {
        loop {
            match self.log.execute(vec![request.clone()]).await {
                Ok(_) => {}
                Err(ClientError::TooLarge { bytes, bytes_max }) => {
                    return Ok(Outcome::TooLarge { bytes, bytes_max });
                }
                Err(error) => return Err(lost(error)),
            }
            let again = Instant::now() + repeat.unwrap_or(NEVER);
            let mut pause = PAUSE_MIN;
            while Instant::now() < again {
                sleep(pause).await;
                pause = (pause * 3 / 2).min(PAUSE_MAX);
                let outcome = self.log.query(Read::Local, call).await.map_err(lost)?;
                if let Some(outcome) = outcome {
                    return decode(&outcome).map_err(|error| LinkError::Lost(error.to_string()));
                }
            }
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
        match timeout_at(deadline, self.answered(call, &record, repeat)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(LinkError::Lost("no answer in time".into())),
        }
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
/// Longer than any deadline.
const NEVER: Duration = Duration::from_secs(365 * 86_400);
