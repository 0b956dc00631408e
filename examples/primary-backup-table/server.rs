//! `table-server`: starts as its directory and arguments say, serves clients, listens to the keyboard.

use super::message::{Dialect, Message, Room, Side, TableCodec};
use super::policy::{self, CLIENTS_MAX, GROUP, LARGE_REQUESTS_MAX, REQUEST_BYTES_MAX};
use super::primary_backup::{hello, update_state};
use super::requests::Requests;
use super::server_console::printed;
use super::skel::asked;
use super::start::{Force, Plan, Wanted, draw, plan};
use super::state_dir::{Durability, Record, StateDir};
use super::table::Table;
use crate::common::conversation::Conversation;
use crate::common::open_files::raise_open_files;
use crate::common::operator::{asked_to_end, attend};
use async_trait::async_trait;
use bytes::Bytes;
use kvrep_core::client_wire::{Op, Outcome};
use kvrep_core::protocol::ProtocolStatus;
use kvrep_core::protocol::passive::Join;
use kvrep_core::transport::Transport as _;
use kvrep_core::{Authority, GroupId, Node, ReplicaId};
use kvrep_transport_tcp::{
    ForeignService, LinkLimits, TcpConfig, TcpLimits, TcpLink, TcpTransport,
};
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

/// What a server is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Port, primary, log, force.
    pub wanted: Wanted,
    /// On which of this machine's addresses it listens.
    pub listen: IpAddr,
    /// Where the other server reaches it, if not there.
    pub advertise: Option<String>,
    /// Its directory.
    pub data: PathBuf,
    /// Where the witness is, if there is one.
    pub witness: Option<String>,
    /// What is written before a frame.
    pub dialect: Dialect,
}

/// Serves until asked to end.
///
/// # Errors
/// Why it could not start or go on, for the operator.
pub async fn serve(options: Options) -> Result<(), String> {
    if let Some(files) = raise_open_files(CLIENTS_MAX as u64 + FILES_BESIDE)
        && files < CLIENTS_MAX as u64
    {
        tell(&format!(
            "the system lets this process have {files} connections; raise the limit (ulimit -n) for more clients"
        ));
    }
    // Listened for from the beginning, so that a signal during the start is not missed.
    let mut end = std::pin::pin!(asked_to_end().map_err(|e| e.to_string())?);
    let mut keyboard = Keyboard::new();
    let starting = start(&options);
    let mut starting = std::pin::pin!(starting);
    let Server { node, mut notes } = loop {
        tokio::select! {
            started = &mut starting => break started?,
            line = keyboard.line() => obey(&line, None).await,
            () = &mut end => return Ok(()),
        }
    };
    say(&format!(
        "table-server: {} na porta {}, estado em {}",
        node.identity().replica,
        options.wanted.port,
        notes.dir.path().display()
    ));
    tokio::select! {
        ended = tend(&node, &mut notes, &mut keyboard) => return ended,
        () = &mut end => {}
    }
    node.shutdown().await.map_err(|e| e.to_string())
}

/// Does what a running server does beside serving, until the node ends by itself.
async fn tend(node: &Node, notes: &mut Notes, keyboard: &mut Keyboard) -> Result<(), String> {
    let mut watch = node.watch();
    watch.mark_changed();
    let mut attending = std::pin::pin!(attend(node, tell));
    let mut waking = std::pin::pin!(wake(node));
    let mut awake = false;
    let other = notes.record.peer_address.clone();
    let mut lost = std::pin::pin!(nobody_has_it(node, other));
    let mut is_told = false;
    loop {
        tokio::select! {
            ended = &mut attending => return ended.map_err(|e| e.to_string()),
            line = keyboard.line() => obey(&line, Some(node)).await,
            () = &mut waking, if !awake => awake = true,
            () = &mut lost, if !is_told => is_told = true,
            Ok(()) = watch.changed() => {
                let protocol = watch.borrow_and_update().protocol.clone();
                notes.take(&protocol).await?;
            }
        }
    }
}

/// A server that runs.
struct Server {
    node: Node,
    notes: Notes,
}

/// What a server writes down of the pair.
struct Notes {
    dir: StateDir,
    record: Record,
    transport: Arc<TcpTransport>,
}

