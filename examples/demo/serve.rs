//! One process of the group: a replica of the catalog, or the witness.

use super::catalog::Catalog;
use super::processes::GROUP;
use crate::common::operator::{attend, tell};
use kvrep_core::{Authority, GroupConfig, Node, ReplicaId, Timing};
use kvrep_transport_tcp::{TcpConfig, TcpTransport, Unlisted};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// What a process is told.
#[derive(Debug)]
pub struct Served {
    /// Which member it is.
    pub id: ReplicaId,
    /// Where everybody is, this one included.
    pub peers: BTreeMap<ReplicaId, String>,
    /// Who decides.
    pub authority: Authority,
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

/// The demo's waits, the same in the report: heartbeats every 50 ms, suspicion after [`SUSPECT_AFTER`].
#[must_use]
pub fn timing() -> Timing {
    Timing {
        suspect_after: SUSPECT_AFTER,
        ..Timing::default()
    }
}

/// The others end at the same time: nobody is left to acknowledge what is under way.
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(1);

/// The detector's timeout.
pub const SUSPECT_AFTER: Duration = Duration::from_millis(300);

/// Serves until standard input ends, and tells the operator what must not be missed.
///
/// # Errors
/// Why the node could not start or go on, in words for the operator.
pub async fn serve(served: Served) -> Result<(), String> {
    let listen = served
        .peers
        .get(&served.id)
        .cloned()
        .ok_or("a --peer must say where this process listens")?;
    let mut config = TcpConfig::new(listen).peers(served.peers.clone());
    let is_witness = served.id == ReplicaId::WITNESS;
    let node = if is_witness {
        config = config.unlisted(Unlisted::Answer);
        Node::witness(GROUP)
            .transport(TcpTransport::new(config))
            .data_dir(served.data)
            .start()
            .await
    } else {
        let members = served.peers.keys().copied();
        let members = members.filter(|id| *id != ReplicaId::WITNESS);
        let mut group = GroupConfig::new(members, served.authority);
        group.timing = timing();
        let node = match served.start {
            Start::Normal => Node::builder(GROUP, served.id),
            Start::Forced => Node::builder(GROUP, served.id).forced(),
        };
        node.group(group)
            .transport(TcpTransport::new(config))
            .data_dir(served.data)
            .shutdown_within(SHUTDOWN_WITHIN)
            .state_machine(Catalog::default())
            .start()
            .await
    };
    let node = node.map_err(|e| e.to_string())?;
    let ended = tokio::select! {
        () = until_input_ends() => None,
        ended = attend(&node, |what| tell(served.id, what)) => Some(ended),
    };
    match ended {
        None => node.shutdown().await,
        Some(ended) => ended,
    }
    .map_err(|e| e.to_string())
}

/// The parent holds the other end: it is closed however the parent ends.
async fn until_input_ends() {
    let mut byte = [0];
    while matches!(tokio::io::stdin().read(&mut byte).await, Ok(n) if n > 0) {}
}
