//! Who the three servers are: followers register with the leader at their start.
//!
//! A server knows its own address and the leader's. So each follower says `JOIN` to the leader, which answers `JOIN_OK` with all
//! three once it has heard both; from then on all of them know the same group, and who is which in it follows from the
//! addresses. The connection stays: when it ends, the follower registers again, so that a leader that was started anew learns
//! who was there, and is told before it serves anything.
//!
//! Invariants: a follower counts while its connection lasts, until the three are known; then they do not change. A
//! fourth is told who they are.

use super::framing::Framing;
use super::message::{Knows, Mensagem};
use crate::common::conversation::{Conversation, Manners, dial};
use kvrep_core::ReplicaId;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;

/// How many servers there are.
pub const SERVERS: usize = 3;

/// The leader's id in its group.
pub const LEADER: ReplicaId = ReplicaId(1);

/// The three servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trio {
    /// The leader, and the two others by their addresses.
    servers: [SocketAddr; SERVERS],
}

impl Trio {
    /// The leader and its two followers.
    ///
    /// # Errors
    /// When they are not three different ones.
    pub fn new(
        leader: SocketAddr,
        followers: impl IntoIterator<Item = SocketAddr>,
    ) -> Result<Self, String> {
        let followers: BTreeSet<SocketAddr> = followers.into_iter().collect();
        let servers: Vec<SocketAddr> = [leader].into_iter().chain(followers).collect();
        let distinct = !servers[1..].contains(&leader);
        let servers = <[SocketAddr; SERVERS]>::try_from(servers).ok();
        servers
            .filter(|_| distinct)
            .map(|servers| Self { servers })
            .ok_or_else(|| "a group is a leader and two other servers".into())
    }

    /// All of them, the leader first.
    #[must_use]
    pub fn servers(&self) -> [SocketAddr; SERVERS] {
        self.servers
    }

    /// Each with its id in the group.
    pub fn members(&self) -> impl Iterator<Item = (ReplicaId, SocketAddr)> {
        (LEADER.0..).map(ReplicaId).zip(self.servers)
    }

    /// The id of the server at this address.
    #[must_use]
    pub fn id_of(&self, address: SocketAddr) -> Option<ReplicaId> {
        let mut members = self.members();
        members.find_map(|(id, at)| (at == address).then_some(id))
    }
}

/// The leader's list of who has registered.
#[derive(Debug)]
pub struct Registry {
    leader: SocketAddr,
    /// Connections that registered this address.
    candidates: Mutex<BTreeMap<SocketAddr, u32>>,
    known: watch::Sender<Option<Trio>>,
    /// A follower had a replica before this leader knew of it.
    had_earlier_life: AtomicBool,
}

/// A registration that lasts as long as its connection.
#[derive(Debug)]
pub struct Registration<'a> {
    registry: &'a Registry,
    address: SocketAddr,
}

impl Registry {
    /// Nobody has registered with this leader yet.
    #[must_use]
    pub fn new(leader: SocketAddr, known: watch::Sender<Option<Trio>>) -> Self {
        Self {
            leader,
            candidates: Mutex::default(),
            known,
            had_earlier_life: AtomicBool::new(false),
        }
    }

    /// A follower registers. The three are known at the latest when two are registered.
    pub fn register(&self, address: SocketAddr, knows: Knows) -> Registration<'_> {
        let mut candidates = self.candidates();
        if knows == Knows::All && self.known.borrow().is_none() {
            self.had_earlier_life.store(true, Ordering::Relaxed);
        }
        *candidates.entry(address).or_default() += 1;
        let others = candidates.keys().copied().filter(|at| *at != self.leader);
        if let Ok(trio) = Trio::new(self.leader, others) {
            self.known.send_if_modified(|known| {
                let news = known.is_none();
                known.get_or_insert(trio);
                news
            });
        }
        drop(candidates);
        Registration {
            registry: self,
            address,
        }
    }

    /// Whether the group is older than this process: then this leader was started again.
    #[must_use]
    pub fn had_earlier_life(&self) -> bool {
        self.had_earlier_life.load(Ordering::Relaxed)
    }

    fn candidates(&self) -> std::sync::MutexGuard<'_, BTreeMap<SocketAddr, u32>> {
        self.candidates
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registration<'_> {
    /// Who registered.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the three are known.
    pub async fn trio(&self) -> Trio {
        known(&self.registry.known).await
    }
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        let mut candidates = self.registry.candidates();
        if let Some(count) = candidates.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                candidates.remove(&self.address);
            }
        }
    }
}

/// Waits until the three are known.
pub async fn known(known: &watch::Sender<Option<Trio>>) -> Trio {
    let mut watched = known.subscribe();
    loop {
        if let Some(trio) = watched.borrow_and_update().clone() {
            return trio;
        }
        if watched.changed().await.is_err() {
            // The sender is borrowed for as long as this.
            std::future::pending::<()>().await;
        }
    }
}

