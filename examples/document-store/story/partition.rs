//! A partition: what a group that decides alone does, and one with a witness.

use kvrep_core::node::Node;
use kvrep_examples::common::processes::{Process, Program};
use kvrep_examples::common::story::Story;
use kvrep_examples::document_store::stage::{PATIENCE, tell_at, witness};
use serde_json::Value as Json;
use std::hash::{BuildHasher as _, RandomState};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// Tells it.
pub(crate) async fn tell(story: &mut Story) -> Result<(), String> {
    without_witness(story).await?;
    with_witness(story).await
}

async fn without_witness(story: &mut Story) -> Result<(), String> {
    story.step("a leader and two followers, each with an address of its own, without a witness");
    let mut group = Group::start(Decides::Alone).await?;
    group.insert(0, "before").await?;

    story.step("cut the leader off from the followers, not from its clients");
    let cut = Cut::between(&group.addresses[0], &group.addresses[1..])?;
    let alone = group.insert(0, "at the old leader").await;
    story.check(
        "it drops the followers and goes on alone, for nobody else decides",
        alone.map(|()| String::new()),
    );
    group.role(1, "leader").await?;
    let other = group.insert(1, "at the new leader").await;
    story.check(
        "so do the followers: there are two leaders",
        other.map(|()| String::new()),
    );

    story.step("heal the partition");
    drop(cut);
    let lost = group.hears(0, "ACKNOWLEDGED WRITES ARE LOST").await?;
    story.saw(lost);
    let aside = group.hears(0, "set aside").await?;
    story.saw(aside);
    group.agree(story, &["before", "at the new leader"]).await
}

async fn with_witness(story: &mut Story) -> Result<(), String> {
    story.step("the same with a witness on the followers' side");
    let mut group = Group::start(Decides::Witness).await?;
    group.insert(0, "before").await?;

    story.step("cut the leader off from the followers and the witness");
    let cut = Cut::between(&group.addresses[0], &group.addresses[1..])?;
    let refused = group.insert(0, "at the old leader").await;
    story.saw(format!("{refused:?}"));
    let unheard = match refused {
        Ok(()) => Err("ok".into()),
        Err(why) => Ok(why),
    };
    story.check("its write is not acknowledged", unheard);
    group.role(1, "leader").await?;
    group.insert(1, "at the new leader").await?;

    story.step("heal the partition");
    drop(cut);
    let tail = group.hears(0, "so nothing is lost").await?;
    story.saw(tail);
    let aside = group.hears(0, "set aside").await?;
    story.saw(aside);
    group.agree(story, &["before", "at the new leader"]).await
}

/// Who decides who leads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Decides {
    Alone,
    Witness,
}

/// Three nodes, each on an address of its own, and maybe a witness on a fourth.
struct Group {
    addresses: Vec<String>,
    nodes: Vec<Process>,
    /// Kept while the group plays.
    witness: Option<Node>,
    directory: TempDir,
}

impl Group {
    async fn start(decides: Decides) -> Result<Self, String> {
        let directory = tempfile::tempdir().map_err(|e| e.to_string())?;
        // Another block each time, so that two stories at once do not cut each other.
        let block = RandomState::new().hash_one(0) % 150 + 100;
        let addresses: Vec<String> = (2..=5).map(|n| format!("127.0.{block}.{n}")).collect();
        let mut group = Self {
            nodes: Vec::new(),
            witness: None,
            addresses,
            directory,
        };
        let mut more = Vec::new();
        if decides == Decides::Witness {
            let directory = group.directory.path().join("witness");
            let listen = format!("{}:{PORT}", group.addresses[3]);
            let (witness, at) = witness(&listen, &directory).await?;
            group.witness = Some(witness);
            more = vec!["--witness".to_owned(), at];
        }
        for number in 0..3 {
            let program = Program::beside(group.node(number), "docstore-server");
            let program = program.map_err(|e| e.to_string())?;
            // A path each: they have the same port.
            let mut program = program.arg(format!("db{number}")).arg(group.node(number));
            if number > 0 {
                program = program.arg(group.node(0));
            }
            let program = group.here(program.args(&more));
            let mut process = program.start().map_err(|e| e.to_string())?;
            let listens = process.line("listening", PATIENCE).await;
            listens.map_err(|e| e.to_string())?;
            group.nodes.push(process);
            if number == 0 {
                group.role(0, "leader").await?;
            }
        }
        let create = r#"["create", "notes", {"text":"str"}]"#;
        tell_at(&group.node(0), create).await?;
        group.all_active().await?;
        Ok(group)
    }

    fn here(&self, program: Program) -> Program {
        program.directory(self.directory.path())
    }

    fn node(&self, number: usize) -> String {
        format!("{}:{PORT}", self.addresses[number])
    }

    async fn insert(&self, number: usize, text: &str) -> Result<(), String> {
        let request = format!(r#"["insert", "notes", {{"text":"{text}"}}]"#);
        tell_at(&self.node(number), &request).await.map(drop)
    }

    async fn hears(&mut self, number: usize, what: &str) -> Result<String, String> {
        let line = self.nodes[number].line(what, PATIENCE).await;
        line.map_err(|e| e.to_string())
    }

    async fn status(&self, number: usize) -> Result<Json, String> {
        tell_at(&self.node(number), r#"["status"]"#).await
    }

    async fn role(&self, number: usize, role: &str) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status(number).await;
            match status {
                Ok(status) if status["role"] == role && status["active"] == true => return Ok(()),
                status if Instant::now() > deadline => {
                    return Err(format!("{} is never {role}: {status:?}", self.node(number)));
                }
                _ => sleep(Duration::from_millis(50)).await,
            }
        }
    }

    async fn all_active(&self) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut active = 0;
            for number in 0..3 {
                let status = self.status(number).await?;
                let counted = status["active_nodes"].as_array().map_or(0, Vec::len) == 3;
                active += usize::from(counted && status["active"] == true);
            }
            if active == 3 {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err("the nodes are never all active".into());
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn agree(&self, story: &mut Story, wanted: &[&str]) -> Result<(), String> {
        self.all_active().await?;
        for number in 0..3 {
            let found = tell_at(&self.node(number), r#"["search", "notes", {}]"#).await?;
            let texts: Vec<&str> = found
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|d| d["text"].as_str())
                .collect();
            story.equal(
                format!("{} has what counts", self.node(number)),
                &texts,
                &wanted.to_vec(),
            );
        }
        Ok(())
    }
}

/// While this lives, packets between two sides are dropped.
struct Cut(Vec<[String; 2]>);

impl Cut {
    fn between(one: &str, others: &[String]) -> Result<Self, String> {
        let mut cut = Self(Vec::new());
        for other in others {
            for pair in [[one, other], [other, one]] {
                let pair = pair.map(ToOwned::to_owned);
                rule("-I", &pair)?;
                cut.0.push(pair);
            }
        }
        Ok(cut)
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        for pair in &self.0 {
            if let Err(why) = rule("-D", pair) {
                eprintln!("a rule may still be there: {why}");
            }
        }
    }
}

fn rule(change: &str, [from, to]: &[String; 2]) -> Result<(), String> {
    let rule = ["-w", change, "INPUT", "-s", from, "-d", to, "-j", "DROP"];
    let output = Command::new("iptables").args(rule).output();
    let output = output.map_err(|e| format!("cannot run iptables ({e}): install it"))?;
    if output.status.success() {
        Ok(())
    } else {
        let why = String::from_utf8_lossy(&output.stderr);
        Err(format!("iptables refused: {}; run as root", why.trim()))
    }
}

const PORT: u16 = 8_000;
