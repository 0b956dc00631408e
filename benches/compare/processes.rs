//! Starting what is measured, on free ports and in a fresh directory.
//!
//! Every process ends when its standard input is closed, and that happens however this one ends; nothing is left behind.

use crate::load::{EtcdConnection, GROUP, RedisConnection};
use kvrep_core::GroupId;
use kvrep_core::client_wire::{Op, Outcome};
use kvrep_transport_tcp::{LinkLimits, TcpLink};
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{Instant, sleep, timeout};

/// Whether writes wait for disks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Medium {
    /// Memory only.
    Memory,
    /// Synced before they are acknowledged.
    Disk,
}

/// Running servers of one contestant.
pub(crate) struct Servers {
    /// Where clients go; the first first.
    pub(crate) addresses: Vec<String>,
    processes: Vec<Process>,
    logs: PathBuf,
}

struct Process {
    child: Child,
    leash: Option<ChildStdin>,
}

impl Servers {
    /// Three replicas of kvrep, all in sync.
    pub(crate) async fn kvrep(dir: &Path, medium: Medium) -> Result<Self, String> {
        let (mut servers, addresses) = Self::on_free_ports(dir, "kvrep", 3)?;
        let peers = joined(&addresses);
        for id in 1..=3 {
            let mut words = words(&["serve", "replica", "--id"]);
            words.extend([id.to_string(), "--peers".into(), peers.clone()]);
            if medium == Medium::Disk {
                words.extend(["--data".into(), servers.file(&format!("data-{id}"))]);
            }
            servers.launch_own(&words)?;
        }
        servers
            .until("all replicas of kvrep are in sync", kvrep_is_whole)
            .await?;
        Ok(servers)
    }

    /// The bare exchange.
    pub(crate) async fn echo(dir: &Path, medium: Medium) -> Result<Self, String> {
        let (mut servers, addresses) = Self::on_free_ports(dir, "limit", 3)?;
        for (n, address) in addresses.iter().enumerate().rev() {
            let mut words = words(&["serve", "echo", "--listen"]);
            words.push(address.to_string());
            if n == 0 {
                words.extend(["--ask".into(), joined(&addresses[1..])]);
            }
            if medium == Medium::Disk {
                words.extend(["--data".into(), servers.file(&format!("data-{n}"))]);
            }
            servers.launch_own(&words)?;
        }
        // Each listens; the one that asks the others stays first.
        for at in (0..3).rev() {
            servers.addresses.swap(0, at);
            servers.until("the bare exchange listens", listens).await?;
        }
        servers.addresses = addresses.iter().map(SocketAddr::to_string).collect();
        Ok(servers)
    }

    /// One that answers at once.
    pub(crate) async fn sockets(dir: &Path) -> Result<Self, String> {
        let (mut servers, addresses) = Self::on_free_ports(dir, "sockets", 1)?;
        let mut words = words(&["serve", "sockets", "--listen"]);
        words.push(addresses[0].to_string());
        servers.launch_own(&words)?;
        servers.until("it listens", listens).await?;
        Ok(servers)
    }

    /// A Redis primary with two replicas.
    pub(crate) async fn redis(dir: &Path, medium: Medium) -> Result<Self, String> {
        let (mut servers, addresses) = Self::on_free_ports(dir, "redis", 3)?;
        let first = addresses[0];
        for (n, address) in addresses.iter().enumerate() {
            let data = servers.dir(&format!("data-{n}"))?;
            let mut words = words(&["redis-server", "--bind", "127.0.0.1", "--save", ""]);
            words.extend(["--port".into(), address.port().to_string()]);
            words.extend(["--dir".into(), data]);
            words.extend(["--repl-diskless-sync-delay".into(), "0".into()]);
            words.extend(match medium {
                Medium::Memory => ["--appendonly", "no"].map(String::from).to_vec(),
                Medium::Disk => ["--appendonly", "yes", "--appendfsync", "always"]
                    .map(String::from)
                    .to_vec(),
            });
            if n > 0 {
                let port = first.port().to_string();
                words.extend(["--replicaof".into(), "127.0.0.1".into(), port]);
            }
            servers.launch(&words)?;
        }
        servers
            .until("both replicas of Redis are online", redis_is_whole)
            .await?;
        Ok(servers)
    }

    /// Three members of etcd; the address is the leader's.
    pub(crate) async fn etcd(dir: &Path) -> Result<Self, String> {
        let (mut servers, clients) = Self::on_free_ports(dir, "etcd", 3)?;
        let peers = free_addresses(3)?;
        let cluster: Vec<_> = (0..3)
            .map(|n| format!("m{n}=http://{}", peers[n]))
            .collect();
        for n in 0..3 {
            let (client, peer) = (
                format!("http://{}", clients[n]),
                format!("http://{}", peers[n]),
            );
            let data = servers.file(&format!("data-{n}"));
            let mut words = words(&["etcd", "--logger", "zap", "--log-level", "error"]);
            for (option, value) in [
                ("--name", format!("m{n}")),
                ("--data-dir", data),
                ("--listen-client-urls", client.clone()),
                ("--advertise-client-urls", client),
                ("--listen-peer-urls", peer.clone()),
                ("--initial-advertise-peer-urls", peer),
                ("--initial-cluster", cluster.join(",")),
                ("--quota-backend-bytes", (8_u64 << 30).to_string()),
            ] {
                words.extend([option.into(), value]);
            }
            servers.launch(&words)?;
        }
        servers.until("etcd has a leader", etcd_leads).await?;
        Ok(servers)
    }

