//! An operator's `--force`, as its user runs it: what is asked for, what it costs, and who is told.

use kvrep_core::node::{Client, ClientOptions};
use kvrep_core::{Read, ReplicaId};
use kvrep_examples::demo::catalog::{Answer, Catalog, Put, Query};
use kvrep_examples::demo::pair::GROUP;
use kvrep_transport_tcp::TcpGroupLink;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

/// A replica process and what it tells. Dropped, it is killed.
struct Replica {
    process: Child,
    told: Receiver<String>,
}

impl Replica {
    fn start(id: u32, dir: &Path, addresses: &BTreeMap<u32, String>, more: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
        command
            .args(["serve", "--id", &id.to_string(), "--authority", "alone"])
            .arg("--data")
            .arg(dir.join(id.to_string()))
            .args(more);
        for (peer, address) in addresses {
            command.args(["--peer", &format!("{peer}={address}")]);
        }
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(dir.join(format!("{id}.log")));
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log.expect("a log"))
            .spawn()
            .expect("a replica can be started");
        let output = process.stdout.take().expect("piped");
        let (tell, told) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                drop(tell.send(line));
            }
        });
        Self { process, told }
    }

    /// The next line with this in it.
    fn tells(&self, wanted: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut others = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.told.recv_timeout(left) {
                Ok(line) if line.contains(wanted) => return line,
                Ok(line) => others.push(line),
                Err(_) => panic!("never told {wanted:?}, but {others:#?}"),
            }
        }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn addresses() -> BTreeMap<u32, String> {
    let bound = [1, 2].map(|id| (id, TcpListener::bind("127.0.0.1:0").expect("a port")));
    let at = |listener: &TcpListener| listener.local_addr().expect("bound").to_string();
    bound
        .iter()
        .map(|(id, listener)| (*id, at(listener)))
        .collect()
}

fn client(addresses: &BTreeMap<u32, String>) -> Client<Catalog> {
    let mut options = ClientOptions::default();
    options.deadline = PATIENCE;
    Client::with_options(TcpGroupLink::new(GROUP, addresses.values()), options)
}

async fn put(client: &Client<Catalog>, key: &str) {
    let (key, value) = (key.to_owned(), "{}".to_owned());
    let answer = client.execute(Put { key, value }).await;
    assert_eq!(answer.expect("it is acknowledged"), Answer::Written(1));
}

async fn has(client: &Client<Catalog>, key: &str) -> bool {
    let found = client.query(Read::Linearizable, Query::Get(key.into()));
    matches!(found.await.expect("it is answered"), Answer::Found(Some(_)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_replica_says_what_it_costs_and_whoever_returns_says_what_was_lost() {
    let dir = tempfile::tempdir().expect("a directory");
    let addresses = addresses();
    let start = |id, more: &[&str]| Replica::start(id, dir.path(), &addresses, more);
    let (first, second) = (start(1, &[]), start(2, &[]));
    put(&client(&addresses), "both have it").await;
    let second_has_it = client(&BTreeMap::from([(2, addresses[&2].clone())]));
    drop(second);
    put(&client(&addresses), "only the first has it").await;
    drop(first);

    // By itself the second waits, and says for whom.
    let second = start(2, &[]);
    let waits = second.tells(&ReplicaId(1).to_string());
    assert!(!waits.contains("FORCED"), "{waits}");
    drop(second);

    let second = start(2, &["--force"]);
    let forced = second.tells("FORCED");
    let first_id = ReplicaId(1).to_string();
    assert!(
        forced.contains(&format!("does not wait for {first_id};")),
        "{forced}"
    );
    assert!(forced.contains("are LOST"), "{forced}");
    assert!(has(&second_has_it, "both have it").await);
    assert!(!has(&second_has_it, "only the first has it").await);
    put(&second_has_it, "written after").await;

    let first = start(1, &[]);
    let lost = first.tells("not in the history that counts");
    println!("{waits}\n{forced}\n{lost}");
    first.tells("set aside in");
    let all = client(&addresses);
    assert!(has(&all, "written after").await);
    assert!(!has(&all, "only the first has it").await);
}

#[test]
fn the_help_says_what_a_forced_start_costs() {
    let output = Command::new(env!("CARGO_BIN_EXE_demo"))
        .args(["serve", "--help"])
        .output()
        .expect("the demo can be started");
    let help = String::from_utf8(output.stdout).expect("text");
    for words in ["--force", "WHAT ONLY THE MISSING HAD IS LOST", "Example:"] {
        assert!(help.contains(words), "{words}: {help}");
    }
}
