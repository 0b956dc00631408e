//! The primary-backup table: its own wire beside the library's, on the same servers; and whether a write's two halves overlap.

use bytes::Bytes;
use kvrep_benches::load::{Caller, Plan, Sample, calmest, median, millis, row, turn};
use kvrep_core::node::Client;
use kvrep_examples::common::processes::Process;
use kvrep_examples::primary_backup_table::client_stub::{ClientStub, Outcome};
use kvrep_examples::primary_backup_table::network_client::{Identity, Patience};
use kvrep_examples::primary_backup_table::pair::{Pair, Seat, WITHIN};
use kvrep_examples::primary_backup_table::policy::GROUP;
use kvrep_examples::primary_backup_table::table::{Command, Response, Table};
use kvrep_transport_tcp::connect;
use std::time::Duration;

/// Measures and prints.
pub(crate) async fn measure(plan: &Plan) -> Result<(), String> {
    throughput(plan).await?;
    overlap(plan).await
}

/// Who writes, and how often that is carried out when it is sent again.
#[derive(Clone, Copy, Debug)]
enum Contestant {
    OwnOnce,
    BareOnce,
    OwnPlain,
    BarePlain,
}

const CONTESTANTS: [(Contestant, &str); 4] = [
    (Contestant::BareOnce, "the bare library, sessions"),
    (Contestant::OwnOnce, "table's own wire, with identity"),
    (Contestant::BarePlain, "the bare library, no sessions"),
    (Contestant::OwnPlain, "table's own wire, plain"),
];

/// The same two servers throughout: they take both wires.
async fn throughput(plan: &Plan) -> Result<(), String> {
    let pair = Pair::prepare(&[]).map_err(|e| e.to_string())?;
    let _running = pair.start().await.map_err(|e| e.to_string())?;
    println!(
        "table: two processes in memory, {} clients, 16-byte keys, 100-byte values, medians of {} turns",
        plan.clients, plan.rounds
    );
    let mut turns: [Vec<Sample>; 4] = Default::default();
    for _ in 0..plan.rounds {
        for (at, (contestant, _)) in CONTESTANTS.iter().enumerate() {
            turns[at].push(one_turn(*contestant, &pair, plan).await?);
        }
    }
    let mut bare = None;
    for (turns, (contestant, name)) in turns.into_iter().zip(CONTESTANTS) {
        let sample = median(turns).ok_or("no turns")?;
        match contestant {
            Contestant::BareOnce | Contestant::BarePlain => {
                println!("  {}", row(name, &sample, None));
                bare = Some(sample);
            }
            Contestant::OwnOnce | Contestant::OwnPlain => {
                println!("  {}", row(name, &sample, bare.as_ref()));
            }
        }
    }
    Ok(())
}

async fn one_turn(contestant: Contestant, pair: &Pair, plan: &Plan) -> Result<Sample, String> {
    match contestant {
        Contestant::OwnOnce => turn(own(pair, plan, Identity::WherePossible), plan).await,
        Contestant::OwnPlain => turn(own(pair, plan, Identity::Never), plan).await,
        Contestant::BareOnce => turn(bare(pair, plan, Sends::Once), plan).await,
        Contestant::BarePlain => turn(bare(pair, plan, Sends::Plain), plan).await,
    }
}

fn own(pair: &Pair, plan: &Plan, identity: Identity) -> Vec<Own> {
    let patience = Patience {
        identity,
        ..Patience::default()
    };
    let client = |n| Own {
        table: pair.client(patience),
        keys: Keys { client: n, next: 0 },
    };
    (0..plan.clients).map(client).collect()
}

fn bare(pair: &Pair, plan: &Plan, sends: Sends) -> Vec<Bare> {
    let client = |n| Bare {
        client: connect::<Table>(GROUP, [pair.first.address()]),
        sends,
        keys: Keys { client: n, next: 0 },
    };
    (0..plan.clients).map(client).collect()
}

struct Own {
    table: ClientStub,
    keys: Keys,
}

