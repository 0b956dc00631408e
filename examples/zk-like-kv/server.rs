//! A server: listens, finds the two others, and runs its replica of the table.
//!
//! ```text
//!   bind ─▶ serve clients ─▶ all three known ─▶ the same port, with a replica behind it
//!              (PUT waits)     (JOIN)
//! ```
//!
//! The policies of the passive scheme make the text's system: the primary is fixed (`Takeover::Never`), a write is acknowledged
//! when all have it (`Ack::All`), and everybody shows what it has as soon as it has it (`Visibility::OnAppend`). State is in
//! memory, as the text has it; a leader that is started again adopts what its followers have before it serves, and leaves out
//! the timestamps that only its earlier life can have given. Which those are it has [noted](super::given).

use super::codec::JsonLines;
use super::console::Console;
use super::dialect::KEY_AND_VALUE_BYTES_MAX;
use super::failures::{of_address, of_io};
use super::forward::Forwarder;
use super::front::{Front, Role};
use super::given::Given;
use super::hearsay::Hearsay;
use super::recent::Recent;
use super::registering::Registering;
use super::registry::{Registry, known};
use super::slow::Slow;
use super::standin::stand_in;
use super::store::{Replica, Store};
use super::table::{Change, Table};
use super::trio::{LEADER, Trio};
use super::words::{plainly, told};
use crate::common::operator::{asked_to_end, attend_news};
use bytes::BytesMut;
use kvrep_core::node::{ClientOptions, LocalLink, Node};
use kvrep_core::transport::Transport;
use kvrep_core::{Ack, Authority, Client, GroupConfig, Limits, ReplicaId, Takeover, Visibility};
use kvrep_transport_tcp::{ForeignService, TcpConfig, TcpLimits, TcpTransport};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Name of the group.
pub const GROUP: &str = "zk-like-kv";

/// What a server is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens, as it was typed.
    pub own: String,
    /// Where the leader listens, as it was typed.
    pub leader: String,
    /// The follower whose place it takes, as it was typed.
    pub instead_of: Option<String>,
    /// By how much replication at this server is delayed.
    pub delay: Duration,
    /// How long a PUT may take.
    pub put_within: Duration,
    /// Where a leader notes which timestamps it gives.
    pub directory: PathBuf,
}

/// The longest delay that [`Settings::delay`] may be.
pub const DELAY_MAX: Duration = Duration::from_secs(20);

/// Serves until asked to end.
///
/// # Errors
/// Why it could not start or go on, in words for its operator.
pub async fn serve(settings: Settings) -> Result<(), String> {
    let mut asked = std::pin::pin!(asked_to_end().map_err(|error| error.to_string())?);
    let console = Console::on_stdout().map_err(|error| error.to_string())?;
    let console = Arc::new(console);
    let (own, is_leader, leader) = addresses(&settings).await?;
    let registering = match &settings.instead_of {
        None if is_leader => None,
        Some(_) if is_leader => {
            return Err(format!(
                "--no-lugar-de é para um seguidor que toma o lugar de outro, e {own} é o líder: inicie-o sem essa opção"
            ));
        }
        None => Some(None),
        Some(dead) => Some(Some(resolve(dead).await?[0])),
    };
    let registering = registering.map(|instead_of| Registering {
        me: own,
        leader,
        instead_of,
    });
    let listener = TcpListener::bind(own)
        .await
        .map_err(|error| format!("não é possível escutar em {own}: {}", of_io(&error)))?;
    // Now, so that the operator who is still there hears what is wrong; and not before it is certain that no other leader runs here.
    let given = if is_leader {
        Some(Given::open(&settings.directory, own)?)
    } else {
        None
    };
    let trio = watch::Sender::new(None);
    let role = if is_leader {
        let registry = Registry::new(own, trio.clone());
        Role::Leader(Arc::new(match &given {
            Some(given) if given.up_to() > 0 => registry.heeding_those_who_know(),
            Some(_) | None => registry,
        }))
    } else {
        Role::Follower(Forwarder::new(
            own,
            leader,
            Arc::clone(&console),
            settings.put_within,
        ))
    };
    let hearsay = match &given {
        Some(given) => Hearsay::at_leader(own, given.origin()),
        None => Hearsay::at_follower(),
    };
    let store = Store::new(Arc::clone(&console), settings.put_within, hearsay);
    let front = Arc::new(Front {
        me: own,
        role,
        store: Arc::new(store),
    });
    let ended = tokio::select! {
        () = &mut asked => Ok(()),
        ended = run(&settings, &front, listener, &trio, registering, given) => ended,
    };
    let replica = front.store.close();
    if let Some(replica) = replica {
        // Whoever still holds it ends with the transport.
        drop(replica.client);
        if let Some(node) = Arc::into_inner(replica.node) {
            let _ = node.shutdown().await;
        }
    }
    console.drain(DRAIN_WITHIN);
    ended
}

