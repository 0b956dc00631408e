//! The clients: each writes its share of the records, now and then reads one, and writes down what it saw and when.

use super::catalog::{Answer, Asked, Catalog, Put, Query, Told, digest};
use super::input::Record;
use kvrep_core::node::{Client, ClientError, ClientLink, ClientOptions};
use kvrep_core::{Read, Term, Token};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// One operation in eight is a read.
const READ_EVERY: u64 = 8;

/// What is loaded: the records with the numbers of their keys.
pub struct Input {
    /// In the order of the file; a key may come more than once.
    pub records: Vec<Record>,
    /// Digest of each record's value.
    pub digests: Vec<u64>,
    /// The number of each record's key.
    pub keys: Vec<u32>,
    /// The keys by their numbers.
    pub names: Vec<String>,
}

impl Input {
    /// Numbers the keys.
    #[must_use]
    pub fn new(records: Vec<Record>) -> Self {
        let mut numbers: BTreeMap<String, u32> = BTreeMap::new();
        let mut names = Vec::new();
        let mut keys = Vec::with_capacity(records.len());
        for record in &records {
            let next = u32::try_from(names.len()).unwrap_or(u32::MAX);
            let number = *numbers.entry(record.key.clone()).or_insert_with(|| {
                names.push(record.key.clone());
                next
            });
            keys.push(number);
        }
        let digests = records.iter().map(|r| digest(&r.value)).collect();
        Self {
            records,
            digests,
            keys,
            names,
        }
    }
}

/// One operation as its client saw it.
#[derive(Clone, Copy, Debug)]
pub struct Recorded {
    /// Which client.
    pub client: u64,
    /// What was asked.
    pub asked: Asked,
    /// When, since the start of the load.
    pub invoked: Duration,
    /// The answer and when it came; `None` when the outcome is unknown.
    pub told: Option<(Duration, Told)>,
}

/// The clients at work.
pub struct Load {
    shared: Arc<Shared>,
    terms: watch::Receiver<(Term, Instant)>,
    clients: JoinSet<Result<Vec<Recorded>, String>>,
}

struct Shared {
    input: Arc<Input>,
    next: AtomicU64,
    acknowledged: AtomicU64,
    enough: AtomicBool,
    began: Instant,
    /// The highest term in which a write was acknowledged, and when that was first.
    term: watch::Sender<(Term, Instant)>,
    token: std::sync::Mutex<Token>,
    /// When each client sent what it waits for, in nanoseconds since the start; [`IDLE`] when it waits for nothing.
    waiting_since: Vec<AtomicU64>,
}

const IDLE: u64 = u64::MAX;
const LOOKS_EVERY: Duration = Duration::from_millis(1);

impl Load {
    /// Starts `clients` clients, each with a session and a link of its own.
    #[must_use]
    pub fn start(input: &Arc<Input>, clients: u64, link: impl Fn() -> Arc<dyn ClientLink>) -> Self {
        let began = Instant::now();
        let (term, terms) = watch::channel((Term::ZERO, began));
        let shared = Arc::new(Shared {
            input: Arc::clone(input),
            next: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            enough: AtomicBool::new(false),
            began,
            term,
            token: std::sync::Mutex::default(),
            waiting_since: (0..clients).map(|_| AtomicU64::new(IDLE)).collect(),
        });
        let mut tasks = JoinSet::new();
        for id in 0..clients {
            let mut options = ClientOptions::default();
            options.deadline = Duration::from_secs(20);
            let client = Client::<Catalog>::shared(link(), options);
            tasks.spawn(work(Arc::clone(&shared), client, id));
        }
        Self {
            shared,
            terms,
            clients: tasks,
        }
    }

    /// Writes acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// When the load began.
    #[must_use]
    pub fn began(&self) -> Instant {
        self.shared.began
    }

    /// Waits for the first acknowledgement of a term beyond `old`; returns when that was.
    pub async fn acknowledged_beyond(&mut self, old: Term, within: Duration) -> Option<Instant> {
        let seen = self.terms.wait_for(|(term, _)| *term > old);
        let seen = tokio::time::timeout(within, seen).await.ok()?.ok()?;
        Some(seen.1)
    }

    /// Waits until nobody waits any more for what was sent before now; returns when that was.
    pub async fn answered_up_to_now(&self, within: Duration) -> Option<Instant> {
        let asked = Instant::now();
        let now = nanos(self.shared.began.elapsed());
        let waits = |since: &AtomicU64| since.load(Ordering::Relaxed) < now;
        while self.shared.waiting_since.iter().any(waits) {
            if asked.elapsed() >= within {
                return None;
            }
            sleep(LOOKS_EVERY).await;
        }
        Some(Instant::now())
    }

