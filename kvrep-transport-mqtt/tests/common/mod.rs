//! What the tests of this crate share: brokers to test against, and patience.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(unreachable_pub, reason = "a module of several test programs")]

use kvrep_transport_mqtt::ordered::{Deliveries, Event};
use kvrep_transport_mqtt::{EmbeddedBroker, MqttConfig};
use rustix::process::{Pid, Signal, kill_process};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub const PATIENCE: Duration = Duration::from_secs(40);

/// A broker under test.
pub enum AnyBroker {
    Embedded(EmbeddedBroker),
    Mosquitto(Mosquitto),
}

impl AnyBroker {
    pub fn embedded() -> Self {
        Self::Embedded(EmbeddedBroker::start("127.0.0.1:0").unwrap())
    }

    /// Mosquitto, where it is installed; it drops nothing from its queues, which by default it does after 1,000 messages.
    pub fn mosquitto() -> Option<Self> {
        Mosquitto::start("max_queued_messages 0").map(Self::Mosquitto)
    }

    /// Every broker there is.
    pub fn all() -> Vec<Self> {
        [Some(Self::embedded()), Self::mosquitto()]
            .into_iter()
            .flatten()
            .collect()
    }

    pub fn address(&self) -> String {
        match self {
            Self::Embedded(broker) => broker.address().to_string(),
            Self::Mosquitto(broker) => broker.address.to_string(),
        }
    }

    pub fn config(&self) -> MqttConfig {
        MqttConfig::new(self.address())
    }
}

/// A mosquitto of our own, killed when it is dropped.
pub struct Mosquitto {
    pub address: SocketAddr,
    child: Child,
    directory: tempfile::TempDir,
}

impl Mosquitto {
    /// With these further lines of configuration; `None`, and a word about it, where it is not installed.
    pub fn start(extra: &str) -> Option<Self> {
        let program = program()?;
        let directory = tempfile::tempdir().unwrap();
        // Another process may take the port before mosquitto does.
        for _ in 0..20 {
            let address = free_address();
            let port = address.port();
            let config = format!(
                "listener {port} 127.0.0.1\nuser root\nlog_type none\npersistence_location {}/\n{}\n{extra}\n",
                directory.path().display(),
                if extra.contains("allow_anonymous") {
                    ""
                } else {
                    "allow_anonymous true"
                },
            );
            std::fs::write(directory.path().join("conf"), config).unwrap();
            let mut child = run(&program, &directory);
            if listens(address, &mut child) {
                return Some(Self {
                    address,
                    child,
                    directory,
                });
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("mosquitto does not start");
    }

    pub fn config(&self) -> MqttConfig {
        MqttConfig::new(self.address.to_string())
    }

    /// Ends it without a word.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Ends it as an operator does: it saves what it is to keep.
    pub fn terminate(&mut self) {
        self.signal(Signal::TERM);
        let _ = self.child.wait();
    }

    /// Starts it where it was.
    pub fn restart(&mut self) {
        self.kill();
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.child = run(&program().unwrap(), &self.directory);
            if listens(self.address, &mut self.child) {
                return;
            }
            assert!(Instant::now() < deadline, "mosquitto does not come back");
        }
    }

    pub fn stop(&self) {
        self.signal(Signal::STOP);
    }

    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let id = Pid::from_child(&self.child);
        kill_process(id, signal).unwrap();
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    places.push("/usr/sbin".into());
    let found = places
        .into_iter()
        .map(|place| place.join("mosquitto"))
        .find(|p| p.is_file());
    if found.is_none() {
        eprintln!("NOT RUN against mosquitto: it is not installed");
    }
    found
}

fn run(program: &PathBuf, directory: &tempfile::TempDir) -> Child {
    Command::new(program)
        .arg("-c")
        .arg(directory.path().join("conf"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn listens(address: SocketAddr, child: &mut Child) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        if TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

pub fn free_address() -> SocketAddr {
    let probe = TcpListener::bind("127.0.0.1:0").unwrap();
    probe.local_addr().unwrap()
}

/// A prefix that no other test uses.
pub fn prefix() -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("tests/{:016x}", RandomState::new().hash_one(0))
}

/// The next event that `wanted` takes; what comes before is passed over.
pub async fn await_event<T>(
    deliveries: &mut Deliveries,
    what: &str,
    mut wanted: impl FnMut(Event) -> Option<T>,
) -> T {
    let found = async {
        loop {
            let event = deliveries.next().await.expect("the stream is open");
            if let Some(found) = wanted(event) {
                return found;
            }
        }
    };
    tokio::time::timeout(PATIENCE, found)
        .await
        .unwrap_or_else(|_| panic!("never came: {what}"))
}

/// Waits until it is connected; says whether the session was resumed.
pub async fn connected(deliveries: &mut Deliveries) -> bool {
    await_event(deliveries, "a connection", |event| match event {
        Event::Connected {
            session_resumed, ..
        } => Some(session_resumed),
        _ => None,
    })
    .await
}

/// Waits until `condition` holds.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
