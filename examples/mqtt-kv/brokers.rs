//! The brokers that stories and tests are played on, as real processes.

use super::stage::{Stuck, WITHIN};
use crate::common::processes::{Process, Program, free_ports};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

/// Which broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Broker {
    /// `mqtt-kv-broker`.
    #[value(help = "mqtt-kv-broker")]
    Embutido,
    /// Mosquitto with its default settings.
    #[value(help = "mosquitto, como vem")]
    Mosquitto,
}

impl Broker {
    /// Those that are installed here.
    #[must_use]
    pub fn installed() -> Vec<Self> {
        let mosquitto = mosquitto().map(|_| Self::Mosquitto);
        [Some(Self::Embutido), mosquitto]
            .into_iter()
            .flatten()
            .collect()
    }
}

/// Where mosquitto is.
#[must_use]
pub fn mosquitto() -> Option<PathBuf> {
    program("mosquitto")
}

/// Where a program of the system is.
#[must_use]
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let here = std::env::split_paths(&path);
    let beside = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    here.chain(beside)
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

/// Anybody may connect.
pub const OPEN_TO_ALL: &str = "allow_anonymous true";

/// A broker at a port of its own, which may die and come back there. Nothing of it outlives it: it keeps nothing on a disk.
#[derive(Debug)]
pub struct RunningBroker {
    which: Broker,
    port: u16,
    directory: PathBuf,
    settings: String,
    running: Option<Process>,
}

impl RunningBroker {
    /// Starts it. `settings` are further lines of mosquitto's configuration ([`OPEN_TO_ALL`] among them, or a file of passwords); its files are kept
    /// in this directory.
    ///
    /// # Errors
    /// When it does not listen in time.
    pub async fn start(which: Broker, settings: &str, directory: &Path) -> Result<Self, Stuck> {
        let [port] = free_ports()?;
        let mut broker = Self {
            which,
            port,
            directory: directory.to_owned(),
            settings: settings.to_owned(),
            running: None,
        };
        broker.start_again().await?;
        Ok(broker)
    }

    /// Starts it where it was.
    ///
    /// # Errors
    /// When it does not listen in time.
    pub async fn start_again(&mut self) -> Result<(), Stuck> {
        let address = self.address();
        let program = match self.which {
            Broker::Embutido => {
                Program::beside("broker", "mqtt-kv-broker")?.args(["--listen", &address])
            }
            Broker::Mosquitto => {
                let file = mosquitto()
                    .ok_or_else(|| Stuck::Otherwise("mosquitto não está instalado".into()))?;
                let config = self.directory.join("mosquitto.conf");
                let lines = format!(
                    "listener {} 127.0.0.1\nuser root\n{}\n",
                    self.port, self.settings
                );
                std::fs::write(&config, lines)
                    .map_err(|error| Stuck::Otherwise(error.to_string()))?;
                Program::at("mosquitto", file).arg("-c").arg(config)
            }
        };
        let errors = self.directory.join("broker.log");
        self.running = Some(program.errors_to(errors).start()?);
        let deadline = Instant::now() + WITHIN;
        while TcpStream::connect(&address).await.is_err() {
            if Instant::now() >= deadline {
                return Err(Stuck::Otherwise(format!(
                    "o broker não escuta em {address}"
                )));
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Kills it (SIGKILL).
    ///
    /// # Errors
    /// When the system does not.
    pub async fn kill(&mut self) -> Result<(), Stuck> {
        if let Some(mut broker) = self.running.take() {
            broker.kill().await?;
        }
        Ok(())
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}
