//! Starts a server as [`plan`] says: who it is, whom it asks, with what policies it runs.

use super::loss::{each, has_nothing, may_serve};
use super::policy::{self, CLIENTS_MAX, GROUP, REQUEST_BYTES_MAX, request_within};
use super::roll::{Answer, Roll, call, of_this_table};
use super::server::{Notes, Options, Server, tell};
use super::service::Service;
use super::start::{Force, Plan, draw, plan};
use super::state_dir::{Durability, Record, StateDir};
use super::table::Table;
use super::witness::compare;
use super::words::{Words, unheard};
use crate::common::address::resolved;
use crate::common::operator::Said;
use kvrep_core::client_wire::{Op, Outcome};
use kvrep_core::protocol::ProtocolStatus;
use kvrep_core::protocol::passive::Join;
use kvrep_core::transport::Transport as _;
use kvrep_core::{Authority, Configuration, GroupId, Node, ReplicaId};
use kvrep_transport_tcp::{LinkLimits, TcpConfig, TcpLimits, TcpLink, TcpTransport};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Starts as the directory and the arguments say. Waits for the other server where that must be asked first.
///
/// # Errors
/// Why it cannot start, and what to do.
pub(super) async fn start(options: &Options) -> Result<Server, String> {
    let dir = StateDir::open(&options.data).map_err(|e| e.to_string())?;
    port_is_free(options)?;
    dir.forget_vain_beginning().map_err(|e| e.to_string())?;
    let found = dir.read().map_err(|e| e.to_string())?;
    let options = &with_witness(options, found.as_ref(), &dir)?;
    if let Some(witness) = &options.witness {
        resolved("--witness", witness)?;
    }
    let is_first = found.is_none();
    let plan = plan(found.as_ref(), &options.wanted)?;
    if let (Plan::Begin, Some(witness), Force::Yes) =
        (&plan, &options.witness, options.wanted.force)
    {
        return Err(format!(
            "--force makes a server go on alone; this one is new, and has nothing to go on with, while the witness at {witness} may be that of a table that is served: leave --force out. A table of its own needs a witness of its own"
        ));
    }
    let witness = options.witness.as_deref();
    let mut record = found.unwrap_or_else(|| {
        let drawn = draw(&plan, witness);
        Record::new(options.wanted.port, drawn, options.wanted.durability)
    });
    record.durable |= options.wanted.durability == Durability::Log;
    let me = ReplicaId(record.replica);
    let mut members = vec![me];
    let (mut peer, mut join) = (None, None);
    match plan {
        Plan::Begin if dir.log().exists() => {}
        Plan::Begin => tell(&format!(
            "begins a new table, which is EMPTY, for there is none in {}. If this server had a table before, it was started elsewhere: stop it, and start it there, or with --data and that directory",
            dir.path().display()
        )),
        Plan::Resume if dir.log().exists() => {}
        Plan::Resume => {
            return Err(format!(
                "the log of this server, {}, is gone, and nobody else has the table: restore it, or start with --force to begin with an empty one",
                dir.log().display()
            ));
        }
        Plan::Meet { address, .. } => {
            refuse_own(&address, options)?;
            let met = meet(&address, me, &options.data).await?;
            compare_witnesses(options, std::slice::from_ref(&met.answer)).await?;
            (members, join) = (vec![met.replica], Some(met.join));
            record.peer = Some(met.replica.0);
            record.peer_address = Some(address.clone());
            peer = Some((met.replica, address));
        }
        Plan::Return { peer: known } => {
            if let Some(said) = &options.wanted.primary
                && is_strange(said, &record)
            {
                tell(&format!(
                    "{said} is not asked: this server belongs to the table of the server at {}, as {} says, and goes on there. To join another table, start it with another directory (--data)",
                    known.1,
                    dir.file().display()
                ));
            }
            let answers = ask_all(me, &record).await;
            compare_witnesses(options, &answers).await?;
            let (asked, place) = whom_to_join(me, known, answers, &record);
            (members, join) = (vec![asked.0], Some(place));
            peer = Some(asked);
        }
        Plan::Force { peer: known } => {
            let has_log = record.durable && dir.log().exists();
            let answers = ask_all(me, &record).await;
            for answer in &answers {
                refuse_if_alive(me, answer, has_log)?;
            }
            members.extend(known.iter().map(|(id, _)| *id));
            let asked = asked(&answers);
            tell(&format!(
                "FORCED: {}. {asked}",
                consequence(has_log, &record)
            ));
            peer = known;
        }
    }
    // A table that has not begun leaves nothing behind.
    let begins = is_first && peer.is_none();
    let join = match (join, options.wanted.force) {
        (join, Force::No) => Enter::As(join),
        (_, Force::Yes) => Enter::Forced,
    };
    run(options, (dir, record, begins), members, peer, join).await
}