async fn run(
    settings: &Settings,
    front: &Arc<Front>,
    listener: TcpListener,
    three: &watch::Sender<Option<Trio>>,
    registering: Option<Registering>,
    given: Option<Given>,
) -> Result<(), String> {
    let register = async {
        match registering {
            None => std::future::pending().await,
            Some(registering) => registering.stay(three, front.store.hearsay()).await,
        }
    };
    let replicate = async {
        let mut early = JoinSet::new();
        let trio = serve_early(&listener, front, three, &mut early).await;
        let up_to = given.as_ref().map_or(0, Given::up_to);
        let node = start_replica(settings, front, listener, &trio, given).await?;
        let node = Arc::new(node);
        let mut options = ClientOptions::default();
        options.deadline = settings.put_within;
        let client = Client::with_options(LocalLink::new([&*node]), options);
        if let Role::Leader(registry) = &front.role {
            let timestamps = if registry.had_earlier_life() {
                SKIPPED
            } else {
                0
            };
            if timestamps.max(up_to) > 0 {
                let skip = Change::Skip { timestamps, up_to };
                begin_again(&node, &client, skip, registry, &trio).await?;
            }
        }
        let replica = Replica {
            client,
            node: Arc::clone(&node),
        };
        front.store.open(replica);
        let ended = attend_news(&node, |news| {
            let now = three.borrow();
            if let Some(what) = told(now.as_ref().unwrap_or(&trio), news) {
                eprintln!("{}: {what}", front.me);
            }
        })
        .await;
        drop(early);
        ended.map_err(|error| plainly(&trio, &error.to_string()))
    };
    tokio::select! {
        ended = replicate => ended,
        why = register => Err(why),
    }
}

/// Leaves timestamps out as soon as the group begins, and helps it to begin where an operator says that a follower does not return.
async fn begin_again(
    node: &Node,
    client: &Client<Table>,
    skip: Change,
    registry: &Registry,
    trio: &Trio,
) -> Result<(), String> {
    let mut played = None;
    let mut leaving_out = std::pin::pin!(leave_out(node, client, skip));
    let left_out = loop {
        tokio::select! {
            left_out = &mut leaving_out => break left_out,
            gone = registry.gone(), if played.is_none() => match stand_in(trio, gone).await {
                Ok(node) => played = Some(node),
                Err(why) => return Err(format!("sem {gone} não é possível começar: {why}")),
            },
        }
    };
    if let Some(played) = played {
        // It belongs no more from here on; whoever takes its place asks for that.
        let _ = played.shutdown().await;
    }
    left_out
}

/// A leader that was killed may have shown writes that it had not shipped, and all three may have been stopped. Their timestamps
/// must not be given again, so its next life leaves out what it has noted; and as many as those can have been, in case the
/// note is lost.
async fn leave_out(node: &Node, client: &Client<Table>, skip: Change) -> Result<(), String> {
    let mut watch = node.watch();
    let serving = watch.wait_for(|status| status.protocol.serving).await;
    serving.map_err(|error| error.to_string())?;
    while let Err(error) = client.execute_at_most_once(skip.clone()).await {
        // Skipped twice does no harm.
        eprintln!("o líder ainda não atende: {error}");
    }
    Ok(())
}

