//! The group as processes of this same program: starting, signalling, asking.

use crate::args::ConfirmArg;
use crate::network::{Kind, Network};
use crate::serve::{GROUP, Scale, Told};
use crate::sites::{Sites, Strike};
use kvrep_core::client_wire::{Op, Outcome};
use kvrep_core::node::ClientLink;
use kvrep_core::protocol::ProtocolStatus;
use kvrep_core::{Authority, ReplicaId};
use kvrep_transport_tcp::TcpGroupLink;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{Instant, sleep, timeout_at};

/// What a group is made of.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Data and logs of all processes go below this directory.
    pub(crate) directory: PathBuf,
    pub(crate) replicas: u32,
    pub(crate) authority: Authority,
    pub(crate) network: Kind,
    /// The detector's timeout.
    pub(crate) suspect_after: Duration,
    pub(crate) confirm: ConfirmArg,
    pub(crate) scale: Scale,
}

/// The processes. Dropped, all of them are killed.
pub(crate) struct Group {
    plan: Plan,
    pub(crate) network: Network,
    running: BTreeMap<ReplicaId, Running>,
    traps: BTreeMap<ReplicaId, Sites>,
    /// For asking one replica at a time; targets in order of the ids.
    link: TcpGroupLink,
}

struct Running {
    process: Child,
    pid: Pid,
    /// The child ends when this is closed, also when this process is killed.
    leash: Option<ChildStdin>,
}

impl Group {
    /// Makes the network and starts nothing yet.
    ///
    /// # Errors
    /// A sentence that says what the campaign needs.
    pub(crate) fn new(plan: Plan) -> Result<Self, String> {
        let mut ids: Vec<ReplicaId> = (1..=plan.replicas).map(ReplicaId).collect();
        if plan.authority == Authority::Witness {
            ids.push(ReplicaId::WITNESS);
        }
        // In order, so that namespaces are numbered as their processes are.
        ids.sort_unstable();
        let network = Network::new(plan.network, &ids)?;
        let replicas = network
            .addresses()
            .iter()
            .filter(|(id, _)| **id != ReplicaId::WITNESS);
        let link = TcpGroupLink::new(GROUP, replicas.map(|(_, address)| address.to_string()));
        Ok(Self {
            plan,
            network,
            running: BTreeMap::new(),
            traps: BTreeMap::new(),
            link,
        })
    }

