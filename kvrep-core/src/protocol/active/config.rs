//! What a group of the active scheme agrees on.

use crate::config::Limits;
use crate::id::ReplicaId;
use serde::Serialize;
use std::collections::BTreeSet;
use std::time::Duration;

/// Who answers a request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize)]
pub enum Responder {
    /// The owner of the slot hash mod n: the members share the work.
    #[default]
    KeyHash,
    /// The lowest that serves.
    LowestLive,
    /// The one that was asked; if it does not serve, the next in the ring.
    Asked,
}

/// Who finds out that a member is dead.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize)]
pub enum Watch {
    /// The members.
    #[default]
    Members,
    /// Somebody else, who publishes [`Item::Failed`](super::Item::Failed).
    Monitor,
}

/// What one that has no state may do when nobody answers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Create {
    /// Begin a history from the initial state.
    #[default]
    Allowed,
    /// Wait: a history exists, and somebody will serve it.
    Never,
}

/// How long things take.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct Timing {
    /// How often a member says that it lives.
    pub heartbeat_every: Duration,
    /// How long a silent member is counted on. At least three heartbeats.
    pub suspect_after: Duration,
    /// How often histories are compared while something happens.
    pub mark_every: Duration,
    /// After how many items they are compared earlier.
    pub mark_items: u64,
    /// After how long what got no answer is tried again.
    pub resend_every: Duration,
    /// How long one with a state that counts for nothing waits for somebody who serves before it begins a history with it; one
    /// without a state waits twice as long. **The timing assumption of the scheme**: a group that is silent for longer than this
    /// and then goes on has two beginnings, one of which is thrown away and reported.
    pub genesis_after: Duration,
    /// How long requests are kept for a substitute to answer.
    pub keep_requests: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat_every: Duration::from_millis(50),
            suspect_after: Duration::from_millis(300),
            mark_every: Duration::from_secs(1),
            mark_items: 1_000,
            resend_every: Duration::from_millis(200),
            genesis_after: Duration::from_millis(1_500),
            keep_requests: Duration::from_secs(3),
        }
    }
}

/// What a group of the active scheme agrees on.
///
/// ```
/// use kvrep_core::ReplicaId;
/// use kvrep_core::protocol::active::Config;
///
/// let mut group = Config::new([ReplicaId(0), ReplicaId(1), ReplicaId(2)]);
/// group.confirmations = 2; // an answer waits until two of the three have what it says
/// assert_eq!(group.validate(), Ok(()));
/// group.confirmations = 4;
/// assert!(group.validate().is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
#[non_exhaustive]
pub struct Config {
    /// The members; their order is the ring.
    pub members: BTreeSet<ReplicaId>,
    /// How many members must be known to have the history that an answer is made from; 1: the one that answers. More than one must be more than half.
    pub confirmations: usize,
    /// Who answers.
    pub responder: Responder,
    /// Who finds out that a member is dead.
    pub watch: Watch,
    /// How long things take.
    pub timing: Timing,
    /// Of sessions, and of the size of commands.
    pub limits: Limits,
    /// Bytes of requests that are kept, and of items that one who joins holds back, at most (each).
    pub kept_bytes_max: usize,
    /// Bytes of a piece of a state.
    pub piece_bytes: usize,
}

impl Config {
    /// A group of these members, with one confirmation and the default timing.
    #[must_use]
    pub fn new(members: impl IntoIterator<Item = ReplicaId>) -> Self {
        Self {
            members: members.into_iter().collect(),
            confirmations: 1,
            responder: Responder::default(),
            watch: Watch::default(),
            timing: Timing::default(),
            limits: Limits::default(),
            kept_bytes_max: 64 << 20,
            piece_bytes: 64 << 10,
        }
    }

    /// A hash of all of it: members that differ in it do not believe each other.
    #[must_use]
    pub fn hash(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64(&crate::state_machine::encode(self))
    }

    /// Checks that the values fit each other.
    ///
    /// # Errors
    /// A sentence that says what to change.
    pub fn validate(&self) -> Result<(), String> {
        let (n, k, t) = (self.members.len(), self.confirmations, &self.timing);
        if n == 0 {
            return Err("a group needs at least one member".into());
        }
        if n > MEMBERS_MAX {
            return Err(format!(
                "at most {MEMBERS_MAX} members: each carries out everything"
            ));
        }
        if k == 0 || k > n {
            return Err(format!(
                "confirmations must be 1 to {n}, the number of members"
            ));
        }
        if k > 1 && 2 * k <= n {
            return Err(format!(
                "confirmations must be 1 or more than half of the {n} members: with {k}, two histories could each be confirmed"
            ));
        }
        let waits = [
            ("heartbeat_every", t.heartbeat_every),
            ("mark_every", t.mark_every),
            ("resend_every", t.resend_every),
        ];
        if let Some((name, _)) = waits.into_iter().find(|(_, wait)| wait.is_zero()) {
            return Err(format!("{name} must not be zero"));
        }
        if t.mark_items == 0 {
            return Err("mark_items must not be zero".into());
        }
        if t.suspect_after < 3 * t.heartbeat_every {
            return Err("suspect_after must be at least three times heartbeat_every".into());
        }
        if t.genesis_after < 2 * t.suspect_after {
            return Err("genesis_after must be at least twice suspect_after: one that is merely suspected may still answer".into());
        }
        if t.keep_requests < 2 * t.suspect_after {
            return Err("keep_requests must be at least twice suspect_after: a substitute answers what was asked before a failure was noticed".into());
        }
        if self.piece_bytes == 0 || self.kept_bytes_max < self.limits.command_bytes_max {
            return Err(
                "piece_bytes must not be zero, and kept_bytes_max must hold a command".into(),
            );
        }
        Ok(())
    }
}

/// Members of a group, at most.
const MEMBERS_MAX: usize = 64;
