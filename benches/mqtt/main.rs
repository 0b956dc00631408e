//! `mqtt`: what a group of the active scheme carries through a broker, beside the broker itself with the same client library.
//!
//! Three subscribers take every request, and one of them answers it: on the one side three replicas and their clients, on the other three bare
//! connections that do nothing else. Both carry the same number of requests and answers, each a publication of its own, at QoS 1; then the group once more
//! with several requests in a publication. Contestants take turns within one run; what counts is the ratio.

mod bare;
mod broker;
mod group;

use broker::Broker;
use clap::{Parser, Subcommand, ValueEnum};
use group::Batching;
use kvrep_benches::load::{Caller, Plan, Sample, Turns, calmest, median, row, turn};
use kvrep_benches::program::measured;
use std::process::ExitCode;
use tokio::runtime::Builder;

/// What a group of the active scheme carries through a broker, beside the bare broker.
#[derive(Parser)]
#[command(name = "mqtt", version, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    role: Option<Role>,
    /// Which broker
    #[arg(long, value_enum, default_value_t = Which::Embedded)]
    broker: Which,
    /// Clients that publish requests
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [1, 4])]
    publishers: Vec<u32>,
    /// Bytes of a request
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [64, 256])]
    bytes: Vec<usize>,
    /// Requests of all clients under way, where each is a publication
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(4..=100_000))]
    window: u32,
    /// Requests of all clients under way, where several are one
    #[arg(long, value_name = "N", default_value_t = 8_192, value_parser = clap::value_parser!(u32).range(4..=100_000))]
    batched_window: u32,
    #[command(flatten)]
    turns: Turns,
}

const EXAMPLES: &str = "\
Examples:
  cargo run --release -p kvrep-benches --bin mqtt
  cargo run --release -p kvrep-benches --bin mqtt -- --broker mosquitto --publishers 1 --bytes 64

The broker is a process of its own; mosquitto has its limits raised. Exit code: 0, or 1 if something could not be measured.";

#[derive(Subcommand)]
enum Role {
    /// Runs the embedded broker (the program starts itself so)
    #[command(hide = true)]
    Broker,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
enum Which {
    /// The one of the library
    Embedded,
    /// The one on the PATH
    Mosquitto,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(Role::Broker) = cli.role {
        return broker::serve();
    }
    let mut threads = Builder::new_multi_thread();
    measured("mqtt", threads.worker_threads(2), measure(&cli))
}

async fn measure(cli: &Cli) -> Result<(), String> {
    let broker = Broker::start(cli.broker)?;
    println!(
        "{:?} broker, QoS 1, three replicas (subscribers); answered requests a second",
        cli.broker
    );
    let plan = |clients| cli.turns.plan(clients);
    for bytes in &cli.bytes {
        for publishers in &cli.publishers {
            contest(
                &broker,
                (*publishers, *bytes),
                &plan(cli.window),
                cli.batched_window,
            )
            .await?;
        }
    }
    one_by_one(&broker, &plan(1)).await
}

/// Throughput.
async fn contest(
    broker: &Broker,
    (publishers, bytes): (u32, usize),
    plan: &Plan,
    batched_window: u32,
) -> Result<(), String> {
    let batched = Plan {
        clients: batched_window,
        ..*plan
    };
    let (mut bare, mut single, mut several) = (Vec::new(), Vec::new(), Vec::new());
    let mut fenced = 0;
    for _ in 0..plan.rounds {
        let contestant = bare::start(broker, publishers).await?;
        bare.push(run(contestant.callers(plan.clients, bytes), plan).await?);
        drop(contestant);
        let contestant = group::start(broker, publishers, Batching::Off).await?;
        single.push(run(contestant.callers(plan.clients, bytes), plan).await?);
        fenced += contestant.stop().await?;
        let contestant = group::start(broker, publishers, Batching::On).await?;
        several.push(run(contestant.callers(batched.clients, bytes), &batched).await?);
        fenced += contestant.stop().await?;
    }
    let nothing = "nothing was measured";
    let bare = median(bare).ok_or(nothing)?;
    let what = format!("{publishers} publishers, {bytes} bytes");
    println!("{}", row(&format!("{what}: bare"), &bare, None));
    let single = median(single).ok_or(nothing)?;
    println!("{}", row(&format!("{what}: kvrep"), &single, Some(&bare)));
    let several = median(several).ok_or(nothing)?;
    println!(
        "{}",
        row(&format!("{what}: kvrep, batched"), &several, Some(&bare))
    );
    if fenced > 0 {
        println!("(no fair figures: replicas were taken for dead {fenced} times)");
    }
    Ok(())
}

/// Latency of one request at a time.
async fn one_by_one(broker: &Broker, plan: &Plan) -> Result<(), String> {
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        let contestant = bare::start(broker, 1).await?;
        bare.push(run(contestant.callers(1, 64), plan).await?);
        drop(contestant);
        let contestant = group::start(broker, 1, Batching::On).await?;
        ours.push(run(contestant.callers(1, 64), plan).await?);
        contestant.stop().await?;
    }
    let nothing = "nothing was measured";
    let (bare, ours) = (calmest(bare).ok_or(nothing)?, calmest(ours).ok_or(nothing)?);
    println!("{}", row("one client, 64 bytes: bare", &bare, None));
    println!(
        "{}",
        row("one client, 64 bytes: kvrep write", &ours, Some(&bare))
    );
    println!(
        "a write takes {:.2} times two publish-to-subscribe round trips",
        ours.p50.as_secs_f64() / bare.p50.as_secs_f64()
    );
    Ok(())
}

async fn run<C: Caller>(callers: Vec<C>, plan: &Plan) -> Result<Sample, String> {
    turn(callers, plan).await
}
