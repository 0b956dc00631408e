//! Starts a server as [`plan`] says: who it is, whom it asks, with what policies it runs.

use super::itself::{is_strange, refuse_own, refuse_own_peer};
use super::last_holder::{Held, wait};
use super::loss::{Last, each, has_nothing, may_serve};
use super::meeting::{ask_all, meet, whom_to_join};
use super::notes::Notes;
use super::policy::{
    self, CLIENT_IDLE_AFTER, CLIENTS_MAX, GROUP, REQUEST_BYTES_MAX, request_within,
};
use super::roll::{Answer, Roll};
use super::server::{Options, Server, announce};
use super::service::Service;
use super::start::{Force, Plan, draw, plan};
use super::state_dir::{Durability, Record, StateDir};
use super::table::Table;
use super::told::tell;
use super::witness::compare;
use super::words::Words;
use crate::common::address::resolved;
use kvrep_core::protocol::passive::Join;
use kvrep_core::transport::Transport as _;
use kvrep_core::{Authority, Node, ReplicaId};
use kvrep_transport_tcp::{TcpConfig, TcpLimits, TcpTiming, TcpTransport};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

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
    let me = ReplicaId(record.replica);
    refuse_own_peer(&record, options, &dir)?;
    // Where it had the table last, not where it will have it.
    let held = Held::lost(&record, &dir).map_err(|e| e.to_string())?;
    let had = record.durability();
    record.durable |= options.wanted.durability == Durability::Log;
    let has_log = record.durable && dir.has_log().map_err(|e| e.to_string())?;
    let alone = held.as_ref().and_then(Held::alone);
    let mut members = vec![me];
    let (mut peer, mut join) = (None, None);
    match plan {
        Plan::Begin if has_log => {}
        Plan::Begin => {
            refuse_unused_log(&dir)?;
            tell(&format!(
                "begins a new table, which is EMPTY, for there is none in {}. If this server had a table before, it was started elsewhere: stop it, and start it there, or with --data and that directory",
                dir.path().display()
            ));
        }
        Plan::Resume if has_log => {}
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
            let answers = match (held, &options.witness) {
                // A witness knows who had the table last.
                (None, _) | (Some(_), Some(_)) => answers,
                (Some(held), None) => wait(&held, &mut record, (options, &dir), answers).await?,
            };
            let (asked, place) = whom_to_join(me, known, answers, &record);
            (members, join) = (vec![asked.0], Some(place));
            peer = Some(asked);
        }
        Plan::Force { peer: known } => {
            let answers = ask_all(me, &record).await;
            for answer in &answers {
                refuse_if_alive(me, answer, has_log, alone.is_some())?;
            }
            members.extend(known.iter().map(|(id, _)| *id));
            let asked = asked(&answers);
            tell(&format!(
                "FORCED: {}. {asked}",
                consequence(&Left::of(has_log, had, &dir), &record)
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
    run(options, (dir, record, begins), members, peer, (join, alone)).await
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

/// No table in memory begins where one is in a log of which no record is left.
fn refuse_unused_log(dir: &StateDir) -> Result<(), String> {
    match dir.has_log() {
        Ok(true) => Err(format!(
            "there is a log in {}, of a server that was started with --durable, and no server.json beside it: put that back, if there is a copy, and add --durable to go on with the log; or choose another directory with --data, where this server begins an EMPTY table. This server was not started",
            dir.log().display()
        )),
        // In memory it needs none.
        Ok(false) | Err(_) => Ok(()),
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
    (enter, alone): (Enter, Option<Last>),
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
    let durability = record.durability();
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
    let mut timing = TcpTiming::default();
    // Whoever types his first command thinks about it.
    timing.foreign_begins_within = CLIENT_IDLE_AFTER;
    let mut config = TcpConfig::new(listen.to_string())
        .limits(limits)
        .timing(timing)
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
    let mut notes = Notes::new((dir, record, witness), told, Arc::clone(&transport)).alone(alone);
    // The port is this server's now, and nothing is served yet.
    if !begins {
        notes.begin()?;
    } else if !data.exists() {
        // What is there without a record is not this beginning's, be it a log or what is left of one.
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
    announce(options, &notes.dir);
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

/// A server with another witness than its primary's is not started; where that cannot be known, it says so.
async fn compare_witnesses(options: &Options, answers: &[Answer]) -> Result<(), String> {
    if let Some(witness) = &options.witness
        && let Some(doubt) = compare(witness, answers).await?
    {
        tell(&doubt);
    }
    Ok(())
}

/// What a server that is forced has left of the table.
enum Left {
    /// Its log.
    Log,
    /// Nothing: the log that it had there is gone.
    LogGone(PathBuf),
    /// Nothing: it had it in memory.
    Memory,
}

impl Left {
    fn of(has_log: bool, had: Durability, dir: &StateDir) -> Self {
        match had {
            _ if has_log => Self::Log,
            Durability::Log => Self::LogGone(dir.log()),
            Durability::Memory => Self::Memory,
        }
    }
}

/// What force does to the table, and what happens next.
fn consequence(left: &Left, record: &Record) -> String {
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
    let why_empty = match left {
        Left::Log => None,
        Left::LogGone(log) => Some(format!(
            "it was in the log of this server, {}, which is gone (stop this server and put the log back, if there is a copy)",
            log.display()
        )),
        Left::Memory => Some("it was in memory only, so this server has nothing of it".to_owned()),
    };
    if let Some(why_empty) = why_empty {
        let lost = match &other {
            Some(other) => format!(
                "What {other} may still have is given up, and is LOST when it joins this one. "
            ),
            None => String::new(),
        };
        return format!("the table starts EMPTY: {why_empty}. {lost}Next: {next}");
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
fn refuse_if_alive(
    me: ReplicaId,
    answer: &Answer,
    has_log: bool,
    was_alone: bool,
) -> Result<(), String> {
    let Some(status) = &answer.said else {
        return Ok(());
    };
    let at = &answer.address;
    let agreed = status.configuration.as_ref();
    // What this server alone had last, nobody has; one that counts on it has something older, and does not serve.
    let is_older = was_alone && agreed.is_some_and(|c| c.in_sync.contains_key(&me));
    let may_serve = may_serve(answer.replica, status) && !is_older;
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

const SHUTDOWN_WITHIN: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    /// A1.6: what is lost is said before it is lost.
    #[test]
    fn force_says_that_a_table_in_memory_starts_empty_and_whose_writes_a_log_may_lack() {
        let mut record = Record::new(5_000, ReplicaId(1), Durability::Memory);
        let empty = consequence(&Left::Memory, &record);
        assert!(empty.contains("starts EMPTY"), "{empty}");
        assert!(empty.contains("in memory only"), "{empty}");
        let gone = consequence(&Left::LogGone("d/log".into()), &record);
        assert!(gone.contains("starts EMPTY: it was in the log"), "{gone}");
        assert!(gone.contains("d/log") && !gone.contains("memory"), "{gone}");
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
            let told = consequence(&Left::Log, &record);
            assert!(told.contains(loses) && !told.contains("EMPTY"), "{told}");
            assert!(told.contains("becomes its secondary"), "{told}");
        }
    }
}
