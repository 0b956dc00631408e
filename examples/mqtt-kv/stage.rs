//! What stories and tests are played with: a broker, servers and a monitor as real processes.

use super::brokers::{Broker, OPEN_TO_ALL, RunningBroker};
use super::probe::Probe;
use crate::common::processes::{Process, ProcessError, Program};
use kvrep_transport_mqtt::MqttConfig;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

/// For anything to happen, on a machine that has other things to do.
pub const WITHIN: Duration = Duration::from_secs(60);

/// Why a story cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Stuck {
    /// A process does not do what it should.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Something else: a sentence.
    #[error("{0}")]
    Otherwise(String),
}

/// A group with its broker. Dropped, all of it is killed.
#[derive(Debug)]
pub struct Stage {
    broker: RunningBroker,
    directory: TempDir,
    servers: Vec<Option<Process>>,
    monitor: Option<Process>,
    options: Vec<String>,
    login: Option<Login>,
}

/// Under which name everybody of a stage speaks to its broker.
#[derive(Clone, Debug)]
pub struct Login {
    /// `--usuario`.
    pub user: String,
    /// `MQTT_SENHA`.
    pub password: String,
}

impl Stage {
    /// A broker that runs, and `servers` servers and a monitor that do not yet. `options` are those of every server.
    ///
    /// # Errors
    /// When the broker does not start.
    pub async fn new(broker: Broker, servers: usize, options: &[&str]) -> Result<Self, Stuck> {
        Self::set(broker, OPEN_TO_ALL, servers, options).await
    }

    /// The same with mosquitto's configuration, as [`RunningBroker::start`] takes it.
    ///
    /// # Errors
    /// When the broker does not start.
    pub async fn set(
        broker: Broker,
        settings: &str,
        servers: usize,
        options: &[&str],
    ) -> Result<Self, Stuck> {
        let directory = TempDir::new().map_err(|error| Stuck::Otherwise(error.to_string()))?;
        let broker = RunningBroker::start(broker, settings, directory.path()).await?;
        Ok(Self {
            broker,
            directory,
            servers: (0..servers).map(|_| None).collect(),
            monitor: None,
            options: options.iter().map(ToString::to_string).collect(),
            login: None,
        })
    }

    /// Has everybody log in at the broker.
    #[must_use]
    pub fn logged_in(mut self, login: Login) -> Self {
        self.login = Some(login);
        self
    }

    /// Starts the broker (again).
    ///
    /// # Errors
    /// When it does not listen in time.
    pub async fn start_broker(&mut self) -> Result<(), Stuck> {
        self.broker.start_again().await
    }

    /// Kills the broker.
    ///
    /// # Errors
    /// When the system does not.
    pub async fn kill_broker(&mut self) -> Result<(), Stuck> {
        self.broker.kill().await
    }

    /// Where the broker is.
    #[must_use]
    pub fn address(&self) -> String {
        self.broker.address()
    }

    /// A file of this stage.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts all servers, and the monitor when they serve.
    ///
    /// # Errors
    /// When one does not serve in time.
    pub async fn start_all(&mut self) -> Result<(), Stuck> {
        self.start_servers().await?;
        self.start_monitor(&[]).await
    }

    /// Starts all servers, without a monitor.
    ///
    /// # Errors
    /// When one does not serve in time.
    pub async fn start_servers(&mut self) -> Result<(), Stuck> {
        for id in 0..self.servers.len() {
            self.start_server(id, &[])?;
        }
        for id in 0..self.servers.len() {
            self.serves(id).await?;
        }
        Ok(())
    }

