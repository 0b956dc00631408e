//! A crowd of bad connections at the primary, while healthy clients work.
//!
//! Of a thousand connections some say nothing, some send a request a byte at a time, some announce a large request and
//! send little of it, some ask for much and never read the answers. Besides, others connect, send garbage, and come
//! again. What is judged: the primary's memory grows by at most 64 MiB, every healthy operation is answered, and none
//! takes longer than 2 s.

use crate::args::ConfirmArg;
use crate::group::{Group, Plan};
use crate::lists::Query;
use crate::load::{Ended, Load, Recorded, Workload};
use crate::memory::{Watch, most};
use crate::network::Kind;
use crate::serve::Scale;
use kvrep_core::client_wire::{Op, Request};
use kvrep_core::random::Rng;
use kvrep_core::state_machine::encode;
use kvrep_core::wire::{FrameKind, encode_frame};
use kvrep_core::{Authority, Read};
use serde::Serialize;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// How much.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flood {
    pub(crate) connections: u64,
    pub(crate) garbage_writers: u64,
    pub(crate) lasts: Duration,
}

/// What was seen.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Flooded {
    pub(crate) connections: u64,
    pub(crate) made: u64,
    pub(crate) garbage_connections: u64,
    pub(crate) garbage_bytes: u64,
    pub(crate) answered_per_second_before: u64,
    pub(crate) answered_per_second_during: u64,
    pub(crate) longest_during_ms: u64,
    pub(crate) not_answered: usize,
    pub(crate) resident_before_bytes: u64,
    pub(crate) resident_during_bytes: u64,
    pub(crate) violations: Vec<String>,
}

const SETTLED_WITHIN: Duration = Duration::from_secs(30);
const WARM: Duration = Duration::from_secs(4);
const GROWTH_BYTES_MAX: u64 = 64 << 20;
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);

#[derive(Default)]
struct Counted {
    made: AtomicU64,
    garbage_connections: AtomicU64,
    garbage_bytes: AtomicU64,
}

impl Flood {
    /// Does it once.
    ///
    /// # Errors
    /// When it could not run.
    pub(crate) async fn run(&self, directory: &Path) -> Result<Flooded, String> {
        more_files(self.connections * 2 + 1_024)?;
        let mut group = Group::new(Plan {
            directory: directory.to_owned(),
            replicas: 3,
            authority: Authority::Witness,
            network: Kind::Loopback,
            suspect_after: Duration::from_secs(1),
            confirm: ConfirmArg::Round,
            scale: Scale::Steady,
        })?;
        group.start()?;
        let (primary, _) = group.in_sync(SETTLED_WITHIN).await?;
        let pid = group.pid(primary).ok_or("the primary does not run")?;
        let address = group.network.addresses()[&primary];
        let workload = Workload {
            clients: 12,
            pause: Duration::from_millis(4),
            deadline: Duration::from_secs(10),
            padding_bytes: 0,
            seed: 1,
        };
        let load = Load::start(workload, &group.client_addresses());
        let watch = Watch::start(pid, load.began());
        sleep(WARM).await;
        let begin = load.began().elapsed();
        let counted = Arc::new(Counted::default());
        let crowd = self.crowd(address, Arc::clone(&counted));
        sleep(self.lasts).await;
        let end = load.began().elapsed();
        crowd.await.map_err(|e| e.to_string())??;
        let recorded = load.finish().await?;
        let seen = watch.finish().await?;
        group.in_sync(SETTLED_WITHIN).await?;
        group.stop().await;

        let before = of(&recorded, begin / 2, begin);
        let during = of(&recorded, begin, end);
        let answered = |all: &[&Recorded]| all.iter().filter_map(|r| took(r)).count() as f64;
        let longest = during
            .iter()
            .filter_map(|r| took(r))
            .max()
            .unwrap_or_default();
        let not_answered = during.iter().filter(|r| took(r).is_none()).count();
        let resident = [(begin / 2, begin), (begin, end)].map(|(a, b)| most(&seen, a, b));
        let mut violations = Vec::new();
        if resident[1] > resident[0] + GROWTH_BYTES_MAX {
            let (a, b) = (resident[0] >> 20, resident[1] >> 20);
            violations.push(format!("the primary's memory grew from {a} to {b} MiB"));
        }
        if not_answered > 0 || during.is_empty() {
            violations.push(format!(
                "{not_answered} healthy operations were not answered"
            ));
        }
        if longest > ANSWERED_WITHIN {
            violations.push(format!("a healthy operation took {longest:?}"));
        }
        Ok(Flooded {
            connections: self.connections,
            made: counted.made.load(Ordering::Relaxed),
            garbage_connections: counted.garbage_connections.load(Ordering::Relaxed),
            garbage_bytes: counted.garbage_bytes.load(Ordering::Relaxed),
            answered_per_second_before: (answered(&before) / (begin / 2).as_secs_f64()) as u64,
            answered_per_second_during: (answered(&during) / (end - begin).as_secs_f64()) as u64,
            longest_during_ms: longest.as_millis() as u64,
            not_answered,
            resident_before_bytes: resident[0],
            resident_during_bytes: resident[1],
            violations,
        })
    }
}

