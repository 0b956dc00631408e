//! The stories of this system: what is typed on its consoles, and what they must show, byte for byte.
//!
//! Servers and clients are real processes. What a console must have printed is written as in the text, with `*` for the port from
//! which a client happened to ask. Standard error is kept apart: the consoles' lines are exactly those of the text.

use super::given::AHEAD;
use super::message::TRY;
use crate::common::conversation::dial;
use crate::common::processes::{Process, ProcessError, Program, free_ports};
use crate::common::story::Story;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// For anything to happen.
const WITHIN: Duration = Duration::from_secs(60);

/// Plays all of them.
///
/// # Errors
/// When a process does not do what it must for the story to go on.
pub async fn all(story: &mut Story) -> Result<(), ProcessError> {
    five_consoles(story).await?;
    late_follower(story).await?;
    missing_follower(story).await?;
    killed_leader(story).await
}

/// Three servers and where they listen; the leader is the second. Dropped, they are killed.
#[derive(Debug)]
pub struct Servers {
    programs: [Program; 3],
    ports: [u16; 3],
    running: [Option<Process>; 3],
    errors: TempDir,
}

/// Which of the three is the leader.
pub const LEADER: usize = 1;

impl Servers {
    /// Describes three servers; `options` are those of each.
    ///
    /// # Errors
    /// When the program is not built, or no port is free.
    pub fn new(options: [&[&str]; 3]) -> Result<Self, ProcessError> {
        let errors = TempDir::new().map_err(|source| ProcessError::Io {
            what: "cannot make a directory".into(),
            source,
        })?;
        let mut programs = Vec::new();
        for (n, options) in options.into_iter().enumerate() {
            let name = format!("server {}", n + 1);
            let log = errors.path().join(format!("server-{}.log", n + 1));
            let program = Program::beside(name, "zk-kv-server")?.args(options);
            let directory = errors.path().to_string_lossy().into_owned();
            let program = program.args(["--dados", &directory]);
            programs.push(program.errors_to(log));
        }
        let programs = programs.try_into();
        Ok(Self {
            programs: programs.unwrap_or_else(|_| unreachable!("there are three")),
            ports: free_ports()?,
            running: [None, None, None],
            errors,
        })
    }

    /// Starts a server and answers its four questions. The leader's address is typed as a name there, and as a number
    /// elsewhere.
    async fn start(&mut self, n: usize) -> Result<(), ProcessError> {
        let mut server = self.programs[n].start()?;
        let leader = if n == 0 { "127.0.0.1" } else { "localhost" };
        for answer in [
            "127.0.0.1".to_owned(),
            self.ports[n].to_string(),
            leader.to_owned(),
            self.ports[LEADER].to_string(),
        ] {
            server.type_line(&answer).await?;
        }
        self.running[n] = Some(server);
        self.listens(n).await
    }

