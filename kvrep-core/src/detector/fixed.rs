//! A fixed timeout: two levels.
//!
//! A peer is [`Verdict::Active`] until it has been silent for the whole timeout, then [`Verdict::Disconnected`]. There is
//! nothing between, so a takeover starts as early as it can. The verdict is a function of the time that is asked for; it
//! does not depend on how often [`tick`](FailureDetector::tick) is called.
//!
//! Caveat: the timeout has to cover the longest pause of a healthy peer (disk, scheduler, collector), and that pause is
//! then the least time in which a death is noticed, unless the transport sees the end of the process
//! ([`Hint::Gone`]).

use super::{FailureDetector, Verdict};
use crate::id::ReplicaId;
use crate::time::Time;
use crate::transport::Hint;
use std::collections::BTreeMap;
use std::time::Duration;

/// Suspects whoever has been silent for a fixed time.
///
/// ```
/// use kvrep_core::detector::{FailureDetector, Verdict, fixed::FixedDetector};
/// use kvrep_core::{ReplicaId, Time};
/// use std::time::Duration;
///
/// let mut detector = FixedDetector::new(Duration::from_millis(150));
/// detector.watch(Time::ZERO, ReplicaId(2));
/// let late = Time::ZERO + Duration::from_millis(150);
/// assert_eq!(detector.next_deadline(Time::ZERO), Some(late));
/// assert_eq!(detector.verdict(late, ReplicaId(2)), Verdict::Disconnected);
/// detector.on_heard(late, ReplicaId(2));
/// assert_eq!(detector.verdict(late, ReplicaId(2)), Verdict::Active);
/// ```
#[derive(Clone, Debug)]
pub struct FixedDetector {
    suspect_after: Duration,
    /// When each peer was heard; `None` once it was seen to be gone.
    heard: BTreeMap<ReplicaId, Option<Time>>,
}

impl FixedDetector {
    /// A detector that disconnects a peer after `suspect_after` of silence. Zero disconnects everybody always.
    #[must_use]
    pub fn new(suspect_after: Duration) -> Self {
        Self {
            suspect_after,
            heard: BTreeMap::new(),
        }
    }

    fn suspected_at(&self, heard: Option<Time>) -> Time {
        heard.map_or(Time::ZERO, |at| at + self.suspect_after)
    }
}

impl FailureDetector for FixedDetector {
    fn watch(&mut self, now: Time, peer: ReplicaId) {
        self.heard.insert(peer, Some(now));
    }

    fn forget(&mut self, peer: ReplicaId) {
        self.heard.remove(&peer);
    }

    fn on_heard(&mut self, now: Time, peer: ReplicaId) {
        if let Some(heard) = self.heard.get_mut(&peer) {
            *heard = Some(now);
        }
    }

    fn on_hint(&mut self, _now: Time, peer: ReplicaId, hint: Hint) {
        match hint {
            // A connection is not a sign of life of the protocol behind it; its first frame is.
            Hint::Connected | Hint::Superseded | Hint::Unheard => {}
            Hint::Gone => {
                if let Some(heard) = self.heard.get_mut(&peer) {
                    *heard = None;
                }
            }
        }
    }

    fn tick(&mut self, _now: Time) {}

    fn verdict(&self, now: Time, peer: ReplicaId) -> Verdict {
        match self.heard.get(&peer) {
            Some(&heard) if now < self.suspected_at(heard) => Verdict::Active,
            Some(_) | None => Verdict::Disconnected,
        }
    }

    fn next_deadline(&self, now: Time) -> Option<Time> {
        self.heard
            .values()
            .map(|&heard| self.suspected_at(heard))
            .filter(|&at| at > now)
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Time {
        Time::from_nanos(n * 1_000_000)
    }

    #[test]
    fn a_peer_is_suspected_exactly_when_the_timeout_has_passed() {
        let mut detector = FixedDetector::new(Duration::from_millis(10));
        detector.watch(ms(5), ReplicaId(1));
        assert_eq!(detector.verdict(ms(14), ReplicaId(1)), Verdict::Active);
        assert_eq!(
            detector.verdict(ms(15), ReplicaId(1)),
            Verdict::Disconnected
        );
    }

    #[test]
    fn the_deadline_is_that_of_the_peer_that_is_suspected_first() {
        let mut detector = FixedDetector::new(Duration::from_millis(10));
        assert_eq!(detector.next_deadline(ms(0)), None);
        detector.watch(ms(0), ReplicaId(1));
        detector.watch(ms(4), ReplicaId(2));
        assert_eq!(detector.next_deadline(ms(4)), Some(ms(10)));
        detector.on_hint(ms(5), ReplicaId(1), Hint::Gone);
        assert_eq!(detector.next_deadline(ms(5)), Some(ms(14)));
        assert_eq!(detector.next_deadline(ms(14)), None);
    }

    #[cfg(feature = "testing")]
    #[test]
    fn it_passes_the_conformance_suite() {
        use crate::testing::detector_suite::{Bounds, check};
        let timeout = Duration::from_millis(150);
        check(
            || FixedDetector::new(timeout),
            Bounds {
                live_for: timeout - Duration::from_nanos(1),
                not_live_after: timeout,
                disconnected_after: timeout,
            },
        );
    }
}
