//! A fixed set of members, given at start. A member that fails is dropped from `live`, one that is heard again
//! rejoins it; each is a new view.

use super::{Membership, View};
use crate::detector::Verdict;
use crate::id::ReplicaId;

/// Membership that never changes who belongs, only who is live.
///
/// ```
/// use kvrep_core::detector::Verdict;
/// use kvrep_core::membership::{Membership, fixed::FixedMembership};
/// use kvrep_core::ReplicaId;
/// let mut group = FixedMembership::new([ReplicaId(1), ReplicaId(2)]);
/// assert!(group.on_verdict(ReplicaId(2), Verdict::Disconnected));
/// assert_eq!(group.view().number, 2);
/// assert!(!group.view().live.contains(&ReplicaId(2)));
/// assert!(group.on_verdict(ReplicaId(2), Verdict::Active)); // it rejoins
/// assert_eq!(group.view().number, 3);
/// ```
#[derive(Clone, Debug)]
pub struct FixedMembership {
    view: View,
}

impl FixedMembership {
    /// A group of these members, all live at first, in view 1.
    #[must_use]
    pub fn new(members: impl IntoIterator<Item = ReplicaId>) -> Self {
        Self {
            view: View::first(members.into_iter().collect()),
        }
    }
}

impl Membership for FixedMembership {
    fn view(&self) -> &View {
        &self.view
    }

    fn on_verdict(&mut self, peer: ReplicaId, verdict: Verdict) -> bool {
        self.view.judge(peer, verdict)
    }
}
