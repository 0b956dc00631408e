//! What stories and tests are played with: a broker, servers and a monitor as real processes, and a [`Probe`] that speaks JSON to them
//! as other people's programs do.

use super::topics::Topics;
use crate::common::processes::{Process, ProcessError, Program, free_ports};
use bytes::Bytes;
use kvrep_transport_mqtt::MqttConfig;
use kvrep_transport_mqtt::ordered::{Event, OrderedTopic, Publisher};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

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

/// Which broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Broker {
    /// `mqtt-kv-broker`.
    Embutido,
    /// Mosquitto with its default settings.
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
    let path = std::env::var_os("PATH").unwrap_or_default();
    let here = std::env::split_paths(&path);
    let beside = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    here.chain(beside)
        .map(|directory| directory.join("mosquitto"))
        .find(|file| file.is_file())
}

/// A group with its broker. Dropped, all of it is killed.
#[derive(Debug)]
pub struct Stage {
    broker: Broker,
    running: Option<Process>,
    port: u16,
    directory: TempDir,
    servers: Vec<Option<Process>>,
    monitor: Option<Process>,
    options: Vec<String>,
    timeout: Duration,
}

impl Stage {
    /// A broker that runs, and `servers` servers and a monitor that do not yet. `options` are those of every server.
    ///
    /// # Errors
    /// When the broker does not start.
    pub async fn new(broker: Broker, servers: usize, options: &[&str]) -> Result<Self, Stuck> {
        let directory = TempDir::new().map_err(|error| Stuck::Otherwise(error.to_string()))?;
        let [port] = free_ports()?;
        let mut stage = Self {
            broker,
            running: None,
            port,
            directory,
            servers: (0..servers).map(|_| None).collect(),
            monitor: None,
            options: options.iter().map(ToString::to_string).collect(),
            timeout: TIMEOUT,
        };
        stage.start_broker().await?;
        Ok(stage)
    }

    /// Starts the broker (again).
    ///
    /// # Errors
    /// When it does not listen in time.
    pub async fn start_broker(&mut self) -> Result<(), Stuck> {
        let address = self.address();
        let program = match self.broker {
            Broker::Embutido => {
                Program::beside("broker", "mqtt-kv-broker")?.args(["--listen", &address])
            }
            Broker::Mosquitto => {
                let file = mosquitto()
                    .ok_or_else(|| Stuck::Otherwise("mosquitto não está instalado".into()))?;
                let config = self.directory.path().join("mosquitto.conf");
                let lines = format!(
                    "listener {} 127.0.0.1\nallow_anonymous true\nuser root\n",
                    self.port
                );
                std::fs::write(&config, lines)
                    .map_err(|error| Stuck::Otherwise(error.to_string()))?;
                Program::at("mosquitto", file).arg("-c").arg(config)
            }
        };
        self.running = Some(program.errors_to(self.file("broker.log")).start()?);
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

    /// Kills the broker.
    ///
    /// # Errors
    /// When the system does not.
    pub async fn kill_broker(&mut self) -> Result<(), Stuck> {
        if let Some(mut broker) = self.running.take() {
            broker.kill().await?;
        }
        Ok(())
    }

    /// Where the broker is.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
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
        for id in 0..self.servers.len() {
            self.start_server(id, &[])?;
        }
        for id in 0..self.servers.len() {
            self.server(id)?.line("servindo a partir", WITHIN).await?;
        }
        self.start_monitor(&[]).await
    }

    /// Starts a server with further options.
    ///
    /// # Errors
    /// When the system does not.
    pub fn start_server(&mut self, id: usize, more: &[&str]) -> Result<(), Stuck> {
        let program = Program::beside(format!("servidor {id}"), "mqtt-kv-server")?
            .args([id.to_string(), self.servers.len().to_string()])
            .args(["--broker", &self.address()])
            .args(["--periodo", &PERIOD.as_millis().to_string()])
            .args(["--timeout", &self.timeout.as_millis().to_string()])
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
        self.server(id)?.line("servindo a partir", WITHIN).await?;
        Ok(())
    }

    /// Starts the monitor and waits until it hears.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn start_monitor(&mut self, more: &[&str]) -> Result<(), Stuck> {
        let program = Program::beside("monitor", "mqtt-kv-monitor")?
            .arg(self.servers.len().to_string())
            .args(["--broker", &self.address()])
            .args(["--timeout", &self.timeout.as_millis().to_string()])
            .args(more);
        let mut monitor = program.start()?;
        monitor.line("conectado ao broker", WITHIN).await?;
        self.monitor = Some(monitor);
        Ok(())
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
        Probe::connect(&self.address()).await
    }

    /// The client program, with these arguments.
    ///
    /// # Errors
    /// When it is not built.
    pub fn client(&self, arguments: &[&str]) -> Result<Program, Stuck> {
        let program = Program::beside("cliente", "mqtt-kv-client")?;
        Ok(program.args(["--broker", &self.address()]).args(arguments))
    }
}

