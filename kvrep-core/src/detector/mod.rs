//! Failure detectors: who has not been heard for how long.
//!
//! A detector only *suggests*. No promise of a scheme rests on it under [`Authority::Witness`];
//! under `Alone` a false suspicion may make two primaries, and an acknowledged write may be lost.
//!
//! [`Authority::Witness`]: crate::Authority::Witness
//!
//! ```
//! use kvrep_core::detector::{FailureDetector, Verdict, fixed::FixedDetector};
//! use kvrep_core::transport::Hint;
//! use kvrep_core::{ReplicaId, Time};
//! use std::time::Duration;
//!
//! let mut detector: Box<dyn FailureDetector> = Box::new(FixedDetector::new(Duration::from_millis(300)));
//! let now = Time::ZERO;
//! detector.watch(now, ReplicaId(2));
//! assert!(detector.verdict(now, ReplicaId(2)).is_live());
//! detector.on_hint(now, ReplicaId(2), Hint::Gone); // its machine says that nobody listens any more
//! assert_eq!(detector.verdict(now, ReplicaId(2)), Verdict::Disconnected);
//! ```
//!
//! A detector of your own is given to [`Passive::with_detector`](crate::protocol::passive::Passive::with_detector); the
//! suite in `testing` (feature `testing`) says whether it keeps the rules.

pub mod fixed;
pub mod phi;
pub mod ticks;

use crate::id::ReplicaId;
use crate::time::Time;
use crate::transport::Hint;

/// How a peer looks, from best to worst.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Verdict {
    /// Heard lately.
    Active,
    /// A little late; still counted on.
    Unconfirmed,
    /// Too late to be counted on.
    Unresponsive,
    /// Silent for so long, or seen to be gone, that it is treated as dead. Also: never heard.
    Disconnected,
}

impl Verdict {
    /// Whether the peer is counted on: active or merely late.
    #[must_use]
    pub fn is_live(self) -> bool {
        self <= Self::Unconfirmed
    }
}

/// Watches peers. Peers are those that were [`watch`](Self::watch)ed; others are [`Verdict::Disconnected`].
pub trait FailureDetector: Send + 'static {
    /// Starts watching `peer`, as if it had been heard at `now` (a grace period: it has not failed yet).
    fn watch(&mut self, now: Time, peer: ReplicaId);

    /// Stops watching `peer`: it does not belong any more.
    fn forget(&mut self, peer: ReplicaId);

    /// Anything came from `peer`.
    fn on_heard(&mut self, now: Time, peer: ReplicaId);

    /// The transport saw something of `peer`. [`Hint::Gone`] disconnects it until it is heard again.
    fn on_hint(&mut self, now: Time, peer: ReplicaId, hint: Hint);

    /// Time has passed. Call at least when [`next_deadline`](Self::next_deadline) says.
    fn tick(&mut self, now: Time);

    /// How `peer` looks.
    fn verdict(&self, now: Time, peer: ReplicaId) -> Verdict;

    /// When a verdict can change next if nothing is heard; `None` when nobody is watched or all are disconnected.
    fn next_deadline(&self, now: Time) -> Option<Time>;
}
