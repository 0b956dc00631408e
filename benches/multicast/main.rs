//! `multicast`: what the multicast transport carries beside bare sockets, and what a group over it orders.
//!
//! A datagram goes to the group, and one that hears it answers the sender alone: on the one side sockets and nothing else, on the other two transports.
//! With one under way it is the round trip, with many the rate. Then three replicas of the passive scheme over the same transport, beside the same with a
//! network that loses and reorders frames; and three members of the active scheme's order, which over multicast is the log of a passive group, beside the
//! bare sockets. All over the loopback interface; contestants take turns within one run, and what counts is the ratio.

mod bare;
mod group;
mod order;
mod ours;
mod pending;
mod report;

use clap::Parser;
use group::Network;
use kvrep_benches::load::{Plan, Sample, Turns, calmest, median, turn};
use kvrep_benches::program::measured;
use kvrep_transport_multicast::MulticastConfig;
use report::Report;
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
    /// Messages of all members under way to their order
    #[arg(long, value_name = "N", default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    messages: u32,
    /// JSON at the end instead of the table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    turns: Turns,
}

const EXAMPLES: &str = "\
Examples:
  cargo run --release -p kvrep-benches --bin multicast
  cargo run --release -p kvrep-benches --bin multicast -- --bytes 64 --rounds 3
  cargo run --release -p kvrep-benches --bin multicast -- --json > multicast.json

Exit code: 0, or 1 if something could not be measured.";

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut threads = Builder::new_multi_thread();
    measured("multicast", threads.worker_threads(2), measure(&cli))
}

async fn measure(cli: &Cli) -> Result<(), String> {
    let mut report = if cli.json {
        Report::Json(Vec::new())
    } else {
        Report::Table
    };
    report
        .section("to the group and back to one, over the loopback interface; round trips a second");
    for bytes in &cli.bytes {
        for under_way in [1, cli.window] {
            let plan = cli.turns.plan(under_way);
            contest(usize::from(*bytes), &plan, &mut report).await?;
        }
    }
    report.section("three replicas, passive scheme, in memory; acknowledged writes a second");
    for under_way in [1, cli.writes] {
        writes(&cli.turns.plan(under_way), &mut report).await?;
    }
    report.section(
        "three members, the active scheme's order; messages a second that all three were delivered, beside round trips of bare sockets"
    );
    for bytes in &cli.bytes {
        for under_way in [1, cli.messages] {
            let bare = if under_way == 1 { 1 } else { cli.window };
            let plan = cli.turns.plan(under_way);
            order(usize::from(*bytes), &plan, bare, &mut report).await?;
        }
    }
    report.end()
}

async fn writes(plan: &Plan, report: &mut Report) -> Result<(), String> {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        for (network, samples) in [(Network::AsItIs, &mut good), (Network::Impaired, &mut bad)] {
            let group = group::start(config()?, network).await?;
            samples.push(turn(group.callers(plan.clients), plan).await?);
            group.stop().await?;
        }
    }
    let (good, bad) = (judge(good, plan.clients)?, judge(bad, plan.clients)?);
    let what = format!("{} under way", plan.clients);
    report.row(&what, &good, None);
    let worse = format!("{what}: 10 % lost, 10 % overtaken");
    report.row(&worse, &bad, Some(&good));
    Ok(())
}

async fn order(
    bytes: usize,
    plan: &Plan,
    bare_under_way: u32,
    report: &mut Report,
) -> Result<(), String> {
    let (mut bare, mut ordered) = (Vec::new(), Vec::new());
    let (mut messages, mut entries) = (0, 0);
    for _ in 0..plan.rounds {
        let contestant = bare::start(&config()?)?;
        bare.push(turn(contestant.callers(bare_under_way, bytes), plan).await?);
        let contestant = order::start(config()?).await?;
        let before = contestant.progress().await?;
        ordered.push(turn(contestant.callers(plan.clients, bytes), plan).await?);
        let after = contestant.progress().await?;
        messages += after.0 - before.0;
        entries += after.1 - before.1;
        contestant.stop().await;
    }
    let (bare, ordered) = (judge(bare, plan.clients)?, judge(ordered, plan.clients)?);
    let what = format!("{bytes} bytes, {bare_under_way} under way: bare");
    report.row(&what, &bare, None);
    let what = format!("{bytes} bytes, {} under way: ordered", plan.clients);
    let batch = messages as f64 / entries.max(1) as f64;
    report.batched(&what, &ordered, Some(&bare), Some(batch));
    Ok(())
}

async fn contest(bytes: usize, plan: &Plan, report: &mut Report) -> Result<(), String> {
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        let contestant = bare::start(&config()?)?;
        bare.push(turn(contestant.callers(plan.clients, bytes), plan).await?);
        let contestant = ours::start(unpaced()?).await?;
        ours.push(turn(contestant.callers(plan.clients, bytes), plan).await?);
        contestant.stop().await;
    }
    let (bare, ours) = (judge(bare, plan.clients)?, judge(ours, plan.clients)?);
    let what = format!("{bytes} bytes, {} under way", plan.clients);
    report.row(&format!("{what}: bare"), &bare, None);
    report.row(&format!("{what}: kvrep"), &ours, Some(&bare));
    Ok(())
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

/// Sockets have no pace: beside them the transport has none that they could outrun.
fn unpaced() -> Result<MulticastConfig, String> {
    let mut config = config()?;
    config.limits.bytes_per_second_max = 10_000_000_000;
    Ok(config)
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
