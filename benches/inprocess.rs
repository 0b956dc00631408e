//! How many commands a second a group takes whose replicas live in one process: in-memory log, in-memory transport, one
//! session a client, each client waiting for its answer before the next command.

use clap::Parser;
use kvrep_core::node::{Client, ClientOptions, LocalLink, Node};
use kvrep_core::transport::memory::MemoryNetwork;
use kvrep_core::{Authority, Fold, GroupConfig, ReplicaId};
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Commands per second of a group in one process, for several numbers of clients
#[derive(Parser)]
#[command(
    version,
    after_help = "Example:\n  inprocess --replicas 3 --clients 1,64,1024 --seconds 3"
)]
struct Args {
    /// Replicas in the group
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
    replicas: u32,
    /// Concurrent clients, one row each
    #[arg(long, value_delimiter = ',', default_value = "1,64,1024,4096")]
    clients: Vec<u32>,
    /// Seconds measured per row, after half a second of warming up
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// One JSON object per row
    #[arg(long)]
    json: bool,
}

type Counter = Fold<u64, u64>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    if !args.json {
        println!("{:>9} {:>9} {:>14}", "replicas", "clients", "commands/s");
    }
    for clients in &args.clients {
        let rate = measure(args.replicas, *clients, Duration::from_secs(args.seconds)).await?;
        let replicas = args.replicas;
        if args.json {
            println!(
                "{{\"replicas\":{replicas},\"clients\":{clients},\"commands_per_s\":{rate:.0}}}"
            );
        } else {
            println!("{replicas:>9} {clients:>9} {rate:>14.0}");
        }
    }
    Ok(())
}

async fn measure(replicas: u32, clients: u32, time: Duration) -> Result<f64, Box<dyn Error>> {
    let network = MemoryNetwork::new();
    let group = GroupConfig::new((1..=replicas).map(ReplicaId), Authority::Alone);
    let mut nodes = Vec::new();
    for id in group.members.clone() {
        let node = Node::builder("bench", id)
            .group(group.clone())
            .transport(network.transport())
            .state_machine(Counter::new(0, |sum, by| *sum = sum.wrapping_add(by)));
        nodes.push(node.start().await?);
    }
    let link = Arc::new(LocalLink::new(&nodes));
    let done = Arc::new(AtomicU64::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..clients {
        let client = Client::<Counter>::shared(link.clone(), ClientOptions::default());
        let done = Arc::clone(&done);
        tasks.spawn(async move {
            while client.execute(1).await.is_ok() {
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    sleep(Duration::from_millis(500)).await;
    let (before, began) = (done.load(Ordering::Relaxed), Instant::now());
    sleep(time).await;
    let measured = done.load(Ordering::Relaxed) - before;
    let rate = measured as f64 / began.elapsed().as_secs_f64();
    tasks.shutdown().await;
    for node in nodes {
        node.shutdown().await?;
    }
    Ok(rate)
}
