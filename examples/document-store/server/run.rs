//! Starting a node and running it until it is asked to end.

use super::args::Args;
use super::force;
use super::group::{GROUP, agreed};
use super::hearing::Hearing;
use super::lost::{keeps_log, whom_to_join};
use super::newcomer::{NOT_FOUND, waits_there};
use super::notes::{self, Notes};
use super::place::Place;
use super::service::Service;
use super::words::{Alike, plainly, unreachable};
use crate::common::address::resolved;
use crate::common::operator::{Said, asked_to_end, attend, is_told_by_transport};
use crate::document_store::cli::remote::{ask, leader_of};
use crate::document_store::store::Store;
use crate::document_store::wire::Response;
use kvrep_core::node::{LocalLink, Node, NodeStatus};
use kvrep_core::protocol::Role;
use kvrep_core::protocol::passive::Join;
use kvrep_core::{Authority, ReplicaId};
use kvrep_transport_tcp::{TcpConfig, TcpTransport};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Why a node could not start or go on, in words for the operator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failed {
    /// What was said on the command line cannot be.
    Usage(String),
    /// Something else.
    Running(String),
}

impl From<String> for Failed {
    fn from(why: String) -> Self {
        Self::Running(why)
    }
}

/// Serves until the process is asked to end.
///
/// # Errors
/// Why the node could not start or go on, in words for the operator.
pub async fn run(args: Args) -> Result<(), Failed> {
    let end = asked_to_end().map_err(|e| format!("cannot listen for signals: {e}"))?;
    let hearing = Hearing::begin().map_err(|e| format!("cannot print: {e}"))?;
    let ended = serve(args, &hearing, end).await;
    hearing.drain(DRAIN_WITHIN);
    ended
}

async fn serve(args: Args, hearing: &Hearing, end: impl Future<Output = ()>) -> Result<(), Failed> {
    let mut end = std::pin::pin!(end);
    let started = tokio::select! {
        started = start(&args, hearing) => started?,
        // It may wait for a store to join.
        () = &mut end => {
            hearing.tell("ending");
            return Ok(());
        }
    };
    let Started {
        node,
        place,
        notes,
        service,
    } = started;
    let directory = directory_of(&args, place);
    hearing.tell(&listens(&args.listen, place));
    if let Some(leader) = &notes.leader
        && node.status().protocol.configuration.is_none()
        && !args.force
    {
        hearing.tell(&format!(
            "asks {leader} to let this node into its store, until it is let in"
        ));
    }
    let told = hearing.clone();
    let ended = tokio::select! {
        () = &mut end => {
            hearing.tell("ending");
            None
        }
        ended = attend(&node, move |what| {
            if !is_told_by_transport(what) {
                told.tell(&plainly(place, what));
            }
        }) => Some(ended),
        () = roles(&node, place, hearing) => None,
        () = service.watch(&node) => None,
        () = ask_for_room(&node, place, notes.leader.clone(), hearing) => None,
        why = remember(&node, place, &notes, &directory) => {
            drop(node.shutdown().await);
            return Err(why.into());
        }
    };
    match ended {
        None => node
            .shutdown()
            .await
            .map_err(|e| plainly(place, &e.to_string()).into()),
        Some(ended) => ended.map_err(|e| plainly(place, &e.to_string()).into()),
    }
}

/// Where it listens; and where others find it, if that is elsewhere.
fn listens(listen: &str, place: Place) -> String {
    match Place::find(listen) {
        Ok(found) if found != place => format!("listening on {found}; others find it at {place}"),
        Ok(_) | Err(_) => format!("listening on {place}"),
    }
}

/// Where it is not let in, asks the leader for a place, should the store be full, and says what stands in the way; never ends.
async fn ask_for_room(node: &Node, place: Place, leader: Option<String>, hearing: &Hearing) {
    let mut leader = leader;
    let mut said = Said::default();
    loop {
        sleep(ROOM_ASKED_EVERY).await;
        let status = node.status().protocol;
        let belongs = (status.configuration)
            .is_some_and(|c| c.members.contains_key(&node.identity().replica));
        if belongs || status.waiting_for.is_empty() {
            continue;
        }
        let Some(at) = &leader else { continue };
        let request = json!(["make-room", place.to_string()]).to_string();
        // What else the answer may be, the next attempt to join shows.
        if let Ok(Response::Ko(why)) = ask(at, &request, Instant::now() + ROOM_WITHIN).await {
            let elsewhere = leader_of(&why).map(ToOwned::to_owned);
            let news = match &elsewhere {
                Some(_) => None,
                None if why.contains(NOT_FOUND) => Some(why),
                None => waits_there(at).await,
            };
            if let Some(news) = news
                && said.is_news(&news, Instant::now())
            {
                hearing.tell(&news);
            }
            leader = elsewhere.or(leader);
        }
    }
}

