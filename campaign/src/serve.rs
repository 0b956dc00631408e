//! One process of the group: a replica of the lists, or the witness. It writes what an operator should hear of to its
//! standard output, one JSON object a line.

use crate::args::ConfirmArg;
use crate::lists::Lists;
use crate::sites::{Sites, SitesFs};
use kvrep_core::node::NodeEvent;
use kvrep_core::protocol::Event;
use kvrep_core::storage::StorageEvent;
use kvrep_core::storage::wal::{Wal, WalOptions};
use kvrep_core::{Authority, Confirm, GroupConfig, GroupId, Incarnation, Node, ReplicaId};
use kvrep_transport_tcp::{TcpConfig, TcpTransport, Unlisted};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::AsyncReadExt;

/// The group's name.
pub(crate) const GROUP: &str = "kvrep-campaign";

/// What a process is told.
#[derive(Debug)]
pub(crate) struct Served {
    /// Which member it is.
    pub(crate) id: ReplicaId,
    /// Where everybody is, this one included.
    pub(crate) peers: BTreeMap<ReplicaId, String>,
    pub(crate) authority: Authority,
    /// Where its data are.
    pub(crate) data: PathBuf,
    /// The detector's timeout.
    pub(crate) suspect_after: Duration,
    pub(crate) confirm: ConfirmArg,
    /// How soon snapshots are taken.
    pub(crate) scale: Scale,
    /// What to do at which sync.
    pub(crate) sites: Option<Sites>,
}

/// How much is written before snapshots, purges and new segments come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Scale {
    /// As a user would have it: hardly ever in a short run.
    Default,
    /// Every second or so under the campaign's load.
    Campaign,
    /// Often enough that memory reaches its bound within seconds of full load.
    Steady,
    /// Every few dozen writes.
    Tiny,
}

/// An event as it is written and read again.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub(crate) enum Told {
    /// Acknowledged writes from this index on are lost here.
    WritesLost { from: u64 },
    /// A tail from this index on was cut off.
    Truncated { from: u64 },
    /// So many entries from this index on are kept in a file beside the log.
    SetAside { from: u64, entries: u64 },
    /// Anything else.
    Other { what: String },
}

/// Serves until standard input ends.
///
/// # Errors
/// Why the node could not start or go on, in words for the operator.
pub(crate) async fn serve(served: Served) -> Result<(), String> {
    let listen = served
        .peers
        .get(&served.id)
        .cloned()
        .ok_or("a --peer must say where this process listens")?;
    let mut config = TcpConfig::new(listen).peers(served.peers.clone());
    // Before anything is opened: what a killed life of it left is stale the longer it takes.
    let storage = storage(&served);
    let node = if served.id == ReplicaId::WITNESS {
        config = config.unlisted(Unlisted::Answer);
        Node::witness(GROUP)
            .transport(TcpTransport::new(config))
            .storage(storage)
            .start()
            .await
    } else {
        Node::builder(GROUP, served.id)
            .group(group(&served))
            .transport(TcpTransport::new(config))
            .storage(storage)
            .shutdown_within(Duration::from_secs(1))
            .state_machine(Lists::default())
            .start()
            .await
    };
    let node = node.map_err(|e| e.to_string())?;
    let mut events = node.events();
    loop {
        tokio::select! {
            () = until_input_ends() => return node.shutdown().await.map_err(|e| e.to_string()),
            ended = node.wait() => return ended.map_err(|e| e.to_string()),
            event = events.recv() => if let Ok(event) = event { tell(&event) },
        }
    }
}

fn group(served: &Served) -> GroupConfig {
    let members = served.peers.keys().copied();
    let members = members.filter(|id| *id != ReplicaId::WITNESS);
    let mut group = GroupConfig::new(members, served.authority);
    group.timing.suspect_after = served.suspect_after;
    group.confirm = match served.confirm {
        ConfirmArg::Round => Confirm::Round,
        ConfirmArg::Lease => Confirm::Lease {
            length: served.suspect_after,
            drift_ppm_max: 1_000,
        },
    };
    match served.scale {
        Scale::Default => {}
        Scale::Campaign => {
            group.limits.snapshot_log_entries = 2_000;
            group.limits.retained_entries = 500;
        }
        Scale::Steady => {
            group.limits.snapshot_log_entries = 20_000;
            group.limits.retained_entries = 5_000;
        }
        Scale::Tiny => {
            group.limits.snapshot_log_entries = 24;
            group.limits.retained_entries = 4;
        }
    }
    group
}

fn storage(served: &Served) -> Wal<SitesFs> {
    let random = RandomState::new().hash_one(std::process::id());
    let mut options = WalOptions::new(GroupId::named(GROUP), served.id, random);
    options.segment_bytes = match served.scale {
        Scale::Default => options.segment_bytes,
        Scale::Steady => 4 << 20,
        Scale::Campaign => 256 << 10,
        Scale::Tiny => 2 << 10,
    };
    // A wiped directory forgets its lives, the others do not.
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    options.incarnation_min = Incarnation(now.map_or(1, |d| d.as_micros() as u64));
    Wal::new(SitesFs::new(served.sites.clone()), &served.data, options)
}

fn tell(event: &NodeEvent) {
    let told = match event {
        NodeEvent::Protocol(Event::AcknowledgedWritesLost { from, .. }) => {
            Told::WritesLost { from: from.0 }
        }
        NodeEvent::Protocol(Event::TailTruncated { from, .. }) => Told::Truncated { from: from.0 },
        NodeEvent::Storage(StorageEvent::TailSaved { from, entries, .. }) => Told::SetAside {
            from: from.0,
            entries: *entries,
        },
        other => Told::Other {
            what: format!("{other:?}"),
        },
    };
    if let Ok(line) = serde_json::to_string(&told) {
        println!("{line}");
    }
}

/// The parent holds the other end: it is closed however the parent ends.
async fn until_input_ends() {
    let mut byte = [0];
    while matches!(tokio::io::stdin().read(&mut byte).await, Ok(n) if n > 0) {}
}
