//! Short forms for tests of the table.

#![allow(dead_code, reason = "each test file uses some of it")]

use kvrep_examples::common::processes::{Process, Program};
use kvrep_examples::primary_backup_table::client_stub::{ClientStub, Outcome};
use kvrep_examples::primary_backup_table::network_client::{Identity, Patience};
use kvrep_examples::primary_backup_table::pair::{Dump, Pair, Seat, WITHIN, dump};
use std::fs;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

pub(crate) fn prepare(both: &[&str]) -> Pair {
    Pair::prepare(both).expect("programs and ports")
}

/// Gives up soon.
pub(crate) fn hasty() -> Patience {
    Patience {
        timeout: Duration::from_secs(1),
        ..Patience::default()
    }
}

/// Speaks as programs of others do.
pub(crate) fn plain() -> Patience {
    Patience {
        identity: Identity::Never,
        ..Patience::default()
    }
}

pub(crate) async fn put(client: &mut ClientStub, key: &str, data: &str) {
    let (key, data) = (key.to_owned(), data.to_owned());
    let put = client.put(key.into(), data.into()).await;
    assert_eq!(put, Ok(Outcome::Done(())));
}

pub(crate) async fn cput(client: &mut ClientStub, key: &str, data: &str) -> Outcome<()> {
    let (key, data) = (key.to_owned(), data.to_owned());
    let done = client.cond_put(key.into(), data.into()).await;
    done.expect("an answer")
}

pub(crate) async fn del(client: &mut ClientStub, key: &str) -> Outcome<()> {
    client.del(key.to_owned().into()).await.expect("an answer")
}

pub(crate) async fn get(client: &mut ClientStub, key: &str) -> Option<String> {
    match client.get(key.to_owned().into()).await.expect("an answer") {
        Outcome::Done(data) => data.map(|data| String::from_utf8_lossy(&data).into_owned()),
        Outcome::Failed => panic!("a read fails"),
    }
}

/// Waits until this server serves.
pub(crate) async fn serves(server: &mut Process) {
    server
        .line("este servidor é agora o primário", WITHIN)
        .await
        .expect("it serves");
}

/// Waits until this server has the whole table, as the secondary.
pub(crate) async fn updated(server: &mut Process) {
    server
        .line("tabela atualizada", WITHIN)
        .await
        .expect("the table");
}

/// What it prints on `print`.
pub(crate) async fn seen(server: &mut Process) -> Dump {
    dump(server).await.expect("a dump")
}

/// As by kill -9.
pub(crate) async fn kill(server: &mut Process) {
    server.kill().await.expect("killed");
}

/// What is printed speaks of two servers and of options, not of replicas' ids, types and policies.
pub(crate) fn speak_of_servers_only(servers: &[&Process]) {
    for server in servers {
        for line in server.printed() {
            let words: Vec<&str> = line
                .split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':')
                .collect();
            let is_id = |word: &&&str| {
                let digits = word.strip_prefix('n').unwrap_or_default();
                !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
            };
            assert_eq!(words.iter().find(is_id), None, "{line}");
            for theirs in ["::", "members_max", "replica ", "with force"] {
                assert!(!line.contains(theirs), "{theirs} in {line}");
            }
        }
    }
}

/// Waits until the first server has written down who had the whole table last.
pub(crate) async fn wait_for_record(pair: &Pair, in_sync: &[&str]) {
    on_record(pair, &pair.first, |record| ids(record) == in_sync).await;
}

/// Waits until this server has written down that it alone has the whole table.
pub(crate) async fn on_record_alone(pair: &Pair, seat: &Seat) {
    on_record(pair, seat, |record| {
        ids(record) == [record["replica"].to_string()]
    })
    .await;
}

fn ids(record: &serde_json::Value) -> Vec<String> {
    let ids = record["in_sync"].as_array().cloned().unwrap_or_default();
    ids.iter().map(ToString::to_string).collect()
}

