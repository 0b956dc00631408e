//! `multicast`: what the multicast transport carries beside bare sockets, and what a group over it orders.
//!
//! A datagram goes to the group, and one that hears it answers the sender alone: on the one side sockets and nothing else, on the other two transports.
//! With one under way it is the round trip, with many the rate. Then three replicas of the passive scheme over the same transport. All over the
//! loopback interface; contestants take turns within one run, and what counts is the ratio.

mod bare;
mod group;
mod ours;
mod pending;

use clap::Parser;
use kvrep_benches::load::{Caller, Plan, Sample, Turns, calmest, median, row, turn};
use kvrep_benches::program::measured;
use kvrep_transport_multicast::MulticastConfig;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::process::ExitCode;
use tokio::runtime::Builder;

/// What the multicast transport carries beside bare sockets.
#[derive(Parser)]
#[command(name = "multicast", version, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    /// Bytes of what is sent
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [64, 1_024], value_parser = clap::value_parser!(u16).range(8..=1_300))]
    bytes: Vec<u16>,
    /// Datagrams under way
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..=1_000))]
    window: u32,
    /// Writes of all clients under way
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    writes: u32,
    #[command(flatten)]
    turns: Turns,
}

const EXAMPLES: &str = "\
Examples:
  cargo run --release -p kvrep-benches --bin multicast
  cargo run --release -p kvrep-benches --bin multicast -- --bytes 64 --rounds 3

Exit code: 0, or 1 if something could not be measured.";

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut threads = Builder::new_multi_thread();
    measured("multicast", threads.worker_threads(2), measure(&cli))
}

async fn measure(cli: &Cli) -> Result<(), String> {
    println!("to the group and back to one, over the loopback interface; round trips a second");
    for bytes in &cli.bytes {
        for under_way in [1, cli.window] {
            let plan = cli.turns.plan(under_way);
            contest(usize::from(*bytes), &plan).await?;
        }
    }
    println!("three replicas, passive scheme, in memory; acknowledged writes a second");
    for under_way in [1, cli.writes] {
        let plan = cli.turns.plan(under_way);
        let mut samples = Vec::new();
        for _ in 0..plan.rounds {
            let group = group::start(config()?).await?;
            samples.push(turn(group.callers(under_way), &plan).await?);
            group.stop().await?;
        }
        let sample = judge(samples, under_way)?;
        println!(
            "{}",
            row(&format!("{under_way} writes under way"), &sample, None)
        );
    }
    Ok(())
}

async fn contest(bytes: usize, plan: &Plan) -> Result<(), String> {
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        let contestant = bare::start(&config()?)?;
        bare.push(run(contestant.callers(plan.clients, bytes), plan).await?);
        let contestant = ours::start(config()?).await?;
        ours.push(run(contestant.callers(plan.clients, bytes), plan).await?);
        contestant.stop().await;
    }
    let (bare, ours) = (judge(bare, plan.clients)?, judge(ours, plan.clients)?);
    let what = format!("{bytes} bytes, {} under way", plan.clients);
    println!("{}", row(&format!("{what}: bare"), &bare, None));
    println!("{}", row(&format!("{what}: kvrep"), &ours, Some(&bare)));
    Ok(())
}

async fn run<C: Caller>(callers: Vec<C>, plan: &Plan) -> Result<Sample, String> {
    turn(callers, plan).await
}

/// One at a time is a question of latency, many of throughput.
fn judge(samples: Vec<Sample>, under_way: u32) -> Result<Sample, String> {
    let judged = if under_way == 1 {
        calmest(samples)
    } else {
        median(samples)
    };
    judged.ok_or_else(|| "nothing was measured".into())
}

/// A group that nobody else has: its port was free a moment ago.
fn config() -> Result<MulticastConfig, String> {
    let port = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr());
    let port = port
        .map_err(|error| format!("no free port: {error}"))?
        .port();
    let [a, b, ..] = std::process::id().to_le_bytes();
    let group = SocketAddrV4::new(Ipv4Addr::new(239, 255, a, b), port);
    Ok(MulticastConfig::new(group).interface(Ipv4Addr::LOCALHOST))
}
