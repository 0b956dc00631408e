//! How the store replicates: its choice of policies.
//!
//! | question | choice |
//! |---|---|
//! | Who orders the writes? | the leader |
//! | Who has a write before the client hears `ok`? | every active (in-sync) node, in its log; one that fails is dropped first |
//! | Who answers a read? | any active node |
//! | Who takes over? | the active node with the most advanced log; ties go to the lowest `host:port` |
//! | Who decides who leads? | the group itself (right for crashes, not for partitions), or a witness |

use kvrep_core::{Authority, GroupConfig, ReplicaId, Timing};
use std::time::Duration;

/// The group's name, as a witness must be told it.
pub const GROUP: &str = "docstore";

/// How long a silent node is counted on. A false suspicion costs acknowledged writes where the group decides alone, and
/// a process that ends is noticed at once anyway: so this is generous.
pub const SUSPECT_AFTER: Duration = Duration::from_secs(3);

/// How long a silent leader that is asked whether it lives may take to answer, for the same reason.
const PROBE_WINDOW: Duration = Duration::from_millis(250);

/// What the nodes agree on; `members` are those whom this one asks.
#[must_use]
pub fn agreed(
    members: impl IntoIterator<Item = ReplicaId>,
    authority: Authority,
    nodes_max: usize,
) -> GroupConfig {
    let mut group = GroupConfig::new(members, authority);
    group.limits.members_max = nodes_max;
    group.timing = Timing {
        heartbeat_every: Duration::from_millis(100),
        suspect_after: SUSPECT_AFTER,
        probe_window: PROBE_WINDOW,
        ..Timing::default()
    };
    group
}
