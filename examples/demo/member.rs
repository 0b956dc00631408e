//! One process's part in the group: a replica of the catalog, a line for each scheme; or the witness.

use super::carrier::Carrier;
use super::catalog::{Answer, Catalog, Query};
use super::pair::{GROUP, LOG, Order, Pair, Scheme};
use crate::common::operator::{attend, attend_active, tell};
use kvrep_core::node::{ActiveNode, ClientLink, Node, NodeBuilder, NodeError};
use kvrep_core::protocol::active::{self, Standing as InRing};
use kvrep_core::stream::log::{LogLink, LogStream};
use kvrep_core::{Authority, Read, ReplicaId, StateMachine as _, Term, Timing, Token};
use kvrep_transport_mqtt::MqttConfig;
use kvrep_transport_mqtt::stream::{MqttStream, MqttStreamLink};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// What a process is told.
#[derive(Debug)]
pub struct Served {
    /// Who replicates how, over what.
    pub pair: Pair,
    /// Which member it is.
    pub id: ReplicaId,
    /// Everybody who has a process, this one included.
    pub members: BTreeSet<ReplicaId>,
    /// Where they are.
    pub carrier: Carrier,
    /// Where its data are.
    pub data: PathBuf,
    /// Whether it waits for those that its rules demand.
    pub start: Start,
}

/// Whether a replica waits for those that its rules demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It does.
    Normal,
    /// The operator says that whoever is missing never returns.
    Forced,
}

/// How a replica stands, as it sees itself, whatever its scheme.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Standing {
    /// Of two that differ the word of the later term counts. (The active scheme has none: all say the same.)
    pub term: Term,
    /// Whether it answers clients now.
    pub answers: bool,
    /// On whom it counts, itself included, while it answers.
    pub counted: BTreeSet<ReplicaId>,
}

/// A running member.
pub enum Member {
    /// Of a passive group.
    Passive(Node),
    /// Of an active group.
    Active(ActiveNode),
    /// It remembers who is primary, and holds nothing else.
    Witness(Node),
}

/// The demo's waits in the passive scheme, the same in the report: heartbeats every 50 ms, suspicion after [`SUSPECT_AFTER`].
#[must_use]
pub fn timing() -> Timing {
    Timing {
        suspect_after: SUSPECT_AFTER,
        ..Timing::default()
    }
}

/// The detector's timeout.
pub const SUSPECT_AFTER: Duration = Duration::from_millis(300);
/// The others end at the same time: nobody is left to acknowledge what is under way.
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(1);
/// How long a question may wait in the replica.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);
const LOOKS_EVERY: Duration = Duration::from_millis(5);

impl Served {
    /// Starts it.
    ///
    /// # Errors
    /// Why it did not start, in words for the operator.
    pub async fn start(self) -> Result<Member, String> {
        let why = |error: kvrep_core::node::StartError| error.to_string();
        if self.id == ReplicaId::WITNESS {
            let group = self.pair.ordering_group();
            let group = group.ok_or("a group that a broker orders has no witness")?;
            let node = Node::witness(group)
                .transport(self.carrier.transport(self.id)?)
                .data_dir(self.data);
            return Ok(Member::Witness(node.start().await.map_err(why)?));
        }
        match self.pair.scheme {
            Scheme::Passive => {
                let node = self
                    .passive(GROUP)?
                    .data_dir(self.data)
                    .state_machine(Catalog::default());
                Ok(Member::Passive(node.start().await.map_err(why)?))
            }
            Scheme::Active => {
                let mut group = active::Config::new(self.replicas());
                group.timing = active_timing();
                let node = ActiveNode::builder(GROUP, self.id)
                    .group(group)
                    .shutdown_within(SHUTDOWN_WITHIN)
                    .set_aside_in(&self.data)
                    .state_machine(Catalog::default());
                let node = match &self.carrier {
                    Carrier::Mqtt(broker) => node.stream(MqttStream::new(MqttConfig::new(broker))),
                    Carrier::Tcp(_) | Carrier::Multicast(_) => {
                        node.stream(LogStream::new(self.passive(LOG)?, self.carrier.link(LOG)))
                    }
                };
                Ok(Member::Active(node.start().await.map_err(why)?))
            }
        }
    }

