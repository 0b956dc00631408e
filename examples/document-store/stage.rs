//! A store of real processes, for its story and its tests: started with the literal commands in a directory of their own,
//! asked over the wire, killed, stopped.

use super::cli::remote::{NoAnswer, ask};
use super::server::group::GROUP;
use super::store::{Answer, Command, Store};
use super::value::Value;
use super::wire::Response;
use crate::common::processes::{Process, ProcessError, Program, free_ports};
use kvrep_core::node::{Client, ClientOptions, Node};
use kvrep_core::protocol::ProtocolStatus;
use kvrep_transport_tcp::{TcpConfig, TcpGroupLink, TcpTransport, Unlisted};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// How long anything may take on a machine that has much else to do.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A node of the stage: its port on this machine.
pub type Port = u16;

/// The processes, by port, and the directory in which they run.
#[derive(Debug)]
pub struct Stage {
    directory: TempDir,
    nodes: BTreeMap<Port, Process>,
    /// Where it listens, and the witness, which runs in this process.
    witness: Option<(String, Node)>,
}

impl Stage {
    /// A stage without anybody on it, in a new directory.
    ///
    /// # Errors
    /// When the system gives no directory.
    pub fn empty() -> Result<Self, String> {
        let directory = tempfile::Builder::new().prefix("docstore-").tempdir();
        Ok(Self {
            directory: directory.map_err(|e| format!("cannot make a directory: {e}"))?,
            nodes: BTreeMap::new(),
            witness: None,
        })
    }

    /// A leader and followers of it, all of them active. Their ports.
    ///
    /// # Errors
    /// When they cannot be started.
    pub async fn with<const N: usize>() -> Result<(Self, [Port; N]), String> {
        let mut stage = Self::empty()?;
        let ports = stage.enter_all().await?;
        Ok((stage, ports))
    }

    /// The same, with a witness that decides who leads.
    ///
    /// # Errors
    /// When they cannot be started.
    pub async fn with_witness<const N: usize>() -> Result<(Self, [Port; N]), String> {
        let mut stage = Self::empty()?;
        let directory = stage.directory.path().join("witness");
        let (witness, at) = witness("127.0.0.1:0", &directory).await?;
        stage.witness = Some((at, witness));
        let ports = stage.enter_all().await?;
        Ok((stage, ports))
    }

    async fn enter_all<const N: usize>(&mut self) -> Result<[Port; N], String> {
        let ports = free_ports::<N>().map_err(words)?;
        let Some((leader, followers)) = ports.split_first() else {
            return Ok(ports);
        };
        self.enter(*leader, None).await?;
        for follower in followers {
            self.enter(*follower, Some(*leader)).await?;
        }
        self.active(&ports).await?;
        Ok(ports)
    }

    /// Where they run.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The command that starts a node: `docstore-server db localhost:PORT [localhost:LEADER]`.
    ///
    /// # Errors
    /// When the program is not built.
    pub fn server(&self, port: Port, leader: Option<Port>) -> Result<Program, String> {
        let program = Program::beside(format!("node {port}"), "docstore-server").map_err(words)?;
        let mut program = program
            .directory(self.directory.path())
            .arg("db")
            .arg(format!("localhost:{port}"));
        if let Some(leader) = leader {
            program = program.arg(format!("localhost:{leader}"));
        }
        if let Some((witness, _)) = &self.witness {
            program = program.args(["--witness", witness]);
        }
        Ok(program)
    }

    /// Starts a node with its literal command, and waits until it listens.
    ///
    /// # Errors
    /// When it does not.
    pub async fn enter(&mut self, port: Port, leader: Option<Port>) -> Result<(), String> {
        let program = self.server(port, leader)?;
        self.enter_as(port, &program).await
    }

    /// Starts a node with this command, and waits until it listens.
    ///
    /// # Errors
    /// When it does not.
    pub async fn enter_as(&mut self, port: Port, program: &Program) -> Result<(), String> {
        let mut process = program.start().map_err(words)?;
        process
            .line("listening on", PATIENCE)
            .await
            .map_err(words)?;
        self.nodes.insert(port, process);
        Ok(())
    }