/// Serves connections until the three servers are known. Those that came meanwhile go on in `early`.
async fn serve_early(
    listener: &TcpListener,
    front: &Arc<Front>,
    trio: &watch::Sender<Option<Trio>>,
    early: &mut JoinSet<()>,
) -> Trio {
    let served = Arc::new(Semaphore::new(EARLY_MAX));
    let mut complete = std::pin::pin!(known(trio));
    loop {
        tokio::select! {
            biased;
            trio = &mut complete => return trio,
            Some(_) = early.join_next() => {}
            accepted = listener.accept() => match (accepted, Arc::clone(&served).try_acquire_owned()) {
                (Ok((stream, peer)), Ok(permit)) => {
                    let front = Arc::clone(front);
                    early.spawn(async move {
                        greet(&front, stream, peer).await;
                        drop(permit);
                    });
                }
                (Ok(_), Err(_)) => {}
                (Err(error), _) => {
                    eprintln!("não é possível aceitar conexões: {}", of_io(&error));
                    sleep(ACCEPT_AGAIN).await;
                }
            },
        }
    }
}

/// Gives a connection to the front, unless it is another server's replica that was quicker: that one tries again.
async fn greet(front: &Front, mut stream: TcpStream, peer: SocketAddr) {
    let _ = stream.set_nodelay(true);
    let opening = JsonLines::opening_of_members();
    let mut first = BytesMut::new();
    let _ = timeout(FIRST_BYTES_WITHIN, async {
        while first.len() < opening.len() && opening.starts_with(&first) {
            if !matches!(stream.read_buf(&mut first).await, Ok(1..)) {
                break;
            }
        }
    })
    .await;
    if !first.is_empty() && !first.starts_with(opening) {
        front.serve(stream, first.freeze(), peer).await;
    }
}

async fn start_replica(
    settings: &Settings,
    front: &Arc<Front>,
    listener: TcpListener,
    trio: &Trio,
    given: Option<Given>,
) -> Result<Node, String> {
    let me = trio
        .id_of(front.me)
        .ok_or("este servidor não é um dos três")?;
    let recent = Arc::new(match front.role {
        Role::Leader(_) => Recent::silent(),
        Role::Follower(_) => Recent::printing(Arc::clone(front.store.console())),
    });
    let group = group(trio);
    let mut limits = TcpLimits::for_group(&group.limits);
    limits.foreign_max = CLIENTS_MAX;
    let config = TcpConfig::new(front.me.to_string())
        .peers(trio.members().map(|(id, at)| (id, at.to_string())))
        .limits(limits)
        .foreign(Arc::clone(front) as Arc<dyn ForeignService>)
        .codec(Arc::new(JsonLines::new(Arc::clone(&recent))));
    let line = TcpTransport::from_listener(config, listener).map_err(|error| error.to_string())?;
    let table = match given {
        Some(given) => Table::told_to(recent).noting(given),
        None => Table::told_to(recent),
    };
    if settings.delay.is_zero() {
        start(me, group, line, table, settings).await
    } else {
        start(me, group, Slow::new(line, settings.delay), table, settings).await
    }
}

async fn start(
    me: ReplicaId,
    group: GroupConfig,
    line: impl Transport,
    table: Table,
    settings: &Settings,
) -> Result<Node, String> {
    let builder = Node::builder(GROUP, me)
        .group(group)
        .transport(line)
        .reply_within(settings.put_within)
        .shutdown_within(SHUTDOWN_WITHIN)
        .state_machine(table);
    builder.start().await.map_err(|error| error.to_string())
}