impl Notes {
    /// Writes down what the pair has agreed on, if that is new.
    async fn take(&mut self, protocol: &ProtocolStatus) -> Result<(), String> {
        let Some(configuration) = &protocol.configuration else {
            return Ok(());
        };
        let (dir, transport) = (self.dir.clone(), &self.transport);
        if !self
            .record
            .learn(configuration, |id| transport.address_of(id))
        {
            return Ok(());
        }
        let record = self.record.clone();
        // A disk takes its time; heartbeats do not wait for it.
        let written = tokio::task::spawn_blocking(move || dir.write(&record)).await;
        written
            .map_err(|e| e.to_string())?
            .map_err(|e| e.to_string())
    }
}

async fn start(options: &Options) -> Result<Server, String> {
    let dir = StateDir::open(&options.data).map_err(|e| e.to_string())?;
    let found = dir.read().map_err(|e| e.to_string())?;
    let plan = plan(found.as_ref(), &options.wanted)?;
    let mut record = found.unwrap_or_else(|| {
        Record::new(options.wanted.port, draw(&plan), options.wanted.durability)
    });
    record.durable |= options.wanted.durability == Durability::Log;
    let me = ReplicaId(record.replica);
    // Before anything is served: whoever has begun once does not begin again.
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
            record.peer_address = Some(address.clone());
            dir.write(&record).map_err(|e| e.to_string())?;
            let met = meet(&address, me).await;
            (members, join) = (vec![met.replica], Some(met.join));
            record.peer = Some(met.replica.0);
            peer = Some((met.replica, address));
        }
        Plan::Return { peer: known } => {
            (members, join) = (vec![known.0], Some(Join::full()));
            peer = Some(known);
        }
        Plan::Force { peer: known } => {
            if let Some((id, address)) = &known {
                refuse_if_alive(*id, address, &record).await?;
                members.push(*id);
            }
            tell(&format!(
                "FORCED: last agreed on in term {}, when {:?} had everything; whatever only the others had is LOST",
                record.term, record.in_sync
            ));
            peer = known;
        }
    }
    dir.write(&record).map_err(|e| e.to_string())?;
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
    let listen = SocketAddr::new(options.listen, options.wanted.port);
    let service = Arc::new(Service::new(options.dialect));
    let mut config = TcpConfig::new(listen.to_string())
        .limits(limits)
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
    let node = builder.start().await.map_err(|e| e.to_string())?;
    // Who came before this was hung up on.
    let _ = service.requests.set(Requests::new(&node));
    let notes = Notes {
        dir,
        record,
        transport,
    };
    Ok(Server { node, notes })
}

/// Who is at an address.
struct Met {
    replica: ReplicaId,
    join: Join,
}

/// Asks who listens there, until somebody answers. A place in the pair that is taken is asked for all the same: it is given
/// if its owner is dead.
async fn meet(address: &str, me: ReplicaId) -> Met {
    let mut told = false;
    loop {
        match status_of(address).await {
            Ok((replica, status)) if replica != me => {
                let members = status.configuration.map(|c| c.members).unwrap_or_default();
                let primary = status.primary.unwrap_or(replica);
                let taken = members.keys().find(|id| **id != primary && **id != me);
                let join = match taken {
                    Some(dead) if !members.contains_key(&me) => Join::full().in_place_of(*dead),
                    Some(_) | None => Join::full(),
                };
                return Met { replica, join };
            }
            Ok(_) => tell_once(
                &mut told,
                &format!("{address} is this server itself; give it the address of the other one"),
            ),
            Err(why) => tell_once(&mut told, &format!("waits for the other server: {why}")),
        }
        sleep(MEET_EVERY).await;
    }
}

