//! Three servers of system 3 as processes, for the tests that talk to them.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(unreachable_pub, reason = "a module of several test programs")]

use kvrep_examples::common::conversation::dial;
use kvrep_examples::common::processes::{Process, Program, free_ports};
use kvrep_examples::zk_like_kv::session::Session;
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// For anything to happen, on a machine that has much to do.
pub const WITHIN: Duration = Duration::from_secs(60);

/// Three servers; one of them is the leader.
pub struct Trio {
    pub servers: Vec<Process>,
    pub addresses: Vec<String>,
    ports: [u16; 3],
    errors: TempDir,
}

impl Trio {
    /// Started with these options each, `leader` being one of 0, 1, 2. Tries again if another test took a port meanwhile.
    pub async fn start(leader: usize, options: [&[&str]; 3]) -> Self {
        for _ in 0..5 {
            let mut trio = Self::prepared();
            for (n, options) in options.iter().enumerate() {
                trio.servers.push(trio.server(n, leader, options));
            }
            if trio.serves().await {
                return trio;
            }
        }
        panic!("no three servers could be started");
    }

    pub fn prepared() -> Self {
        let ports: [u16; 3] = free_ports().expect("free ports");
        Self {
            servers: Vec::new(),
            addresses: ports.map(|port| format!("127.0.0.1:{port}")).into(),
            ports,
            errors: tempfile::tempdir().expect("a directory"),
        }
    }

    /// Starts one server, with its four answers as options.
    pub fn server(&self, n: usize, leader: usize, options: &[&str]) -> Process {
        self.server_at(([127, 0, 0, 1], self.ports[n]).into(), n, leader, options)
    }

    /// Starts a server at this address, whose complaints are kept as those of server `n`.
    pub fn server_at(&self, at: SocketAddr, n: usize, leader: usize, options: &[&str]) -> Process {
        let program = Program::beside(format!("server {n}"), "zk-kv-server").expect("it is built");
        let (own, leader) = (at.port().to_string(), self.ports[leader].to_string());
        let program = program.args(["--ip", "127.0.0.1", "--porta", &own]).args([
            "--ip-lider",
            "localhost",
            "--porta-lider",
            &leader,
        ]);
        let program = if options.contains(&"--dados") {
            program
        } else {
            program.args(["--dados", &self.errors.path().to_string_lossy()])
        };
        let program = program
            .args(options)
            .errors_to(self.errors.path().join(format!("{n}.log")));
        program.start().expect("it starts")
    }

    /// Whether a write succeeds, which needs all three.
    async fn serves(&self) -> bool {
        let began = Instant::now();
        let mut session = self.session(&[0, 1, 2], 1);
        while began.elapsed() < WITHIN {
            if session.put("warm up", "").await.is_ok() {
                return true;
            }
            let in_use = self.errors().contains("escutar");
            if in_use {
                return false;
            }
            sleep(Duration::from_millis(50)).await;
        }
        panic!("they never served: {}", self.errors());
    }

    /// A client that asks these servers.
    pub fn session(&self, at: &[usize], seed: u64) -> Session {
        let servers = at.iter().map(|n| self.addresses[*n].clone()).collect();
        Session::new(servers, seed, WITHIN)
    }

    /// Writes, as soon as that is possible, and returns the timestamp.
    pub async fn writes(&self, at: usize, key: &str, value: &str) -> u64 {
        let deadline = Instant::now() + WITHIN;
        loop {
            match self.session(&[at], 1).put(key, value).await {
                Ok(written) => return written.timestamp,
                Err(why) if Instant::now() > deadline => panic!("{why}: {}", self.errors()),
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// From now on this server is to be started at another port.
    pub fn move_to_another_port(&mut self, n: usize) {
        let [port] = free_ports().expect("a free port");
        self.ports[n] = port;
        self.addresses[n] = format!("127.0.0.1:{port}");
    }

    /// A fourth server.
    pub fn server_at_a_free_port(&self, leader: usize, options: &[&str]) -> Process {
        let [port] = free_ports().expect("a free port");
        self.server_at(([127, 0, 0, 1], port).into(), 3, leader, options)
    }

    /// Waits until a server says this on standard error.
    pub async fn said(&self, what: &str) {
        let deadline = Instant::now() + WITHIN;
        while !self.errors().contains(what) {
            assert!(
                Instant::now() < deadline,
                "nobody says {what:?}: {}",
                self.errors()
            );
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until this server takes connections.
    pub async fn listens(&self, n: usize) {
        let deadline = Instant::now() + WITHIN;
        while dial(&self.addresses[n], WITHIN).await.is_err() {
            assert!(Instant::now() < deadline, "{}", self.errors());
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn errors(&self) -> String {
        let read = |n| std::fs::read_to_string(self.errors.path().join(format!("{n}.log")));
        (0..5).filter_map(|n| read(n).ok()).collect()
    }

    pub async fn connect(&self, n: usize) -> TcpStream {
        dial(&self.addresses[n], WITHIN).await.expect("it listens")
    }

    /// Sends these bytes over a connection of their own and reads one line.
    pub async fn ask(&self, n: usize, bytes: &[u8]) -> Value {
        let mut stream = self.connect(n).await;
        stream.write_all(bytes).await.expect("it reads");
        let mut line = String::new();
        let mut reader = BufReader::new(stream);
        timeout(WITHIN, reader.read_line(&mut line))
            .await
            .expect("in time")
            .expect("it answers");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    /// Sends these bytes and reads until the server ends the connection.
    pub async fn ask_until_end(&self, n: usize, bytes: &[u8]) -> String {
        let mut stream = self.connect(n).await;
        stream.write_all(bytes).await.expect("it reads");
        let mut said = Vec::new();
        let read = timeout(WITHIN, stream.read_to_end(&mut said)).await;
        read.expect("it ends").expect("it answers");
        String::from_utf8(said).expect("text")
    }
}
