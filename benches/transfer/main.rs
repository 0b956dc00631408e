//! A new replica takes over a large state over TCP while clients write: how long it takes, beside what the loopback can
//! carry, and what it costs the clients.
//!
//! Three processes: the primary and a backup, filled first, and a newcomer that starts while clients (in this process)
//! write. Measured in one run: the clients' latencies before, during and after the transfer; at the newcomer the time to
//! receive the snapshot (from its first piece to all of it durable), to load it into the state machine, from its start to
//! either and to its membership; at the primary the time to freeze and to write such a snapshot, which it does now and then
//! whether anybody comes or not; and the rate of a bare TCP copy of as many bytes between two processes under the same load.
//!
//! What is judged against the bare copy is receiving; the rest stands beside it.

mod copy;
mod node;
mod state;

use clap::{Parser, Subcommand};
use kvrep_core::node::{Client, ClientOptions};
use kvrep_transport_tcp::TcpGroupLink;
use node::{Child, GROUP, Snapshots};
use state::{Command, SHARD_BYTES, Sharded};
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// How fast a new replica takes over a large state while clients write
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:\n  transfer\n  transfer --state-mib 256 --clients 16 --durable target/transfer"
)]
struct Args {
    /// Size of the state
    #[arg(long, default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(1..=16_384))]
    state_mib: u32,
    /// Clients that write, each with its own connection
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4_096))]
    clients: u32,
    /// Bytes of a written value
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    value_bytes: u32,
    /// Keep logs and snapshots below this directory, made durable; in memory without it
    #[arg(long, value_name = "DIR")]
    durable: Option<PathBuf>,
    /// One JSON object instead of the table
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Subcommand)]
enum Role {
    /// One replica (started by this program itself)
    #[command(hide = true)]
    Node(node::NodeArgs),
    /// One end of the bare copy (started by this program itself)
    #[command(hide = true)]
    Sink,
}

/// For everything that should happen soon.
const PATIENCE: Duration = Duration::from_secs(120);

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    match args.role {
        Some(Role::Node(node)) => runtime.block_on(node::serve(node)),
        Some(Role::Sink) => copy::sink(),
        None => runtime.block_on(measure(args)),
    }
}

async fn measure(args: Args) -> Result<(), Box<dyn Error>> {
    let addresses = node::free_addresses(3)?;
    let mut children = Vec::new();
    for id in 1..=3 {
        children.push(Child::start(id, &addresses, args.durable.as_deref())?);
    }
    for child in &mut children {
        timeout(PATIENCE, child.said("in sync")).await??;
    }
    // The last one loses everything and comes back later as a new replica.
    if let Some(last) = children.pop() {
        last.kill().await?;
    }
    if let Some(data) = &args.durable {
        std::fs::remove_dir_all(data.join("3"))?;
    }
    fill(&addresses, args.state_mib).await?;
    eprintln!("filled; the clients begin");

    let load = Load::start(&addresses, args.clients, args.value_bytes as usize);
    sleep(Duration::from_secs(2)).await; // warm
    load.window();
    sleep(Duration::from_secs(4)).await;
    let before = load.window();

    let bytes = u64::from(args.state_mib) << 20;
    let bare = tokio::task::spawn_blocking(move || copy::bare(bytes)).await??;
    let beside_bare = load.window();

    let began = Instant::now();
    let mut newcomer = Child::start(3, &addresses, args.durable.as_deref())?;
    let up = timeout(PATIENCE, newcomer.said("up")).await??;
    let loaded = newcomer.told("loaded");
    let (loaded, [received_bytes, receive_micros, load_micros]) =
        timeout(PATIENCE, loaded).await??;
    let during = load.window();
    let joined = timeout(PATIENCE, newcomer.said("in sync")).await??;
    let whole = began.elapsed();
    let catching_up = load.window();
    sleep(Duration::from_secs(2)).await;
    let after = load.window();
    load.stop().await?;

    let mut snapshots = Snapshots::default();
    for child in children {
        if let Some(of_primary) = timeout(PATIENCE, child.end()).await?? {
            snapshots = of_primary;
        }
    }
    let seconds_receiving = receive_micros as f64 / 1e6;
    let report = Report {
        state_bytes: bytes,
        received_bytes,
        snapshots,
        seconds_receiving,
        seconds_loading: load_micros as f64 / 1e6,
        seconds_to_loaded: loaded.saturating_sub(up) as f64 / 1e6,
        seconds_to_in_sync: joined.saturating_sub(up) as f64 / 1e6,
        seconds_with_start: whole.as_secs_f64(),
        bytes_per_s: received_bytes as f64 / seconds_receiving,
        bare_bytes_per_s: bare,
        before,
        beside_bare,
        during,
        catching_up,
        after,
    };
    report.print(args.json);
    Ok(())
}

/// Brings the state to its size.
async fn fill(addresses: &[String], mib: u32) -> Result<(), Box<dyn Error>> {
    let link = TcpGroupLink::new(GROUP, addresses[..2].iter().cloned());
    let mut options = ClientOptions::default();
    options.deadline = PATIENCE;
    let client = Client::<Sharded>::with_options(link, options);
    for shard in 0..mib * ((1 << 20) / SHARD_BYTES as u32) {
        let block = state::block(shard);
        client.execute(Command::Fill { shard, block }).await?;
    }
    Ok(())
}

