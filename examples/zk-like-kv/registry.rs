//! Who the three servers are: followers register with the leader at their start.
//!
//! A server knows its own address and the leader's. So each follower says `JOIN` to the leader, which answers `JOIN_OK` with all
//! three once it has heard both; from then on all of them know the same group, and who is which in it follows from the
//! addresses. The connection stays: when it ends, the follower registers again, so that a leader that was started anew learns
//! who was there, and is told before it serves anything. A follower that has been one of three says which, and that settles it.
//!
//! Invariants: a follower counts while its connection lasts, until the three are known; then they do not change, unless an operator
//! says that one takes the place of another. A fourth is told who they are.
//!
//! One that has been replaced and runs nevertheless is told so, and says no more which three it knew. Two such ones must not become the followers of a leader that
//! is started again before those who have the table come: a leader that has noted timestamps, so had a table, first waits a moment for a follower that knows the three.
//!
//! Caveats: that moment has an end, for all three may have been stopped. And one that was replaced while nobody could tell it so (it was cut off, and
//! the leader was started again) still says which three it knew: stop what was replaced.

use super::message::Knows;
use super::trio::Trio;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// The leader's list of who has registered.
#[derive(Debug)]
pub struct Registry {
    leader: SocketAddr,
    /// Connections that registered this address.
    candidates: Mutex<BTreeMap<SocketAddr, u32>>,
    known: watch::Sender<Option<Trio>>,
    /// A follower had a replica before this leader knew of it.
    had_earlier_life: AtomicBool,
    /// A follower that does not return, though this leader does not serve yet.
    gone: watch::Sender<Option<SocketAddr>>,
    /// Held by whoever is about to take another one's place.
    turn: tokio::sync::Mutex<()>,
    /// Until when those who know nothing wait for one who knows the three.
    heed_until: Option<Instant>,
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
            gone: watch::Sender::new(None),
            turn: tokio::sync::Mutex::new(()),
            heed_until: None,
        }
    }

    /// There was a table before this process: whoever knows the three goes before those that do not, if it comes soon.
    #[must_use]
    pub fn heeding_those_who_know(mut self) -> Self {
        self.heed_until = Some(Instant::now() + HEED_FOR);
        self
    }

    /// Waits until the three are known, or nobody who knows them is to be expected any more.
    pub async fn heed_those_who_know(&self) {
        if let Some(until) = self.heed_until {
            // Nobody came: those who are there will do.
            let _ = timeout_at(until, known(&self.known)).await;
        }
    }

    /// A follower registers. The three are known at the latest when two are registered.
    pub fn register(&self, address: SocketAddr, knows: &Knows) -> Registration<'_> {
        let mut candidates = self.candidates();
        *candidates.entry(address).or_default() += 1;
        let others = |all: &mut dyn Iterator<Item = SocketAddr>| {
            Trio::new(self.leader, all.filter(|at| *at != self.leader)).ok()
        };
        let trio = match knows {
            Knows::TheLeader => None,
            Knows::All(servers) => {
                if self.known.borrow().is_none() {
                    self.had_earlier_life.store(true, Ordering::Relaxed);
                }
                others(&mut servers.iter().copied())
            }
        };
        let trio = trio.or_else(|| others(&mut candidates.keys().copied()));
        self.known.send_if_modified(|known| {
            let news = known.is_none() && trio.is_some();
            if news {
                *known = trio;
            }
            news
        });
        drop(candidates);
        Registration {
            registry: self,
            address,
        }
    }

    /// The three, once they are known.
    #[must_use]
    pub fn trio(&self) -> Option<Trio> {
        self.known.borrow().clone()
    }

    /// Waits until nobody else is about to take another one's place.
    pub async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// One of the three was replaced: these are the three now.
    pub fn replaced(&self, trio: Trio) {
        self.known.send_replace(Some(trio));
    }

    /// An operator says that this follower does not return.
    pub fn is_gone(&self, follower: SocketAddr) {
        self.gone.send_replace(Some(follower));
    }

    /// Waits until an operator says that a follower does not return.
    pub async fn gone(&self) -> SocketAddr {
        let mut watched = self.gone.subscribe();
        loop {
            if let Some(follower) = *watched.borrow_and_update() {
                return follower;
            }
            // The sender is a field of this: it cannot be gone.
            let _ = watched.changed().await;
        }
    }

    /// The followers that are registered now.
    #[must_use]
    pub fn registered(&self) -> Vec<SocketAddr> {
        let candidates = self.candidates();
        candidates.keys().copied().collect()
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

impl<'a> Registration<'a> {
    /// Where.
    #[must_use]
    pub fn registry(&self) -> &'a Registry {
        self.registry
    }

    /// Who registered.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Tells of the three as soon as they are known, and whenever that changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Option<Trio>> {
        let mut watched = self.registry.known.subscribe();
        watched.mark_changed();
        watched
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

/// From a leader's start. A follower whose leader was started again comes within a second.
const HEED_FOR: Duration = Duration::from_secs(3);

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
    fn a3_8_the_three_are_known_when_two_different_followers_are_registered_at_once() {
        let registry = registry(1);
        drop(registry.register(at(3), &Knows::TheLeader));
        let two = registry.register(at(2), &Knows::TheLeader);
        let again = registry.register(at(2), &Knows::TheLeader);
        drop(registry.register(at(1), &Knows::TheLeader));
        assert_eq!(registry.trio(), None);
        assert_eq!(registry.registered(), [at(2)]);
        drop(two);
        let three = registry.register(at(3), &Knows::TheLeader);
        let trio = Trio::new(at(1), [at(2), at(3)]).unwrap();
        assert_eq!(registry.trio().as_ref(), Some(&trio));
        assert!(!registry.had_earlier_life());
        // From now on nobody who registers changes it.
        drop((again, three));
        let _others = (
            registry.register(at(4), &Knows::TheLeader),
            registry.register(at(5), &Knows::All(vec![at(1), at(4), at(5)])),
        );
        assert_eq!(registry.trio().as_ref(), Some(&trio));
        // Unless an operator said so.
        let now = trio.with(at(3), at(4)).unwrap();
        registry.replaced(now.clone());
        assert_eq!(registry.trio(), Some(now));
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_had_a_table_waits_a_moment_for_one_who_knows_the_three_and_another_does_not()
     {
        let began = Instant::now();
        registry(1).heed_those_who_know().await;
        let heeding = registry(1).heeding_those_who_know();
        let _two = heeding.register(at(2), &Knows::All(vec![at(1), at(2), at(3)]));
        heeding.heed_those_who_know().await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        let heeding = registry(1).heeding_those_who_know();
        heeding.heed_those_who_know().await;
        assert!(began.elapsed() >= HEED_FOR);
        // It is long enough since the start.
        let began = Instant::now();
        heeding.heed_those_who_know().await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[test]
    fn a_leader_that_is_registered_with_by_one_who_knows_all_was_started_again_with_those() {
        let registry = registry(1);
        let _stranger = registry.register(at(4), &Knows::TheLeader);
        let _two = registry.register(at(2), &Knows::All(vec![at(1), at(2), at(3)]));
        assert!(registry.had_earlier_life());
        assert_eq!(registry.trio(), Trio::new(at(1), [at(2), at(3)]).ok());
    }
}
