//! The group as processes of this same program: starting, killing, cutting off, asking.

use super::cut::Cut;
use kvrep_core::client_wire::{Op, Outcome};
use kvrep_core::node::ClientLink;
use kvrep_core::protocol::ProtocolStatus;
use kvrep_core::{Authority, ReplicaId};
use kvrep_transport_tcp::TcpGroupLink;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{Instant, sleep};

/// The group's name.
pub const GROUP: &str = "kvrep-demo";

/// Why the group of processes does not do what it should.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// A file, port or process was refused.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// Something did not happen in time.
    #[error("{what} did not happen within {within:?}; see the logs in {logs}")]
    Late {
        /// What was waited for.
        what: String,
        /// For how long.
        within: Duration,
        /// Where the processes wrote.
        logs: PathBuf,
    },
    /// The rules of the packet filter could not be changed.
    #[error("{0}")]
    Cut(String),
}

/// The processes. Dropped, all of them are killed.
pub struct Group {
    directory: PathBuf,
    authority: Authority,
    addresses: BTreeMap<ReplicaId, SocketAddr>,
    running: BTreeMap<ReplicaId, Running>,
    /// For asking one replica at a time; targets in order of the ids.
    link: TcpGroupLink,
}

struct Running {
    process: Child,
    /// The child ends when this is closed, also when this process is killed.
    _leash: Option<ChildStdin>,
}

impl Group {
    /// Starts `replicas` processes (and a witness) with their data below `directory`.
    ///
    /// # Errors
    /// When a process cannot be started.
    pub fn start(
        directory: &Path,
        replicas: u32,
        authority: Authority,
    ) -> Result<Self, GroupError> {
        let mut ids: Vec<ReplicaId> = (1..=replicas).map(ReplicaId).collect();
        let addresses_of_replicas = ids.clone();
        if authority == Authority::Witness {
            ids.push(ReplicaId::WITNESS);
        }
        let addresses = free_addresses(&ids)?;
        let link = TcpGroupLink::new(
            GROUP,
            addresses_of_replicas
                .iter()
                .map(|id| addresses[id].to_string()),
        );
        let mut group = Self {
            directory: directory.to_owned(),
            authority,
            addresses,
            running: BTreeMap::new(),
            link,
        };
        for id in ids {
            group.launch(id)?;
        }
        Ok(group)
    }

