//! The failure story of the pair, with real processes: kill -9, a restart, a stopped server, a partition, the loss of both.

use super::client_stub::{ClientStub, Outcome};
use super::network_client::{NetworkClient, Patience, Turn};
use super::pair::{Dump, Pair, WITHIN, dump, dump_when};
use crate::common::processes::ProcessError;
use crate::common::relay::{Flow, Relay};
use crate::common::story::{Printed, Story};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Tells the story. Whether it came to its end and everything in it held.
pub async fn tell(printed: Printed) -> bool {
    let mut story = Story::begin(
        "A table on two servers, and what may happen to them",
        printed,
    );
    let mut told = takeover(&mut story).await;
    if told.is_ok() {
        told = partition(&mut story).await;
    }
    if told.is_ok() {
        told = both_lost(&mut story).await;
    }
    story.end(told.map_err(|e| e.to_string()))
}

/// A primary dies, a client makes the secondary take over, the old primary returns; a stopped secondary.
async fn takeover(story: &mut Story) -> Result<(), ProcessError> {
    story.step("table-server P; table-server S P's address");
    let pair = Pair::prepare(&[])?;
    let (mut first, mut second) = pair.start().await?;
    let turns = Turns::default();
    let mut client = turns.client(&pair);
    seen(story, &dump(&mut first).await?);
    seen(story, &dump(&mut second).await?);

    story.step("a client writes: put, put, cput of a key that exists, del of one that does not");
    let put = put(&mut client, "a", "1").await;
    story.equal("the put succeeds", &put, &Ok(Outcome::Done(())));
    let put = self::put(&mut client, "b", "2").await;
    story.equal("so does the next", &put, &Ok(Outcome::Done(())));
    let cput = client.cond_put("a".into(), "x".into()).await;
    let del = client.del("none".into()).await;
    let failed = matches!((&cput, &del), (Ok(Outcome::Failed), Ok(Outcome::Failed)));
    check(
        story,
        "cput and del fail, for the table's reasons",
        failed,
        &format!("{cput:?} {del:?}"),
    );
    let (p, s) = (dump(&mut first).await?, dump(&mut second).await?);
    seen(story, &s);
    story.equal(
        "both servers have the same table (R1.5)",
        &s.entries,
        &p.entries,
    );
    story.check(
        "nobody is marked DOWN by a write that failed (C1.1, C1.2)",
        up(&p),
    );

    story.step("kill -9 P; nobody asks for anything");
    first.kill().await?;
    let waiting = dump_when(&mut second, "P is gone", |d| !d.is_up()).await?;
    seen(story, &waiting);
    check(
        story,
        "S waits for a client (R1.20)",
        !waiting.is_primary(),
        &waiting.role,
    );

    story.step("the client writes again: to P, and then to S");
    let began = Instant::now();
    let put = self::put(&mut client, "a", "3").await;
    story.saw(format!(
        "{} ({:?})",
        turns.take().join("; "),
        began.elapsed()
    ));
    story.equal("it is answered by S (R1.22)", &put, &Ok(Outcome::Done(())));
    story.equal(
        "which is the primary for it from now on",
        &client.network().primary().to_owned(),
        &pair.second.address(),
    );
    let alone = dump(&mut second).await?;
    seen(story, &alone);
    check(
        story,
        "S acts alone (R1.23)",
        alone.is_primary() && !alone.is_up(),
        &alone.role,
    );

    story.step("P is started again as at the beginning, as a primary, with an empty memory");
    let mut first = pair.first.start().await?;
    first.line("tabela atualizada", WITHIN).await?;
    let back = dump(&mut first).await?;
    seen(story, &back);
    check(
        story,
        "it is the secondary (R1.24, A1.6)",
        !back.is_primary() && back.is_up(),
        &back.role,
    );
    story.equal(
        "with S's table",
        &back.entries,
        &dump(&mut second).await?.entries,
    );

    story.step("kill -STOP P: it keeps its connections and answers nothing");
    first.pause()?;
    let began = Instant::now();
    let put = self::put(&mut client, "b", "4").await;
    story.saw(format!("answered after {:?}", began.elapsed()));
    story.equal(
        "the write is answered when P is marked DOWN (C1.4)",
        &put,
        &Ok(Outcome::Done(())),
    );
    first.resume()?;
    dump_when(&mut second, "P is UP", Dump::is_up).await?;
    let has_all = |d: &Dump| d.is_complete() && d.entries.iter().any(|e| e == "b: 4");
    let back = dump_when(&mut first, "the whole table", has_all).await?;
    seen(story, &back);
    story.equal(
        "and UP again when it goes on, with the same table",
        &back.entries,
        &dump(&mut second).await?.entries,
    );
    Ok(())
}

