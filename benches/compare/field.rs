//! Who takes part in a section, under which conditions, and which ratios are wanted.

use crate::args::Section;
use crate::load::Target;
use crate::processes::{Medium, Servers};
use serde::Serialize;
use std::path::Path;

/// What a contestant is to kvrep.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Side {
    /// kvrep.
    Ours,
    /// Something else that people use.
    Peer,
    /// What nobody who sleeps between two messages can be faster than.
    Limit,
}

/// One that takes part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    pub(crate) side: Side,
    /// What an acknowledgement means, and when disks are synced.
    pub(crate) conditions: &'static str,
    pub(crate) target: Target,
    /// More clients than this make no sense.
    pub(crate) clients_max: u32,
    /// The program that must be installed.
    program: Option<&'static str>,
}

/// A ratio that is wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) ours: &'static str,
    pub(crate) theirs: &'static str,
    pub(crate) clients: u32,
    pub(crate) at_least: f64,
}

/// A section's headline.
pub(crate) fn title(section: Section) -> &'static str {
    match section {
        Section::InProcess => {
            "One process, three replicas, channels, logs in memory; empty commands; no fsync; each with the threads that serve it best"
        }
        Section::TcpMemory => {
            "TCP loopback, three processes, a connection per client; 256-byte values; in memory, no fsync"
        }
        Section::TcpDurable => {
            "TCP loopback, three processes, a connection per client; 256-byte values; on disk, fsync first"
        }
    }
}

/// Who takes part.
pub(crate) fn contestants(section: Section) -> Vec<Contestant> {
    let kvrep = Contestant {
        name: "kvrep",
        side: Side::Ours,
        conditions: "exactly once; all three have it in memory",
        target: Target::Kvrep,
        clients_max: u32::MAX,
        program: None,
    };
    let redis = Contestant {
        name: "Redis",
        side: Side::Peer,
        conditions: "SET + WAIT 2; all three have it in memory",
        target: Target::Redis,
        program: Some("redis-server"),
        ..kvrep
    };
    let limit = Contestant {
        name: "limit",
        side: Side::Limit,
        conditions: "two round trips, blocking sockets",
        target: Target::Echo,
        clients_max: 1,
        ..kvrep
    };
    match section {
        Section::InProcess => vec![
            Contestant {
                conditions: "no session: at most once; all three have it",
                target: Target::InProcessPlain,
                ..kvrep
            },
            Contestant {
                name: "openraft",
                side: Side::Peer,
                conditions: "client_write: at most once; two of three have it",
                target: Target::Openraft,
                ..kvrep
            },
            Contestant {
                name: "kvrep+sessions",
                conditions: "a session per client: exactly once; all three have it",
                target: Target::InProcessSessions,
                ..kvrep
            },
        ],
        Section::TcpMemory => vec![
            kvrep,
            redis,
            limit,
            Contestant {
                name: "sockets",
                side: Side::Limit,
                conditions: "one process answers at once: no copy, no state",
                target: Target::Sockets,
                ..kvrep
            },
        ],
        Section::TcpDurable => vec![
            Contestant {
                conditions: "exactly once; fdatasync on all three first",
                ..kvrep
            },
            Contestant {
                conditions: "SET + WAIT 2; appendfsync always on all three",
                ..redis
            },
            Contestant {
                name: "etcd",
                conditions: "Put (gRPC, by hand) at the leader; fdatasync on two of three first",
                target: Target::Etcd,
                program: Some("etcd"),
                ..redis
            },
            Contestant {
                conditions: "two round trips and three parallel fdatasyncs, blocking calls",
                ..limit
            },
        ],
    }
}

/// The ratios that are wanted.
pub(crate) fn wanted(section: Section) -> Vec<Wanted> {
    let wanted = |theirs, clients, at_least| Wanted {
        ours: "kvrep",
        theirs,
        clients,
        at_least,
    };
    match section {
        Section::InProcess => vec![
            wanted("openraft", 1, 3.0),
            wanted("openraft", 64, 3.0),
            wanted("openraft", 1_024, 2.0),
            wanted("openraft", 4_096, 2.0),
        ],
        Section::TcpMemory => vec![
            wanted("limit", 1, 0.75),
            wanted("Redis", 1, 1.0),
            wanted("Redis", 64, 2.0),
        ],
        Section::TcpDurable => vec![
            wanted("limit", 1, 0.75),
            wanted("etcd", 1, 1.6),
            wanted("Redis", 64, 3.0),
            wanted("etcd", 64, 6.0),
        ],
    }
}

impl Contestant {
    /// Why it cannot take part here.
    pub(crate) fn absent(&self) -> Option<String> {
        if self.target == Target::Openraft && cfg!(not(feature = "openraft")) {
            return Some("not built in: --features openraft".into());
        }
        let program = self.program.filter(|program| !is_installed(program))?;
        Some(format!("{program} is not on the PATH"))
    }

    /// Starts what it needs besides the clients.
    pub(crate) async fn start(
        &self,
        dir: &Path,
        medium: Medium,
    ) -> Result<Option<Servers>, String> {
        match self.target {
            Target::InProcessPlain | Target::InProcessSessions | Target::Openraft => Ok(None),
            Target::Kvrep => Servers::kvrep(dir, medium).await.map(Some),
            Target::Redis => Servers::redis(dir, medium).await.map(Some),
            Target::Etcd => Servers::etcd(dir).await.map(Some),
            Target::Echo => Servers::echo(dir, medium).await.map(Some),
            Target::Sockets => Servers::sockets(dir).await.map(Some),
        }
    }
}

/// Whether a program is on the PATH.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}
