//! The Zookeeper-like store: its own wire beside the library's, on the same three servers.

use super::relay::{Relay, Wire};
use kvrep_benches::load::{Caller, Plan, Sample, median, row, turn};
use kvrep_core::node::Client;
use kvrep_core::state_machine::decode;
use kvrep_examples::common::conversation::{Conversation, Manners, dial};
use kvrep_examples::zk_like_kv::framing::Framing;
use kvrep_examples::zk_like_kv::message::Mensagem;
use kvrep_examples::zk_like_kv::play::{LEADER, Servers};
use kvrep_examples::zk_like_kv::server::GROUP;
use kvrep_examples::zk_like_kv::table::{Change, Said, Table};
use kvrep_transport_tcp::connect;
use std::time::Duration;
use tokio::net::TcpStream;

/// Who writes, and over what.
#[derive(Clone, Copy, Debug)]
enum Contestant {
    Bare,
    AtLeader,
    /// The library, and one more hop, as at a follower.
    Relayed,
    AtFollower,
}

const CONTESTANTS: [(Contestant, &str); 4] = [
    (Contestant::Bare, "the bare library, no sessions"),
    (
        Contestant::AtLeader,
        "zk-like store's own wire, at the leader",
    ),
    (Contestant::Relayed, "the bare library behind a relay"),
    (
        Contestant::AtFollower,
        "its own wire, at a follower (passed on)",
    ),
];

/// Measures and prints.
pub(crate) async fn measure(plan: &Plan) -> Result<(), String> {
    let mut servers = Servers::new([&[], &[], &[]]).map_err(|e| e.to_string())?;
    servers.start_all().await.map_err(|e| e.to_string())?;
    // The first write waits until all three are there.
    Own::connect(&servers.address(LEADER), u32::MAX)
        .await?
        .call()
        .await?;
    println!(
        "zk-like store: three processes in memory, {} clients, 16-byte keys, 100-byte values, medians of {} turns",
        plan.clients, plan.rounds
    );
    let mut turns: [Vec<Sample>; 4] = Default::default();
    for _ in 0..plan.rounds {
        for (at, (contestant, _)) in CONTESTANTS.iter().enumerate() {
            turns[at].push(one_turn(*contestant, &servers, plan).await?);
        }
    }
    let (mut bare, mut relayed) = (None, None);
    for (turns, (contestant, name)) in turns.into_iter().zip(CONTESTANTS) {
        let sample = median(turns).ok_or("no turns")?;
        let row = row(name, &sample, bare.as_ref());
        match (contestant, &relayed) {
            (Contestant::AtFollower, Some(relayed)) => {
                let share = 100.0 * sample.per_s / f64::max(*relayed, 1.0);
                println!("  {row}, {share:.0} % of the relayed");
            }
            _ => println!("  {row}"),
        }
        match contestant {
            Contestant::Bare => bare = Some(sample),
            Contestant::Relayed => relayed = Some(sample.per_s),
            Contestant::AtLeader | Contestant::AtFollower => {}
        }
    }
    Ok(())
}

async fn one_turn(
    contestant: Contestant,
    servers: &Servers,
    plan: &Plan,
) -> Result<Sample, String> {
    let leader = servers.address(LEADER);
    match contestant {
        Contestant::Bare => {
            let client = |n| Bare {
                client: connect::<Table>(GROUP, [leader.clone()]),
                keys: Keys { client: n, next: 0 },
            };
            turn((0..plan.clients).map(client).collect(), plan).await
        }
        Contestant::AtLeader => turn(own(&leader, plan).await?, plan).await,
        Contestant::Relayed => {
            let relay = Relay::start(move || connect::<Table>(GROUP, [leader]));
            let relay = relay.map_err(|e| e.to_string())?;
            let mut clients = Vec::new();
            for client in 0..plan.clients {
                let wire = Wire::to(relay.address).await;
                clients.push(Relayed {
                    wire: wire.map_err(|e| e.to_string())?,
                    keys: Keys { client, next: 0 },
                });
            }
            turn(clients, plan).await
        }
        Contestant::AtFollower => turn(own(&servers.address(0), plan).await?, plan).await,
    }
}

async fn own(address: &str, plan: &Plan) -> Result<Vec<Own>, String> {
    let mut clients = Vec::new();
    for n in 0..plan.clients {
        clients.push(Own::connect(address, n).await?);
    }
    Ok(clients)
}

struct Own {
    talk: Conversation<TcpStream, Framing>,
    keys: Keys,
}

impl Own {
    async fn connect(address: &str, client: u32) -> Result<Self, String> {
        let stream = dial(address, CONNECT_WITHIN).await;
        let stream = stream.map_err(|e| e.to_string())?;
        Ok(Self {
            talk: Conversation::new(stream, Framing::default(), Manners::default()),
            keys: Keys { client, next: 0 },
        })
    }
}

impl Caller for Own {
    async fn call(&mut self) -> Result<(), String> {
        let put = Mensagem::put(&self.keys.next(), VALUE, None);
        let put = serde_json::to_vec(&put).map_err(|e| e.to_string())?;
        self.talk.send(&put[..]).await.map_err(|e| e.to_string())?;
        let said = self.talk.next().await.map_err(|e| e.to_string())?;
        let said = said.ok_or("a server closed the connection")?;
        let said: Mensagem = serde_json::from_slice(&said.json).map_err(|e| e.to_string())?;
        match said.tipo.as_str() {
            "PUT_OK" => Ok(()),
            _ => Err(format!("a PUT was answered {said:?}")),
        }
    }
}

struct Bare {
    client: Client<Table>,
    keys: Keys,
}

impl Caller for Bare {
    async fn call(&mut self) -> Result<(), String> {
        let put = Change::Put {
            key: self.keys.next(),
            value: VALUE.into(),
        };
        match self.client.execute_at_most_once(put).await {
            Ok(Said::Written(_)) => Ok(()),
            other => Err(format!("a put was answered {other:?}")),
        }
    }
}

struct Relayed {
    wire: Wire,
    keys: Keys,
}

impl Caller for Relayed {
    async fn call(&mut self) -> Result<(), String> {
        let put = Change::put(&self.keys.next(), VALUE);
        self.wire.send(&put).await.map_err(|e| e.to_string())?;
        let said = self.wire.next().await.map_err(|e| e.to_string())?;
        let said = said.ok_or("the relay closed the connection")?;
        match decode(&said).map_err(|malformed| malformed.to_string())? {
            Said::Written(_) => Ok(()),
            other => Err(format!("a put was answered {other:?}")),
        }
    }
}

/// A thousand keys for each client.
struct Keys {
    client: u32,
    next: u32,
}

impl Keys {
    fn next(&mut self) -> String {
        self.next = (self.next + 1) % 1_000;
        format!("{:08}{:08}", self.client, self.next)
    }
}

/// A hundred bytes.
const VALUE: &str = "vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv";
const CONNECT_WITHIN: Duration = Duration::from_secs(30);
