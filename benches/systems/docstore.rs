//! The document store: its own wire, a connection for each request as its text wants it, beside the library's, on the same servers.
//!
//! How much of the difference the connections make is shown by requests that are answered without doing anything: no write over this
//! wire can be faster.

use kvrep_benches::load::{Caller, Plan, Sample, median, row, turn};
use kvrep_core::node::Client;
use kvrep_examples::document_store::server::group::GROUP;
use kvrep_examples::document_store::stage::{Port, Stage, asked, at, tell};
use kvrep_examples::document_store::store::{Answer, Command, Store};
use kvrep_examples::document_store::value::Value;
use kvrep_examples::document_store::wire::Response;
use kvrep_transport_tcp::connect;

/// Who writes, and over what.
#[derive(Clone, Copy, Debug)]
enum Contestant {
    Bare,
    Own,
    Nothing,
}

const CONTESTANTS: [(Contestant, &str); 3] = [
    (Contestant::Bare, "the bare library, a connection a client"),
    (Contestant::Own, "the store's wire, a connection a request"),
    (Contestant::Nothing, "the same, and nothing is done"),
];

/// Measures and prints.
pub(crate) async fn measure(plan: &Plan) -> Result<(), String> {
    let (_stage, [leader, _follower]) = Stage::with().await?;
    let create = r#"["create", "notes", {"*client":"int","text":"str"}]"#;
    tell(leader, create).await?;
    println!(
        "document store: leader and follower with logs on disk, {} clients, inserts of 100 bytes with an index, medians of {} turns",
        plan.clients, plan.rounds
    );
    let mut turns: [Vec<Sample>; 3] = Default::default();
    for _ in 0..plan.rounds {
        for (turns, (contestant, _)) in turns.iter_mut().zip(CONTESTANTS) {
            let callers = (0..plan.clients).map(|client| Writer::new(contestant, leader, client));
            turns.push(turn(callers.collect(), plan).await?);
        }
    }
    let mut bare = None;
    for (turns, (_, name)) in turns.into_iter().zip(CONTESTANTS) {
        let sample = median(turns).ok_or("no turns")?;
        println!("  {}", row(name, &sample, bare.as_ref()));
        bare.get_or_insert(sample);
    }
    Ok(())
}

/// A client that inserts documents.
struct Writer {
    leader: Port,
    client: u32,
    contestant: Contestant,
    kept: Client<Store>,
}

impl Writer {
    fn new(contestant: Contestant, leader: Port, client: u32) -> Self {
        Self {
            leader,
            client,
            contestant,
            kept: connect(GROUP, [at(leader)]),
        }
    }

    fn command(&self) -> Command {
        let document = vec![
            ("client".into(), Value::Int(self.client.into())),
            ("text".into(), Value::Str("x".repeat(TEXT_BYTES))),
        ];
        Command::Insert {
            collection: "notes".into(),
            document,
        }
    }
}

impl Writer {
    async fn insert(&self) -> Result<(), String> {
        let inserted = self.kept.execute_at_most_once(self.command()).await;
        match inserted.map_err(|e| e.to_string())? {
            Answer::Inserted(_) => Ok(()),
            other => Err(format!("an insert was answered {other:?}")),
        }
    }

    async fn ask(&self, request: &str) -> Result<Response, String> {
        asked(self.leader, request).await.map_err(|e| e.to_string())
    }
}

impl Caller for Writer {
    async fn call(&mut self) -> Result<(), String> {
        match self.contestant {
            Contestant::Bare => self.insert().await,
            Contestant::Own => {
                let (client, text) = (self.client, "x".repeat(TEXT_BYTES));
                let request =
                    format!(r#"["insert", "notes", {{"client":{client},"text":"{text}"}}]"#);
                match self.ask(&request).await? {
                    Response::Ok(_) => Ok(()),
                    Response::Ko(why) => Err(why),
                }
            }
            // What is no operation is refused at the door.
            Contestant::Nothing => self.ask("[]").await.map(drop),
        }
    }
}

const TEXT_BYTES: usize = 80;
