//! Short forms for tests of the multicast calculator.
#![allow(dead_code, reason = "each test file uses some of it")]
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on says why it stops"
)]

use kvrep_examples::common::processes::{Process, Program, free_ports};
use kvrep_transport_multicast::{GroupSocket, MulticastConfig};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;
use tokio::time::{interval, timeout};

pub(crate) const WITHIN: Duration = Duration::from_secs(60);
pub(crate) const PERIOD: Duration = Duration::from_millis(600);

/// Groups of this test alone.
pub(crate) struct Groups {
    pub(crate) servers: SocketAddrV4,
    pub(crate) clients: SocketAddrV4,
}

impl Groups {
    pub(crate) fn new() -> Self {
        let [servers, clients] = free_ports::<2>().unwrap();
        let [high, low] = servers.to_be_bytes();
        Self {
            servers: SocketAddrV4::new(Ipv4Addr::new(239, 193, high, low), servers),
            clients: SocketAddrV4::new(Ipv4Addr::new(239, 194, high, low), clients),
        }
    }

    pub(crate) fn server(&self, id: u32) -> Program {
        Program::beside(format!("server {id}"), "calc-server")
            .unwrap()
            .args([id.to_string(), "--interface".into(), "127.0.0.1".into()])
            .args(self.server_options())
    }

    pub(crate) fn server_options(&self) -> [String; 8] {
        let (servers, clients) = (self.servers.to_string(), self.clients.to_string());
        let period = PERIOD.as_millis().to_string();
        [
            "--group",
            &servers,
            "--client-group",
            &clients,
            "--period",
            &period,
            "--lang",
            "en",
        ]
        .map(String::from)
    }

    pub(crate) fn client(&self, options: &[&str]) -> Program {
        Program::beside("client", "calc-client")
            .unwrap()
            .args([
                "--interface",
                "127.0.0.1",
                "--timeout",
                "60000",
                "--resend-every",
                "200",
            ])
            .args(["--group".to_owned(), self.clients.to_string()])
            .args(options)
    }

    pub(crate) fn config(group: SocketAddrV4) -> MulticastConfig {
        MulticastConfig::new(group).interface(Ipv4Addr::LOCALHOST)
    }

    /// A server's voice, from whoever this test plays.
    pub(crate) async fn alive(&self, id: &'static str) -> tokio::task::JoinHandle<()> {
        let voice = GroupSocket::open_own(&Self::config(self.servers)).unwrap();
        let group = self.servers;
        tokio::spawn(async move {
            let mut ticks = interval(PERIOD / 2);
            loop {
                ticks.tick().await;
                voice.send_to(id.as_bytes(), group).await.unwrap();
            }
        })
    }
}

/// What a client printed of answers.
pub(crate) fn answers(client: &Process) -> Vec<String> {
    let printed = client.printed();
    let answers = printed
        .iter()
        .filter_map(|line| line.strip_prefix("Answer: "));
    answers
        .map(|line| line.split(',').next().unwrap().to_owned())
        .collect()
}

pub(crate) async fn asked(groups: &Groups, expressions: &[&str]) -> (Vec<String>, i32) {
    let options: Vec<&str> = ["--"]
        .into_iter()
        .chain(expressions.iter().copied())
        .collect();
    let mut client = groups.client(&options).start().unwrap();
    let status = client.ended(WITHIN).await.unwrap();
    (answers(&client), status.code().unwrap())
}

/// The ids of those that have sent this result, as soon as anyone says so: a client may have it before the console does.
pub(crate) async fn senders(servers: &[(u32, Process)], result: &str) -> Vec<u32> {
    let line = format!("Sending result: {result}");
    let said = async {
        let mut looks = interval(Duration::from_millis(20));
        loop {
            looks.tick().await;
            let sent = servers
                .iter()
                .filter(|(_, server)| server.printed().contains(&line));
            let ids: Vec<u32> = sent.map(|(id, _)| *id).collect();
            if !ids.is_empty() {
                return ids;
            }
        }
    };
    timeout(WITHIN, said).await.unwrap()
}

pub(crate) async fn update(server: &mut Process, of: u32, state: &str) {
    server
        .line(&format!("Update: Server {of} is {state}"), WITHIN)
        .await
        .unwrap();
}