    fn on_free_ports(
        dir: &Path,
        name: &str,
        count: usize,
    ) -> Result<(Self, Vec<SocketAddr>), String> {
        let logs = dir.join(name);
        std::fs::create_dir_all(&logs).map_err(|e| format!("{}: {e}", logs.display()))?;
        let addresses = free_addresses(count)?;
        let servers = Self {
            addresses: addresses.iter().map(SocketAddr::to_string).collect(),
            processes: Vec::new(),
            logs,
        };
        Ok((servers, addresses))
    }

    fn file(&self, name: &str) -> String {
        self.logs.join(name).display().to_string()
    }

    fn dir(&self, name: &str) -> Result<String, String> {
        let path = self.logs.join(name);
        std::fs::create_dir_all(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(path.display().to_string())
    }

    /// Another program, held by a process of this one so that it cannot outlive it.
    fn launch(&mut self, command: &[String]) -> Result<(), String> {
        let mut held = words(&["serve", "program", "--"]);
        held.extend_from_slice(command);
        self.launch_own(&held)
    }

    fn launch_own(&mut self, arguments: &[String]) -> Result<(), String> {
        let log = self.logs.join(format!("{}.log", self.processes.len()));
        let output = File::create(&log).map_err(|e| format!("{}: {e}", log.display()))?;
        let errors = output.try_clone().map_err(|e| e.to_string())?;
        let mut child = Command::new(own_program()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(|e| format!("cannot start a server: {e}"))?;
        let leash = child.stdin.take();
        self.processes.push(Process { child, leash });
        Ok(())
    }

    /// Asks every address until one is what is waited for; it then comes first.
    async fn until(
        &mut self,
        what: &str,
        ready: impl AsyncFn(&str) -> Result<bool, String>,
    ) -> Result<(), String> {
        let deadline = Instant::now() + READY_WITHIN;
        let mut last = String::from("no answer");
        while Instant::now() < deadline {
            for n in 0..self.addresses.len() {
                let asked = timeout(ASK_WITHIN, ready(&self.addresses[n])).await;
                match asked {
                    Ok(Ok(true)) => {
                        self.addresses.swap(0, n);
                        return Ok(());
                    }
                    Ok(Ok(false)) => last = "not yet".into(),
                    Ok(Err(why)) => last = why,
                    Err(_) => last = "no answer in time".into(),
                }
            }
            sleep(Duration::from_millis(50)).await;
        }
        Err(format!(
            "not within {READY_WITHIN:?}: {what} ({last}). {}",
            self.last_words()
        ))
    }

    /// What the processes wrote last.
    fn last_words(&self) -> String {
        let logs = (0..self.processes.len()).filter_map(|n| {
            let log = std::fs::read_to_string(self.logs.join(format!("{n}.log"))).ok()?;
            log.lines().last().map(str::to_owned)
        });
        logs.collect::<Vec<_>>().join("; ")
    }

    /// Ends them and waits until they are gone.
    pub(crate) async fn stop(mut self) {
        for process in &mut self.processes {
            process.leash = None;
        }
        for process in &mut self.processes {
            if timeout(STOP_WITHIN, process.child.wait()).await.is_err() {
                // It hangs; what it held goes with it, or with its own leash.
                drop(process.child.kill().await);
            }
        }
    }
}

/// Whether the primary is there and has all three replicas in sync.
pub(crate) async fn kvrep_is_whole(address: &str) -> Result<bool, String> {
    let deadline = Instant::now() + ASK_WITHIN;
    let group = GroupId::named(GROUP);
    let link = TcpLink::connect(address, group, LinkLimits::default(), deadline).await;
    let status = link
        .map_err(|e| e.to_string())?
        .call(Op::Status, deadline)
        .await;
    match status.map_err(|e| e.to_string())? {
        Outcome::Status(status) => {
            let in_sync = status.configuration.map_or(0, |c| c.in_sync.len());
            Ok(status.serving && in_sync == 3)
        }
        other => Err(format!("{other:?}")),
    }
}

async fn redis_is_whole(address: &str) -> Result<bool, String> {
    let told = RedisConnection::open(address).await?.replication().await?;
    Ok(told.matches("state=online").count() == 2)
}

async fn etcd_leads(address: &str) -> Result<bool, String> {
    EtcdConnection::open(address).await?.leads().await
}

async fn listens(address: &str) -> Result<bool, String> {
    let connected = tokio::net::TcpStream::connect(address).await;
    connected.map(|_| true).map_err(|e| e.to_string())
}

/// This program.
pub(crate) fn own_program() -> Result<PathBuf, String> {
    std::env::current_exe().map_err(|e| format!("cannot find this program: {e}"))
}

/// Ports that nobody uses now. Only when all are chosen are they given back, so that no two are equal.
fn free_addresses(count: usize) -> Result<Vec<SocketAddr>, String> {
    let listeners: Result<Vec<_>, _> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect();
    let listeners = listeners.map_err(|e| format!("no free port: {e}"))?;
    let addresses = listeners
        .iter()
        .map(TcpListener::local_addr)
        .collect::<Result<_, _>>();
    addresses.map_err(|e| e.to_string())
}

fn joined(addresses: &[SocketAddr]) -> String {
    let addresses: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
    addresses.join(",")
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

const READY_WITHIN: Duration = Duration::from_secs(30);
const ASK_WITHIN: Duration = Duration::from_secs(2);
const STOP_WITHIN: Duration = Duration::from_secs(10);
