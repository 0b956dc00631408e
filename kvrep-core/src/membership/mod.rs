//! Who belongs to the group: numbered views.
//!
//! A [`View`] says whom this node counts on *now*. It is an opinion, made of the verdicts of a
//! [failure detector](crate::detector), and differs from node to node; what the group has decided is a
//! [`Configuration`](crate::Configuration). A scheme acts on the first by proposing a change of the second.
//!
//! Invariants: at one node, views with equal numbers are equal, and numbers only grow; `live` is a part of `members`.

pub mod dynamic;
pub mod fixed;

use crate::detector::Verdict;
use crate::id::ReplicaId;
use std::collections::BTreeSet;

/// One view of the group. Two views with equal numbers at one node are equal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct View {
    /// Grows with every change, from 1.
    pub number: u64,
    /// Everybody who belongs to the group, live or not.
    pub members: BTreeSet<ReplicaId>,
    /// Those who are counted on now.
    pub live: BTreeSet<ReplicaId>,
}

impl View {
    /// View 1: all of these belong and are live.
    fn first(members: BTreeSet<ReplicaId>) -> Self {
        Self {
            number: 1,
            live: members.clone(),
            members,
        }
    }

    /// Counts on a member or not, as the verdict says. Returns whether that is a new view.
    fn judge(&mut self, peer: ReplicaId, verdict: Verdict) -> bool {
        if !self.members.contains(&peer) {
            return false;
        }
        let changed = if verdict.is_live() {
            self.live.insert(peer)
        } else {
            self.live.remove(&peer)
        };
        if changed {
            self.number += 1;
        }
        changed
    }
}

/// Keeps the view from verdicts.
///
/// See [`FixedMembership`](fixed::FixedMembership) for an example.
pub trait Membership: Send + 'static {
    /// The current view.
    fn view(&self) -> &View;

    /// A peer looks like this now. Returns whether the view changed.
    fn on_verdict(&mut self, peer: ReplicaId, verdict: Verdict) -> bool;
}