impl Caller for Own {
    async fn call(&mut self) -> Result<(), String> {
        let put = self.table.put(self.keys.next(), VALUE).await;
        match put.map_err(|e| e.to_string())? {
            Outcome::Done(()) => Ok(()),
            Outcome::Failed => Err("a put failed".into()),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Sends {
    Once,
    Plain,
}

struct Bare {
    client: Client<Table>,
    sends: Sends,
    keys: Keys,
}

impl Caller for Bare {
    async fn call(&mut self) -> Result<(), String> {
        let command = Command::Put {
            key: self.keys.next(),
            data: VALUE,
        };
        let put = match self.sends {
            Sends::Once => self.client.execute(command).await,
            Sends::Plain => self.client.execute_at_most_once(command).await,
        };
        match put.map_err(|e| e.to_string())? {
            Response::Done => Ok(()),
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
    fn next(&mut self) -> Bytes {
        self.next = (self.next + 1) % 1_000;
        format!("{:08}{:08}", self.client, self.next).into()
    }
}

const VALUE: Bytes = Bytes::from_static(&[b'v'; 100]);

/// A write costs the slower of its two halves, not their sum: one client, and disks at one server, the other, both.
async fn overlap(plan: &Plan) -> Result<(), String> {
    let plan = Plan {
        clients: 1,
        ..*plan
    };
    println!(
        "table: do the primary's disk and the secondary's overlap? One client, the calmest of {} turns",
        plan.rounds
    );
    let kinds = [Disks::None, Disks::Primary, Disks::Secondary, Disks::Both];
    let mut pairs = Vec::new();
    for kind in kinds {
        pairs.push(Running::start(kind).await?);
    }
    let mut turns: [Vec<Sample>; 4] = Default::default();
    for _ in 0..plan.rounds {
        for (at, running) in pairs.iter().enumerate() {
            let callers = own(&running.pair, &plan, Identity::Never);
            turns[at].push(turn(callers, &plan).await?);
        }
    }
    let mut medians = Vec::new();
    for (turns, kind) in turns.into_iter().zip(kinds) {
        let sample = calmest(turns).ok_or("no turns")?;
        println!("  {}", row(kind.name(), &sample, None));
        medians.push(sample.p50);
    }
    if let [none, primary, secondary, both] = medians[..] {
        let (own, other) = (primary.saturating_sub(none), secondary.saturating_sub(none));
        println!(
            "  the primary's disk adds {:.3} ms, the secondary's {:.3} ms; one after the other would make {:.3} ms, both at once {:.3} ms; measured {:.3} ms",
            millis(own),
            millis(other),
            millis(none + own + other),
            millis(none + own.max(other)),
            millis(both)
        );
    }
    Ok(())
}

/// Who has a log on disk.
#[derive(Clone, Copy, Debug)]
enum Disks {
    None,
    Primary,
    Secondary,
    Both,
}

impl Disks {
    fn name(self) -> &'static str {
        match self {
            Self::None => "no disk",
            Self::Primary => "a disk at the primary",
            Self::Secondary => "a disk at the secondary",
            Self::Both => "a disk at both",
        }
    }
}

struct Running {
    pair: Pair,
    _processes: [Process; 2],
}

impl Running {
    async fn start(disks: Disks) -> Result<Self, String> {
        let pair = Pair::prepare(&[]).map_err(|e| e.to_string())?;
        let durable = ["--durable"];
        let (at_first, at_second): (&[&str], &[&str]) = match disks {
            Disks::None => (&[], &[]),
            Disks::Primary => (&durable, &[]),
            Disks::Secondary => (&[], &durable),
            Disks::Both => (&durable, &durable),
        };
        let start = async |seat: &Seat, arguments| seat.with(arguments).start().await;
        let first = start(&pair.first, at_first).await;
        let first = first.map_err(|e| e.to_string())?;
        let second = start(&pair.second, at_second).await;
        let mut second = second.map_err(|e| e.to_string())?;
        let there = second.line("tabela atualizada", WITHIN).await;
        there.map_err(|e| e.to_string())?;
        // The primary needs a moment to stop waiting for it.
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok(Self {
            pair,
            _processes: [first, second],
        })
    }
}
