//! Damaged memory: now and then the state of one replica is changed behind the log's back.
//!
//! The group must find it by comparing digests, and repair it, before the next one is changed; in the end all states are
//! equal. Nothing else goes wrong meanwhile: with two faults at a time nobody could tell which state is right.

use super::ledger::Ledger;
use super::world::World;
use std::time::Duration;

/// Whether states are disturbed, instead of the cell's faults.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Disturbances {
    None,
    NowAndThen,
}

/// Time for the group to find and repair the last one.
const REPAIRED_WITHIN: Duration = Duration::from_secs(15);

impl World {
    /// Disturbs a replica, if the group can find it out: everybody is up and counts.
    pub(super) fn disturb(&mut self) {
        let counts = |n: usize| {
            let node = &self.nodes[n];
            let newest = self.newest.as_ref();
            node.is_up() && newest.is_some_and(|c| c.has(node.id, node.store()))
        };
        // A spare that never ran is not missed.
        let whole = (0..self.plan.members).all(|n| self.nodes[n].absent || counts(n));
        let late = self.now + REPAIRED_WITHIN > self.heal_at;
        if !whole || late || self.disturbed.is_some() {
            return;
        }
        let some = self.weather.rng.below(self.plan.members as u64) as usize;
        let aim = self.weather.rng.one_in(2);
        let node = self.primary().filter(|_| aim).unwrap_or(some);
        if self.plan.home == Some(self.nodes[node].id) {
            return; // A fixed primary is not replaced, so its state is only reported.
        }
        let (Some(command), Some(engine)) = (
            self.workload.disturbance(),
            self.nodes[node].engine.as_mut(),
        ) else {
            return;
        };
        let mut bytes = Ledger::DISTURBANCE.to_be_bytes().to_vec();
        bytes.extend_from_slice(&command);
        engine.disturb(&bytes);
        self.stats.faults += 1;
        self.disturbed = Some(node);
        self.note(node, "its state is disturbed");
    }
}