/// Latencies seen in a stretch of time.
struct Window {
    writes: usize,
    seconds: f64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

struct Load {
    seen: Arc<std::sync::Mutex<(Instant, Vec<Duration>)>>,
    enough: Arc<AtomicBool>,
    clients: JoinSet<Result<(), String>>,
}

impl Load {
    fn start(addresses: &[String], clients: u32, value_bytes: usize) -> Self {
        let seen = Arc::new(std::sync::Mutex::new((Instant::now(), Vec::new())));
        let enough = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for id in 0..clients {
            let link = TcpGroupLink::new(GROUP, addresses[..2].iter().cloned());
            let client = Client::<Sharded>::new(link);
            let (seen, enough) = (Arc::clone(&seen), Arc::clone(&enough));
            tasks.spawn(async move {
                let mut key = id;
                while !enough.load(Ordering::Relaxed) {
                    key = key.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let value = vec![key as u8; value_bytes].into();
                    let began = Instant::now();
                    let key = key % 100_000;
                    let written = client.execute(Command::Put { key, value }).await;
                    written.map_err(|e| e.to_string())?;
                    let mut seen = seen.lock().map_err(|e| e.to_string())?;
                    seen.1.push(began.elapsed());
                }
                Ok(())
            });
        }
        Self {
            seen,
            enough,
            clients: tasks,
        }
    }

    /// What was seen since the last call.
    fn window(&self) -> Window {
        let now = Instant::now();
        let (began, mut times) = {
            let mut seen = self.seen.lock().unwrap_or_else(|e| e.into_inner());
            std::mem::replace(&mut *seen, (now, Vec::new()))
        };
        times.sort_unstable();
        let at = |share: f64| {
            let index = ((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1));
            times.get(index).map_or(f64::NAN, |t| t.as_secs_f64() * 1e3)
        };
        Window {
            writes: times.len(),
            seconds: (now - began).as_secs_f64(),
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            max_ms: at(1.0),
        }
    }

    async fn stop(mut self) -> Result<(), Box<dyn Error>> {
        self.enough.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended??;
        }
        Ok(())
    }
}

struct Report {
    state_bytes: u64,
    received_bytes: u64,
    snapshots: Snapshots,
    seconds_receiving: f64,
    seconds_loading: f64,
    seconds_to_loaded: f64,
    seconds_to_in_sync: f64,
    seconds_with_start: f64,
    bytes_per_s: f64,
    bare_bytes_per_s: f64,
    before: Window,
    beside_bare: Window,
    during: Window,
    catching_up: Window,
    after: Window,
}

impl Report {
    fn print(&self, json: bool) {
        let share = self.bytes_per_s / self.bare_bytes_per_s;
        let slower = self.during.p99_ms / self.before.p99_ms;
        let slower_later = self.catching_up.p99_ms / self.before.p99_ms;
        let windows = [
            ("before", &self.before),
            ("during the bare copy", &self.beside_bare),
            ("until it is loaded", &self.during),
            ("until it is in sync", &self.catching_up),
            ("afterwards", &self.after),
        ];
        if json {
            let windows: Vec<_> = windows
                .iter()
                .map(|(name, w)| {
                    format!(
                        "{{\"when\":\"{name}\",\"writes_per_s\":{:.0},\"p50_ms\":{:.3},\"p99_ms\":{:.3},\"max_ms\":{:.3}}}",
                        w.writes as f64 / w.seconds, w.p50_ms, w.p99_ms, w.max_ms
                    )
                })
                .collect();
            println!(
                "{{\"state_bytes\":{},\"received_bytes\":{},\"snapshots\":{},\"freeze_seconds\":{:.6},\"write_seconds\":{:.3},\"seconds_receiving\":{:.3},\"seconds_loading\":{:.3},\"seconds_to_loaded\":{:.3},\"seconds_to_in_sync\":{:.3},\"bytes_per_s\":{:.0},\"bare_bytes_per_s\":{:.0},\"share\":{share:.3},\"p99_ratio\":{slower:.2},\"p99_ratio_catching_up\":{slower_later:.2},\"windows\":[{}]}}",
                self.state_bytes,
                self.received_bytes,
                self.snapshots.written,
                self.snapshots.freeze_micros as f64 / 1e6,
                self.snapshots.write_micros as f64 / 1e6,
                self.seconds_receiving,
                self.seconds_loading,
                self.seconds_to_loaded,
                self.seconds_to_in_sync,
                self.bytes_per_s,
                self.bare_bytes_per_s,
                windows.join(",")
            );
            return;
        }
        println!(
            "{:<22} {:>10} {:>9} {:>9} {:>9}",
            "clients", "writes/s", "p50 ms", "p99 ms", "max ms"
        );
        for (name, w) in windows {
            println!(
                "{name:<22} {:>10.0} {:>9.2} {:>9.2} {:>9.2}",
                w.writes as f64 / w.seconds,
                w.p50_ms,
                w.p99_ms,
                w.max_ms
            );
        }
        let mb = |bytes_per_s: f64| bytes_per_s / 1e6;
        println!(
            "\nat the primary: {} snapshots of the state; the last was frozen in {:.6} s and written in {:.2} s",
            self.snapshots.written,
            self.snapshots.freeze_micros as f64 / 1e6,
            self.snapshots.write_micros as f64 / 1e6
        );
        println!(
            "at the newcomer: {} bytes received in {:.2} s, loaded in {:.2} s; loaded {:.2} s and in sync {:.2} s after it was up (with its process's start {:.2} s)",
            self.received_bytes,
            self.seconds_receiving,
            self.seconds_loading,
            self.seconds_to_loaded,
            self.seconds_to_in_sync,
            self.seconds_with_start
        );
        println!(
            "received at {:.0} MB/s, bare TCP copy under the same load {:.0} MB/s: {share:.2} of it (wanted: at least 0.40)",
            mb(self.bytes_per_s),
            mb(self.bare_bytes_per_s)
        );
        println!(
            "p99 until it is loaded is {slower:.2} times that before (wanted: at most 2), until it is in sync {slower_later:.2} times"
        );
    }
}
