//! The replicas that a client has heard: its targets.
//!
//! Invariants:
//! - A target's number stays. At most [`TARGETS_MAX`] are remembered: who was not heard for longest, and for a while, gives its number to another.
//! - Whoever was asked [`SILENT_AFTER`] ago and has said nothing since is silent while another owes nothing for so long: a client keeps the numbers of those who were
//!   replaced, and of those whom somebody has made up. Where all are silent nobody is, for each of them may be back.
//! - A replica's address stays for a while although another one is told in the name of the same life, as it does among members.

use kvrep_core::{Incarnation, ReplicaId};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;

pub(crate) struct Replicas {
    /// In the order in which they were heard first: the numbers of the targets.
    known: Vec<Known>,
    /// For how long a replica's address stays.
    address_kept: Duration,
}

#[derive(Clone, Copy)]
pub(crate) struct Known {
    pub(crate) replica: ReplicaId,
    pub(crate) incarnation: Incarnation,
    pub(crate) address: SocketAddr,
    pub(crate) heard: Instant,
    /// When the group was asked first since then.
    asked: Option<Instant>,
}

impl Replicas {
    pub(crate) fn new(address_kept: Duration) -> Self {
        let known = Vec::new();
        Self {
            known,
            address_kept,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    pub(crate) fn get(&self, target: usize) -> Option<Known> {
        self.known.get(target).copied()
    }

    pub(crate) fn target_of(&self, replica: ReplicaId) -> Option<usize> {
        let mut known = self.known.iter();
        known.position(|known| known.replica == replica)
    }

    /// The group was asked who is there.
    pub(crate) fn are_asked(&mut self, now: Instant) {
        for known in &mut self.known {
            known.asked.get_or_insert(now);
        }
    }

    /// Whether it owes an answer that another has given.
    pub(crate) fn is_silent(&self, now: Instant, target: usize) -> bool {
        let owes = |known: &Known| {
            let asked = known.asked?;
            (now.duration_since(asked) >= SILENT_AFTER).then_some(asked)
        };
        let Some(asked) = self.known.get(target).and_then(owes) else {
            return false;
        };
        let mut others = self.known.iter();
        others.any(|other| other.heard > asked && owes(other).is_none())
    }

    /// A replica was heard, from this address.
    pub(crate) fn heard(
        &mut self,
        now: Instant,
        (replica, incarnation): (ReplicaId, Incarnation),
        address: SocketAddr,
    ) {
        // The witness has no part in serving.
        if replica == ReplicaId::WITNESS || replica == ReplicaId::NOBODY {
            return;
        }
        let heard = Known {
            replica,
            incarnation,
            address,
            heard: now,
            asked: None,
        };
        let silence = |known: &Known| now.duration_since(known.heard);
        let room = self.known.len() < TARGETS_MAX;
        match self.known.iter_mut().find(|k| k.replica == replica) {
            Some(known) if incarnation > known.incarnation => *known = heard,
            Some(known) => {
                let may_move = silence(known) >= self.address_kept;
                if incarnation == known.incarnation && (address == known.address || may_move) {
                    *known = heard;
                }
            }
            None if room => self.known.push(heard),
            None => {
                // Its number may be told to nobody any more.
                let longest = self.known.iter_mut().min_by_key(|known| known.heard);
                if let Some(gone) = longest.filter(|known| silence(known) >= FORGOTTEN_AFTER) {
                    *gone = heard;
                }
            }
        }
    }
}

impl fmt::Debug for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.known.iter();
        f.debug_list().entries(known.map(|k| k.replica)).finish()
    }
}

/// A replica that says nothing for so long, though asked, is taken for gone.
pub(crate) const SILENT_AFTER: Duration = Duration::from_secs(1);

/// A replica that was not heard for so long may give its number to another one, where there are too many.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(10);

const TARGETS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// They answer, the first time in the order in which they are told of here.
    fn answer(replicas: &mut Replicas, now: Instant, who: impl IntoIterator<Item = u32>) {
        for id in who {
            let address = SocketAddr::from(([127, 0, 0, 1], id as u16));
            replicas.heard(now, (ReplicaId(id), Incarnation(1)), address);
        }
    }

    fn silent(replicas: &Replicas, now: Instant) -> Vec<u32> {
        let targets = (0..replicas.len()).filter(|target| replicas.is_silent(now, *target));
        let silent = targets.filter_map(|target| replicas.get(target));
        silent.map(|known| known.replica.0).collect()
    }

    const MOMENT: Duration = Duration::from_millis(1);

    #[test]
    fn whoever_answers_no_question_is_silent_while_another_answers() {
        let mut replicas = Replicas::new(Duration::from_secs(3));
        let mut now = Instant::now();
        answer(&mut replicas, now, 1..=60);
        // Those who were not asked owe nothing.
        now += 100 * SILENT_AFTER;
        answer(&mut replicas, now, [7]);
        assert_eq!(silent(&replicas, now), []);
        replicas.are_asked(now);
        answer(&mut replicas, now + MOMENT, [1, 60]);
        assert_eq!(silent(&replicas, now + SILENT_AFTER - MOMENT), []);
        // Later questions are no later start.
        replicas.are_asked(now + SILENT_AFTER / 2);
        answer(&mut replicas, now + SILENT_AFTER / 2 + MOMENT, [1, 60]);
        now += SILENT_AFTER;
        let dead: Vec<_> = (2..60).collect();
        assert_eq!(silent(&replicas, now), dead);
        // It stays so through a time without questions, until one of them is back.
        now += 100 * SILENT_AFTER;
        assert_eq!(silent(&replicas, now), dead);
        answer(&mut replicas, now, [2]);
        assert_eq!(silent(&replicas, now), dead[1..]);
    }

    #[test]
    fn where_all_are_silent_nobody_is() {
        let mut replicas = Replicas::new(Duration::from_secs(3));
        let now = Instant::now();
        answer(&mut replicas, now, 1..=3);
        replicas.are_asked(now + MOMENT);
        answer(&mut replicas, now + 2 * MOMENT, [3]);
        replicas.are_asked(now + 3 * MOMENT);
        let later = now + SILENT_AFTER + 2 * MOMENT;
        assert_eq!(silent(&replicas, later), [1, 2]);
        assert_eq!(silent(&replicas, later + MOMENT), []);
        // Until one is heard that owes nothing.
        answer(&mut replicas, later + MOMENT, [4]);
        assert_eq!(silent(&replicas, later + MOMENT), [1, 2, 3]);
    }
}