/// The same with the witness that the directory remembers.
fn with_witness(
    options: &Options,
    found: Option<&Record>,
    dir: &StateDir,
) -> Result<Options, String> {
    let said = options.witness.clone();
    let witness = match found {
        Some(record) => record.witness(said.as_deref(), &dir.file())?,
        None => said,
    };
    Ok(Options {
        witness,
        ..options.clone()
    })
}

/// How a node enters its group.
enum Enter {
    /// As a founder, or as one that goes on; or as one that joins.
    As(Option<Join>),
    Forced,
}

/// Asks everybody that is known, and says who has begun another table.
async fn ask_all(me: ReplicaId, record: &Record) -> Vec<Answer> {
    let (answers, strays) = of_this_table(me, call(me, record.known()).await);
    for at in strays {
        tell(&format!(
            "{at}: that server was started as if for the first time, and began ANOTHER TABLE with nothing of this one in it: stop it. What it took meanwhile is in its table only"
        ));
    }
    answers
}

/// Who is asked for a place, and how: the other one of the pair; another server that answers and has the table, if that one is dead or has nothing. Another
/// server may have taken this one's place meanwhile, and be dead by now.
fn whom_to_join(
    me: ReplicaId,
    known: (ReplicaId, String),
    answers: Vec<Answer>,
    record: &Record,
) -> ((ReplicaId, String), Join) {
    let said = |answer: Answer| Some(((answer.replica, answer.address), answer.said?));
    let mut said: Vec<_> = answers.into_iter().filter_map(said).collect();
    said.sort_by_key(|((id, at), status)| {
        (!may_serve(*id, status), has_nothing(status), *at != known.1)
    });
    match said.into_iter().next() {
        Some(((replica, address), status)) => {
            if began_anew(me, &status) {
                tell(&another_table(&address, record));
            }
            ((replica, address), place_for(me, replica, status))
        }
        None => (known, Join::full()),
    }
}

/// Who was asked before force, and what else there may be.
fn asked(answers: &[Answer]) -> String {
    let silent = answers.iter().filter(|a| a.said.is_none());
    let silent: Vec<_> = silent.map(|a| a.address.clone()).collect();
    let silent = match silent.as_slice() {
        [] => String::new(),
        silent => format!(
            "No answer came from {}, and what it has is not known. ",
            each(silent)
        ),
    };
    format!(
        "{silent}A server of which this one was never told may have more; if there is one, stop this one"
    )
}

/// Said at once, before anything else is decided or said.
fn port_is_free(options: &Options) -> Result<(), String> {
    let listen = SocketAddr::new(options.listen, options.wanted.port);
    std::net::TcpListener::bind(listen).map(drop).map_err(|e| {
        let what = match e.kind() {
            ErrorKind::AddrInUse => "another process, perhaps another table-server, listens there: stop it first, or choose another port",
            ErrorKind::AddrNotAvailable => "this machine has no such address: choose one of its own with --listen",
            ErrorKind::PermissionDenied => "ports below 1024 need privileges: choose a higher one",
            _ => "check the port and --listen",
        };
        format!("cannot listen on {listen}: {e}; {what}. This server was not started, and changed nothing")
    })
}