struct Started {
    node: Node,
    place: Place,
    notes: Notes,
    service: Arc<Service>,
}

fn directory_of(args: &Args, place: Place) -> PathBuf {
    args.path.join(place.port().to_string())
}

/// Keeps the notes as soon as the node belongs to a store, and whenever others belong to it; returns only why that failed.
async fn remember(node: &Node, place: Place, notes: &Notes, directory: &Path) -> String {
    let mut watch = node.watch();
    let mut notes = notes.clone();
    let nodes = |status: &NodeStatus| {
        let agreed = status.protocol.configuration.as_ref()?;
        let nodes = agreed.members.keys().map(|id| place.of(*id).to_string());
        Some(nodes.collect::<Vec<_>>())
    };
    let mut kept = None;
    // When the node has ended, whoever waits for that says why.
    while watch
        .wait_for(|status| nodes(status).is_some_and(|now| kept.as_ref() != Some(&now)))
        .await
        .is_ok()
    {
        notes.nodes = nodes(&watch.borrow()).unwrap_or_default();
        if let Err(why) = notes.keep(directory) {
            return why;
        }
        kept = Some(notes.nodes.clone());
    }
    std::future::pending().await
}

async fn start(args: &Args, hearing: &Hearing) -> Result<Started, Failed> {
    let place = Place::find(args.advertise.as_deref().unwrap_or(&args.listen));
    let place = place.map_err(Failed::Usage)?;
    let me = place.replica().map_err(Failed::Usage)?;
    let leader = args.leader.as_deref().map(Place::find).transpose();
    let leader = leader.map_err(Failed::Usage)?;
    let directory = directory_of(args, place);
    let said = notes::of(place, leader, args.witness.as_deref());
    if let Some(leader) = leader {
        place.may_follow(leader).map_err(Failed::Usage)?;
    }
    let mut notes = Notes::consult(&directory, said)?;
    let log = directory.join("log");
    let has_log = keeps_log(&log)?;
    if args.force {
        hearing.tell(&force::may_be_forced(place, &notes, has_log).await?);
    } else if !has_log && !notes.nodes.is_empty() {
        // It belonged to a store.
        let leader = whom_to_join(place, &notes, &log, hearing).await?;
        hearing.tell(&format!(
            "the log of this node, {}, is gone: it joins {leader}, which leads, and gets a copy. What only this node had is LOST",
            log.display()
        ));
        notes.leader = Some(leader.to_string());
    }
    let leader = notes.leader.as_deref().map(Place::find).transpose()?;
    let authority = match &notes.witness {
        Some(_) => Authority::Witness,
        None => Authority::Alone,
    };
    let alike = Alike {
        witness: notes.witness.clone(),
        nodes_max: args.nodes_max,
    };
    let service = Arc::new(Service::new(place, me, alike.clone(), hearing.clone()));
    let listen = Place::find(&args.listen).map_err(Failed::Usage)?;
    let (told, said) = (hearing.clone(), Arc::new(Mutex::new(Said::default())));
    let mut config = TcpConfig::new(listen.to_string())
        .peer(me, place.to_string())
        .locate(move |replica| Some(place.of(replica).to_string()))
        .on_unreachable(move |trouble| {
            let (told, alike, trouble) = (told.clone(), alike.clone(), trouble.clone());
            let said = Arc::clone(&said);
            tokio::spawn(async move {
                let why = unreachable(place, &alike, trouble).await;
                let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
                if said.is_news(&why, Instant::now()) {
                    told.tell(&why);
                }
            });
        })
        .foreign(Arc::clone(&service) as Arc<_>);
    // Together well below the 1,024 files that a process may usually have open.
    config.limits.foreign_max = 512;
    config.limits.greetings_max = 128;
    config.limits.clients_max = 128;
    if let Some(witness) = &notes.witness {
        resolved("--witness", witness).map_err(Failed::Usage)?;
        config = config.peer(ReplicaId::WITNESS, witness);
    }
    let builder = match leader {
        _ if args.force => Node::builder(GROUP, me)
            .group(agreed(
                force::members(me, &notes, args.nodes_max),
                authority,
                args.nodes_max,
            ))
            .forced(),
        Some(leader) => {
            let leader = leader.replica()?;
            Node::builder(GROUP, me)
                .group(agreed([leader], authority, args.nodes_max))
                .join(Join::full())
        }
        None => Node::builder(GROUP, me).group(agreed([me], authority, args.nodes_max)),
    };
    std::fs::create_dir_all(&directory).map_err(|e| {
        let directory = directory.display();
        format!(
            "cannot use {directory}: {e}; choose another path for the store, or make it writable"
        )
    })?;
    let node = builder
        .transport(
            TcpTransport::bind(config)
                .await
                .map_err(|e| e.to_string())?,
        )
        .data_dir(directory.join("log"))
        .shutdown_within(SHUTDOWN_WITHIN)
        .state_machine(Store::default())
        .start()
        .await
        .map_err(|e| plainly(place, &e.to_string()))?;
    service.attach(LocalLink::new([&node]));
    if let (Some(said), Some(known)) = (&args.leader, node.status().protocol.configuration)
        && known.members.keys().eq([&me])
        && !args.force
    {
        drop(node.shutdown().await);
        return Err(format!(
            "{} holds a store that {place} leads alone, so it does not follow {said}: leave that out to go on with it, or \
             choose another path to join the other store",
            directory.display()
        )
        .into());
    }
    if let (Some(said), Some(leader), Some(known)) =
        (&args.leader, leader, node.status().protocol.configuration)
        && !args.force
        && !leader
            .replica()
            .is_ok_and(|id| known.members.contains_key(&id))
    {
        let nodes = known.members.keys().map(|id| place.of(*id).to_string());
        hearing.tell(&format!(
            "{said} is not followed, unless it has joined since: this node belongs to the store of {}, as it was agreed on last, and goes on there. To join another store, choose another path",
            nodes.collect::<Vec<_>>().join(", ")
        ));
    }
    Ok(Started {
        node,
        place,
        notes,
        service,
    })
}

