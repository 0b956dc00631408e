//! `kvrep-witness` as a real process: it is killed, comes back, and says what is wrong.
#![cfg(unix)]

mod common;

use common::PATIENCE;
use kvrep_core::node::{Client, ClientOptions, Node};
use kvrep_core::{ApplyContext, Authority, Read, ReplicaId, StateMachine};
use kvrep_transport_tcp::{TcpConfig, TcpGroupLink, TcpTransport};
use std::path::Path;
use std::process::{Output, Stdio};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout};

const GROUP: &str = "witnessed";

struct Witness {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    ready: String,
}

fn command(group: &str, listen: &str, data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvrep-witness"));
    command
        .args(["--group", group, "--listen", listen, "--data"])
        .arg(data)
        .kill_on_drop(true)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

impl Witness {
    /// Starts one and waits until it listens.
    async fn start(listen: &str, data: &Path) -> Self {
        let mut child = command(GROUP, listen, data).arg("--json").spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap();
        let Some(ready) = ready else {
            let mut said = String::new();
            let mut stderr = child.stderr.take().unwrap();
            stderr.read_to_string(&mut said).await.unwrap();
            panic!("the witness did not start: {said}");
        };
        Self {
            child,
            lines,
            ready,
        }
    }

    /// Where it said that it listens.
    fn address(&self) -> String {
        let (_, from) = self.ready.split_once("\"listen\":\"").unwrap();
        from.split_once('"').unwrap().0.to_owned()
    }

    async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

/// Runs one that is expected to end by itself.
async fn fails(command: &mut Command) -> (Option<i32>, String) {
    let ended = timeout(PATIENCE, command.output()).await.unwrap();
    let Output { status, stderr, .. } = ended.unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

#[derive(Default)]
struct Counter(u64);

impl StateMachine for Counter {
    type Command = u64;
    type Query = ();
    type Response = u64;
    type Snapshot = u64;

    fn apply(&mut self, _: &mut ApplyContext, by: u64) -> u64 {
        self.0 += by;
        self.0
    }

    fn query(&self, (): ()) -> u64 {
        self.0
    }

    fn snapshot(&self) -> u64 {
        self.0
    }

    fn restore(&mut self, state: u64) {
        self.0 = state;
    }
}

async fn three(witness: &str) -> (Vec<Node>, Client<Counter>) {
    let mut transports = Vec::new();
    for _ in 0..3 {
        let config = TcpConfig::new("127.0.0.1:0").peer(ReplicaId::WITNESS, witness);
        transports.push(TcpTransport::bind(config).await.unwrap());
    }
    let addresses: Vec<String> = transports
        .iter()
        .map(|transport| transport.local_addr().unwrap().to_string())
        .collect();
    let members = [1, 2, 3].map(ReplicaId);
    let mut nodes = Vec::new();
    for (transport, me) in transports.into_iter().zip(members) {
        for (peer, address) in members.into_iter().zip(&addresses) {
            transport.add_peer(peer, address);
        }
        let node = Node::builder(GROUP, me)
            .members(members)
            .authority(Authority::Witness)
            .transport(transport)
            .state_machine(Counter::default());
        nodes.push(node.start().await.unwrap());
    }
    let mut options = ClientOptions::default();
    options.deadline = PATIENCE;
    let client = Client::with_options(TcpGroupLink::new(GROUP, addresses), options);
    (nodes, client)
}

async fn until_in_sync(node: &Node, members: usize) {
    let deadline = Instant::now() + PATIENCE;
    let now = || node.status().protocol.configuration;
    while now().is_none_or(|configuration| configuration.in_sync.len() != members) {
        assert!(
            Instant::now() < deadline,
            "never {members} in sync: {:?}",
            now()
        );
        sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// The position of the one that says it serves; what a node says of itself is a few milliseconds old.
async fn primary(nodes: &[Node]) -> usize {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let serving = |node: &Node| node.status().protocol.serving;
        if let Some(primary) = nodes.iter().position(serving) {
            return primary;
        }
        assert!(Instant::now() < deadline, "nobody serves");
        sleep(std::time::Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_outlives_its_witness_and_changes_again_once_that_is_back() {
    let data = tempfile::tempdir().unwrap();
    let witness = Witness::start("127.0.0.1:0", data.path()).await;
    let address = witness.address();
    let (mut nodes, client) = three(&address).await;
    assert_eq!(client.execute(1).await.unwrap(), 1);
    until_in_sync(&nodes[0], 3).await;

    witness.kill().await;
    assert_eq!(client.execute(2).await.unwrap(), 3);

    // A dead member must leave the set before the next write counts, and only the witness can grant that.
    let primary = primary(&nodes).await;
    drop(nodes.swap_remove(primary));
    let writing = tokio::spawn({
        let client = client.clone();
        async move { client.execute(4).await }
    });
    let _witness = Witness::start(&address, data.path()).await;
    assert_eq!(writing.await.unwrap().unwrap(), 7);
    assert_eq!(client.query(Read::Linearizable, ()).await.unwrap(), 7);
    until_in_sync(&nodes[0], 2).await;
}

#[tokio::test]
async fn it_ends_in_good_order_with_sigterm_and_with_sigint() {
    for signal in ["TERM", "INT"] {
        let data = tempfile::tempdir().unwrap();
        let mut witness = Witness::start("127.0.0.1:0", data.path()).await;
        let pid = witness.child.id().unwrap().to_string();
        let sent = Command::new("kill")
            .args([&format!("-{signal}"), &*pid])
            .status();
        assert!(sent.await.unwrap().success());
        let ended = timeout(PATIENCE, witness.child.wait()).await.unwrap();
        assert_eq!(ended.unwrap().code(), Some(0));
        let last = witness.lines.next_line().await.unwrap().unwrap();
        assert!(
            last.contains("\"event\":\"ended\"") && last.contains(signal),
            "{last}"
        );
    }
}

#[tokio::test]
async fn what_is_wrong_is_said_with_a_remedy_and_an_exit_code() {
    let data = tempfile::tempdir().unwrap();
    let holder = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    let free = "127.0.0.1:0";

    let (code, said) = fails(&mut Command::new(env!("CARGO_BIN_EXE_kvrep-witness"))).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("--group"), "{said}");
    let (code, said) = fails(command(GROUP, free, data.path()).arg("--jsno")).await;
    assert_eq!(code, Some(2), "{said}");

    let (code, said) = fails(&mut command(GROUP, &taken, data.path())).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains(&taken) && said.contains("choose another port"),
        "{said}"
    );

    let first = Witness::start(free, data.path()).await;
    let (code, said) = fails(&mut command(GROUP, free, data.path())).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("in use by another process"), "{said}");
    first.kill().await;

    let (code, said) = fails(&mut command("another", free, data.path())).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("choose another directory"), "{said}");

    let file = tempfile::NamedTempFile::new().unwrap();
    for no_directory in [file.path().to_path_buf(), file.path().join("below")] {
        let (code, said) = fails(&mut command(GROUP, free, &no_directory)).await;
        assert_eq!(code, Some(1), "{said}");
        let at = no_directory.display().to_string();
        assert!(
            said.contains(&at) && said.contains("choose another one with --data"),
            "{said}"
        );
    }
}