    /// A node's process.
    ///
    /// # Errors
    /// When there is none.
    pub fn node(&mut self, port: Port) -> Result<&mut Process, String> {
        self.nodes
            .get_mut(&port)
            .ok_or_else(|| format!("nobody plays node {port}"))
    }

    /// What the nodes have printed, but for their clients' coming: to understand a failure by.
    #[must_use]
    pub fn printed(&self) -> String {
        let lines = self.nodes.iter().flat_map(|(port, process)| {
            let lines = process.printed().into_iter();
            let lines = lines.filter(|line| !line.contains("client connected"));
            lines.map(move |line| format!("{port}: {line}"))
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Kills a node (SIGKILL).
    ///
    /// # Errors
    /// When the system does not.
    pub async fn kill(&mut self, port: Port) -> Result<(), String> {
        self.node(port)?.kill().await.map_err(words)?;
        self.nodes.remove(&port);
        Ok(())
    }

    /// Stops a node (SIGSTOP).
    ///
    /// # Errors
    /// When the system does not.
    pub fn pause(&mut self, port: Port) -> Result<(), String> {
        self.node(port)?.pause().map_err(words)
    }

    /// Lets a node go on (SIGCONT).
    ///
    /// # Errors
    /// When the system does not.
    pub fn resume(&mut self, port: Port) -> Result<(), String> {
        self.node(port)?.resume().map_err(words)
    }

    /// Waits until a node prints this.
    ///
    /// # Errors
    /// When it does not.
    pub async fn hears(&mut self, port: Port, what: &str) -> Result<String, String> {
        self.node(port)?.line(what, PATIENCE).await.map_err(words)
    }

    /// Waits until a node's status is as wanted.
    ///
    /// # Errors
    /// The last status, when it never is.
    pub async fn until(
        &self,
        port: Port,
        what: &str,
        wanted: impl Fn(&Json) -> bool,
    ) -> Result<Json, String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = tell(port, r#"["status"]"#).await;
            match &status {
                Ok(status) if wanted(status) => return Ok(status.clone()),
                _ if Instant::now() > deadline => {
                    return Err(format!("node {port} is never {what}: {status:?}"));
                }
                _ => sleep(LOOK_EVERY).await,
            }
        }
    }

    /// Waits until exactly these nodes are active, in the eyes of each of them.
    ///
    /// # Errors
    /// What is the case instead.
    pub async fn active(&self, ports: &[Port]) -> Result<(), String> {
        let mut addresses: Vec<String> = ports.iter().map(|port| at(*port)).collect();
        addresses.sort();
        for port in ports {
            let agreed = |status: &Json| {
                let active = status["active_nodes"].as_array();
                let mut active: Vec<&str> = active
                    .into_iter()
                    .flatten()
                    .filter_map(Json::as_str)
                    .collect();
                active.sort_unstable();
                active == addresses && status["active"] == true
            };
            self.until(*port, &format!("one of the active {addresses:?}"), agreed)
                .await?;
        }
        Ok(())
    }

    /// Waits until one of these nodes leads: which.
    ///
    /// # Errors
    /// When none does.
    pub async fn leader(&self, ports: &[Port]) -> Result<Port, String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            for port in ports {
                let status = tell(*port, r#"["status"]"#).await;
                // Active: it is counted, and knows that it leads.
                if status.is_ok_and(|s| s["role"] == "leader" && s["active"] == true) {
                    return Ok(*port);
                }
            }
            if Instant::now() > deadline {
                return Err(format!("none of {ports:?} ever leads"));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until these nodes have applied the same and have equal digests: documents and digest.
    ///
    /// # Errors
    /// What they have instead.
    pub async fn equal(&self, ports: &[Port]) -> Result<(u64, String), String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut seen = Vec::new();
            for port in ports {
                let status = tell(*port, r#"["status"]"#).await?;
                let documents = status["documents"].as_u64().unwrap_or_default();
                let digest = status["digest"].as_str().unwrap_or_default().to_owned();
                seen.push((documents, digest, status["applied"].clone()));
            }
            if seen.windows(2).all(|pair| pair[0] == pair[1]) {
                let (documents, digest, _) = seen.swap_remove(0);
                return Ok((documents, digest));
            }
            if Instant::now() > deadline {
                return Err(format!("{ports:?} differ: {seen:?}"));
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

/// A witness for a store, in this process, listening there: it and its address.
///
/// # Errors
/// When it cannot be started.
pub async fn witness(listen: &str, directory: &Path) -> Result<(Node, String), String> {
    let config = TcpConfig::new(listen).unlisted(Unlisted::Answer);
    let transport = TcpTransport::bind(config)
        .await
        .map_err(|e| e.to_string())?;
    let at = transport
        .local_addr()
        .ok_or("it does not listen")?
        .to_string();
    let node = Node::witness(GROUP)
        .transport(transport)
        .data_dir(directory)
        .start()
        .await;
    Ok((node.map_err(|e| e.to_string())?, at))
}

/// Where a node of the stage is, as it calls itself.
#[must_use]
pub fn at(port: Port) -> String {
    format!("127.0.0.1:{port}")
}

/// Asks a node.
///
/// # Errors
/// When there is no answer.
pub async fn asked(port: Port, request: &str) -> Result<Response, NoAnswer> {
    ask(&at(port), request, Instant::now() + PATIENCE).await
}

/// Asks a node for what it is to do: the result.
///
/// # Errors
/// Its reason, or that there is no answer.
pub async fn tell(port: Port, request: &str) -> Result<Json, String> {
    tell_at(&at(port), request).await
}

/// The same for a node at `HOST:PORT`.
///
/// # Errors
/// Its reason, or that there is no answer.
pub async fn tell_at(node: &str, request: &str) -> Result<Json, String> {
    match ask(node, request, Instant::now() + PATIENCE).await {
        Ok(Response::Ok(result)) => serde_json::from_str(&result).map_err(|e| e.to_string()),
        Ok(Response::Ko(why)) => Err(why),
        Err(why) => Err(why.to_string()),
    }
}

/// What a node knows of itself, asked over the library's own wire: also while its leader is stopped.
///
/// # Errors
/// When it does not answer.
pub async fn stands(port: Port) -> Result<ProtocolStatus, String> {
    let link = TcpGroupLink::new(GROUP, [at(port)]);
    let status = Client::<Store>::new(link).status(0).await;
    status.map_err(|e| format!("node {port}: {e}"))
}

/// Inserts documents `{number_name: from..to}` into a collection, many at a time, over the library's own wire and each of them
/// exactly once.
///
/// # Errors
/// The first that failed.
pub async fn load(
    ports: &[Port],
    collection: &str,
    number_name: &str,
    numbers: std::ops::Range<i64>,
) -> Result<(), String> {
    let mut options = ClientOptions::default();
    options.deadline = PATIENCE;
    let link = TcpGroupLink::new(GROUP, ports.iter().map(|port| at(*port)));
    let client = Client::<Store>::with_options(link, options);
    let mut under_way = JoinSet::new();
    for number in numbers {
        while under_way.len() >= UNDER_WAY_MAX {
            ended(under_way.join_next().await)?;
        }
        let client = client.clone();
        let (collection, name) = (collection.to_owned(), number_name.to_owned());
        under_way.spawn(async move {
            let document = vec![(name, Value::Int(number))];
            let command = Command::Insert {
                collection,
                document,
            };
            match client.execute(command).await {
                Ok(Answer::Inserted(_)) => Ok(()),
                Ok(other) => Err(format!("document {number}: {other:?}")),
                Err(why) => Err(format!("document {number}: {why}")),
            }
        });
    }
    while !under_way.is_empty() {
        ended(under_way.join_next().await)?;
    }
    Ok(())
}

fn ended(task: Option<Result<Result<(), String>, tokio::task::JoinError>>) -> Result<(), String> {
    task.map_or(Ok(()), |joined| joined.map_err(|e| e.to_string())?)
}

fn words(error: ProcessError) -> String {
    error.to_string()
}

const LOOK_EVERY: Duration = Duration::from_millis(20);
const UNDER_WAY_MAX: usize = 256;