fn tell_once(told: &mut bool, what: &str) {
    if !std::mem::replace(told, true) {
        tell(what);
    }
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

async fn status_of(address: &str) -> Result<(ReplicaId, ProtocolStatus), String> {
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

/// Tells when this server, if it is the secondary, has been heard and has the table.
async fn wake(node: &Node) {
    if hello(node, WAKE_WITHIN).await.is_err() || update_state(node, WAKE_WITHIN).await.is_err() {
        return;
    }
    let status = node.status().protocol;
    if status.primary != Some(node.identity().replica) {
        say("table-server: tabela atualizada, este servidor é o secundário");
    }
}

/// Tells if neither this server nor the other one has the table: they would wait for each other.
async fn nobody_has_it(node: &Node, other: Option<String>) {
    let Some(other) = other else {
        return;
    };
    let has_nothing = |status: &ProtocolStatus| {
        status.configuration.is_none() && status.last.index.0 == 0 && status.primary.is_none()
    };
    while has_nothing(&node.status().protocol) {
        if let Ok((_, status)) = status_of(&other).await
            && has_nothing(&status)
            && has_nothing(&node.status().protocol)
        {
            return tell(
                "nobody has the table any more: both servers were started again without it. Start one of them with --force to begin with an empty table",
            );
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Serves clients on their own wire.
struct Service {
    requests: OnceLock<Requests>,
    dialect: Dialect,
    room: Room,
}

impl Service {
    fn new(dialect: Dialect) -> Self {
        Self {
            requests: OnceLock::new(),
            dialect,
            room: Room::for_frames(LARGE_REQUESTS_MAX),
        }
    }

    /// One request after the other: whoever asks faster is slowed down by TCP.
    async fn answer(&self, talk: &mut Conversation<TcpStream, TableCodec>) -> Served {
        loop {
            let request = match talk.next().await {
                Ok(Some(request)) => request,
                Ok(None) => return Served::Enough,
                Err(_) => return Served::Garbage,
            };
            let reply = match request.ok().and_then(asked) {
                None => Message::failure(),
                Some(ask) => {
                    let Some(requests) = self.requests.get() else {
                        return Served::Unanswered;
                    };
                    let outcome = requests.carry_out(&ask).await;
                    // There is no word for "not known": hanging up says it.
                    match outcome.ok().and_then(|outcome| ask.reply(outcome)) {
                        Some(reply) => reply,
                        None => return Served::Unanswered,
                    }
                }
            };
            if talk.send(reply).await.is_err() {
                return Served::Enough;
            }
        }
    }
}

/// How a conversation ended.
enum Served {
    /// The client has gone, or does not listen.
    Enough,
    /// It said what is no frame, or nothing for too long.
    Garbage,
    /// There is no answer to tell.
    Unanswered,
}

#[async_trait]
impl ForeignService for Service {
    async fn serve(&self, stream: TcpStream, first: Bytes, _: SocketAddr) {
        let codec =
            TableCodec::new(Side::Server, self.dialect, REQUEST_BYTES_MAX).room(self.room.clone());
        let mut talk = Conversation::continued(stream, &first, codec, policy::manners());
        match self.answer(&mut talk).await {
            Served::Enough | Served::Unanswered => {}
            Served::Garbage => {
                if talk.send(Message::failure()).await.is_ok() {
                    talk.finish().await;
                }
            }
        }
    }
}

/// The lines that are typed. Its end neither ends the server nor keeps it busy.
struct Keyboard {
    input: Option<BufReader<tokio::io::Stdin>>,
    line: Vec<u8>,
}

impl Keyboard {
    fn new() -> Self {
        Self {
            input: Some(BufReader::new(tokio::io::stdin())),
            line: Vec::new(),
        }
    }

    /// The next line; never, once there are no more. May be dropped at any await.
    async fn line(&mut self) -> String {
        while let Some(input) = &mut self.input {
            let read = match input.fill_buf().await {
                Ok([]) | Err(_) => {
                    self.input = None;
                    break;
                }
                Ok(bytes) => bytes,
            };
            let end = read.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(read.len(), |end| end + 1);
            let room = LINE_BYTES_MAX.saturating_sub(self.line.len());
            self.line.extend_from_slice(&read[..taken.min(room)]);
            input.consume(taken);
            if end.is_some() {
                let line = String::from_utf8_lossy(&self.line).trim().to_owned();
                self.line.clear();
                return line;
            }
        }
        std::future::pending().await
    }
}

async fn obey(line: &str, node: Option<&Node>) {
    match line {
        "" => {}
        "print" => {
            let text = printed(node).await;
            // Whoever closed the other end does not want to read it.
            drop(std::io::stdout().write_all(text.as_bytes()));
        }
        other => tell(&format!("{other}: the only command is print; Ctrl-C ends")),
    }
}

/// To the operator.
fn tell(what: &str) {
    drop(writeln!(std::io::stderr(), "table-server: {what}"));
}

fn say(line: &str) {
    drop(writeln!(std::io::stdout(), "{line}"));
}

/// Open files besides clients' connections.
const FILES_BESIDE: u64 = 1_024;
const MEET_EVERY: Duration = Duration::from_millis(200);
const LOOK_EVERY: Duration = Duration::from_secs(1);
const STATUS_WITHIN: Duration = Duration::from_secs(1);
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(2);
/// Longer than anybody waits for it.
const WAKE_WITHIN: Duration = Duration::from_secs(24 * 3_600);
const LINE_BYTES_MAX: usize = 4_096;
