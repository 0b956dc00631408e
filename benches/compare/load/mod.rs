//! The clients of one run, in a process of their own. Each waits for its answer before it writes again.
//!
//! A run prints its [`Sample`] as one line of JSON. Whatever cannot be measured ends the run with the reason: a figure is
//! never made of failed writes.

mod echo;
mod etcd;
mod in_process;
mod kvrep;
#[cfg(feature = "openraft")]
mod openraft;
mod redis;
mod sockets;

pub(crate) use etcd::Connection as EtcdConnection;
pub(crate) use kvrep::{GROUP, KeyValue};
pub(crate) use redis::Connection as RedisConnection;

use crate::sample::{Latencies, Sample};
use clap::{Args, ValueEnum};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// What is written to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Target {
    /// kvrep in this process, commands without a session
    InProcessPlain,
    /// kvrep in this process, a session for each client
    InProcessSessions,
    /// openraft in this process
    Openraft,
    /// A group of kvrep processes
    Kvrep,
    /// A Redis primary, two acknowledgements awaited
    Redis,
    /// An etcd leader
    Etcd,
    /// The bare exchange
    Echo,
    /// What answers at once
    Sockets,
}

impl Target {
    /// The word on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::InProcessPlain => "in-process-plain",
            Self::InProcessSessions => "in-process-sessions",
            Self::Openraft => "openraft",
            Self::Kvrep => "kvrep",
            Self::Redis => "redis",
            Self::Etcd => "etcd",
            Self::Echo => "echo",
            Self::Sockets => "sockets",
        }
    }

    fn is_in_process(self) -> bool {
        match self {
            Self::InProcessPlain | Self::InProcessSessions | Self::Openraft => true,
            Self::Kvrep | Self::Redis | Self::Etcd | Self::Echo | Self::Sockets => false,
        }
    }
}

/// One run.
#[derive(Args, Clone, Debug)]
pub(crate) struct Load {
    /// What is written to
    pub(crate) target: Target,
    /// Where it is, if it is not in this process
    #[arg(long, value_delimiter = ',')]
    pub(crate) at: Vec<String>,
    /// Concurrent clients
    #[arg(long, default_value_t = 1)]
    pub(crate) clients: u32,
    /// Threads of the runtime, if the replicas are in this process [default: as many as there are processors]
    #[arg(long)]
    pub(crate) workers: Option<usize>,
    /// Milliseconds measured
    #[arg(long, default_value_t = 2_000)]
    pub(crate) measure_ms: u64,
    /// Milliseconds of load before that
    #[arg(long, default_value_t = 500)]
    pub(crate) warm_up_ms: u64,
}

/// Makes the run.
pub(crate) fn run(load: &Load) -> Result<Sample, String> {
    // One thread serves any number of connections with the least work; within one process replicas need all cores.
    let mut runtime = if load.target.is_in_process() {
        let mut threads = tokio::runtime::Builder::new_multi_thread();
        if let Some(workers) = load.workers {
            threads.worker_threads(workers.max(1));
        }
        threads
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    let runtime = runtime.enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(async {
        match load.target {
            Target::InProcessPlain => in_process::plain(load).await,
            Target::InProcessSessions => in_process::sessions(load).await,
            #[cfg(feature = "openraft")]
            Target::Openraft => openraft::measure(load).await,
            #[cfg(not(feature = "openraft"))]
            Target::Openraft => Err("built without the feature `openraft`".into()),
            Target::Kvrep => drive(load, kvrep::connect(load).await?).await,
            Target::Redis => drive(load, redis::connect(load).await?).await,
            Target::Etcd => drive(load, etcd::connect(load).await?).await,
            Target::Echo => echo::measure(load),
            Target::Sockets => drive(load, sockets::connect(load).await?).await,
        }
    })
}

/// One client.
pub(crate) trait Caller: Send + 'static {
    /// Writes once, and returns when that is acknowledged.
    fn call(&mut self) -> impl Future<Output = Result<(), String>> + Send;
}

/// Lets all clients write until the time is over. The first failure ends the run.
pub(crate) async fn drive<C: Caller>(load: &Load, callers: Vec<C>) -> Result<Sample, String> {
    let measure = Duration::from_millis(load.measure_ms);
    let from = Instant::now() + Duration::from_millis(load.warm_up_ms);
    let latencies = Arc::new(Latencies::default());
    let mut tasks = JoinSet::new();
    for mut caller in callers {
        let latencies = Arc::clone(&latencies);
        tasks.spawn(async move {
            let mut clock = Clock::new(from, measure, &latencies);
            while clock.runs() {
                caller.call().await?;
            }
            Ok::<(), String>(())
        });
    }
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            ended.map_err(|e| e.to_string())??;
        }
        Ok::<(), String>(())
    };
    let limit = Duration::from_millis(load.warm_up_ms) + measure + STALL_MAX;
    tokio::time::timeout(limit, all)
        .await
        .map_err(|_| "a write was not answered in time".to_owned())??;
    Ok(latencies.sample(measure))
}

/// The times of one client's calls, within the time that counts.
pub(crate) struct Clock<'a> {
    from: Instant,
    to: Instant,
    begun: Option<Instant>,
    block: Vec<u64>,
    latencies: &'a Latencies,
}

impl<'a> Clock<'a> {
    pub(crate) fn new(from: Instant, measure: Duration, latencies: &'a Latencies) -> Self {
        Self {
            from,
            to: from + measure,
            begun: None,
            block: Vec::with_capacity(BLOCK),
            latencies,
        }
    }

    /// Ends the call before, if there was one; whether there is time for another.
    pub(crate) fn runs(&mut self) -> bool {
        let now = Instant::now();
        if let Some(begun) = self.begun.replace(now)
            && now >= self.from
            && now < self.to
        {
            let nanos = (now - begun).as_nanos();
            self.block.push(u64::try_from(nanos).unwrap_or(u64::MAX));
            if self.block.len() == BLOCK {
                self.latencies.take(&mut self.block);
            }
        }
        now < self.to
    }
}

impl Drop for Clock<'_> {
    fn drop(&mut self) {
        self.latencies.take(&mut self.block);
    }
}

/// The keys that are written to, in turn; each client begins elsewhere.
pub(crate) struct Keys(u32);

impl Keys {
    pub(crate) fn of_client(client: u32) -> Self {
        Self(client.wrapping_mul(7_919) % KEYS)
    }

    /// The next key: twelve bytes.
    pub(crate) fn next(&mut self) -> [u8; 12] {
        self.0 = (self.0 + 1) % KEYS;
        let mut key = *b"key:00000000";
        let mut rest = self.0;
        for digit in key[4..].iter_mut().rev() {
            *digit += (rest % 10) as u8;
            rest /= 10;
        }
        key
    }
}

/// Keys in the store.
pub(crate) const KEYS: u32 = 10_000;
/// Bytes of a value.
pub(crate) const VALUE_BYTES: usize = 256;
/// Latencies that a client keeps before it hands them over.
const BLOCK: usize = 128;
/// How much longer than the measurement one call may take before the run is given up.
const STALL_MAX: Duration = Duration::from_secs(10);