impl Flood {
    /// The bad ones, for as long as it lasts; on a thread of their own, so that the healthy clients do not wait for them.
    fn crowd(
        self,
        address: SocketAddr,
        counted: Arc<Counted>,
    ) -> tokio::task::JoinHandle<Result<(), String>> {
        tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let runtime = runtime.map_err(|e| format!("cannot start: {e}"))?;
            runtime.block_on(async {
                let mut crowd = JoinSet::new();
                for n in 0..self.connections {
                    crowd.spawn(bad(n, address, Arc::clone(&counted)));
                }
                for n in 0..self.garbage_writers {
                    crowd.spawn(garbage(n, address, Arc::clone(&counted)));
                }
                sleep(self.lasts).await;
                crowd.shutdown().await;
            });
            Ok(())
        })
    }
}

fn of(recorded: &[Recorded], from: Duration, to: Duration) -> Vec<&Recorded> {
    let within = |r: &&Recorded| (from..to).contains(&r.invoked);
    recorded.iter().filter(within).collect()
}

fn took(recorded: &Recorded) -> Option<Duration> {
    match &recorded.ended {
        Ended::Answered(answered) => Some(answered.at - recorded.invoked),
        Ended::Unknown | Ended::Refused => None,
    }
}

/// One bad connection; made again when it is closed.
async fn bad(n: u64, address: SocketAddr, counted: Arc<Counted>) {
    loop {
        if let Ok(Ok(stream)) = timeout(Duration::from_secs(5), TcpStream::connect(address)).await {
            counted.made.fetch_add(1, Ordering::Relaxed);
            match n % 4 {
                0 => silent(stream).await,
                1 => slow(stream, &status(n)).await,
                2 => slow(stream, &large(n)).await,
                _ => never_reads(stream).await,
            }
        }
        sleep(Duration::from_millis(200)).await;
    }
}

async fn silent(mut stream: TcpStream) {
    // Until it is closed.
    while matches!(stream.read(&mut [0; 64]).await, Ok(1..)) {}
}

async fn slow(mut stream: TcpStream, bytes: &[u8]) {
    for byte in bytes {
        if stream.write_all(&[*byte]).await.is_err() {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    silent(stream).await;
}

fn status(id: u64) -> Vec<u8> {
    let op = Op::Status;
    Request { id, op }.to_frame().to_vec()
}

/// A good first request, and then one of a mebibyte that hardly begins.
fn large(id: u64) -> Vec<u8> {
    let mut bytes = status(id);
    let body = vec![0; 1 << 20];
    bytes.extend_from_slice(&encode_frame(FrameKind::Request, &body)[..200]);
    bytes
}

/// Asks and asks. (Little enough that answering is no work: the point is what piles up.)
async fn never_reads(mut stream: TcpStream) {
    for id in 0.. {
        let (after, ids) = (None, 2_000);
        let query = encode(&Query::Page { after, ids });
        let read = Read::Local;
        let op = Op::Query { read, query };
        let frame = Request { id, op }.to_frame();
        let sent = stream.write_all(&frame);
        if !matches!(timeout(Duration::from_secs(30), sent).await, Ok(Ok(()))) {
            return;
        }
        sleep(Duration::from_millis(500)).await;
    }
}

async fn garbage(n: u64, address: SocketAddr, counted: Arc<Counted>) {
    let mut random = Rng::new(n);
    let mut bytes: Vec<u8> = (0..2_048)
        .flat_map(|_| random.next().to_be_bytes())
        .collect();
    if random.one_in(2) {
        // It begins like a frame.
        bytes.splice(..16, encode_frame(FrameKind::Request, &[]));
    }
    loop {
        if let Ok(mut stream) = TcpStream::connect(address).await {
            counted.garbage_connections.fetch_add(1, Ordering::Relaxed);
            while stream.write_all(&bytes).await.is_ok() {
                let written = bytes.len() as u64;
                counted.garbage_bytes.fetch_add(written, Ordering::Relaxed);
            }
        }
        sleep(Duration::from_millis(2)).await;
    }
}

/// Lets this process and those that it starts have more files open.
fn more_files(wanted: u64) -> Result<(), String> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    if now.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let current = Some(now.maximum.map_or(wanted, |maximum| maximum.min(wanted)));
    let maximum = now.maximum;
    setrlimit(Resource::Nofile, Rlimit { current, maximum })
        .map_err(|e| format!("{wanted} open files are needed: {e}"))
}

/// For people.
pub(crate) fn text(f: &Flooded) -> String {
    let mib = |bytes: u64| bytes >> 20;
    let verdict = if f.violations.is_empty() {
        "held".into()
    } else {
        f.violations.join("; ")
    };
    format!(
        "{} bad connections at a time ({} made), {} with garbage ({} MiB)\n\
         healthy operations per second   {} before, {} during\n\
         healthy operations              {} not answered, longest {} ms\n\
         primary's memory                {} MiB before, {} MiB during\n\
         verdict                         {verdict}",
        f.connections,
        f.made,
        f.garbage_connections,
        mib(f.garbage_bytes),
        f.answered_per_second_before,
        f.answered_per_second_during,
        f.not_answered,
        f.longest_during_ms,
        mib(f.resident_before_bytes),
        mib(f.resident_during_bytes),
    )
}