    /// Starts all processes.
    ///
    /// # Errors
    /// When one cannot be started.
    pub(crate) fn start(&mut self) -> Result<(), String> {
        let ids: Vec<ReplicaId> = self.network.addresses().keys().copied().collect();
        ids.into_iter().try_for_each(|id| self.launch(id))
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The replicas, without the witness.
    pub(crate) fn replicas(&self) -> Vec<ReplicaId> {
        let all = self.network.addresses().keys().copied();
        all.filter(|id| *id != ReplicaId::WITNESS).collect()
    }

    /// Where clients find the replicas.
    pub(crate) fn client_addresses(&self) -> Vec<String> {
        let addresses = self.network.addresses();
        let of = |id: ReplicaId| addresses[&id].to_string();
        self.replicas().into_iter().map(of).collect()
    }

    /// The data of `id`.
    pub(crate) fn data(&self, id: ReplicaId) -> PathBuf {
        self.plan.directory.join(id.to_string()).join("data")
    }

    /// From its next start on, `id` goes wrong there.
    pub(crate) fn set_trap(&mut self, id: ReplicaId, sites: Sites) {
        self.traps.insert(id, sites);
    }

    /// No more.
    pub(crate) fn remove_trap(&mut self, id: ReplicaId) {
        self.traps.remove(&id);
    }

    /// Starts the process of `id`, on the data it left.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn launch(&mut self, id: ReplicaId) -> Result<(), String> {
        let directory = self.plan.directory.join(id.to_string());
        std::fs::create_dir_all(&directory).map_err(|e| format!("{}: {e}", directory.display()))?;
        let log = append(&directory.join("log"))?;
        let events = append(&directory.join("events"))?;
        let program =
            std::env::current_exe().map_err(|e| format!("cannot find this program: {e}"))?;
        let mut command = Command::from(self.network.command(id, &program));
        command
            .arg("serve")
            .args(["--id", &id.0.to_string()])
            .args(["--authority", authority_word(self.plan.authority)])
            .args([
                "--suspect-after-ms",
                &self.plan.suspect_after.as_millis().to_string(),
            ])
            .args(["--confirm", self.plan.confirm.word()])
            .args(["--scale", scale_word(self.plan.scale)])
            .arg("--data")
            .arg(self.data(id));
        for (peer, address) in self.network.addresses() {
            command.args(["--peer", &format!("{}={address}", peer.0)]);
        }
        if let Some(sites) = self.traps.get(&id) {
            let strike = match sites.strike {
                Strike::Eio => "eio",
                Strike::KillBefore => "kill-before",
                Strike::KillAfter => "kill-after",
            };
            command
                .args(["--strike", strike, "--strike-at", &sites.at.to_string()])
                .arg("--count")
                .arg(&sites.count);
        }
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(events)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| format!("cannot start {id}: {e}"))?;
        let leash = process.stdin.take();
        let pid = process
            .id()
            .and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let pid = pid.ok_or_else(|| format!("{id} ended at once"))?;
        self.running.insert(
            id,
            Running {
                process,
                pid,
                leash,
            },
        );
        Ok(())
    }

    /// The process of `id`, while it runs.
    pub(crate) fn pid(&self, id: ReplicaId) -> Option<Pid> {
        self.running.get(&id).map(|running| running.pid)
    }

    /// Sends a signal to the process of `id`.
    ///
    /// # Errors
    /// When it does not run.
    pub(crate) fn signal(&self, id: ReplicaId, signal: Signal) -> Result<(), String> {
        let pid = self.pid(id).ok_or_else(|| format!("{id} does not run"))?;
        kill_process(pid, signal).map_err(|e| format!("cannot signal {id}: {e}"))
    }

    /// SIGKILL; when this returns the process is gone.
    ///
    /// # Errors
    /// When it does not run.
    pub(crate) async fn kill(&mut self, id: ReplicaId) -> Result<(), String> {
        let mut running = self
            .running
            .remove(&id)
            .ok_or_else(|| format!("{id} does not run"))?;
        let killed = running.process.kill().await;
        killed.map_err(|e| format!("cannot kill {id}: {e}"))
    }

    /// Waits until the process of `id` has ended by itself; whether it did in time.
    pub(crate) async fn ended(&mut self, id: ReplicaId, within: Duration) -> bool {
        let Some(running) = self.running.get_mut(&id) else {
            return true;
        };
        let ended = timeout_at(Instant::now() + within, running.process.wait()).await;
        if ended.is_ok() {
            self.running.remove(&id);
        }
        ended.is_ok()
    }

    /// Ends the process of `id` in good order.
    pub(crate) async fn end(&mut self, id: ReplicaId) {
        if let Some(running) = self.running.get_mut(&id) {
            running.leash = None;
        }
        if !self.ended(id, Duration::from_secs(5)).await {
            let _ = self.kill(id).await;
        }
    }

    /// What one replica answers.
    pub(crate) async fn ask(&self, id: ReplicaId, op: Op, patience: Duration) -> Option<Outcome> {
        let target = self.replicas().into_iter().position(|r| r == id)?;
        let answer = self.link.call(target, op, Instant::now() + patience).await;
        answer.ok()
    }

    /// What one replica knows of itself.
    pub(crate) async fn status(&self, id: ReplicaId) -> Option<ProtocolStatus> {
        match self.ask(id, Op::Status, Duration::from_millis(500)).await? {
            Outcome::Status(status) => Some(*status),
            _ => None,
        }
    }

    /// Waits until all replicas answer and the newest primary serves with all of them in sync.
    ///
    /// # Errors
    /// What is missing when that does not happen in time.
    pub(crate) async fn in_sync(
        &self,
        within: Duration,
    ) -> Result<(ReplicaId, ProtocolStatus), String> {
        let deadline = Instant::now() + within;
        let everybody = self.replicas();
        loop {
            let mut statuses = Vec::new();
            for id in &everybody {
                statuses.extend(self.status(*id).await.map(|status| (*id, status)));
            }
            // One that was cut off may still take itself for the primary: the highest term is right.
            let newest = statuses.iter().map(|(_, s)| s.term).max();
            let reigning = statuses
                .iter()
                .find(|(_, s)| s.serving && Some(s.term) == newest);
            if let Some((id, status)) = reigning
                && statuses.len() == everybody.len()
                && let Some(configuration) = &status.configuration
                && everybody
                    .iter()
                    .all(|id| configuration.in_sync.contains_key(id))
            {
                return Ok((*id, status.clone()));
            }
            if Instant::now() >= deadline {
                let seen: Vec<String> = statuses
                    .iter()
                    .map(|(id, s)| format!("{id}: {:?} {} {}", s.role, s.term, s.waiting_for))
                    .collect();
                return Err(format!(
                    "not all in sync within {within:?}: {}",
                    seen.join("; ")
                ));
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// What the processes told their operator, all lives together.
    ///
    /// # Errors
    /// When their output cannot be read.
    pub(crate) fn told(&self) -> Result<Vec<Told>, String> {
        let mut told = Vec::new();
        for id in self.replicas() {
            let path = self.plan.directory.join(id.to_string()).join("events");
            let text = std::fs::read_to_string(&path);
            let text = text.map_err(|e| format!("cannot read {}: {e}", path.display()))?;
            // A line that a killed process did not finish is none.
            told.extend(
                text.lines()
                    .filter_map(|line| serde_json::from_str::<Told>(line).ok()),
            );
        }
        Ok(told)
    }

    /// Ends all processes in good order, or kills those that do not end.
    pub(crate) async fn stop(&mut self) {
        for running in self.running.values_mut() {
            running.leash = None;
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        for running in self.running.values_mut() {
            drop(timeout_at(deadline, running.process.wait()).await);
        }
        self.running.clear();
    }
}

fn append(path: &Path) -> Result<File, String> {
    let file = File::options().create(true).append(true).open(path);
    file.map_err(|e| format!("cannot write {}: {e}", path.display()))
}

/// The word on the command line.
pub(crate) fn authority_word(authority: Authority) -> &'static str {
    match authority {
        Authority::Alone => "alone",
        _ => "witness",
    }
}

fn scale_word(scale: Scale) -> &'static str {
    match scale {
        Scale::Default => "default",
        Scale::Campaign => "campaign",
        Scale::Steady => "steady",
        Scale::Tiny => "tiny",
    }
}
