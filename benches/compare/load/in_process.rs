//! Three replicas of kvrep in this process, over channels, with their logs in memory; commands carry nothing.

use super::{Caller, Load, drive};
use crate::sample::Sample;
use bytes::Bytes;
use kvrep_benches::inprocess::{Counter, primary_of, start};
use kvrep_core::client_wire::{Op, Outcome};
use kvrep_core::node::{Client, ClientOptions, LocalLink, Node};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Commands without a session, each given to the primary itself: the counterpart of openraft's `client_write`.
pub(super) async fn plain(load: &Load) -> Result<Sample, String> {
    let (nodes, primary) = group().await?;
    let callers = (0..load.clients).map(|_| Plain {
        nodes: Arc::clone(&nodes),
        primary,
        calls: 0,
        deadline: Instant::now(),
    });
    let sample = drive(load, callers.collect()).await?;
    check(&nodes[primary], sample)
}

/// Clients as applications use them: each with a session, every command exactly once.
pub(super) async fn sessions(load: &Load) -> Result<Sample, String> {
    let (nodes, primary) = group().await?;
    let link = Arc::new(LocalLink::new(&*nodes));
    let callers = (0..load.clients).map(|_| {
        let options = ClientOptions::default();
        InSession(Client::shared(link.clone(), options))
    });
    let sample = drive(load, callers.collect()).await?;
    check(&nodes[primary], sample)
}

struct Plain {
    nodes: Arc<Vec<Node>>,
    primary: usize,
    calls: u32,
    /// Far enough off for many calls: openraft's are not bounded at all.
    deadline: Instant,
}

impl Caller for Plain {
    async fn call(&mut self) -> Result<(), String> {
        if self.calls.is_multiple_of(256) {
            self.deadline = Instant::now() + Duration::from_secs(10);
        }
        self.calls = self.calls.wrapping_add(1);
        let called = self.nodes[self.primary].call(Op::Plain(Bytes::new()), self.deadline);
        match called.await {
            Ok(Outcome::Done { .. }) => Ok(()),
            Ok(other) => Err(format!("a command ended as {other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }
}

struct InSession(Client<Counter>);

impl Caller for InSession {
    async fn call(&mut self) -> Result<(), String> {
        let executed = self.0.execute(()).await;
        executed.map(drop).map_err(|e| e.to_string())
    }
}

async fn group() -> Result<(Arc<Vec<Node>>, usize), String> {
    let nodes = start(3).await.map_err(|e| e.to_string())?;
    let primary = primary_of(&nodes).await.map_err(|e| e.to_string())?;
    Ok((Arc::new(nodes), primary))
}

/// The figure counts only if all three replicas had every write.
fn check(primary: &Node, sample: Sample) -> Result<Sample, String> {
    let in_sync = primary.status().protocol.configuration;
    match in_sync.map_or(0, |c| c.in_sync.len()) {
        3 => Ok(sample),
        _ => Err("a replica was dropped while it was measured".into()),
    }
}