    /// Waits until a server takes connections.
    async fn listens(&self, n: usize) -> Result<(), ProcessError> {
        let (address, deadline) = (self.address(n), Instant::now() + WITHIN);
        while let Err(source) = dial(&address, WITHIN).await {
            if Instant::now() > deadline {
                let what = format!("nobody listens at {address}: {}", self.errors());
                return Err(ProcessError::Io { what, source });
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Starts all three.
    ///
    /// # Errors
    /// When one of them does not take connections.
    pub async fn start_all(&mut self) -> Result<(), ProcessError> {
        for n in 0..3 {
            self.start(n).await?;
        }
        Ok(())
    }

    fn process(&mut self, n: usize) -> Result<&mut Process, ProcessError> {
        let stopped = || ProcessError::Io {
            what: format!("server {}", n + 1),
            source: std::io::Error::other("it is not running"),
        };
        self.running[n].as_mut().ok_or_else(stopped)
    }

    /// Where a server listens.
    #[must_use]
    pub fn address(&self, n: usize) -> String {
        format!("127.0.0.1:{}", self.ports[n])
    }

    /// What a server has printed, once there are as many lines as wanted.
    async fn console(&mut self, n: usize, lines: usize) -> Result<Vec<String>, ProcessError> {
        let server = self.process(n)?;
        while server.printed().len() < lines {
            server.line("", WITHIN).await?;
        }
        Ok(server.printed())
    }

    /// What the servers said on standard error.
    fn errors(&self) -> String {
        let read = |n| std::fs::read_to_string(self.errors.path().join(format!("server-{n}.log")));
        (1..=3).filter_map(|n| read(n).ok()).collect()
    }
}

/// A client's console.
struct Console {
    process: Process,
}

impl Console {
    fn start(name: &str) -> Result<Self, ProcessError> {
        let process = Program::beside(name, "zk-kv-client")?.start()?;
        Ok(Self { process })
    }

    /// INIT with these servers; with one of them three times, all requests go there.
    async fn init(&mut self, servers: &Servers, at: [usize; 3]) -> Result<(), ProcessError> {
        self.process.type_line("INIT").await?;
        for n in at {
            self.process.type_line("127.0.0.1").await?;
            let port = servers.ports[n].to_string();
            self.process.type_line(&port).await?;
        }
        Ok(())
    }

    async fn type_put(&mut self, key: &str, value: &str) -> Result<(), ProcessError> {
        for line in ["PUT", key, value] {
            self.process.type_line(line).await?;
        }
        Ok(())
    }

    async fn put(&mut self, key: &str, value: &str) -> Result<String, ProcessError> {
        self.type_put(key, value).await?;
        self.process.line("", WITHIN).await
    }

    async fn get(&mut self, key: &str) -> Result<String, ProcessError> {
        for line in ["GET", key] {
            self.process.type_line(line).await?;
        }
        self.process.line("", WITHIN).await
    }
}

fn put_ok(key: &str, value: &str, timestamp: u64, server: &str) -> String {
    format!("PUT_OK key: {key} value {value} timestamp {timestamp} realizada no servidor {server}")
}

fn got(key: &str, value: &str, server: &str, sent: u64, timestamp: u64) -> String {
    format!(
        "GET key: {key} value: {value} obtido do servidor {server}, meu timestamp {sent} e do servidor {timestamp}"
    )
}

/// Compares a console with the text's lines, in which `*` stands for a port.
fn console_is(story: &mut Story, whose: &str, printed: &[String], text: &[&str]) {
    for line in printed {
        story.saw(format!("{whose}: {line}"));
    }
    let same = printed.len() == text.len()
        && printed
            .iter()
            .zip(text)
            .all(|(line, text)| is_line(line, text));
    let found = if same {
        Ok(format!("{} lines", text.len()))
    } else {
        Err(format!("{printed:#?} instead of {text:#?}"))
    };
    story.check(
        format!("{whose}'s console is that of the text, byte for byte"),
        found,
    );
}

/// What was seen, and whether it is what it should be.
fn seen_if(holds: bool, said: &str) -> Result<String, String> {
    if holds {
        Ok(said.to_owned())
    } else {
        Err(said.to_owned())
    }
}

fn is_line(line: &str, text: &str) -> bool {
    match text.split_once('*') {
        None => line == text,
        Some((before, after)) => line
            .strip_prefix(before)
            .and_then(|rest| rest.strip_suffix(after))
            .is_some_and(|port| port.parse::<u16>().is_ok_and(|n| n.to_string() == port)),
    }
}

/// The port of the client in a line of the leader.
fn port_in(line: &str) -> Option<&str> {
    line.split_whitespace()
        .find_map(|word| word.strip_prefix("127.0.0.1:"))
}

/// R3.34: three servers, then two clients; every kind of line.
async fn five_consoles(story: &mut Story) -> Result<(), ProcessError> {
    story.step("Three servers are started, the leader second, then two clients");
    let mut servers = Servers::new([&[], &[], &[]])?;
    servers.start_all().await?;
    let [s1, s2, s3] = [0, 1, 2].map(|n| servers.address(n));
    let (mut one, mut two) = (Console::start("client 1")?, Console::start("client 2")?);
    one.init(&servers, [0, 0, 0]).await?;
    two.init(&servers, [1, 1, 1]).await?;

    story.step("Client 1 writes at server 1, which passes it on; client 2 at the leader");
    let said = one.put("a", "1").await?;
    story.equal(
        "the write is acknowledged by the server that was asked",
        &said,
        &put_ok("a", "1", 1, &s1),
    );
    let said = two.put("a", "2").await?;
    story.equal("timestamps count", &said, &put_ok("a", "2", 2, &s2));

    story.step("Both read, at other servers; one key that nobody has written");
    one.init(&servers, [2, 2, 2]).await?;
    let said = one.get("a").await?;
    story.equal(
        "a newer value than the one it has seen",
        &said,
        &got("a", "2", &s3, 1, 2),
    );
    let said = one.get("a").await?;
    story.equal(
        "and again, as new as it has seen",
        &said,
        &got("a", "2", &s3, 2, 2),
    );
    let said = two.get("b").await?;
    story.equal("nobody has written it", &said, &got("b", "NULL", &s2, 0, 0));
    let said = two.put("ç", "duas palavras").await?;
    story.equal(
        "any text is a key or a value",
        &said,
        &put_ok("ç", "duas palavras", 3, &s2),
    );
    two.init(&servers, [0, 1, 2]).await?;
    let said = two.get("ç").await?;
    let any = (0..3).any(|n| said == got("ç", "duas palavras", &servers.address(n), 3, 3));
    story.check("a server chosen at random has it", seen_if(any, &said));

    story.step("The consoles");
    let leader = servers.console(LEADER, 7).await?;
    let mut leader_text = vec![
        "Cliente 127.0.0.1:* PUT key:a value:1",
        "Enviando PUT_OK ao Cliente 127.0.0.1:* da key:a ts:1",
        "Cliente 127.0.0.1:* PUT key:a value:2",
        "Enviando PUT_OK ao Cliente 127.0.0.1:* da key:a ts:2",
        "Cliente 127.0.0.1:* GET key:b ts:0. Meu ts é 0, portanto devolvendo NULL",
        "Cliente 127.0.0.1:* PUT key:ç value:duas palavras",
        "Enviando PUT_OK ao Cliente 127.0.0.1:* da key:ç ts:3",
    ];
    let mut first_text = vec![
        "Encaminhando PUT key:a value:1",
        "REPLICATION key:a value:1 ts:1",
        "REPLICATION key:a value:2 ts:2",
        "REPLICATION key:ç value:duas palavras ts:3",
    ];
    let mut third_text = vec![
        "REPLICATION key:a value:1 ts:1",
        "REPLICATION key:a value:2 ts:2",
        "Cliente 127.0.0.1:* GET key:a ts:1. Meu ts é 2, portanto devolvendo 2",
        "Cliente 127.0.0.1:* GET key:a ts:2. Meu ts é 2, portanto devolvendo 2",
        "REPLICATION key:ç value:duas palavras ts:3",
    ];
    // One of the three was asked last.
    let last = "Cliente 127.0.0.1:* GET key:ç ts:3. Meu ts é 3, portanto devolvendo duas palavras";
    for (n, text) in [&mut first_text, &mut leader_text, &mut third_text]
        .into_iter()
        .enumerate()
    {
        if said.contains(&servers.address(n)) {
            text.push(last);
        }
    }
    let leader = if leader_text.len() > leader.len() {
        servers.console(LEADER, leader_text.len()).await?
    } else {
        leader
    };
    console_is(story, "the leader", &leader, &leader_text);
    let first = servers.console(0, first_text.len()).await?;
    console_is(story, "server 1", &first, &first_text);
    let third = servers.console(2, third_text.len()).await?;
    console_is(story, "server 3", &third, &third_text);
    let ports: Vec<_> = leader[..2].iter().map(|line| port_in(line)).collect();
    story.equal(
        "C3.1: both lines of the forwarded write name the same client",
        &ports[0],
        &ports[1],
    );
    let is_server = servers
        .ports
        .iter()
        .any(|port| Some(&*port.to_string()) == ports[0]);
    story.equal("and it is no server", &is_server, &false);
    Ok(())
}

/// R3.35, C3.8: with a late follower a client is told to try another server, and then gets its value there.
async fn late_follower(story: &mut Story) -> Result<(), ProcessError> {
    story.step("Three servers; the third is told of every write five seconds late");
    let mut servers = Servers::new([&[], &[], &["--atraso-replicacao", "5000"]])?;
    servers.start_all().await?;
    let [_, s2, s3] = [0, 1, 2].map(|n| servers.address(n));
    let mut writer = Console::start("client 1")?;
    let mut reader = Console::start("client 2")?;
    let mut newcomer = Console::start("client 3")?;
    writer.init(&servers, [1, 1, 1]).await?;
    reader.init(&servers, [1, 1, 1]).await?;
    newcomer.init(&servers, [2, 2, 2]).await?;
    let said = writer.put("k", "old").await?;
    story.equal(
        "a first write, acknowledged when all have it",
        &said,
        &put_ok("k", "old", 1, &s2),
    );

    story.step("Client 1 writes again; client 2 reads at the leader before that is acknowledged");
    writer.type_put("k", "new").await?;
    let mut said = reader.get("k").await?;
    while said.contains("value: old") {
        said = reader.get("k").await?;
    }
    let as_new = got("k", "new", &s2, 0, 2);
    let seen_old = got("k", "new", &s2, 1, 2);
    story.check(
        "the leader shows what it has",
        seen_if(said == as_new || said == seen_old, &said),
    );

    story.step("Client 2 reads at the late follower, client 3 too");
    reader.init(&servers, [2, 2, 2]).await?;
    let said = reader.get("k").await?;
    story.equal(
        "client 2 has seen something newer",
        &said,
        &got("k", TRY, &s3, 2, 1),
    );
    let said = newcomer.get("k").await?;
    story.equal("client 3 has not", &said, &got("k", "old", &s3, 0, 1));
    let unanswered = writer.process.printed().len();
    story.equal("C3.9: the write is not acknowledged yet", &unanswered, &1);

    story.step("Five seconds later");
    let said = writer.process.line("", WITHIN).await?;
    story.equal("it is, and all have it", &said, &put_ok("k", "new", 2, &s2));
    let said = reader.get("k").await?;
    story.equal(
        "client 2 reads at the same follower, and gets it",
        &said,
        &got("k", "new", &s3, 2, 2),
    );

    story.step("The late follower's console");
    let late = servers.console(2, 5).await?;
    console_is(
        story,
        "server 3",
        &late,
        &[
            "REPLICATION key:k value:old ts:1",
            "Cliente 127.0.0.1:* GET key:k ts:2. Meu ts é 1, portanto devolvendo TRY_OTHER_SERVER_OR_LATER",
            "Cliente 127.0.0.1:* GET key:k ts:0. Meu ts é 1, portanto devolvendo old",
            "REPLICATION key:k value:new ts:2",
            "Cliente 127.0.0.1:* GET key:k ts:2. Meu ts é 2, portanto devolvendo new",
        ],
    );
    Ok(())
}

/// A3.9, C3.9: a write waits for a follower that is not there, within a bound.
async fn missing_follower(story: &mut Story) -> Result<(), ProcessError> {
    story.step("The leader and one follower are started; a client writes");
    let mut servers = Servers::new([&[], &["--limite-put", "20000"], &[]])?;
    servers.start(LEADER).await?;
    servers.start(0).await?;
    let s2 = servers.address(LEADER);
    let mut client = Console::start("client 1")?;
    client.init(&servers, [1, 1, 1]).await?;
    client.type_put("k", "early").await?;
    let asked = servers.console(LEADER, 1).await?;
    console_is(
        story,
        "the leader",
        &asked,
        &["Cliente 127.0.0.1:* PUT key:k value:early"],
    );
    story.equal(
        "nothing is acknowledged",
        &client.process.printed().len(),
        &0,
    );

    story.step("The other follower is started");
    servers.start(2).await?;
    let said = client.process.line("", WITHIN).await?;
    story.equal("now it is", &said, &put_ok("k", "early", 1, &s2));
    let third = servers.console(2, 1).await?;
    console_is(
        story,
        "server 3",
        &third,
        &["REPLICATION key:k value:early ts:1"],
    );
    drop(servers);

    story.step("Three servers that wait two seconds at most; the third is stopped (SIGSTOP), a client writes");
    let bound: &[&str] = &["--limite-put", "2000"];
    let mut servers = Servers::new([bound, bound, bound])?;
    servers.start_all().await?;
    let [s1, s3] = [0, 2].map(|n| servers.address(n));
    // One that has seen nothing: these three have another table.
    let mut client = Console::start("client 2")?;
    client.init(&servers, [0, 0, 0]).await?;
    let said = client.put("k", "1").await?;
    story.equal("all are there", &said, &put_ok("k", "1", 1, &s1));
    servers.process(2)?.pause()?;
    let said = client.put("k", "2").await?;
    let unknown = said.contains("resultado desconhecido") && said.contains(&s1);
    story.check(
        "at the bound the client is told that the outcome is unknown",
        seen_if(unknown, &said),
    );

    story.step("The third goes on");
    servers.process(2)?.resume()?;
    let third = servers.console(2, 2).await?;
    console_is(
        story,
        "server 3",
        &third,
        &[
            "REPLICATION key:k value:1 ts:1",
            "REPLICATION key:k value:2 ts:2",
        ],
    );
    let said = client.put("k", "3").await?;
    story.equal(
        "writes go on, and no timestamp was given twice",
        &said,
        &put_ok("k", "3", 3, &s1),
    );
    client.init(&servers, [2, 2, 2]).await?;
    let said = client.get("k").await?;
    story.equal("and it has everything", &said, &got("k", "3", &s3, 3, 3));
    Ok(())
}

/// Beyond the text: timestamps never repeat, although the leader's memory is gone.
async fn killed_leader(story: &mut Story) -> Result<(), ProcessError> {
    story.step("Three servers, two writes; then the leader is killed (kill -9)");
    let mut servers = Servers::new([&[], &[], &[]])?;
    servers.start_all().await?;
    let [s1, s2, _] = [0, 1, 2].map(|n| servers.address(n));
    let mut client = Console::start("client 1")?;
    client.init(&servers, [1, 1, 1]).await?;
    client.put("k", "1").await?;
    let said = client.put("k", "2").await?;
    story.equal("two writes", &said, &put_ok("k", "2", 2, &s2));
    servers.process(LEADER)?.kill().await?;
    client.init(&servers, [0, 0, 0]).await?;
    let said = client.get("k").await?;
    story.equal(
        "a follower still answers reads",
        &said,
        &got("k", "2", &s1, 2, 2),
    );

    story.step("The leader is started again, with an empty memory");
    servers.start(LEADER).await?;
    let said = client.put("k", "3").await?;
    // What its earlier life may have shown and nobody else has is left out.
    let timestamp = 1 + AHEAD + 1;
    story.equal(
        "it goes on counting where nobody has seen a timestamp yet",
        &said,
        &put_ok("k", "3", timestamp, &s1),
    );
    client.init(&servers, [1, 1, 1]).await?;
    let said = client.get("k").await?;
    story.equal(
        "and has what was written",
        &said,
        &got("k", "3", &s2, timestamp, timestamp),
    );

    story.step("All three are killed and started again");
    for n in 0..3 {
        servers.process(n)?.kill().await?;
    }
    servers.start_all().await?;
    client.init(&servers, [0, 0, 0]).await?;
    let said = client.get("k").await?;
    story.equal(
        "the table is gone with their memories, but the client is shown nothing older than it has seen",
        &said,
        &got("k", TRY, &s1, timestamp, 0),
    );
    let said = client.put("k", "4").await?;
    let later = timestamp + AHEAD + 1;
    story.equal(
        "and timestamps go on above all that were ever given",
        &said,
        &put_ok("k", "4", later, &s1),
    );
    let complaints = servers.errors();
    let panicked = complaints.contains("panicked");
    story.check(
        "nobody panicked",
        if panicked {
            Err(complaints)
        } else {
            Ok(String::new())
        },
    );
    Ok(())
}
