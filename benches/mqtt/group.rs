//! A group of the active scheme, and its clients.

use super::broker::Broker;
use bytes::Bytes;
use kvrep_benches::load::Caller;
use kvrep_core::node::active::ActiveEvent;
use kvrep_core::node::{ActiveNode, Client, ClientOptions};
use kvrep_core::protocol::active::{Event, Timing};
use kvrep_core::{Fold, Limits, ReplicaId};
use kvrep_transport_mqtt::MqttConfig;
use kvrep_transport_mqtt::stream::{MqttStream, MqttStreamLink};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::broadcast::Receiver;

type Count = Fold<u64, Bytes>;

static DRAWN: AtomicU64 = AtomicU64::new(0);

/// Whether several requests, or answers, leave as one publication.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Batching {
    Off,
    On,
}

pub(crate) struct Group {
    nodes: Vec<ActiveNode>,
    /// Since they serve.
    events: Vec<Receiver<ActiveEvent>>,
    clients: Vec<Arc<Client<Count>>>,
}

pub(crate) struct Slot {
    client: Arc<Client<Count>>,
    command: Bytes,
}

pub(crate) async fn start(
    broker: &Broker,
    publishers: u32,
    batching: Batching,
) -> Result<Group, String> {
    let run = DRAWN.fetch_add(1, Ordering::Relaxed);
    let mut config =
        MqttConfig::new(&broker.address).prefix(format!("group/{}/{run}", std::process::id()));
    if batching == Batching::Off {
        config.limits.batch_bytes_max = 1;
    }
    let members = [1, 2, 3].map(ReplicaId);
    let timing = Timing {
        suspect_after: Duration::from_millis(500),
        genesis_after: Duration::from_secs(1),
        keep_requests: Duration::from_secs(5),
        ..Timing::default()
    };
    let limits = Limits {
        session_window: WINDOW,
        ..Limits::default()
    };
    let mut nodes = Vec::new();
    for me in members {
        let node = ActiveNode::builder("bench", me)
            .members(members)
            .timing(timing)
            .limits(limits)
            .stream(MqttStream::new(config.clone()))
            .state_machine(Count::new(0, |count, _| *count += 1));
        nodes.push(node.start().await.map_err(|error| error.to_string())?);
    }
    for node in &nodes {
        let mut status = node.watch();
        let serving = status.wait_for(|status| status.serving && !status.holding);
        let serving = tokio::time::timeout(Duration::from_secs(20), serving).await;
        drop(serving.map_err(|_| "the group does not serve in time")?);
    }
    let clients = (0..publishers).map(|_| {
        let mut options = ClientOptions::default();
        options.deadline = Duration::from_secs(10);
        options.window = WINDOW;
        let link = MqttStreamLink::new("bench", config.clone());
        Arc::new(Client::with_options(link, options))
    });
    Ok(Group {
        // (Whoever asks first hears what happened at the start, too.)
        events: (nodes.iter())
            .map(|node| (node.events(), node.events()).1)
            .collect(),
        nodes,
        clients: clients.collect(),
    })
}

impl Group {
    /// So many requests under way.
    pub(crate) fn callers(&self, clients: u32, bytes: usize) -> Vec<Slot> {
        let of = self.clients.iter().cycle().take(clients as usize);
        of.map(|client| Slot {
            client: Arc::clone(client),
            command: Bytes::from(vec![7; bytes]),
        })
        .collect()
    }

    /// Returns how often a replica was taken for dead meanwhile.
    pub(crate) async fn stop(self) -> Result<usize, String> {
        let mut fenced = 0;
        for (node, mut events) in self.nodes.into_iter().zip(self.events) {
            node.shutdown().await.map_err(|error| error.to_string())?;
            while let Ok(event) = events.try_recv() {
                let is_fenced = matches!(event, ActiveEvent::Protocol(Event::Fenced { .. }));
                fenced += usize::from(is_fenced);
            }
        }
        Ok(fenced)
    }
}

impl Caller for Slot {
    async fn call(&mut self) -> Result<(), String> {
        let answered = self.client.execute(self.command.clone()).await;
        answered.map(drop).map_err(|error| error.to_string())
    }
}

/// Commands under way of one client.
const WINDOW: u64 = 16_384;