/// A follower's side: registers with the leader, and again whenever the connection ends, for ever.
pub async fn stay_registered(
    me: SocketAddr,
    leader: SocketAddr,
    trio: &watch::Sender<Option<Trio>>,
) {
    let mut told = String::new();
    loop {
        let why = match register_once(me, leader, trio).await {
            Ok(()) => String::new(),
            Err(why) => why,
        };
        // Nobody listens there yet: that is how every start looks.
        if why != told && !why.is_empty() {
            eprintln!("cadastro no líder {leader}: {why}");
        }
        told = why;
        sleep(REGISTER_AGAIN).await;
    }
}

async fn register_once(
    me: SocketAddr,
    leader: SocketAddr,
    trio: &watch::Sender<Option<Trio>>,
) -> Result<(), String> {
    let stream = dial(&leader.to_string(), DIAL_WITHIN).await;
    let stream = stream.map_err(|error| error.to_string())?;
    let manners = Manners {
        idle: LONGEST,
        ..Manners::default()
    };
    let mut talk = Conversation::new(stream, Framing::default(), manners);
    let known = trio.borrow().as_ref().map(Trio::servers);
    let known = known.map(|servers| servers.iter().map(ToString::to_string).collect());
    let join = Mensagem::join(me, known);
    let join = serde_json::to_vec(&join).map_err(|error| error.to_string())?;
    talk.send(&join[..]).await.map_err(|e| e.to_string())?;
    while let Some(message) = talk.next().await.map_err(|e| e.to_string())? {
        let message: Mensagem =
            serde_json::from_slice(&message.json).map_err(|error| error.to_string())?;
        let Some(servers) = message.servidores.filter(|_| message.tipo == "JOIN_OK") else {
            return Err(message.erro.unwrap_or(message.tipo));
        };
        let servers: Result<Vec<SocketAddr>, _> = servers.iter().map(|s| s.parse()).collect();
        let servers =
            servers.map_err(|_| "o líder respondeu com endereços que não são ip:porta")?;
        let heard = Trio::new(leader, servers.into_iter().filter(|at| *at != leader))?;
        if heard.id_of(me).is_none() {
            return Err(format!("o líder não conhece {me}"));
        }
        let mut other = None;
        trio.send_if_modified(|known| {
            let news = known.is_none();
            let known = known.get_or_insert_with(|| heard.clone());
            other = (*known != heard).then(|| heard.servers());
            news
        });
        if let Some(other) = other {
            return Err(format!(
                "o líder agora fala de outros servidores ({other:?}): reinicie todos"
            ));
        }
    }
    Ok(())
}

const DIAL_WITHIN: Duration = Duration::from_secs(1);
const REGISTER_AGAIN: Duration = Duration::from_millis(100);
/// The leader ends a connection that says nothing; until then it is kept.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn registry(leader: u16) -> Registry {
        Registry::new(at(leader), watch::Sender::new(None))
    }

    #[test]
    fn c3_7_the_leader_is_the_first_whatever_its_port_and_all_agree_on_the_rest() {
        let trio = Trio::new(at(10_098), [at(10_099), at(10_097)]).unwrap();
        assert_eq!(trio.servers(), [at(10_098), at(10_097), at(10_099)]);
        assert_eq!(trio.id_of(at(10_098)), Some(LEADER));
        assert_eq!(
            trio,
            Trio::new(at(10_098), [at(10_097), at(10_099)]).unwrap()
        );
        assert_eq!(trio.id_of(at(1)), None);
        assert!(Trio::new(at(1), [at(2)]).is_err());
        assert!(Trio::new(at(1), [at(1), at(2)]).is_err());
        assert!(Trio::new(at(1), [at(2), at(3), at(4)]).is_err());
    }

    #[test]
    fn a3_8_the_three_are_known_when_two_different_followers_are_registered_at_once() {
        let registry = registry(1);
        let known = || registry.known.borrow().clone();
        drop(registry.register(at(3), Knows::TheLeader));
        let two = registry.register(at(2), Knows::TheLeader);
        let again = registry.register(at(2), Knows::TheLeader);
        drop(registry.register(at(1), Knows::TheLeader));
        assert_eq!(known(), None);
        drop(two);
        let three = registry.register(at(3), Knows::TheLeader);
        assert_eq!(known(), Trio::new(at(1), [at(2), at(3)]).ok());
        assert!(!registry.had_earlier_life());
        // From now on nothing changes it.
        drop((again, three));
        let _others = (
            registry.register(at(4), Knows::TheLeader),
            registry.register(at(5), Knows::TheLeader),
        );
        assert_eq!(known(), Trio::new(at(1), [at(2), at(3)]).ok());
    }

    #[test]
    fn a_leader_that_is_registered_with_by_one_who_knows_all_was_started_again() {
        let registry = registry(1);
        let _two = registry.register(at(2), Knows::All);
        assert!(registry.had_earlier_life());
    }
}
