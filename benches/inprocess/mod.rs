//! A group in one process under load: in-memory log, in-memory transport, an empty command, and clients of which each
//! waits for its answer before it asks again.
//!
//! With [`Sessions::Off`] a client is a task that calls the primary's node: each call is sent once, and carried out
//! once for each time it is sent. That is what consensus libraries measure when they call their leader. With
//! [`Sessions::On`] it is a [`Client`] with a session of its own: exactly once, whoever is primary.

use kvrep_core::client_wire::{Op, Outcome};
use kvrep_core::node::{Client, ClientOptions, LocalLink, Node};
use kvrep_core::state_machine::encode;
use kvrep_core::transport::memory::MemoryNetwork;
use kvrep_core::{Authority, Fold, GroupConfig, ReplicaId};
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// Why nothing was measured.
pub type Failed = Box<dyn Error + Send + Sync>;

/// Whether commands belong to sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sessions {
    /// Exactly once, through a client with a session.
    On,
    /// Sent once, to the primary.
    Off,
}

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Replicas in the group.
    pub replicas: u32,
    /// Tasks that ask, one command at a time each.
    pub clients: u32,
    /// How they ask.
    pub sessions: Sessions,
    /// When it ends.
    pub until: Until,
}

/// When a measurement ends.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// After this time, counted from the end of [`WARM_UP`].
    Time(Duration),
    /// When every client has done this many: for counting instructions, where time says nothing.
    Each(u64),
}

/// What came out.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Commands answered while counting.
    pub commands: u64,
    /// How long was counted.
    pub time: Duration,
}

impl Measured {
    /// Commands answered a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.commands as f64 / self.time.as_secs_f64()
    }
}

/// Counts empty commands.
pub type Counter = Fold<u64, ()>;

/// Answers of one client, on a cache line of its own.
#[derive(Default)]
#[repr(align(128))]
struct Done(AtomicU64);

/// Starts a group, loads it, ends it.
///
/// # Errors
/// When it does not start, a command fails, or it does not end in order.
pub async fn measure(load: Load) -> Result<Measured, Failed> {
    let nodes = Arc::new(start(load.replicas).await?);
    let primary = primary_of(&nodes).await?;
    let done: Arc<[Done]> = (0..load.clients).map(|_| Done::default()).collect();
    let mut tasks = JoinSet::new();
    let began = Instant::now();
    let each = match load.until {
        Until::Time(_) => u64::MAX,
        Until::Each(commands) => commands,
    };
    match load.sessions {
        Sessions::On => {
            let link = Arc::new(LocalLink::new(&*nodes));
            for at in 0..done.len() {
                let client = Client::<Counter>::shared(link.clone(), ClientOptions::default());
                let done = Arc::clone(&done);
                tasks.spawn(async move {
                    for _ in 0..each {
                        client.execute(()).await?;
                        done[at].0.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok::<(), Failed>(())
                });
            }
        }
        Sessions::Off => {
            let command = encode(&());
            for at in 0..done.len() {
                let (nodes, command) = (Arc::clone(&nodes), command.clone());
                let done = Arc::clone(&done);
                tasks.spawn(async move {
                    let mut deadline = Instant::now();
                    for call in 0..each {
                        if call.is_multiple_of(256) {
                            deadline = Instant::now() + PATIENCE;
                        }
                        let called = nodes[primary].call(Op::Plain(command.clone()), deadline);
                        match called.await? {
                            Outcome::Done { .. } => done[at].0.fetch_add(1, Ordering::Relaxed),
                            other => return Err(format!("a command ended as {other:?}").into()),
                        };
                    }
                    Ok(())
                });
            }
        }
    }
    let total = || done.iter().map(|d| d.0.load(Ordering::Relaxed)).sum();
    let measured = match load.until {
        Until::Time(time) => {
            sleep(WARM_UP).await;
            let (before, began): (u64, _) = (total(), Instant::now());
            sleep(time).await;
            let (after, time): (u64, _) = (total(), began.elapsed());
            if let Some(ended) = tasks.try_join_next() {
                ended??;
            }
            tasks.shutdown().await;
            Measured {
                commands: after - before,
                time,
            }
        }
        Until::Each(_) => {
            while let Some(ended) = tasks.join_next().await {
                ended??;
            }
            Measured {
                commands: total(),
                time: began.elapsed(),
            }
        }
    };
    for node in Arc::into_inner(nodes).ok_or("a client outlives its task")? {
        node.shutdown().await?;
    }
    Ok(measured)
}

/// A group in this process, as it is measured.
///
/// # Errors
/// When a node does not start.
pub async fn start(replicas: u32) -> Result<Vec<Node>, Failed> {
    let network = MemoryNetwork::new();
    let mut group = GroupConfig::new((1..=replicas).map(ReplicaId), Authority::Alone);
    // A busy machine may let a task wait for long; that is not what is measured here.
    group.timing.suspect_after = PATIENCE / 2;
    // As often as openraft does by default, and as much kept: the state is one number, and a short log stays in the
    // processor's caches.
    group.limits.snapshot_log_entries = 5_000;
    group.limits.retained_entries = 1_000;
    let mut nodes = Vec::new();
    for id in group.members.clone() {
        let node = Node::builder("bench", id)
            .group(group.clone())
            .transport(network.transport())
            .state_machine(Counter::new(0, |sum, ()| *sum = sum.wrapping_add(1)));
        nodes.push(node.start().await?);
    }
    Ok(nodes)
}

/// Where in `nodes` the primary is, once it serves with everybody in sync.
///
/// # Errors
/// When that does not happen in time.
pub async fn primary_of(nodes: &[Node]) -> Result<usize, Failed> {
    let everybody_in_sync = async {
        loop {
            let serves = nodes.iter().position(|node| {
                let protocol = node.status().protocol;
                let in_sync = protocol.configuration.map_or(0, |c| c.in_sync.len());
                protocol.serving && in_sync == nodes.len()
            });
            if let Some(at) = serves {
                return at;
            }
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, everybody_in_sync)
        .await
        .map_err(|_| "the group does not serve with every replica in sync".into())
}

/// What is left out of a measurement of time, at its start.
pub const WARM_UP: Duration = Duration::from_millis(500);
/// How long a call or the start of the group may take.
const PATIENCE: Duration = Duration::from_secs(20);
