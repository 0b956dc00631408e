//! Starts a server as [`plan`] says: who it is, whom it asks, with what policies it runs.

use super::policy::{self, CLIENTS_MAX, GROUP, REQUEST_BYTES_MAX};
use super::server::{Notes, Options, Server, tell};
use super::service::Service;
use super::start::{Force, Plan, draw, plan};
use super::state_dir::{Durability, Record, StateDir};
use super::table::Table;
use super::words::Words;
use kvrep_core::client_wire::{Op, Outcome};
use kvrep_core::protocol::ProtocolStatus;
use kvrep_core::protocol::passive::Join;
use kvrep_core::{Authority, GroupId, Node, ReplicaId};
use kvrep_transport_tcp::{LinkLimits, TcpConfig, TcpLimits, TcpLink, TcpTransport};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Starts as the directory and the arguments say. Waits for the other server where that must be asked first.
///
/// # Errors
/// Why it cannot start, and what to do.
pub(super) async fn start(options: &Options) -> Result<Server, String> {
    let dir = StateDir::open(&options.data).map_err(|e| e.to_string())?;
    let found = dir.read().map_err(|e| e.to_string())?;
    let plan = plan(found.as_ref(), &options.wanted)?;
    let mut record = found.unwrap_or_else(|| {
        Record::new(options.wanted.port, draw(&plan), options.wanted.durability)
    });
    record.durable |= options.wanted.durability == Durability::Log;
    let me = ReplicaId(record.replica);
    let mut members = vec![me];
    let (mut peer, mut join) = (None, None);
    match plan {
        Plan::Begin => {}
        Plan::Resume if dir.log().exists() => {}
        Plan::Resume => {
            return Err(format!(
                "the log of this server, {}, is gone, and nobody else has the table: restore it, or start with --force to begin with an empty one",
                dir.log().display()
            ));
        }
        Plan::Meet { address, .. } => {
            refuse_own(&address, options.wanted.port)?;
            let met = meet(&address, me, &options.data).await?;
            (members, join) = (vec![met.replica], Some(met.join));
            record.peer = Some(met.replica.0);
            record.peer_address = Some(address.clone());
            peer = Some((met.replica, address));
        }
        Plan::Return { peer: known } => {
            // Another server may have taken its place meanwhile, and be dead by now.
            let place = match status_of(&known.1).await {
                Ok((replica, status)) => place_for(me, replica, status),
                Err(_) => Join::full(),
            };
            (members, join) = (vec![known.0], Some(place));
            peer = Some(known);
        }
        Plan::Force { peer: known } => {
            if let Some((id, address)) = &known {
                refuse_if_alive(*id, address, &record).await?;
                members.push(*id);
            }
            let has_log = record.durable && dir.log().exists();
            tell(&format!("FORCED: {}", consequence(has_log, &record)));
            peer = known;
        }
    }
    let forced = options.wanted.force == Force::Yes;
    run(options, dir, record, members, peer, (join, forced)).await
}

async fn run(
    options: &Options,
    dir: StateDir,
    record: Record,
    members: Vec<ReplicaId>,
    peer: Option<(ReplicaId, String)>,
    (join, forced): (Option<Join>, bool),
) -> Result<Server, String> {
    let me = ReplicaId(record.replica);
    let authority = match options.witness {
        Some(_) => Authority::Witness,
        None => Authority::Alone,
    };
    let group = policy::group(members, authority);
    let mut limits = TcpLimits::for_group(&group.limits);
    limits.foreign_max = CLIENTS_MAX;
    // Of the library's own wire: the other server, people's tools.
    limits.clients_max = 128;
    limits.request_bytes_max = REQUEST_BYTES_MAX + 4_096;
    let other = peer.as_ref().map(|(_, address)| address.clone());
    let words = Arc::new(Words::new(me, other, options.witness.as_deref()));
    let told = Arc::clone(&words);
    let listen = SocketAddr::new(options.listen, options.wanted.port);
    let service = Arc::new(Service::new(options.dialect));
    let mut config = TcpConfig::new(listen.to_string())
        .limits(limits)
        .on_unreachable(move |trouble| {
            if let Some(why) = told.unreachable(trouble) {
                tell(&why);
            }
        })
        .foreign(Arc::<Service>::clone(&service));
    let mine = options.advertise.clone().map(|address| (me, address));
    let witness = options.witness.clone();
    let witness = witness.map(|address| (ReplicaId::WITNESS, address));
    for (id, address) in [peer, mine, witness].into_iter().flatten() {
        config = config.peer(id, address);
    }
    let transport = TcpTransport::bind(config)
        .await
        .map_err(|e| e.to_string())?;
    let transport = Arc::new(transport);
    // The port is this server's now, and nothing is served yet: whoever has begun once does not begin again.
    dir.write(&record).map_err(|e| e.to_string())?;
    let mut builder = Node::builder(GROUP, me)
        .group(group)
        .transport(Arc::clone(&transport))
        .shutdown_within(SHUTDOWN_WITHIN)
        .state_machine(Table::default());
    if record.durable {
        builder = builder.data_dir(dir.log());
    }
    builder = match (join, forced) {
        (_, true) => builder.forced(),
        (Some(join), false) => builder.join(join),
        (None, false) => builder,
    };
    let node = builder.start().await;
    let node = node.map_err(|e| words.plainly(&e.to_string()))?;
    service.begin(&node);
    Ok(Server {
        node,
        notes: Notes::new(dir, record, transport),
        words,
    })
}