async fn run(
    options: &Options,
    (dir, record, begins): (StateDir, Record, bool),
    members: Vec<ReplicaId>,
    peer: Option<(ReplicaId, String)>,
    enter: Enter,
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
    let known = Arc::new(Addresses {
        listed: peer.clone(),
        transport: OnceLock::new(),
    });
    let durability = if record.durable {
        Durability::Log
    } else {
        Durability::Memory
    };
    let ask = Arc::clone(&known);
    let address_of = move |id| ask.of(id);
    let witness = options.witness.as_deref();
    let begins_with = witness.filter(|_| begins);
    let words = Words::new((me, durability), witness, address_of).begins_with(begins_with);
    let words = Arc::new(words);
    let told = Arc::clone(&words);
    let listen = SocketAddr::new(options.listen, options.wanted.port);
    let roll = Arc::new(Roll::of(record.known()));
    roll.set_beginning(begins);
    let within = request_within(options.timeout);
    let service = Arc::new(Service::new(options.dialect, within, Arc::clone(&roll)));
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
    // It is set once, here.
    let _ = known.transport.set(Arc::downgrade(&transport));
    let data = dir.log();
    let durable = record.durable;
    let told = (options.wanted.force, roll);
    let witness = options.witness.clone();
    let mut notes = Notes::new((dir, record, witness), told, Arc::clone(&transport));
    // The port is this server's now, and nothing is served yet.
    if !begins {
        notes.begin()?;
    } else if !data.exists() {
        // A log that is there without a record is not this beginning's.
        notes.mark_beginning()?;
    }
    let mut builder = Node::builder(GROUP, me)
        .group(group)
        .transport(Arc::clone(&transport))
        .shutdown_within(SHUTDOWN_WITHIN)
        .state_machine(Table::default());
    if durable {
        builder = builder.data_dir(data);
    }
    builder = match enter {
        Enter::Forced => builder.forced(),
        Enter::As(Some(join)) => builder.join(join),
        Enter::As(None) => builder,
    };
    let node = builder.start().await;
    let node = node.map_err(|e| words.plainly(&e.to_string()))?;
    if !begins {
        service.begin(&node);
    }
    Ok(Server {
        node,
        notes,
        words,
        service,
    })
}

/// Where the other servers are, as far as that is known by now.
struct Addresses {
    listed: Option<(ReplicaId, String)>,
    transport: OnceLock<Weak<TcpTransport>>,
}

impl Addresses {
    fn of(&self, id: ReplicaId) -> Option<String> {
        let listed = self.listed.iter().find(|(listed, _)| *listed == id);
        let learned = || self.transport.get()?.upgrade()?.address_of(id);
        learned().or_else(|| listed.map(|(_, address)| address.clone()))
    }
}

/// Who is at an address.
struct Met {
    answer: Answer,
    replica: ReplicaId,
    join: Join,
}

/// Asks who listens there, until somebody answers.
async fn meet(address: &str, me: ReplicaId, data: &Path) -> Result<Met, String> {
    let mut said = Said::default();
    loop {
        match status_of(address).await {
            Ok((ReplicaId::WITNESS, _)) => {
                return Err(format!(
                    "a witness listens at {address}, and no table-server: give the primary's address there, and the witness's behind --witness"
                ));
            }
            Ok((replica, status)) if replica != me => {
                let answer = Answer {
                    replica,
                    address: address.to_owned(),
                    said: Some(status.clone()),
                    begins: false,
                };
                let join = place_for(me, replica, status);
                return Ok(Met {
                    answer,
                    replica,
                    join,
                });
            }
            // This server does not listen yet, so it is another one.
            Ok(_) => {
                return Err(format!(
                    "{} was begun as a table of its own, and so was the one at {address}: to join that one, remove the directory (and with it what is in it)",
                    data.display()
                ));
            }
            Err(why) if said.is_news(&why, Instant::now()) => tell(&format!(
                "waits for the other server: {why}. The one that begins the table is started with its port alone, and this one joins it as soon as it answers"
            )),
            Err(_) => {}
        }
        sleep(MEET_EVERY).await;
    }
}

