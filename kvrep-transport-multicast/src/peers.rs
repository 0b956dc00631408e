//! Who is there, in which life, and where each reads what is for it alone.
//!
//! Invariants: what an earlier life says, or one that said that it ended, changes nothing and is delivered to nobody; a frame is taken once. At most [`PEERS_MAX`]
//! are remembered: who was not heard for longest, and for a while, gives way. A frame that is new is no copy: where it came from its sender reads, whatever
//! hellos say.
//!
//! Caveat: hellos of one life are all alike, so a copy of one that is sent from elsewhere cannot be told from it. After a silence of `address_kept` whoever repeats
//! it has the address, until the next frame of the member itself.

use crate::seen::Seen;
use kvrep_core::transport::Hint;
use kvrep_core::{Incarnation, ReplicaId};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

#[derive(Debug, Default)]
pub(crate) struct Peers {
    known: BTreeMap<ReplicaId, Peer>,
}

#[derive(Debug)]
struct Peer {
    incarnation: Incarnation,
    address: SocketAddr,
    /// When it was heard from that address.
    heard: Instant,
    here: bool,
    seen: Seen,
}

/// What hearing from somebody changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Met {
    Known,
    News(Hint),
    /// It has said that it ends; or that is said of another life than the one that was heard.
    Over,
    /// It is of an earlier life than this one, which was heard.
    Earlier(Incarnation),
    TooMany,
}

impl Peers {
    /// Somebody was heard, from this address.
    pub(crate) fn heard(
        &mut self,
        now: Instant,
        (peer, incarnation): (ReplicaId, Incarnation),
        address: SocketAddr,
        address_kept: Duration,
    ) -> Met {
        let new = Peer {
            incarnation,
            address,
            heard: now,
            here: true,
            seen: Seen::default(),
        };
        let room = self.known.len() < PEERS_MAX;
        let Some(known) = self.known.get_mut(&peer) else {
            if !room && !self.forget_one(now) {
                return Met::TooMany;
            }
            self.known.insert(peer, new);
            return Met::News(Hint::Connected);
        };
        if incarnation > known.incarnation {
            *known = new;
            return Met::News(Hint::Connected);
        }
        if incarnation < known.incarnation {
            return Met::Earlier(known.incarnation);
        }
        if !known.here {
            return Met::Over;
        }
        if address == known.address || now.duration_since(known.heard) >= address_kept {
            (known.address, known.heard) = (address, now);
        }
        Met::Known
    }

    /// Whether there was somebody to forget. (What is said in the name of a life of his that is over is believed again; replicas do not believe it.)
    fn forget_one(&mut self, now: Instant) -> bool {
        let longest = self.known.iter().min_by_key(|(_, peer)| peer.heard);
        let longest = longest.filter(|(_, peer)| now.duration_since(peer.heard) >= FORGOTTEN_AFTER);
        let Some(gone) = longest.map(|(id, _)| *id) else {
            return false;
        };
        self.known.remove(&gone).is_some()
    }

    /// It says that it ended.
    pub(crate) fn gone(&mut self, peer: ReplicaId, incarnation: Incarnation) -> Met {
        match self.known.get_mut(&peer) {
            None => Met::Known,
            Some(known) if incarnation != known.incarnation || !known.here => Met::Over,
            Some(known) => {
                known.here = false;
                Met::News(Hint::Gone)
            }
        }
    }

    pub(crate) fn address(&self, peer: ReplicaId) -> Option<SocketAddr> {
        let known = self.known.get(&peer).filter(|known| known.here)?;
        Some(known.address)
    }

    /// Whether this frame of it was not taken before.
    pub(crate) fn is_new(&self, peer: ReplicaId, number: u64) -> bool {
        let known = self.known.get(&peer);
        known.is_some_and(|known| known.seen.is_new(number))
    }

    /// Its frame, which is new, is taken; it came from this address.
    pub(crate) fn take(&mut self, now: Instant, peer: ReplicaId, number: u64, from: SocketAddr) {
        if let Some(known) = self.known.get_mut(&peer) {
            known.seen.take(number);
            (known.address, known.heard) = (from, now);
        }
    }
}

/// Members and their former members of whom is known, at most.
const PEERS_MAX: usize = 256;

/// Whoever was not heard for so long may be forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: Duration = Duration::from_secs(3);

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn whoever_repeats_a_hello_loses_the_address_to_the_next_new_frame() {
        let (mut peers, mut now) = (Peers::default(), Instant::now());
        let life = (ReplicaId(1), Incarnation(2));
        peers.heard(now, life, at(1), KEPT);
        peers.take(now, ReplicaId(1), 1, at(1));
        now += KEPT;
        for _ in 0..10 {
            now += KEPT / 10;
            peers.heard(now, life, at(9), KEPT);
            peers.heard(now, life, at(1), KEPT);
        }
        assert_eq!(peers.address(ReplicaId(1)), Some(at(9)), "nothing tells");
        assert!(peers.is_new(ReplicaId(1), 2));
        peers.take(now, ReplicaId(1), 2, at(1));
        assert_eq!(peers.address(ReplicaId(1)), Some(at(1)));
        peers.heard(now + KEPT / 2, life, at(9), KEPT);
        assert_eq!(peers.address(ReplicaId(1)), Some(at(1)), "for a while");
    }

    #[test]
    fn nobody_is_revived_and_an_address_is_not_taken_over_at_once() {
        let (mut peers, now) = (Peers::default(), Instant::now());
        let one = ReplicaId(1);
        let life = |n| (one, Incarnation(n));
        assert_eq!(
            peers.heard(now, life(2), at(1), KEPT),
            Met::News(Hint::Connected)
        );
        assert_eq!(peers.heard(now, life(2), at(9), KEPT), Met::Known);
        assert_eq!(peers.address(one), Some(at(1)));
        assert_eq!(peers.heard(now + KEPT, life(2), at(9), KEPT), Met::Known);
        assert_eq!(peers.address(one), Some(at(9)));
        assert_eq!(
            peers.heard(now, life(1), at(1), KEPT),
            Met::Earlier(Incarnation(2))
        );
        assert_eq!(peers.gone(one, Incarnation(1)), Met::Over);
        assert_eq!(peers.gone(one, Incarnation(2)), Met::News(Hint::Gone));
        assert_eq!(peers.heard(now, life(2), at(9), KEPT), Met::Over);
        assert_eq!(peers.address(one), None);
        assert_eq!(
            peers.heard(now, life(3), at(4), KEPT),
            Met::News(Hint::Connected)
        );
        for other in 10..1_000 {
            peers.heard(now, (ReplicaId(other), Incarnation(1)), at(1), KEPT);
        }
        assert_eq!(peers.known.len(), PEERS_MAX);
        assert_eq!(
            peers.heard(now, (ReplicaId(7), Incarnation(1)), at(1), KEPT),
            Met::TooMany
        );
        // Those whom somebody has made up are not heard again.
        let later = now + FORGOTTEN_AFTER;
        assert_eq!(
            peers.heard(later, (ReplicaId(7), Incarnation(1)), at(1), KEPT),
            Met::News(Hint::Connected)
        );
        assert_eq!(peers.known.len(), PEERS_MAX);
    }
}