    /// The replicas, without the witness.
    pub fn replicas(&self) -> impl Iterator<Item = ReplicaId> + '_ {
        self.addresses
            .keys()
            .copied()
            .filter(|id| *id != ReplicaId::WITNESS)
    }

    /// Where clients find the replicas.
    #[must_use]
    pub fn client_addresses(&self) -> Vec<String> {
        self.replicas()
            .map(|id| self.addresses[&id].to_string())
            .collect()
    }

    /// Starts the process of `id`, on the data it left.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch(&mut self, id: ReplicaId) -> Result<(), GroupError> {
        let failed = |what: &str| {
            let what = what.to_owned();
            move |source| GroupError::Io { what, source }
        };
        let log = self.directory.join(format!("{id}.log"));
        let log = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(failed(&format!("cannot write {}", log.display())))?;
        let program = std::env::current_exe().map_err(failed("cannot find this program"))?;
        let mut command = Command::new(program);
        command
            .arg("serve")
            .args(["--id", &id.0.to_string()])
            .args(["--authority", authority_word(self.authority)])
            .arg("--data")
            .arg(self.directory.join(id.to_string()));
        for (peer, address) in &self.addresses {
            command.args(["--peer", &format!("{}={address}", peer.0)]);
        }
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed("cannot start a replica process"))?;
        let leash = process.stdin.take();
        let running = Running {
            process,
            _leash: leash,
        };
        self.running.insert(id, running);
        Ok(())
    }

    /// Kills the process of `id` with SIGKILL; returns when that was.
    ///
    /// # Errors
    /// When there is none.
    pub async fn kill(&mut self, id: ReplicaId) -> Result<Instant, GroupError> {
        let Some(mut running) = self.running.remove(&id) else {
            return Err(GroupError::Io {
                what: format!("cannot kill {id}"),
                source: io::Error::other("it does not run"),
            });
        };
        let at = Instant::now();
        running
            .process
            .kill()
            .await
            .map_err(|source| GroupError::Io {
                what: format!("cannot kill {id}"),
                source,
            })?;
        Ok(at)
    }

    /// Drops all packets to and from `id` until the result is dropped.
    ///
    /// # Errors
    /// When the packet filter refuses.
    pub fn cut_off(&self, id: ReplicaId) -> Result<Cut, GroupError> {
        Cut::of(self.addresses[&id].ip()).map_err(GroupError::Cut)
    }

    /// Asks one replica.
    pub async fn ask(&self, id: ReplicaId, op: Op, patience: Duration) -> Option<Outcome> {
        let target = self.replicas().position(|r| r == id)?;
        self.link
            .call(target, op, Instant::now() + patience)
            .await
            .ok()
    }

    /// What one replica knows of itself.
    pub async fn status(&self, id: ReplicaId) -> Option<ProtocolStatus> {
        match self.ask(id, Op::Status, Duration::from_millis(300)).await? {
            Outcome::Status(status) => Some(*status),
            _ => None,
        }
    }

    /// Waits until a primary serves whose in-sync set has all of `whom`; returns it with its status.
    ///
    /// # Errors
    /// When that does not happen in time.
    pub async fn in_sync(
        &self,
        whom: &[ReplicaId],
        within: Duration,
    ) -> Result<(ReplicaId, ProtocolStatus), GroupError> {
        let deadline = Instant::now() + within;
        loop {
            // One that was cut off may still take itself for the primary: the highest term is right, if all answer.
            let mut statuses = Vec::new();
            for id in self.replicas() {
                statuses.extend(self.status(id).await.map(|status| (id, status)));
            }
            let newest = statuses.iter().map(|(_, s)| s.term).max();
            let all_answer = statuses.len() >= whom.len();
            let reigning = statuses
                .into_iter()
                .find(|(_, s)| s.serving && Some(s.term) == newest);
            if let Some((id, status)) = reigning
                && all_answer
                && let Some(configuration) = &status.configuration
                && whom.iter().all(|w| configuration.in_sync.contains_key(w))
            {
                return Ok((id, status));
            }
            if Instant::now() >= deadline {
                return Err(self.late(&format!("{whom:?} in sync"), within));
            }
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// Ends all processes in good order (their standard input is closed), or kills those that do not end.
    pub async fn stop(mut self) {
        for running in self.running.values_mut() {
            running._leash = None;
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        for running in self.running.values_mut() {
            drop(tokio::time::timeout_at(deadline, running.process.wait()).await);
        }
    }

    pub(super) fn late(&self, what: &str, within: Duration) -> GroupError {
        GroupError::Late {
            what: what.to_owned(),
            within,
            logs: self.directory.clone(),
        }
    }
}

/// The word on the command line.
#[must_use]
pub fn authority_word(authority: Authority) -> &'static str {
    match authority {
        Authority::Alone => "alone",
        _ => "witness",
    }
}

/// A free port for each, every one on a loopback address of its own so that it can be cut off by its address.
fn free_addresses(ids: &[ReplicaId]) -> Result<BTreeMap<ReplicaId, SocketAddr>, GroupError> {
    let mut listeners = BTreeMap::new();
    for (at, id) in (1..=250_u8).zip(ids) {
        let host = Ipv4Addr::new(127, 0, 77, at);
        let listener = TcpListener::bind((host, 0)).map_err(|source| GroupError::Io {
            what: format!("cannot listen on {host}"),
            source,
        })?;
        listeners.insert(*id, listener);
    }
    // Only when all are chosen are they given back, so that no two are equal.
    listeners
        .into_iter()
        .map(|(id, listener)| {
            let address = listener.local_addr().map_err(|source| GroupError::Io {
                what: "cannot read a port".into(),
                source,
            })?;
            Ok((id, address))
        })
        .collect()
}