/// Publishes requests and keeps every answer.
#[derive(Debug)]
pub struct Probe {
    publisher: Publisher,
    topics: Topics,
    heard: Arc<Heard>,
    reading: JoinHandle<()>,
    next: u64,
}

/// An answer as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `idserv`.
    pub server: u64,
    /// `status`.
    pub status: String,
    /// `valor`.
    pub value: Option<String>,
}

#[derive(Debug, Default)]
struct Heard {
    /// Signs of life by server: how many, where the last one was in the order, up to where it had answered.
    signs: Mutex<BTreeMap<u64, (u64, u64, u64)>>,
    /// By `idpedido`.
    answers: Mutex<BTreeMap<u64, Vec<Answer>>>,
    /// When the first answer to each came.
    answered_at: Mutex<BTreeMap<u64, Instant>>,
    /// Everything else: by topic.
    others: Mutex<Vec<(String, Bytes)>>,
    connected: Mutex<bool>,
    acknowledged: Mutex<u64>,
    more: Notify,
}

fn lock<T>(kept: &Mutex<T>) -> MutexGuard<'_, T> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Heard {
    fn note(&self, topic: &str, payload: Bytes) {
        if topic == Topics::default().monitor {
            if let Ok(json) = serde_json::from_slice::<Value>(&payload)
                && let Some(server) = json["idServ"].as_u64()
            {
                let mut signs = lock(&self.signs);
                let sign = signs.entry(server).or_default();
                let number = |name: &str| json[name].as_u64().unwrap_or(0);
                *sign = (sign.0 + 1, number("posicao"), number("respondido_ate"));
            }
        } else if topic == ANSWERS
            && let Ok(json) = serde_json::from_slice::<Value>(&payload)
            && let Some(id) = json["idpedido"].as_u64()
        {
            let answer = Answer {
                server: json["idserv"].as_u64().unwrap_or(u64::MAX),
                status: json["status"].as_str().unwrap_or_default().to_owned(),
                value: json["valor"].as_str().map(str::to_owned),
            };
            lock(&self.answered_at)
                .entry(id)
                .or_insert_with(Instant::now);
            lock(&self.answers).entry(id).or_default().push(answer);
        } else {
            let mut others = lock(&self.others);
            if others.len() < OTHERS_MAX {
                others.push((topic.to_owned(), payload));
            }
        }
    }
}

impl Probe {
    /// Connects, and hears its answers and the signs of life.
    ///
    /// # Errors
    /// When the broker does not take it in time.
    pub async fn connect(broker: &str) -> Result<Self, Stuck> {
        let topics = Topics::default();
        let opened = OrderedTopic::new(MqttConfig::new(broker))
            .subscribe(ANSWERS)
            .subscribe(RAW_ANSWERS)
            .subscribe(&topics.monitor)
            .open();
        let wrong =
            |error: kvrep_core::transport::TransportError| Stuck::Otherwise(error.to_string());
        let (publisher, mut deliveries) = opened.map_err(wrong)?;
        let heard = Arc::new(Heard::default());
        let keeping = Arc::clone(&heard);
        let reading = tokio::spawn(async move {
            while let Some(event) = deliveries.next().await {
                match event {
                    Event::Connected { .. } => *lock(&keeping.connected) = true,
                    Event::Acknowledged(_) => *lock(&keeping.acknowledged) += 1,
                    Event::Delivered {
                        topic,
                        payload,
                        ack,
                        ..
                    } => {
                        ack.acknowledge();
                        keeping.note(&topic, payload);
                    }
                    _ => {}
                }
                keeping.more.notify_waiters();
            }
        });
        let probe = Self {
            publisher,
            topics,
            heard,
            reading,
            next: 0,
        };
        probe
            .until("a conexão", |heard| lock(&heard.connected).then_some(()))
            .await?;
        Ok(probe)
    }

    /// Publishes this on the request topic.
    ///
    /// # Errors
    /// When it is not taken.
    pub fn say(&self, payload: impl Into<Bytes>) -> Result<(), Stuck> {
        let said = self
            .publisher
            .publish(self.topics.requests.as_str(), payload.into());
        said.map(drop)
            .map_err(|error| Stuck::Otherwise(error.to_string()))
    }