    /// A node of the passive group of this name.
    fn passive(&self, group: &str) -> Result<NodeBuilder, String> {
        let node = Node::builder(group, self.id)
            .members(self.replicas())
            .authority(self.pair.authority.unwrap_or(Authority::Alone))
            .timing(timing())
            .transport(self.carrier.transport(self.id)?)
            .shutdown_within(SHUTDOWN_WITHIN);
        Ok(match self.start {
            Start::Normal => node,
            Start::Forced => node.forced(),
        })
    }

    fn replicas(&self) -> Vec<ReplicaId> {
        let members = self.members.iter().copied();
        members.filter(|id| *id != ReplicaId::WITNESS).collect()
    }
}

/// A client's way to the group.
#[must_use]
pub fn client_link(pair: Pair, carrier: &Carrier) -> Arc<dyn ClientLink> {
    match (pair.order(), carrier) {
        (Order::Broker, Carrier::Mqtt(broker)) => {
            Arc::new(MqttStreamLink::new(GROUP, MqttConfig::new(broker)))
        }
        (Order::Log, _) => Arc::new(LogLink::new(GROUP, carrier.link(LOG))),
        (Order::Primary | Order::Broker, _) => carrier.link(GROUP),
    }
}

impl Member {
    /// How it stands; a witness serves nobody.
    #[must_use]
    pub fn standing(&self) -> Standing {
        match self {
            Self::Passive(node) | Self::Witness(node) => {
                let status = node.status().protocol;
                let in_sync = status.configuration.map(|c| c.in_sync);
                Standing {
                    term: status.term,
                    answers: status.serving,
                    counted: in_sync.unwrap_or_default().into_keys().collect(),
                }
            }
            Self::Active(node) => {
                let status = node.status();
                let serving = |(id, standing): &(ReplicaId, InRing)| {
                    matches!(standing, InRing::Serving { .. }).then_some(*id)
                };
                Standing {
                    term: Term::ZERO,
                    answers: status.serving && !status.holding,
                    counted: status.ring.iter().filter_map(serving).collect(),
                }
            }
        }
    }

    /// What this replica itself has once it has everything up to the token.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn read(&self, query: Query, at_least: Token) -> Result<Answer, String> {
        let deadline = Instant::now() + ANSWER_WITHIN;
        match self {
            Self::Passive(node) | Self::Witness(node) => {
                let look = move |catalog: &Catalog| catalog.query(query);
                let read = node.read_local(Read::AtLeast(at_least), look);
                match timeout_at(deadline, read).await {
                    Ok(Ok((answer, _))) => Ok(answer),
                    Ok(Err(error)) => Err(error.to_string()),
                    Err(_) => Err("it has not caught up".into()),
                }
            }
            Self::Active(node) => loop {
                let asked = query.clone();
                let look = move |catalog: &Catalog| catalog.query(asked);
                let (answer, at) = node.read_local(look).await.map_err(|e| e.to_string())?;
                if at >= at_least.index {
                    return Ok(answer);
                }
                if Instant::now() >= deadline {
                    let (at, wanted) = (at.0, at_least.index.0);
                    return Err(format!("it has come to {at} of {wanted}"));
                }
                sleep(LOOKS_EVERY).await;
            },
        }
    }

    /// Tells the operator what must not be missed, until it ends by itself. May be dropped.
    ///
    /// # Errors
    /// Why it ended.
    pub async fn attend(&self, me: ReplicaId) -> Result<(), NodeError> {
        match self {
            Self::Passive(node) | Self::Witness(node) => attend(node, |what| tell(me, what)).await,
            Self::Active(node) => attend_active(node, |what| tell(me, what)).await,
        }
    }

    /// Ends it in good order.
    ///
    /// # Errors
    /// When it had ended by itself, or does not end in time.
    pub async fn shutdown(self) -> Result<(), NodeError> {
        match self {
            Self::Passive(node) | Self::Witness(node) => node.shutdown().await,
            Self::Active(node) => node.shutdown().await,
        }
    }
}

/// Of the active scheme: the order may stand still for as long as its own primary is missed, and no replica is to be taken for dead for that.
fn active_timing() -> active::Timing {
    active::Timing {
        suspect_after: Duration::from_millis(800),
        genesis_after: Duration::from_millis(1_600),
        keep_requests: Duration::from_secs(8),
        ..active::Timing::default()
    }
}
