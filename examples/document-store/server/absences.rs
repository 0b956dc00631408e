//! Since when nodes have not been active, as the one sees that leads: who makes room when the store is full.
//!
//! Nodes belong until somebody removes them, for one that is away may return. The table of nodes is bounded, though; so when it
//! is full, and another node asks to be let in, the one that has been away longest makes room for it.
//!
//! Caveat: a node that has just become leader has counted since it started itself; among those that were away
//! before, the lowest address goes first.

use kvrep_core::{Configuration, ReplicaId};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// The nodes that are not active, and since when.
#[derive(Debug, Default)]
pub struct Absences(Mutex<BTreeMap<ReplicaId, Instant>>);

impl Absences {
    /// This is agreed on now.
    pub fn note(&self, agreed: &Configuration, now: Instant) {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_away =
            |id: &ReplicaId| agreed.members.contains_key(id) && !agreed.in_sync.contains_key(id);
        since.retain(|id, _| is_away(id));
        for id in agreed.members.keys().filter(|id| is_away(id)) {
            since.entry(*id).or_insert(now);
        }
    }

    /// Those who are not active, whoever has been away longest first.
    #[must_use]
    pub fn longest_first(&self) -> Vec<ReplicaId> {
        let since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut away: Vec<_> = since.iter().map(|(id, since)| (*since, *id)).collect();
        away.sort();
        away.into_iter().map(|(_, id)| id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvrep_core::{Departed, MemberKind, Origin, StoreId, Term, Version};
    use std::time::Duration;

    fn agreed(members: &[u32], active: &[u32]) -> Configuration {
        Configuration {
            origin: Origin(1),
            term: Term::ZERO.next_for(ReplicaId(1)),
            version: Version(1),
            in_sync: active
                .iter()
                .map(|id| (ReplicaId(*id), StoreId(7)))
                .collect(),
            members: members
                .iter()
                .map(|id| (ReplicaId(*id), MemberKind::Full))
                .collect(),
            departed: Departed::default(),
        }
    }

    #[test]
    fn whoever_has_been_away_longest_comes_first_and_whoever_returned_begins_anew() {
        let absences = Absences::default();
        let at = |seconds| Instant::now() + Duration::from_secs(seconds);
        let order = || {
            absences
                .longest_first()
                .iter()
                .map(|id| id.0)
                .collect::<Vec<_>>()
        };
        absences.note(&agreed(&[1, 2, 3, 4], &[1, 2, 3]), at(0));
        absences.note(&agreed(&[1, 2, 3, 4], &[1, 3]), at(10));
        assert_eq!(order(), [4, 2]);
        absences.note(&agreed(&[1, 2, 3, 4], &[1, 3, 4]), at(20));
        absences.note(&agreed(&[1, 2, 3, 4], &[1]), at(30));
        assert_eq!(order(), [2, 3, 4]);
        absences.note(&agreed(&[1, 3, 4], &[1]), at(40));
        assert_eq!(order(), [3, 4]);
    }
}