/// Says who leads, as that changes.
async fn roles(node: &Node, place: Place, hearing: &Hearing) {
    let mut watch = node.watch();
    let mut said = String::new();
    loop {
        let now = {
            let status = watch.borrow_and_update();
            let protocol = &status.protocol;
            let configuration = protocol.configuration.as_ref();
            let active = configuration.map(|c| c.in_sync.keys().copied().collect::<Vec<_>>());
            let active = active.unwrap_or_default();
            match (protocol.role, protocol.primary) {
                (Role::Primary, _) if protocol.serving => {
                    let others = active.iter().filter(|id| **id != node.identity().replica);
                    let others: Vec<_> = others.map(|id| place.of(*id).to_string()).collect();
                    let others = match others.as_slice() {
                        [] => "none".into(),
                        others => others.join(", "),
                    };
                    let term = protocol.term.number;
                    format!("leader in term {term}; active followers: {others}")
                }
                (Role::Backup, Some(leader)) => {
                    let counted = active.contains(&node.identity().replica);
                    let how = if counted {
                        "active follower"
                    } else {
                        "catching up, follower"
                    };
                    format!("{how} of {}", place.of(leader))
                }
                // What it waits for is said by itself.
                (
                    Role::Primary | Role::Backup | Role::Seeking | Role::Candidate | Role::Witness,
                    _,
                ) => String::new(),
            }
        };
        if !now.is_empty() && now != said {
            hearing.tell(&now);
            said = now;
        }
        if watch.changed().await.is_err() {
            // The node has ended; whoever waits for that says why.
            return std::future::pending().await;
        }
    }
}

/// The others may end at the same time: nobody is left to acknowledge what is under way.
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(2);
const DRAIN_WITHIN: Duration = Duration::from_secs(2);
const ROOM_ASKED_EVERY: Duration = Duration::from_secs(2);
const ROOM_WITHIN: Duration = Duration::from_secs(5);