    /// Waits until this server says that it serves.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn serves(&mut self, id: usize) -> Result<(), Stuck> {
        self.server(id)?.line("servindo a partir", WITHIN).await?;
        Ok(())
    }

    /// Starts a server with further options.
    ///
    /// # Errors
    /// When the system does not.
    pub fn start_server(&mut self, id: usize, more: &[&str]) -> Result<(), Stuck> {
        let program = self
            .program(format!("servidor {id}"), "mqtt-kv-server")?
            .args([id.to_string(), self.servers.len().to_string()])
            .args(["--periodo", &PERIOD.as_millis().to_string()])
            .args(["--timeout", &TIMEOUT.as_millis().to_string()])
            .arg("--despejo")
            .arg(self.dump_file(id))
            .args(&self.options)
            .args(more);
        self.servers[id] = Some(program.start()?);
        Ok(())
    }

    /// Starts a server in the place of one that failed, and waits until it serves.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn replace(&mut self, id: usize) -> Result<(), Stuck> {
        self.start_server(id, &["--novo"])?;
        self.serves(id).await
    }

    /// Starts the monitor and waits until it hears.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn start_monitor(&mut self, more: &[&str]) -> Result<(), Stuck> {
        self.start_monitor_at(&self.address(), more).await
    }

    /// The same over another way to the broker.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn start_monitor_at(&mut self, broker: &str, more: &[&str]) -> Result<(), Stuck> {
        let program = self
            .program_at(broker, "monitor", "mqtt-kv-monitor")?
            .arg(self.servers.len().to_string())
            .args(["--timeout", &TIMEOUT.as_millis().to_string()])
            .args(more);
        let mut monitor = program.start()?;
        monitor.line("conectado ao broker", WITHIN).await?;
        self.monitor = Some(monitor);
        Ok(())
    }

    /// How many servers there are.
    #[must_use]
    pub fn size(&self) -> usize {
        self.servers.len()
    }

    /// A server.
    ///
    /// # Errors
    /// When it does not run.
    pub fn server(&mut self, id: usize) -> Result<&mut Process, Stuck> {
        let server = self.servers.get_mut(id).and_then(Option::as_mut);
        server.ok_or_else(|| Stuck::Otherwise(format!("o servidor {id} não foi iniciado")))
    }

    /// The monitor.
    ///
    /// # Errors
    /// When it does not run.
    pub fn monitor(&mut self) -> Result<&mut Process, Stuck> {
        (self.monitor.as_mut()).ok_or_else(|| Stuck::Otherwise("não há monitor".into()))
    }

    /// Kills a server (SIGKILL).
    ///
    /// # Errors
    /// When the system does not.
    pub async fn kill(&mut self, id: usize) -> Result<(), Stuck> {
        Ok(self.server(id)?.kill().await?)
    }

    fn dump_file(&self, id: usize) -> PathBuf {
        self.file(&format!("despejo-{id}.json"))
    }

    /// Ends these servers in good order and returns the tables that they had.
    ///
    /// # Errors
    /// When one does not end, or says none.
    pub async fn tables(&mut self, ids: &[usize]) -> Result<Vec<String>, Stuck> {
        for id in ids {
            self.server(*id)?.interrupt()?;
        }
        let mut tables = Vec::new();
        for id in ids {
            let status = self.server(*id)?.ended(WITHIN).await?;
            let printed = self.server(*id)?.printed().join("\n");
            let read = std::fs::read_to_string(self.dump_file(*id));
            match read {
                Ok(table) if status.success() => tables.push(table),
                Ok(_) | Err(_) => {
                    return Err(Stuck::Otherwise(format!(
                        "o servidor {id} terminou com {status}:\n{printed}"
                    )));
                }
            }
        }
        Ok(tables)
    }

    /// A client of this stage's broker.
    ///
    /// # Errors
    /// When the broker does not take it in time.
    pub async fn probe(&self) -> Result<Probe, Stuck> {
        let mut config = MqttConfig::new(self.address());
        if let Some(login) = &self.login {
            config = config.login(&login.user, &login.password);
        }
        Probe::connect(config).await
    }

    /// The client program, with these arguments.
    ///
    /// # Errors
    /// When it is not built.
    pub fn client(&self, arguments: &[&str]) -> Result<Program, Stuck> {
        let program = self.program("cliente".into(), "mqtt-kv-client")?;
        Ok(program.args(arguments))
    }

    /// One of our programs, which knows the broker.
    fn program(&self, name: String, file: &str) -> Result<Program, Stuck> {
        self.program_at(&self.address(), &name, file)
    }

    fn program_at(&self, broker: &str, name: &str, file: &str) -> Result<Program, Stuck> {
        let program = Program::beside(name, file)?.args(["--broker", broker]);
        Ok(match &self.login {
            Some(login) => program
                .args(["--usuario", &login.user])
                .env("MQTT_SENHA", &login.password),
            None => program,
        })
    }
}

/// Whether all tables are the same, in a sentence for a story.
///
/// # Errors
/// When they are not.
pub fn all_equal(tables: &[String]) -> Result<String, String> {
    let pairs = |table: &String| {
        serde_json::from_str::<BTreeMap<String, String>>(table).map_or(0, |pairs| pairs.len())
    };
    let counts: Vec<_> = tables.iter().map(pairs).collect();
    if tables.windows(2).all(|two| two[0] == two[1]) {
        Ok(format!("{counts:?} pares"))
    } else {
        Err(format!("as tabelas diferem: {counts:?} pares"))
    }
}

/// How often servers say that they live.
pub const PERIOD: Duration = Duration::from_millis(100);
/// After how long a silent one is dead.
pub const TIMEOUT: Duration = Duration::from_millis(1_000);
