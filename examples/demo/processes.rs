//! The group as processes of this same program: starting, killing, cutting off, asking.

use super::carrier::Carrier;
use super::cut::Cut;
use super::member::Standing;
use super::pair::{LOG, Pair};
use super::questions::{Asking, Question, Told};
use kvrep_core::ReplicaId;
use kvrep_core::client_wire::{Op, Outcome};
use kvrep_core::node::ClientLink;
use kvrep_transport_mqtt::EmbeddedBroker;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

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
    pair: Pair,
    /// Who has a process, the witness too.
    members: Vec<ReplicaId>,
    carrier: Carrier,
    running: BTreeMap<ReplicaId, Running>,
    /// To the log that orders, if one does.
    ordering: Arc<dyn ClientLink>,
    /// Ends after the processes.
    _broker: Option<EmbeddedBroker>,
}

struct Running {
    process: Child,
    /// The child ends when this is closed, also when this process is killed.
    asking: Option<Asking>,
}

impl Group {
    /// Starts `replicas` processes, and what the pair needs beside them, with their data below `directory`.
    ///
    /// # Errors
    /// When a process cannot be started.
    pub fn start(directory: &Path, replicas: u32, pair: Pair) -> Result<Self, GroupError> {
        let members = pair.members(replicas);
        let (carrier, broker) = Carrier::prepare(pair.over, &members)
            .map_err(|(what, source)| GroupError::Io { what, source })?;
        let ordering = carrier.link(LOG);
        let mut group = Self {
            directory: directory.to_owned(),
            pair,
            members,
            carrier,
            running: BTreeMap::new(),
            ordering,
            _broker: broker,
        };
        for id in group.members.clone() {
            group.launch(id)?;
        }
        Ok(group)
    }

    /// The replicas, without the witness.
    pub fn replicas(&self) -> impl Iterator<Item = ReplicaId> + '_ {
        let members = self.members.iter().copied();
        members.filter(|id| *id != ReplicaId::WITNESS)
    }

    /// Where everybody is found.
    #[must_use]
    pub fn carrier(&self) -> &Carrier {
        &self.carrier
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
        let mut process = Command::new(program)
            .arg("serve")
            .args(["--id", &id.0.to_string()])
            .args(self.pair.arguments())
            .arg("--data")
            .arg(self.directory.join(id.to_string()))
            .args(self.carrier.arguments(&self.members))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed("cannot start a replica process"))?;
        let (questions, printed) = (process.stdin.take(), process.stdout.take());
        let asking = questions
            .zip(printed)
            .map(|(questions, printed)| Asking::new(questions, printed));
        self.running.insert(id, Running { process, asking });
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
        let address = self.carrier.address_of(id);
        let address = address.ok_or_else(|| GroupError::Cut(format!("{id} has no address")))?;
        Cut::of(address).map_err(GroupError::Cut)
    }

    /// Asks one replica.
    pub async fn ask(&self, id: ReplicaId, question: Question, patience: Duration) -> Option<Told> {
        let asking = self.running.get(&id)?.asking.as_ref()?;
        asking.ask(question, patience).await
    }

    /// How these stand, as far as they answer.
    async fn standings(&self, whom: &[ReplicaId]) -> Vec<(ReplicaId, Standing)> {
        let mut standings = Vec::new();
        for id in whom {
            if let Some(Told::Standing(standing)) =
                self.ask(*id, Question::Standing, PATIENCE).await
            {
                standings.push((*id, standing));
            }
        }
        standings
    }

    /// Waits until all answer, and whoever serves counts on all; returns one that serves, with how it stands.
    ///
    /// # Errors
    /// When that does not happen in time.
    pub async fn complete(&self, within: Duration) -> Result<(ReplicaId, Standing), GroupError> {
        let everybody: Vec<ReplicaId> = self.replicas().collect();
        let counts_on_all = |standing: &Standing| {
            everybody
                .iter()
                .all(|replica| standing.counted.contains(replica))
        };
        let deadline = Instant::now() + within;
        loop {
            let standings = self.standings(&everybody).await;
            let all_answer = standings.len() == everybody.len();
            let serving = in_latest_term(standings);
            if all_answer
                && serving.iter().all(|(_, standing)| counts_on_all(standing))
                && let Some(first) = serving.into_iter().next()
            {
                return Ok(first);
            }
            if Instant::now() >= deadline {
                return Err(self.late(&format!("{everybody:?} in sync"), within));
            }
            sleep(LOOKS_EVERY).await;
        }
    }

    /// Waits until others serve without `gone`, and do not count on it any more; returns them.
    ///
    /// # Errors
    /// When that does not happen in time.
    pub async fn without(
        &self,
        gone: ReplicaId,
        within: Duration,
    ) -> Result<Vec<ReplicaId>, GroupError> {
        let others: Vec<ReplicaId> = self.replicas().filter(|id| *id != gone).collect();
        let deadline = Instant::now() + within;
        loop {
            let serving = in_latest_term(self.standings(&others).await);
            if !serving.is_empty() && serving.iter().all(|(_, s)| !s.counted.contains(&gone)) {
                return Ok(serving.into_iter().map(|(id, _)| id).collect());
            }
            if Instant::now() >= deadline {
                return Err(self.late(&format!("serving without {gone}"), within));
            }
            sleep(LOOKS_EVERY).await;
        }
    }

    /// Who is primary of the log that orders, as somebody there says.
    ///
    /// # Errors
    /// When nobody says it in time.
    pub async fn sequencer(&self, within: Duration) -> Result<ReplicaId, GroupError> {
        let deadline = Instant::now() + within;
        while Instant::now() < deadline {
            for target in 0..self.ordering.targets() {
                let asked = (self.ordering).call(target, Op::Status, Instant::now() + PATIENCE);
                if let Ok(Outcome::Status(status)) = asked.await
                    && let Some(primary) = status.primary
                {
                    return Ok(primary);
                }
            }
            sleep(LOOKS_EVERY).await;
        }
        Err(self.late("word of who orders", within))
    }

    /// Ends all processes in good order (their standard input is closed), or kills those that do not end.
    pub async fn stop(mut self) {
        for running in self.running.values_mut() {
            running.asking = None;
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

/// Of those that serve, those in the latest term: one that was cut off may still take itself for the primary.
fn in_latest_term(standings: Vec<(ReplicaId, Standing)>) -> Vec<(ReplicaId, Standing)> {
    let latest = standings.iter().map(|(_, standing)| standing.term).max();
    let serving = standings.into_iter();
    serving
        .filter(|(_, standing)| standing.answers && Some(standing.term) == latest)
        .collect()
}

/// How long a replica may take to say how it stands.
const PATIENCE: Duration = Duration::from_millis(300);
const LOOKS_EVERY: Duration = Duration::from_millis(2);