async fn on_record(pair: &Pair, seat: &Seat, is_wanted: impl Fn(&serde_json::Value) -> bool) {
    let file = format!("table-{}.d/server.json", seat.port);
    let file = pair.directory().join(file);
    let deadline = Instant::now() + WITHIN;
    loop {
        let text = fs::read_to_string(&file).unwrap_or_default();
        let record: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        if is_wanted(&record) {
            return;
        }
        assert!(Instant::now() < deadline, "{text}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// The directory of this server.
pub(crate) fn directory(pair: &Pair, seat: &Seat) -> PathBuf {
    pair.directory().join(format!("table-{}.d", seat.port))
}

/// How a log is lost.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lost {
    Directory,
    Files,
    /// As when what is damaged is moved away, but for what is not damaged.
    FilesButTheLock,
}

pub(crate) const EACH_WAY: [Lost; 3] = [Lost::Directory, Lost::Files, Lost::FilesButTheLock];

/// This server's log is lost.
pub(crate) fn lose_log(pair: &Pair, seat: &Seat, how: Lost) {
    let log = directory(pair, seat).join("log");
    fs::remove_dir_all(&log).expect("a log");
    match how {
        Lost::Directory => {}
        Lost::Files => fs::create_dir(&log).expect("made"),
        Lost::FilesButTheLock => {
            fs::create_dir(&log).expect("made");
            fs::write(log.join("lock"), "").expect("written");
        }
    }
}

/// Hundredths of a second that a process has used.
pub(crate) fn processor_ticks(id: Option<u32>) -> u64 {
    let id = id.expect("it runs");
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or("")
        .split_whitespace()
        .collect();
    let number = |at: usize| {
        fields
            .get(at)
            .and_then(|f| f.parse::<u64>().ok())
            .unwrap_or(0)
    };
    number(11) + number(12)
}

/// What is typed to a `table-client`.
pub(crate) struct Script {
    pub(crate) typed: &'static str,
    pub(crate) arguments: &'static [&'static str],
}

pub(crate) fn script(typed: &'static str) -> Script {
    Script {
        typed,
        arguments: &[],
    }
}

impl Script {
    /// What it prints on standard output, and how it ends.
    pub(crate) async fn run(&self, pair: &Pair) -> (String, ExitStatus) {
        self.run_at(&pair.first, &pair.second).await
    }

    pub(crate) async fn run_at(&self, primary: &Seat, secondary: &Seat) -> (String, ExitStatus) {
        let client = Program::beside("the client", "table-client")
            .expect("it is built")
            .args([primary.address(), secondary.address()])
            .args(self.arguments);
        let mut client = client.start().expect("a client");
        client
            .type_bytes(self.typed.as_bytes())
            .await
            .expect("typed");
        client.close_input();
        let status = client.ended(WITHIN).await.expect("it ends");
        let told =
            |line: &&String| !line.starts_with("O primario ") && !line.starts_with("Os dois ");
        let printed = client.printed();
        let lines = printed
            .iter()
            .filter(told)
            .filter(|line| !line.starts_with("table-client: "));
        (lines.map(|line| format!("{line}\n")).collect(), status)
    }
}

/// Waits until the library says at the server there that it waits for this.
pub(crate) async fn waits_for(address: &str, what: &str) {
    use kvrep_core::node::{Client, ClientOptions};
    use kvrep_examples::primary_backup_table::{policy::GROUP, table::Table};
    use kvrep_transport_tcp::TcpGroupLink;
    let mut options = ClientOptions::default();
    options.deadline = WITHIN;
    let link = TcpGroupLink::new(GROUP, [address.to_owned()]);
    let client = Client::<Table>::with_options(link, options);
    let deadline = Instant::now() + WITHIN;
    loop {
        let waits = client.status(0).await.map(|status| status.waiting_for);
        if waits.as_ref().is_ok_and(|waits| waits.contains(what)) {
            return;
        }
        assert!(Instant::now() < deadline, "never {what}: {waits:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// What it prints with this in it, be it before it said that it listens: these are two streams, and either may be read first.
pub(crate) async fn said(server: &Process, what: &str) -> String {
    let deadline = Instant::now() + WITHIN;
    loop {
        let printed = server.printed();
        if let Some(said) = printed.iter().find(|line| line.contains(what)) {
            return said.clone();
        }
        assert!(Instant::now() < deadline, "never {what}: {printed:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// The last thing that it said to its operator.
pub(crate) fn last_words(server: &Process) -> String {
    let printed = server.printed();
    let said = printed
        .iter()
        .rfind(|line| line.starts_with("table-server: "));
    said.cloned().unwrap_or_default()
}

/// A witness of the pair in this process. Dropped, it ends.
pub(crate) struct Witness {
    pub(crate) address: String,
    node: kvrep_core::Node,
    _directory: tempfile::TempDir,
}

impl Witness {
    pub(crate) async fn start() -> Self {
        Self::of(kvrep_examples::primary_backup_table::policy::GROUP).await
    }

    /// It ends, and another one begins at the same address, with an empty register.
    pub(crate) async fn forgets(self) -> Self {
        self.node.shutdown().await.expect("it ends");
        Self::at(
            &self.address,
            kvrep_examples::primary_backup_table::policy::GROUP,
        )
        .await
    }

    /// Of another group.
    pub(crate) async fn of(group: &str) -> Self {
        Self::at("127.0.0.1:0", group).await
    }

    async fn at(listen: &str, group: &str) -> Self {
        use kvrep_transport_tcp::{TcpConfig, TcpTransport, Unlisted};
        let directory = tempfile::tempdir().expect("a directory");
        let config = TcpConfig::new(listen).unlisted(Unlisted::Answer);
        let transport = TcpTransport::bind(config).await.expect("a port");
        let address = transport.local_addr().expect("its address").to_string();
        let node = kvrep_core::Node::witness(group)
            .transport(transport)
            .data_dir(directory.path())
            .start();
        Self {
            address,
            node: node.await.expect("a witness"),
            _directory: directory,
        }
    }
}

/// A request is not answered, and not held for ever.
pub(crate) async fn hangs_up(address: &str) {
    let connected = TcpStream::connect(address).await;
    let mut stream = connected.expect("it listens");
    let size = [0, 0, 0, 8, 0, 50, 1, 0xf4, 0, 0, 0, 0];
    stream.write_all(&size).await.expect("asked");
    let mut answer = Vec::new();
    let read = timeout(WITHIN, stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "it hangs up");
    assert_eq!(answer, [0_u8; 0]);
}
