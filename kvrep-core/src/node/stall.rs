//! Whether the log's disk hangs.
//!
//! A disk that fails ends its node; one that never answers is no better, and worse for the group: heartbeats go on, so nobody
//! suspects the replica, while every write waits for it. So a batch that is not durable after the time that is allowed counts as
//! a failed one.
//!
//! Only time in which this process ran is counted: one that was stopped, or whose machine slept, has not looked for long
//! and knows nothing.

use crate::id::PersistToken;
use crate::time::Time;
use std::time::Duration;

/// Watches the oldest batch that is under way.
#[derive(Debug)]
pub(super) struct StallWatch {
    max: Duration,
    done: PersistToken,
    waited: Duration,
    looked_at: Option<Time>,
}

impl StallWatch {
    /// Allows a batch this much time.
    pub(super) fn new(max: Duration) -> Self {
        Self {
            max,
            done: PersistToken(0),
            waited: Duration::ZERO,
            looked_at: None,
        }
    }

    /// How much time a batch has.
    pub(super) fn max(&self) -> Duration {
        self.max
    }

    /// Everything up to `done` is durable, and `queued` was handed over last. Returns whether the disk hangs.
    pub(super) fn look(&mut self, now: Time, done: PersistToken, queued: PersistToken) -> bool {
        let idle = done >= queued;
        match self.looked_at {
            Some(before) if !idle && done == self.done => {
                self.waited += (now - before).min(LOOK_EVERY * 2);
            }
            Some(_) | None => self.waited = Duration::ZERO,
        }
        self.done = done;
        self.looked_at = (!idle).then_some(now);
        self.waited >= self.max
    }

    /// When to look again at the latest, while something is under way.
    pub(super) fn next_look(&self) -> Option<Time> {
        self.looked_at.map(|at| at + LOOK_EVERY)
    }
}

const LOOK_EVERY: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn a_batch_may_take_its_time_and_progress_or_rest_begins_the_count_anew() {
        let mut watch = StallWatch::new(Duration::from_secs(1));
        let (one, two) = (PersistToken(1), PersistToken(2));
        assert!(!watch.look(at(0), PersistToken(0), one));
        assert!((1..4).all(|n| !watch.look(at(n * 250), PersistToken(0), two)));
        assert!(!watch.look(at(1_000), one, two), "one is done");
        assert!((5..8).all(|n| !watch.look(at(n * 250), one, two)));
        assert!(watch.look(at(2_000), one, two), "the second hangs");
        assert!(!watch.look(at(2_250), two, two), "nothing is under way");
        assert_eq!(watch.next_look(), None);
    }

    #[test]
    fn time_in_which_the_process_stood_still_does_not_count() {
        let mut watch = StallWatch::new(Duration::from_secs(1));
        assert!(!watch.look(at(0), PersistToken(0), PersistToken(1)));
        assert!(!watch.look(at(60_000), PersistToken(0), PersistToken(1)));
        assert_eq!(watch.next_look(), Some(at(60_250)));
    }
}