/// The two cannot reach each other; a client on each side.
async fn partition(story: &mut Story) -> Result<(), ProcessError> {
    story.step("a new pair without a witness, whose servers reach each other through relays");
    let pair = Pair::prepare(&[])?;
    let (to_first, to_second) = (
        relay(pair.first.address()).await?,
        relay(pair.second.address()).await?,
    );
    let arguments = [
        to_first.address(),
        "--advertise".into(),
        to_second.address(),
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let second = pair.second.alone(pair.directory(), &arguments)?;
    let first = pair.first.with(&["--advertise", &to_first.address()]);
    let mut first = first.start().await?;
    let mut second = second.start().await?;
    second.line("tabela atualizada", WITHIN).await?;
    let only = |address: String| {
        ClientStub::new(NetworkClient::new(
            address.clone(),
            address,
            Patience::default(),
        ))
    };
    let (mut near, mut far) = (only(pair.first.address()), only(pair.second.address()));
    let both = put(&mut near, "k", "of both").await;
    story.equal("a client writes", &both, &Ok(Outcome::Done(())));

    story.step("the relays are cut; client B writes at P, client A at S");
    to_first.set(Flow::Nothing);
    to_second.set(Flow::Nothing);
    let old = put(&mut near, "k", "of P").await;
    let new = put(&mut far, "k", "of S").await;
    let two = matches!((&old, &new), (Ok(Outcome::Done(())), Ok(Outcome::Done(()))));
    check(
        story,
        "there are two primaries: without a witness nothing prevents it (C1.8)",
        two,
        &format!("{old:?} {new:?}"),
    );
    seen(story, &dump(&mut first).await?);
    seen(story, &dump(&mut second).await?);

    story.step("the relays heal");
    to_first.set(Flow::Both);
    to_second.set(Flow::Both);
    let lost = first.line("LOST", WITHIN).await?;
    story.saw(lost);
    let follows = |d: &Dump| !d.is_primary() && d.is_up() && d.is_complete();
    let old = dump_when(&mut first, "it follows", follows).await?;
    let new = dump_when(&mut second, "the other is UP", Dump::is_up).await?;
    seen(story, &old);
    story.check(
        "P reports what it had acknowledged alone, and follows S: never silently (C1.8)",
        Ok(String::new()),
    );
    story.equal("both have S's table", &old.entries, &new.entries);
    Ok(())
}

/// Both lose their memory.
async fn both_lost(story: &mut Story) -> Result<(), ProcessError> {
    story.step("a new pair; kill -9 both, start both again");
    let pair = Pair::prepare(&[])?;
    let (mut first, mut second) = pair.start().await?;
    let turns = Turns::default();
    let mut client = turns.client(&pair);
    let written = put(&mut client, "k", "1").await;
    story.equal("a client writes", &written, &Ok(Outcome::Done(())));
    second.kill().await?;
    first.kill().await?;
    let mut first = pair.first.start().await?;
    let _second = pair.second.start().await?;
    let says = first.line("has the table any more", WITHIN).await?;
    story.saw(says);
    let asked = client.size().await;
    story.saw(turns.take().join("; "));
    check(
        story,
        "no empty table is served: the client gives up (C1.7, A1.6, R1.21)",
        asked.is_err(),
        &format!("{asked:?}"),
    );

    story.step("P is started with --force");
    first.kill().await?;
    let mut first = pair.first.with(&["--force"]).launch()?;
    story.saw(first.line("FORCED", WITHIN).await?);
    let size = client.size().await;
    story.equal(
        "now an empty table is served, as its operator wanted",
        &size,
        &Ok(Outcome::Done(0)),
    );
    Ok(())
}

async fn put(
    client: &mut ClientStub,
    key: &'static str,
    data: &'static str,
) -> Result<Outcome<()>, super::network_client::NoAnswer> {
    client.put(key.into(), data.into()).await
}

async fn relay(target: String) -> Result<Relay, ProcessError> {
    Relay::to(target).await.map_err(|source| ProcessError::Io {
        what: "cannot make a relay".into(),
        source,
    })
}

fn seen(story: &mut Story, dump: &Dump) {
    story.saw(format!("{}; {}", dump.role, dump.entries.join(", ")));
}

fn up(dump: &Dump) -> Result<String, String> {
    if dump.is_up() {
        Ok(String::new())
    } else {
        Err(dump.role.clone())
    }
}

/// A claim that is `true` or not, and what was found instead.
fn check(story: &mut Story, claim: &str, holds: bool, instead: &str) {
    let found = if holds {
        Ok(String::new())
    } else {
        Err(instead.to_owned())
    };
    story.check(claim, found);
}

/// What a client did on its way.
#[derive(Clone, Default)]
struct Turns(Arc<Mutex<Vec<String>>>);

impl Turns {
    fn client(&self, pair: &Pair) -> ClientStub {
        let turns = Arc::clone(&self.0);
        let patience = Patience {
            timeout: Duration::from_secs(2),
            ..Patience::default()
        };
        let network = NetworkClient::new(pair.first.address(), pair.second.address(), patience);
        ClientStub::new(network.on_turn(move |turn| {
            let line = match turn {
                Turn::Other { failed, next, .. } => format!("{failed} failed, on to {next}"),
                Turn::Again { after, .. } => format!("both failed, waits {after:?}"),
            };
            turns
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(line);
        }))
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
