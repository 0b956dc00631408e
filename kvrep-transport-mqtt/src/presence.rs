//! Who is there, and in which life: what replicas and their last wills say of themselves, put together.
//!
//! Invariants: what an earlier life says changes nothing; what a replica publishes
//! is taken once, in ascending order.

use kvrep_core::transport::Hint;
use kvrep_core::{Incarnation, ReplicaId};
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Debug, Default)]
pub(crate) struct Presence {
    peers: BTreeMap<ReplicaId, Peer>,
}

#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) incarnation: Incarnation,
    state: State,
    /// Where it reads.
    pub(crate) topic: Arc<str>,
    /// Publications made for it.
    pub(crate) sent: u64,
    /// The number of its latest publication.
    received: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Here,
    /// It was here when the connection to the broker broke.
    Unknown,
    Gone,
}

/// What a word about a life changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    None,
    Hint(Hint),
    /// It is of a life that is over.
    Stale,
    /// There are too many to remember one more.
    TooMany,
}

impl Presence {
    /// It says that it is here.
    pub(crate) fn alive(
        &mut self,
        peer: ReplicaId,
        incarnation: Incarnation,
        topic: impl FnOnce() -> Arc<str>,
    ) -> Change {
        let room = self.peers.len() < PEERS_MAX;
        let Some(known) = self.peers.get_mut(&peer) else {
            if !room {
                return Change::TooMany;
            }
            let known = Peer {
                incarnation,
                state: State::Here,
                topic: topic(),
                sent: 0,
                received: 0,
            };
            self.peers.insert(peer, known);
            return Change::Hint(Hint::Connected);
        };
        if incarnation < known.incarnation {
            return Change::Stale;
        }
        if incarnation > known.incarnation {
            known.received = 0;
        }
        let news = incarnation > known.incarnation || known.state != State::Here;
        known.incarnation = incarnation;
        known.state = State::Here;
        if news {
            Change::Hint(Hint::Connected)
        } else {
            Change::None
        }
    }

    /// It, or its last will, says that it is gone.
    pub(crate) fn gone(&mut self, peer: ReplicaId, incarnation: Incarnation) -> Change {
        match self.peers.get_mut(&peer) {
            // Never heard of: nothing changes.
            None => Change::None,
            Some(known) if incarnation < known.incarnation => Change::Stale,
            Some(known) => {
                let news = known.state != State::Gone;
                known.state = State::Gone;
                known.incarnation = incarnation;
                if news {
                    Change::Hint(Hint::Gone)
                } else {
                    Change::None
                }
            }
        }
    }

    /// The connection to the broker broke: nothing is known of anybody.
    pub(crate) fn forget(&mut self) {
        for peer in self.peers.values_mut() {
            if peer.state == State::Here {
                peer.state = State::Unknown;
            }
        }
    }

    /// Who may be sent to.
    pub(crate) fn here(&mut self, peer: ReplicaId) -> Option<&mut Peer> {
        let known = self.peers.get_mut(&peer)?;
        (known.state == State::Here).then_some(known)
    }

    pub(crate) fn all_here(&mut self) -> impl Iterator<Item = (ReplicaId, &mut Peer)> {
        self.peers
            .iter_mut()
            .filter(|(_, peer)| peer.state == State::Here)
            .map(|(id, peer)| (*id, peer))
    }

    /// Whether a publication of this peer's life, that has been told as alive, is to be taken: not a second time.
    pub(crate) fn take(&mut self, from: ReplicaId, number: u64) -> bool {
        match self.peers.get_mut(&from) {
            Some(peer) if number > peer.received => {
                peer.received = number;
                true
            }
            Some(_) | None => false,
        }
    }
}

/// Replicas that are remembered.
const PEERS_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    const N2: ReplicaId = ReplicaId(2);

    fn alive(presence: &mut Presence, life: u64) -> Change {
        presence.alive(N2, Incarnation(life), || "t".into())
    }

    #[test]
    fn a_new_life_is_connected_and_words_of_an_earlier_one_change_nothing() {
        let mut p = Presence::default();
        assert_eq!(alive(&mut p, 1), Change::Hint(Hint::Connected));
        assert_eq!(alive(&mut p, 1), Change::None);
        assert_eq!(alive(&mut p, 2), Change::Hint(Hint::Connected));
        assert_eq!(p.gone(N2, Incarnation(1)), Change::Stale);
        assert!(p.here(N2).is_some());
        assert_eq!(p.gone(N2, Incarnation(2)), Change::Hint(Hint::Gone));
        assert_eq!(p.gone(N2, Incarnation(2)), Change::None);
        assert_eq!(alive(&mut p, 1), Change::Stale);
        assert!(p.here(N2).is_none());
    }

    #[test]
    fn a_will_that_was_rash_is_taken_back() {
        let mut p = Presence::default();
        alive(&mut p, 1);
        p.gone(N2, Incarnation(1));
        assert_eq!(alive(&mut p, 1), Change::Hint(Hint::Connected));
    }

    #[test]
    fn after_the_connection_broke_nobody_is_here_until_told_again() {
        let mut p = Presence::default();
        alive(&mut p, 1);
        p.forget();
        assert!(p.here(N2).is_none());
        assert_eq!(p.gone(N2, Incarnation(1)), Change::Hint(Hint::Gone));
        alive(&mut p, 1);
        p.forget();
        assert_eq!(alive(&mut p, 1), Change::Hint(Hint::Connected));
    }

    #[test]
    fn publications_are_taken_once_and_in_order_anew_in_each_life() {
        let mut p = Presence::default();
        assert!(!p.take(N2, 1), "nobody is known");
        alive(&mut p, 1);
        assert!(p.take(N2, 1) && p.take(N2, 3));
        assert!(!p.take(N2, 3) && !p.take(N2, 2));
        alive(&mut p, 2);
        assert!(p.take(N2, 1));
    }

    #[test]
    fn strangers_without_end_are_not_remembered() {
        let mut p = Presence::default();
        for id in 0..2_000 {
            p.alive(ReplicaId(id), Incarnation(1), || "t".into());
        }
        assert_eq!(p.peers.len(), PEERS_MAX);
    }
}