/// A server with another witness than its primary's is not started; where that cannot be known, it says so.
async fn compare_witnesses(options: &Options, answers: &[Answer]) -> Result<(), String> {
    if let Some(witness) = &options.witness
        && let Some(doubt) = compare(witness, answers).await?
    {
        tell(&doubt);
    }
    Ok(())
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

/// Whether the other server serves a table that is not the one that this server had a copy of: a primary counts its secondary
/// among its own, dead or alive, until a third server has taken its place.
fn began_anew(me: ReplicaId, other: &ProtocolStatus) -> bool {
    let alone = |c: &Configuration| c.members.len() == 1 && !c.members.contains_key(&me);
    other.serving && other.configuration.as_ref().is_some_and(alone)
}

/// What a server is told that comes back, and finds that the other one has begun another table.
fn another_table(address: &str, record: &Record) -> String {
    let other = format!(
        "the server at {address} was started as if for the first time (in another directory?), and began ANOTHER TABLE, which does not know this server"
    );
    if record.durable {
        format!(
            "{other}. This server has its log, and goes on with it as soon as a client asks; what was written to the other table is LOST then"
        )
    } else {
        format!(
            "{other}. What the two had was in memory, and IS LOST, for both were started again: this server gets a copy of the other table"
        )
    }
}

/// Whether this address is none of those that the directory knows, written in whatever way.
fn is_strange(address: &str, record: &Record) -> bool {
    let places = |at: &str| resolved("", at).unwrap_or_default();
    let given = places(address);
    let is_given =
        |known: &String| known == address || places(known).iter().any(|p| given.contains(p));
    !record.known().values().any(is_given)
}

/// A server is no secondary of itself.
fn refuse_own(address: &str, options: &Options) -> Result<(), String> {
    for found in resolved("the primary's address", address)? {
        let here = found.ip().is_loopback() || found.ip() == options.listen;
        if found.port() == options.wanted.port && here {
            return Err(format!(
                "{address} is this server itself; give it the address of the other one"
            ));
        }
    }
    Ok(())
}

/// What force does to the table, and what happens next.
fn consequence(has_log: bool, record: &Record) -> String {
    let other = record
        .peer_address
        .as_ref()
        .map(|address| format!("the server at {address}"));
    let next = match &other {
        Some(other) => format!(
            "this server serves alone from now on; {other}, when it is started, becomes its secondary and gets a copy of this table in place of its own"
        ),
        None => "this server serves alone, until it is given a secondary".into(),
    };
    if !has_log {
        let lost = match &other {
            Some(other) => format!(
                "What {other} may still have is given up, and is LOST when it joins this one. "
            ),
            None => String::new(),
        };
        return format!(
            "the table starts EMPTY: it was in memory only, so this server has nothing of it. {lost}Next: {next}"
        );
    }
    let other = other.unwrap_or_else(|| "the other server".into());
    let loses = match record.in_sync.as_slice() {
        [only] if *only == record.replica => format!(
            "When that was last agreed on, this server alone had the whole table, and {other} was DOWN: nothing that was acknowledged is lost, unless that one was forced, too"
        ),
        [_] => format!(
            "When that was last agreed on, {other} alone had the whole table, and this server was DOWN: whatever was written since is LOST, unless you start that one instead"
        ),
        _ => format!(
            "When that was last agreed on, both servers had the whole table: what {other} took alone since then, if it served at all, is LOST"
        ),
    };
    format!(
        "this server serves with what is in its log. {loses}. Next: {next} (which is set aside in its directory)"
    )
}

/// Force is not for a server while another one is there that has more.
fn refuse_if_alive(me: ReplicaId, answer: &Answer, has_log: bool) -> Result<(), String> {
    let Some(status) = &answer.said else {
        return Ok(());
    };
    let at = &answer.address;
    let may_serve = may_serve(answer.replica, status);
    let agreed = status.configuration.as_ref();
    // With a log whoever has more of it is found by the library, where both had the table when that was last agreed on.
    let without_me = !has_log || agreed.is_some_and(|c| !c.in_sync.contains_key(&me));
    if status.serving {
        Err(format!(
            "nothing is forced: the server at {at} serves this table; start this one without --force"
        ))
    } else if may_serve && without_me && !has_nothing(status) {
        Err(format!(
            "nothing is forced: the server at {at} has the table, and serves it as soon as a client asks that server (or one that knows it); start this one without --force"
        ))
    } else if !has_log && !has_nothing(status) {
        Err(format!(
            "nothing is forced: the server at {at} has more of the table than this one, which has nothing of it, though perhaps not all. Start that one with --force to go on with what it has; or stop it first if that is to be given up"
        ))
    } else {
        Ok(())
    }
}

pub(super) async fn status_of(address: &str) -> Result<(ReplicaId, ProtocolStatus), String> {
    let deadline = Instant::now() + STATUS_WITHIN;
    let group = GroupId::named(GROUP);
    let link = TcpLink::connect(address, group, LinkLimits::default(), deadline).await;
    let link = link.map_err(|e| unheard(address, &e))?;
    match link.call(Op::Status, deadline).await {
        Ok(Outcome::Status(status)) => Ok((link.replica(), *status)),
        Ok(other) => Err(format!("{address} answers {other:?}")),
        Err(e) => Err(unheard(address, &e)),
    }
}

const MEET_EVERY: Duration = Duration::from_millis(200);
const STATUS_WITHIN: Duration = Duration::from_secs(1);
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use kvrep_core::protocol::Role;
    use kvrep_core::{MemberKind, StoreId, Term, Version};

    /// A1.6: what is lost is said before it is lost.
    #[test]
    fn force_says_that_a_table_in_memory_starts_empty_and_whose_writes_a_log_may_lack() {
        let mut record = Record::new(5_000, ReplicaId(1), Durability::Memory);
        let empty = consequence(false, &record);
        assert!(empty.contains("starts EMPTY"), "{empty}");
        record.durable = true;
        record.peer_address = Some("h:5001".into());
        for (in_sync, loses) in [
            (vec![1], "nothing that was acknowledged is lost"),
            (vec![9], "whatever was written since is LOST"),
            (
                vec![1, 9],
                "what the server at h:5001 took alone since then",
            ),
        ] {
            record.in_sync = in_sync;
            let told = consequence(true, &record);
            assert!(told.contains(loses) && !told.contains("EMPTY"), "{told}");
            assert!(told.contains("becomes its secondary"), "{told}");
        }
    }

    /// A primary that does not know its secondary is none of this pair.
    #[test]
    fn another_primary_is_told_from_one_that_is_known_by_another_name() {
        let mut record = Record::new(5_001, ReplicaId(9), Durability::Memory);
        record.peer = Some(1);
        record.peer_address = Some("127.0.0.1:5000".into());
        record.hear_of(ReplicaId(7), "127.0.0.1:5002");
        for known in ["127.0.0.1:5000", "localhost:5000", "127.0.0.1:5002"] {
            assert!(!is_strange(known, &record), "{known}");
        }
        assert!(is_strange("127.0.0.1:6000", &record));
    }

    #[test]
    fn a_server_that_serves_a_table_of_its_own_is_told_from_the_primary_of_the_pair() {
        let status = |members: &[u32]| ProtocolStatus {
            role: Role::Primary,
            primary: Some(ReplicaId(1)),
            serving: true,
            configuration: Some(Configuration {
                term: Term::ZERO.next_for(ReplicaId(1)),
                version: Version(1),
                in_sync: [(ReplicaId(1), StoreId(1))].into(),
                members: members
                    .iter()
                    .map(|id| (ReplicaId(*id), MemberKind::Full))
                    .collect(),
            }),
            ..ProtocolStatus::of_nothing(StoreId(1))
        };
        let me = ReplicaId(9);
        assert!(began_anew(me, &status(&[1])));
        // The pair's, and one in which a third server has this one's place.
        assert!(!began_anew(me, &status(&[1, 9])));
        assert!(!began_anew(me, &status(&[1, 10])));
    }
}