    /// Publishes a query and returns its `idpedido`.
    ///
    /// # Errors
    /// When it is not taken.
    pub fn query(&mut self, key: &str) -> Result<u64, Stuck> {
        self.next += 1;
        self.say(super::dialect::request::query(key, ANSWERS, self.next))?;
        Ok(self.next)
    }

    /// Publishes an insertion and returns its `idpedido`.
    ///
    /// # Errors
    /// When it is not taken.
    pub fn insert(&mut self, key: &str, value: &str) -> Result<u64, Stuck> {
        self.next += 1;
        self.say(super::dialect::request::insertion(
            key, value, ANSWERS, self.next,
        ))?;
        Ok(self.next)
    }

    /// Waits for the (first) answer to this request.
    ///
    /// # Errors
    /// When it does not come in time.
    pub async fn answer(&self, id: u64) -> Result<Answer, Stuck> {
        let what = format!("a resposta ao pedido {id}");
        self.until(&what, |heard| {
            lock(&heard.answers).get(&id)?.first().cloned()
        })
        .await
    }

    /// Asks, and waits.
    ///
    /// # Errors
    /// When no answer comes in time.
    pub async fn get(&mut self, key: &str) -> Result<Answer, Stuck> {
        let id = self.query(key)?;
        self.answer(id).await
    }

    /// Inserts, and waits.
    ///
    /// # Errors
    /// When no answer comes in time.
    pub async fn put(&mut self, key: &str, value: &str) -> Result<Answer, Stuck> {
        let id = self.insert(key, value)?;
        self.answer(id).await
    }

    /// All answers to this request so far.
    #[must_use]
    pub fn answers(&self, id: u64) -> Vec<Answer> {
        lock(&self.heard.answers)
            .get(&id)
            .cloned()
            .unwrap_or_default()
    }

    /// When the first answer to this request came.
    #[must_use]
    pub fn answered_at(&self, id: u64) -> Option<Instant> {
        lock(&self.heard.answered_at).get(&id).copied()
    }

    /// What came on [`RAW_ANSWERS`], as it came.
    #[must_use]
    pub fn raw(&self) -> Vec<Bytes> {
        let others = lock(&self.heard.others);
        let raw = others.iter().filter(|(topic, _)| topic == RAW_ANSWERS);
        raw.map(|(_, payload)| payload.clone()).collect()
    }

    /// Waits until so many came there.
    ///
    /// # Errors
    /// When they do not in time.
    pub async fn raw_until(&self, number: usize) -> Result<Vec<Bytes>, Stuck> {
        let enough = |_: &Heard| Some(self.raw()).filter(|raw| raw.len() >= number);
        self.until("as respostas cruas", enough).await
    }

    /// Waits until this server has said that it has answered everything that was asked so far, and the others could hear it.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn settled(&self, server: u64) -> Result<(), Stuck> {
        let signs = || lock(&self.heard.signs).get(&server).copied();
        let before = signs().map_or(0, |(number, ..)| number);
        let what = format!("um sinal de vida de {server} que não deve nada");
        let is_settled = |_: &Heard| {
            let (number, at, answered) = signs()?;
            (number > before + 2 && at == answered).then_some(())
        };
        self.until(&what, is_settled).await
    }

    async fn until<T>(&self, what: &str, found: impl Fn(&Heard) -> Option<T>) -> Result<T, Stuck> {
        let deadline = Instant::now() + WITHIN;
        loop {
            // Registered before looking, so that nothing comes in between.
            let mut more = std::pin::pin!(self.heard.more.notified());
            more.as_mut().enable();
            if let Some(found) = found(&self.heard) {
                return Ok(found);
            }
            if timeout_at(deadline, more).await.is_err() {
                return Err(Stuck::Otherwise(format!("{what} não veio em {WITHIN:?}")));
            }
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

/// A key that this server of so many is responsible for.
#[must_use]
pub fn key_of(server: usize, servers: usize, n: usize) -> String {
    let mut key = format!("chave-{n}-");
    for letter in 'a'..='z' {
        key.push(letter);
        if super::dialect::request::hash(&key) % servers as u64 == server as u64 {
            return key;
        }
        key.pop();
    }
    key
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

/// Where a probe's answers go.
pub const ANSWERS: &str = "resp-sonda";
/// Where answers go that are kept as they are.
pub const RAW_ANSWERS: &str = "resp-sonda-crua";
/// How often servers say that they live.
pub const PERIOD: Duration = Duration::from_millis(100);
/// After how long a silent one is dead.
pub const TIMEOUT: Duration = Duration::from_millis(1_000);
const OTHERS_MAX: usize = 100_000;
