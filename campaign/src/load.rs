//! The clients: each appends to lists and reads them, one operation after the other, and writes down what it saw.

use crate::lists::{Answer, Append, Asked, Lists, Query, Told};
use crate::serve::GROUP;
use kvrep_core::node::{Client, ClientError, ClientOptions};
use kvrep_core::random::Rng;
use kvrep_core::{Index, Read, Term};
use kvrep_transport_tcp::TcpGroupLink;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// What the clients do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    pub(crate) clients: u64,
    /// Between two operations of one client.
    pub(crate) pause: Duration,
    /// How long an operation may take.
    pub(crate) deadline: Duration,
    /// Bytes of each command besides.
    pub(crate) padding_bytes: usize,
    pub(crate) seed: u64,
}

/// One operation as its client saw it. Times since the start of the load.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub(crate) client: u64,
    pub(crate) asked: Asked,
    pub(crate) freshness: Freshness,
    pub(crate) invoked: Duration,
    pub(crate) ended: Ended,
}

/// What a read was promised. Writes are always linearizable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    Linearizable,
    /// As new as what this client has seen, by any replica.
    Session,
}

/// How it ended.
#[derive(Clone, Debug)]
pub(crate) enum Ended {
    Answered(Answered),
    /// Done, or not, or not yet.
    Unknown,
    /// Certainly nothing was done.
    Refused,
}

/// An answer, when it came, and what the client had seen then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered {
    pub(crate) at: Duration,
    pub(crate) told: Told,
    /// Of the entry that did it; zero for reads.
    pub(crate) index: Index,
    pub(crate) term: Term,
}

/// Numbers while it runs.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Counted {
    pub(crate) answered: AtomicU64,
    pub(crate) unknown: AtomicU64,
    pub(crate) refused: AtomicU64,
}

/// The clients at work.
pub(crate) struct Load {
    shared: Arc<Shared>,
    clients: JoinSet<Result<Vec<Recorded>, String>>,
}

struct Shared {
    workload: Workload,
    began: Instant,
    ids: AtomicU64,
    enough: AtomicBool,
    counted: Counted,
}

/// Lists in use at a time; they change every [`EPOCH`], so that each stays short enough to be checked.
const KEYS: u64 = 16;
const EPOCH: Duration = Duration::from_secs(2);

impl Load {
    /// Starts the clients, each with a session and connections of its own.
    pub(crate) fn start(workload: Workload, addresses: &[String]) -> Self {
        let shared = Arc::new(Shared {
            workload,
            began: Instant::now(),
            ids: AtomicU64::new(1),
            enough: AtomicBool::new(false),
            counted: Counted::default(),
        });
        let mut clients = JoinSet::new();
        for id in 0..workload.clients {
            let mut options = ClientOptions::default();
            options.deadline = workload.deadline;
            let link = TcpGroupLink::new(GROUP, addresses.iter().cloned());
            let client = Client::<Lists>::with_options(link, options);
            clients.spawn(work(Arc::clone(&shared), client, id));
        }
        Self { shared, clients }
    }

    /// Since when the times of the record count.
    pub(crate) fn began(&self) -> Instant {
        self.shared.began
    }

    pub(crate) fn counted(&self) -> &Counted {
        &self.shared.counted
    }

    /// Ends the load; returns everything that was recorded.
    ///
    /// # Errors
    /// What a client met that should not happen.
    pub(crate) async fn finish(mut self) -> Result<Vec<Recorded>, String> {
        self.shared.enough.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        while let Some(ended) = self.clients.join_next().await {
            all.extend(ended.map_err(|e| e.to_string())??);
        }
        Ok(all)
    }
}

async fn work(
    shared: Arc<Shared>,
    client: Client<Lists>,
    id: u64,
) -> Result<Vec<Recorded>, String> {
    let mut random = Rng::new(shared.workload.seed ^ (id + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut seen = Vec::new();
    while !shared.enough.load(Ordering::Relaxed) {
        let invoked = shared.began.elapsed();
        let epoch = (invoked.as_millis() / EPOCH.as_millis()) as u64;
        let key = epoch * KEYS + random.below(KEYS);
        let (asked, freshness) = match random.below(8) {
            0 | 1 => (Asked::Get { key }, Freshness::Linearizable),
            2 => (Asked::Get { key }, Freshness::Session),
            _ => {
                let id = shared.ids.fetch_add(1, Ordering::Relaxed);
                (Asked::Append { key, id }, Freshness::Linearizable)
            }
        };
        let ended = ask(&shared, &client, asked, freshness).await?;
        let counter = match &ended {
            Ended::Answered(_) => &shared.counted.answered,
            Ended::Unknown => &shared.counted.unknown,
            Ended::Refused => &shared.counted.refused,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        seen.push(Recorded {
            client: id,
            asked,
            freshness,
            invoked,
            ended,
        });
        if !shared.workload.pause.is_zero() {
            sleep(shared.workload.pause).await;
        }
    }
    Ok(seen)
}

async fn ask(
    shared: &Shared,
    client: &Client<Lists>,
    asked: Asked,
    freshness: Freshness,
) -> Result<Ended, String> {
    let answer = match asked {
        Asked::Append { key, id } => {
            let padding = vec![0; shared.workload.padding_bytes];
            client.execute(Append { key, id, padding }).await
        }
        Asked::Get { key } => {
            let read = match freshness {
                Freshness::Linearizable => Read::Linearizable,
                Freshness::Session => Read::AtLeast(client.token()),
            };
            client.query(read, Query::Get(key)).await
        }
    };
    let at = shared.began.elapsed();
    let (told, index) = match answer {
        Ok(Answer::Appended {
            before,
            after,
            index,
        }) => (Told { before, after }, index),
        Ok(Answer::Found(found)) => {
            let (before, after) = (found, found);
            (Told { before, after }, Index::ZERO)
        }
        Ok(other @ Answer::Page(_)) => {
            return Err(format!("{asked:?} was answered with {other:?}"));
        }
        Err(ClientError::Unknown { .. } | ClientError::SessionExpired) => {
            return Ok(Ended::Unknown);
        }
        Err(ClientError::Unavailable { .. }) => return Ok(Ended::Refused),
        Err(other) => return Err(format!("{asked:?}: {other}")),
    };
    Ok(Ended::Answered(Answered {
        at,
        told,
        index,
        term: client.token().term,
    }))
}