/// Who is at an address.
struct Met {
    replica: ReplicaId,
    join: Join,
}

/// Asks who listens there, until somebody answers.
async fn meet(address: &str, me: ReplicaId, data: &Path) -> Result<Met, String> {
    let mut told = false;
    loop {
        match status_of(address).await {
            Ok((replica, status)) if replica != me => {
                let join = place_for(me, replica, status);
                return Ok(Met { replica, join });
            }
            // This server does not listen yet, so it is another one.
            Ok(_) => {
                return Err(format!(
                    "{} was begun as a table of its own, and so was the one at {address}: to join that one, remove the directory (and with it what is in it)",
                    data.display()
                ));
            }
            Err(why) => tell_once(&mut told, &format!("waits for the other server: {why}")),
        }
        sleep(MEET_EVERY).await;
    }
}

/// How to be let into the pair of the server that has answered. A place that is taken is asked for all the same: it is given if
/// its owner is dead.
fn place_for(me: ReplicaId, answered: ReplicaId, status: ProtocolStatus) -> Join {
    let primary = status.primary.unwrap_or(answered);
    let members = status.configuration.map(|c| c.members).unwrap_or_default();
    let taken = members.keys().find(|id| **id != primary && **id != me);
    match taken {
        Some(dead) if !members.contains_key(&me) => Join::full().in_place_of(*dead),
        Some(_) | None => Join::full(),
    }
}

/// A server is no secondary of itself.
fn refuse_own(address: &str, port: u16) -> Result<(), String> {
    let resolved = address.to_socket_addrs().map_err(|e| {
        format!("{address}: {e}; write the primary as HOST:PORT, such as 127.0.0.1:5000")
    })?;
    for found in resolved {
        if found.port() == port && found.ip().is_loopback() {
            return Err(format!(
                "{address} is this server itself; give it the address of the other one"
            ));
        }
    }
    Ok(())
}

fn tell_once(told: &mut bool, what: &str) {
    if !std::mem::replace(told, true) {
        tell(what);
    }
}

/// What force does to the table.
fn consequence(has_log: bool, record: &Record) -> String {
    if !has_log {
        return "the table starts EMPTY: it was in memory only, so this server has nothing of it. Whatever the other server may still have is given up, and is LOST when it joins this one".into();
    }
    let had = match record.in_sync.as_slice() {
        [only] if *only == record.replica => "this server alone",
        [_] => "the other server alone",
        _ => "both servers",
    };
    format!(
        "this server serves with what is in its log. When that was last agreed on, {had} had the whole table; what only the other server had is LOST"
    )
}

/// Force is not for a server whose partner is there with the table.
async fn refuse_if_alive(id: ReplicaId, address: &str, record: &Record) -> Result<(), String> {
    match status_of(address).await {
        Ok((replica, status)) if replica == id && status.last.index.0 > 0 && !record.durable => {
            Err(format!(
                "the other server, at {address}, has the table: start this one without --force"
            ))
        }
        Ok((_, status)) if status.serving => Err(format!(
            "the other server, at {address}, serves: start this one without --force"
        )),
        Ok(_) | Err(_) => Ok(()),
    }
}

pub(super) async fn status_of(address: &str) -> Result<(ReplicaId, ProtocolStatus), String> {
    let deadline = Instant::now() + STATUS_WITHIN;
    let group = GroupId::named(GROUP);
    let link = TcpLink::connect(address, group, LinkLimits::default(), deadline).await;
    let link = link.map_err(|e| e.to_string())?;
    match link.call(Op::Status, deadline).await {
        Ok(Outcome::Status(status)) => Ok((link.replica(), *status)),
        Ok(other) => Err(format!("{address} answers {other:?}")),
        Err(e) => Err(e.to_string()),
    }
}

const MEET_EVERY: Duration = Duration::from_millis(200);
const STATUS_WITHIN: Duration = Duration::from_secs(1);
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    /// A1.6: what is lost is said before it is lost.
    #[test]
    fn force_says_that_a_table_in_memory_starts_empty_and_whose_writes_a_log_may_lack() {
        let mut record = Record::new(5_000, ReplicaId(1), Durability::Memory);
        let empty = consequence(false, &record);
        assert!(empty.contains("starts EMPTY"), "{empty}");
        record.durable = true;
        for (in_sync, who) in [
            (vec![1], "this server alone"),
            (vec![9], "the other server alone"),
            (vec![1, 9], "both servers"),
        ] {
            record.in_sync = in_sync;
            let told = consequence(true, &record);
            assert!(told.contains(who) && !told.contains("EMPTY"), "{told}");
        }
    }
}
