//! Members that come and go: who belongs is told from outside, as the group agrees on it; who is live is this node's
//! own opinion.

use super::{Membership, View};
use crate::detector::Verdict;
use crate::id::ReplicaId;
use std::collections::BTreeSet;

/// Membership whose members change.
///
/// ```
/// use kvrep_core::detector::Verdict;
/// use kvrep_core::membership::{Membership, dynamic::DynamicMembership};
/// use kvrep_core::ReplicaId;
/// let mut group = DynamicMembership::new([1, 2].map(ReplicaId));
/// group.on_verdict(ReplicaId(2), Verdict::Disconnected);
/// assert!(group.set_members([2, 3].map(ReplicaId)));
/// assert_eq!(group.view().number, 3);
/// assert_eq!(group.view().live, [ReplicaId(3)].into(), "whoever is new is counted on at first");
/// assert!(!group.on_verdict(ReplicaId(1), Verdict::Active), "it does not belong any more");
/// ```
#[derive(Clone, Debug)]
pub struct DynamicMembership {
    view: View,
}

impl DynamicMembership {
    /// These members, all live at first, in view 1.
    #[must_use]
    pub fn new(members: impl IntoIterator<Item = ReplicaId>) -> Self {
        Self {
            view: View::first(members.into_iter().collect()),
        }
    }

    /// These belong from now on. Whoever is new is live at first; of the others what was known stays. Returns whether
    /// the view changed.
    pub fn set_members(&mut self, members: impl IntoIterator<Item = ReplicaId>) -> bool {
        let members: BTreeSet<ReplicaId> = members.into_iter().collect();
        if members == self.view.members {
            return false;
        }
        let new = members.difference(&self.view.members);
        self.view.live.extend(new.copied());
        self.view.live.retain(|id| members.contains(id));
        self.view.members = members;
        self.view.number += 1;
        true
    }
}

impl Membership for DynamicMembership {
    fn view(&self) -> &View {
        &self.view
    }

    fn on_verdict(&mut self, peer: ReplicaId, verdict: Verdict) -> bool {
        self.view.judge(peer, verdict)
    }
}