/// What the three servers agree on.
pub(super) fn group(trio: &Trio) -> GroupConfig {
    let members = trio.members().map(|(id, _)| id);
    let mut group = GroupConfig::new(members, Authority::Alone);
    group.ack = Ack::All;
    group.takeover = Takeover::Never { primary: LEADER };
    group.visibility = Visibility::OnAppend;
    // Nobody leaves or dies, says the text; a process that does is seen by its connections. A late line must not look dead.
    group.timing.suspect_after = DELAY_MAX + Duration::from_secs(10);
    group.limits = Limits {
        // Nothing larger is asked for, and a command in the log is no longer than its words.
        command_bytes_max: KEY_AND_VALUE_BYTES_MAX + (1 << 10),
        uncommitted_entries_max: UNCOMMITTED_MAX,
        ..Limits::default()
    };
    group
}

/// The own address, whether it is the leader's, and the leader's.
async fn addresses(settings: &Settings) -> Result<(SocketAddr, bool, SocketAddr), String> {
    let own = resolve(&settings.own).await?;
    let leader = resolve(&settings.leader).await?;
    let first = own[0];
    if first.ip().is_unspecified() || first.port() == 0 {
        return Err(format!(
            "{first}: os outros servidores precisam de um endereço e de uma porta exatos; use por exemplo 127.0.0.1:10097"
        ));
    }
    let same = own.iter().find(|own| leader.contains(own)).copied();
    Ok((same.unwrap_or(first), same.is_some(), leader[0]))
}

/// What a name stands for, IPv4 first; at least one address.
async fn resolve(name: &str) -> Result<Vec<SocketAddr>, String> {
    let found = lookup_host(name).await;
    let found = found.map_err(|error| of_address(name, &error))?;
    let mut found: Vec<SocketAddr> = found.collect();
    found.sort_by_key(|address| !address.is_ipv4());
    if found.is_empty() {
        return Err(format!("{name}: nenhum endereço"));
    }
    Ok(found)
}

/// Of the writes that a leader shows before all have them.
const UNCOMMITTED_MAX: usize = 4_096;
/// How many timestamps a leader that was started again leaves out, whatever it has noted: more than that, and one batch.
const SKIPPED: u64 = 10_000;
const EARLY_MAX: usize = 1_024;
const CLIENTS_MAX: usize = 4_096;
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
const FIRST_BYTES_WITHIN: Duration = Duration::from_secs(3);
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(1);
const DRAIN_WITHIN: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    async fn role(own: &str, leader: &str) -> (bool, SocketAddr) {
        let settings = Settings {
            own: own.into(),
            leader: leader.into(),
            instead_of: None,
            delay: Duration::ZERO,
            put_within: Duration::from_secs(1),
            directory: PathBuf::from("."),
        };
        let (own, is_leader, _) = addresses(&settings).await.unwrap();
        (is_leader, own)
    }

    #[tokio::test]
    async fn c3_7_names_that_stand_for_the_same_address_give_the_same_role() {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        for own in ["localhost:10098", "127.0.0.1:10098"] {
            for leader in ["localhost:10098", "127.0.0.1:10098"] {
                assert_eq!(role(own, leader).await, (true, at(10_098)));
            }
            assert_eq!(role(own, "localhost:10097").await, (false, at(10_098)));
            assert_eq!(role(own, "127.0.0.2:10098").await, (false, at(10_098)));
        }
    }

    #[tokio::test]
    async fn an_address_that_nobody_could_reach_is_refused_with_a_remedy() {
        for own in ["0.0.0.0:10097", "127.0.0.1:0"] {
            let settings = Settings {
                own: own.into(),
                leader: "127.0.0.1:10098".into(),
                instead_of: None,
                delay: Duration::ZERO,
                put_within: Duration::from_secs(1),
                directory: PathBuf::from("."),
            };
            assert!(
                addresses(&settings)
                    .await
                    .unwrap_err()
                    .contains("127.0.0.1:10097")
            );
        }
        assert!(
            resolve("127.0.0.1")
                .await
                .unwrap_err()
                .contains("IP e porta")
        );
    }
}
