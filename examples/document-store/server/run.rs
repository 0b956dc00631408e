//! Starting a node and running it until it is asked to end.

use super::args::Args;
use super::group::{GROUP, agreed};
use super::hearing::Hearing;
use super::notes::{self, Notes};
use super::place::Place;
use super::service::Service;
use crate::common::operator::{asked_to_end, attend};
use crate::document_store::store::Store;
use kvrep_core::node::{LocalLink, Node, NodeStatus};
use kvrep_core::protocol::Role;
use kvrep_core::protocol::passive::Join;
use kvrep_core::{Authority, ReplicaId};
use kvrep_transport_tcp::{TcpConfig, TcpTransport};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Serves until the process is asked to end.
///
/// # Errors
/// Why the node could not start or go on, in words for the operator.
pub async fn run(args: Args) -> Result<(), String> {
    let end = asked_to_end().map_err(|e| format!("cannot listen for signals: {e}"))?;
    let hearing = Hearing::begin().map_err(|e| format!("cannot print: {e}"))?;
    let Started { node, place, notes } = start(&args, &hearing).await?;
    let directory = directory_of(&args, place);
    hearing.tell(&format!("listening on {place}"));
    let told = hearing.clone();
    let ended = tokio::select! {
        () = end => {
            hearing.tell("ending");
            None
        }
        ended = attend(&node, move |what| told.tell(&place.named(what))) => Some(ended),
        () = roles(&node, place, &hearing) => None,
        why = remember(&node, &notes, &directory) => {
            drop(node.shutdown().await);
            return Err(why);
        }
    };
    match ended {
        None => node.shutdown().await.map_err(|e| e.to_string()),
        Some(ended) => ended.map_err(|e| place.named(&e.to_string())),
    }
}

struct Started {
    node: Node,
    place: Place,
    notes: Notes,
}

fn directory_of(args: &Args, place: Place) -> PathBuf {
    args.path.join(place.port().to_string())
}

/// Keeps the notes as soon as the node belongs to a store; returns only why that failed.
async fn remember(node: &Node, notes: &Notes, directory: &Path) -> String {
    let mut watch = node.watch();
    let belongs = |status: &NodeStatus| status.protocol.configuration.is_some();
    if watch.wait_for(belongs).await.is_ok()
        && let Err(why) = notes.keep(directory)
    {
        return why;
    }
    // Kept; or the node has ended, and whoever waits for that says why.
    std::future::pending().await
}

async fn start(args: &Args, hearing: &Hearing) -> Result<Started, String> {
    let place = Place::find(args.advertise.as_deref().unwrap_or(&args.listen))?;
    let me = place.replica()?;
    let leader = args.leader.as_deref().map(Place::find).transpose()?;
    let directory = directory_of(args, place);
    let said = notes::of(place, leader, args.witness.as_deref());
    if let Some(leader) = leader {
        place.may_follow(leader)?;
    }
    let notes = Notes::consult(&directory, said)?;
    let leader = notes.leader.as_deref().map(Place::find).transpose()?;
    let authority = match &notes.witness {
        Some(_) => Authority::Witness,
        None => Authority::Alone,
    };
    let service = Arc::new(Service::new(place, me, hearing.clone()));
    let listen = Place::find(&args.listen)?;
    let mut config = TcpConfig::new(listen.to_string())
        .peer(me, place.to_string())
        .locate(move |replica| Some(place.of(replica).to_string()))
        .foreign(Arc::clone(&service) as Arc<_>);
    // Together well below the 1,024 files that a process may usually have open.
    config.limits.foreign_max = 512;
    config.limits.greetings_max = 128;
    config.limits.clients_max = 128;
    if let Some(witness) = &notes.witness {
        config = config.peer(ReplicaId::WITNESS, witness);
    }
    let builder = match leader {
        _ if args.force => Node::builder(GROUP, me)
            .group(agreed([me], authority))
            .forced(),
        Some(leader) => {
            let leader = leader.replica()?;
            Node::builder(GROUP, me)
                .group(agreed([leader], authority))
                .join(Join::full())
        }
        None => Node::builder(GROUP, me).group(agreed([me], authority)),
    };
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
        .map_err(|e| place.named(&e.to_string()))?;
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
        ));
    }
    Ok(Started { node, place, notes })
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