    /// Ends the load; returns everything that was recorded and the newest token.
    ///
    /// # Errors
    /// What a client met that should not happen.
    pub async fn finish(mut self) -> Result<(Vec<Recorded>, Token), String> {
        self.shared.enough.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        while let Some(ended) = self.clients.join_next().await {
            all.extend(ended.map_err(|e| e.to_string())??);
        }
        let token = *self.shared.token.lock().map_err(|e| e.to_string())?;
        Ok((all, token))
    }
}

impl Shared {
    fn waits(&self, client: u64, since: Option<Duration>) {
        let at = usize::try_from(client).unwrap_or(usize::MAX);
        if let Some(waiting) = self.waiting_since.get(at) {
            waiting.store(since.map_or(IDLE, nanos), Ordering::Relaxed);
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(IDLE)
}

async fn work(
    shared: Arc<Shared>,
    client: Client<Catalog>,
    id: u64,
) -> Result<Vec<Recorded>, String> {
    let input = Arc::clone(&shared.input);
    let records = input.records.len() as u64;
    let mut seen = Vec::new();
    loop {
        let n = shared.next.fetch_add(1, Ordering::Relaxed);
        // The first pass is always finished; more follow while primaries are still to be killed.
        if n >= records && shared.enough.load(Ordering::Relaxed) {
            break;
        }
        let at = usize::try_from(n % records).unwrap_or(0);
        put(&shared, &client, id, at, &mut seen).await?;
        if n.is_multiple_of(READ_EVERY) {
            // Somebody else is writing near here at this very moment.
            let near = usize::try_from((n + n / READ_EVERY % 32) % records).unwrap_or(0);
            get(&shared, &client, id, near, &mut seen).await?;
        }
    }
    shared.waits(id, None);
    let mut newest = shared.token.lock().map_err(|e| e.to_string())?;
    *newest = (*newest).max(client.token());
    Ok(seen)
}

async fn put(
    shared: &Shared,
    client: &Client<Catalog>,
    id: u64,
    at: usize,
    seen: &mut Vec<Recorded>,
) -> Result<(), String> {
    let (record, digest) = (&shared.input.records[at], shared.input.digests[at]);
    let invoked = shared.began.elapsed();
    shared.waits(id, Some(invoked));
    let command = Put {
        key: record.key.clone(),
        value: record.value.clone(),
    };
    let told = match client.execute(command).await {
        Ok(Answer::Written(times)) => Some((shared.began.elapsed(), Some((digest, times)))),
        Ok(other) => return Err(format!("a write was answered with {other:?}")),
        Err(ClientError::Unknown { .. } | ClientError::SessionExpired) => None,
        Err(ClientError::Unavailable { .. }) => return Ok(()),
        Err(other) => return Err(other.to_string()),
    };
    if told.is_some() {
        shared.acknowledged.fetch_add(1, Ordering::Relaxed);
        let (term, now) = (client.token().term, Instant::now());
        if term > shared.term.borrow().0 {
            shared.term.send_if_modified(|newest| {
                let newer = term > newest.0;
                if newer {
                    *newest = (term, now);
                }
                newer
            });
        }
    }
    seen.push(Recorded {
        client: id,
        asked: Asked::Put(shared.input.keys[at], digest),
        invoked,
        told,
    });
    Ok(())
}

async fn get(
    shared: &Shared,
    client: &Client<Catalog>,
    id: u64,
    at: usize,
    seen: &mut Vec<Recorded>,
) -> Result<(), String> {
    let invoked = shared.began.elapsed();
    shared.waits(id, Some(invoked));
    let key = shared.input.keys[at];
    let query = Query::Get(shared.input.names[key as usize].clone());
    match client.query(Read::Linearizable, query).await {
        Ok(Answer::Found(found)) => seen.push(Recorded {
            client: id,
            asked: Asked::Get(key),
            invoked,
            told: Some((shared.began.elapsed(), found)),
        }),
        Ok(other) => return Err(format!("a read was answered with {other:?}")),
        // A read that was not answered says nothing.
        Err(ClientError::Unknown { .. } | ClientError::Unavailable { .. }) => {}
        Err(other) => return Err(other.to_string()),
    }
    Ok(())
}
