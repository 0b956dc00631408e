//! How many commands a second a group in one process takes: `inprocess NODES CLIENTS SECONDS [TASKS_PER_SESSION]`.
use kvrep_core::node::{Client, ClientOptions, LocalLink, Node};
use kvrep_core::transport::memory::MemoryNetwork;
use kvrep_core::{ApplyContext, Authority, GroupConfig, ReplicaId, StateMachine};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[derive(Default)]
struct Counter(u64);

impl StateMachine for Counter {
    type Command = u64;
    type Query = ();
    type Response = u64;
    type Snapshot = u64;
    fn apply(&mut self, _: &mut ApplyContext, by: u64) -> u64 {
        self.0 = self.0.wrapping_add(by);
        self.0
    }
    fn query(&self, (): ()) -> u64 {
        self.0
    }
    fn snapshot(&self) -> u64 {
        self.0
    }
    fn restore(&mut self, state: u64) {
        self.0 = state;
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<u64> = std::env::args()
        .skip(1)
        .map(|a| a.parse())
        .collect::<Result<_, _>>()?;
    let (nodes_n, clients, seconds) = (args[0] as u32, args[1], args[2]);
    let shared = args.get(3).copied().unwrap_or(1);
    let network = MemoryNetwork::new();
    let group = GroupConfig::new((1..=nodes_n).map(ReplicaId), Authority::Alone);
    let mut nodes = Vec::new();
    for id in 1..=nodes_n {
        nodes.push(
            Node::builder("bench", ReplicaId(id))
                .group(group.clone())
                .transport(network.transport())
                .state_machine(Counter::default())
                .start()
                .await?,
        );
    }
    let link = Arc::new(LocalLink::new(&nodes));
    let mut session = Client::<Counter>::shared(link.clone(), ClientOptions::default());
    session.execute(0).await?;
    let done = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for n in 0..clients {
        if n % shared == 0 {
            session = Client::shared(link.clone(), ClientOptions::default());
        }
        let client = session.clone();
        let done = done.clone();
        tasks.push(tokio::spawn(async move {
            loop {
                match client.execute(1).await {
                    Ok(_) => drop(done.fetch_add(1, Ordering::Relaxed)),
                    Err(e) => println!("{e}"),
                }
            }
        }));
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = done.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let rate = (done.load(Ordering::Relaxed) - before) / seconds;
    for task in tasks {
        task.abort();
    }
    for node in &nodes {
        let s = node.status();
        println!("{:?} {:?}", s.node, s.transport);
    }
    println!("{nodes_n} nodes, {clients} clients: {rate} commands/s");
    Ok(())
}
