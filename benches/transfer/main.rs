//! A new replica takes over a large state over TCP while clients write: how long it takes, beside what the loopback can
//! carry, and what it costs the clients.
//!
//! Three processes: the primary and a backup, filled first, and a newcomer that starts while clients (in this process)
//! write. Measured in one run: the clients' latencies before and during the transfer, the time from the newcomer's start to
//! the installed snapshot and to its membership, and the rate of a bare TCP copy of as many bytes between two processes
//! under the same load.

mod copy;
mod node;
mod state;

use clap::{Parser, Subcommand};
use kvrep_core::node::{Client, ClientOptions};
use kvrep_transport_tcp::TcpGroupLink;
use node::{Child, GROUP};
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
    let installed = timeout(PATIENCE, newcomer.said("installed")).await??;
    let during = load.window();
    let joined = timeout(PATIENCE, newcomer.said("in sync")).await??;
    let whole = began.elapsed();
    load.window();
    sleep(Duration::from_secs(2)).await;
    let after = load.window();
    load.stop().await?;

    let took = installed.saturating_sub(up) as f64 / 1e6;
    let ours = bytes as f64 / took;
    let report = Report {
        state_bytes: bytes,
        seconds_to_installed: took,
        seconds_to_in_sync: joined.saturating_sub(up) as f64 / 1e6,
        seconds_with_start: whole.as_secs_f64(),
        bytes_per_s: ours,
        bare_bytes_per_s: bare,
        before,
        beside_bare,
        during,
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
    seconds_to_installed: f64,
    seconds_to_in_sync: f64,
    seconds_with_start: f64,
    bytes_per_s: f64,
    bare_bytes_per_s: f64,
    before: Window,
    beside_bare: Window,
    during: Window,
    after: Window,
}

impl Report {
    fn print(&self, json: bool) {
        let share = self.bytes_per_s / self.bare_bytes_per_s;
        let slower = self.during.p99_ms / self.before.p99_ms;
        let windows = [
            ("before", &self.before),
            ("during the bare copy", &self.beside_bare),
            ("during the transfer", &self.during),
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
                "{{\"state_bytes\":{},\"seconds_to_installed\":{:.3},\"seconds_to_in_sync\":{:.3},\"bytes_per_s\":{:.0},\"bare_bytes_per_s\":{:.0},\"share\":{share:.3},\"p99_ratio\":{slower:.2},\"windows\":[{}]}}",
                self.state_bytes,
                self.seconds_to_installed,
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
            "\nstate of {} bytes: installed after {:.2} s, in sync after {:.2} s (with its process's start {:.2} s)",
            self.state_bytes,
            self.seconds_to_installed,
            self.seconds_to_in_sync,
            self.seconds_with_start
        );
        println!(
            "transfer {:.0} MB/s, bare TCP copy under the same load {:.0} MB/s: {share:.2} of it (wanted: at least 0.40)",
            mb(self.bytes_per_s),
            mb(self.bare_bytes_per_s)
        );
        println!("p99 during the transfer is {slower:.2} times that before (wanted: at most 2)");
    }
}
