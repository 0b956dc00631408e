//! Three replicas of the passive scheme, and a client.

use bytes::Bytes;
use kvrep_benches::load::Caller;
use kvrep_core::node::{Client, ClientOptions, Node};
use kvrep_core::testing::impaired::{Impaired, Impairment};
use kvrep_core::transport::Transport;
use kvrep_core::{Fold, ReplicaId};
use kvrep_transport_multicast::{MulticastConfig, MulticastGroupLink, MulticastTransport};
use std::sync::Arc;
use std::time::Duration;

type Count = Fold<u64, Bytes>;

pub(crate) struct Group {
    nodes: Vec<Node>,
    client: Arc<Client<Count>>,
}

pub(crate) struct Slot(Arc<Client<Count>>);

/// What lies between the replicas.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    /// The loopback interface.
    AsItIs,
    /// Every tenth frame that a replica sends to another is lost, and as many are overtaken by up to eight later ones; every twentieth comes twice.
    Impaired,
}

pub(crate) async fn start(config: MulticastConfig, network: Network) -> Result<Group, String> {
    let members = [1, 2, 3].map(ReplicaId);
    let mut nodes = Vec::new();
    for me in members {
        let node = Node::builder("bench", me)
            .members(members)
            .transport(transport(me, &config, network))
            .state_machine(Count::new(0, |count, _| *count += 1));
        nodes.push(node.start().await.map_err(|error| error.to_string())?);
    }
    let mut options = ClientOptions::default();
    options.deadline = Duration::from_secs(20);
    let link = MulticastGroupLink::new("bench", config);
    let client = Arc::new(Client::with_options(link, options));
    Slot(Arc::clone(&client)).call().await?;
    Ok(Group { nodes, client })
}

fn transport(me: ReplicaId, config: &MulticastConfig, network: Network) -> Arc<dyn Transport> {
    let transport = MulticastTransport::new(config.clone());
    match network {
        Network::AsItIs => Arc::new(transport),
        Network::Impaired => {
            let worse = Impairment {
                lost: 10,
                doubled: 5,
                overtaken: 10,
            };
            Arc::new(Impaired::new(transport, worse, 7 + u64::from(me.0)))
        }
    }
}

impl Group {
    pub(crate) fn callers(&self, clients: u32) -> Vec<Slot> {
        (0..clients)
            .map(|_| Slot(Arc::clone(&self.client)))
            .collect()
    }

    pub(crate) async fn stop(self) -> Result<(), String> {
        drop(self.client);
        for node in self.nodes {
            node.shutdown().await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

impl Caller for Slot {
    async fn call(&mut self) -> Result<(), String> {
        let answered = self.0.execute(Bytes::from_static(&[7; 64])).await;
        answered.map(drop).map_err(|error| error.to_string())
    }
}
