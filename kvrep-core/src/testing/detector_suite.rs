//! What every failure detector must do, whatever its method.
//!
//! Call [`check`] from a test of yours. It runs each rule with a peer heard at several phases (a detector may count
//! in periods), and panics naming the rule that does not hold.
//!
//! ```
//! use kvrep_core::detector::fixed::FixedDetector;
//! use kvrep_core::testing::detector_suite::{Bounds, check};
//! use std::time::Duration;
//!
//! let timeout = Duration::from_millis(150);
//! let bounds = Bounds {
//!     live_for: timeout - Duration::from_nanos(1),
//!     not_live_after: timeout,
//!     disconnected_after: timeout,
//! };
//! check(|| FixedDetector::new(timeout), bounds);
//! ```

use crate::detector::{FailureDetector, Verdict};
use crate::id::ReplicaId;
use crate::time::Time;
use crate::transport::Hint;
use std::time::Duration;

/// What the detector under test promises about a peer that falls silent.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// It is live for at least this long.
    pub live_for: Duration,
    /// It is no longer live after this long.
    pub not_live_after: Duration,
    /// It is disconnected after this long.
    pub disconnected_after: Duration,
}

/// Runs every rule on detectors from `make`.
///
/// # Panics
/// When a rule does not hold; the message names it.
pub fn check<D: FailureDetector>(make: impl Fn() -> D, bounds: Bounds) {
    who_is_not_watched_is_disconnected(&mut make());
    for phase in 0..PHASES {
        let heard = START + bounds.disconnected_after * phase / PHASES;
        let suite = Suite { bounds, heard };
        suite.watching_gives_grace(&mut suite.started(&make));
        suite.silence_degrades_in_order(&mut suite.started(&make), Ticks::Given);
        suite.silence_degrades_in_order(&mut suite.started(&make), Ticks::Withheld);
        suite.hearing_makes_active_from_any_level(&mut suite.started(&make));
        suite.regular_news_keep_it_live(&mut suite.started(&make));
        suite.gone_disconnects_until_heard(&mut suite.started(&make));
        suite.verdicts_change_only_at_deadlines(&mut suite.started(&make));
        suite.peers_are_independent(&mut suite.started(&make));
    }
}

const START: Time = Time::ZERO;
const PHASES: u32 = 7;
const STEPS: u32 = 64;
const PEER: ReplicaId = ReplicaId(1);
const OTHER: ReplicaId = ReplicaId(2);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ticks {
    Given,
    Withheld,
}

fn who_is_not_watched_is_disconnected<D: FailureDetector>(detector: &mut D) {
    assert_eq!(
        detector.next_deadline(START),
        None,
        "nobody is watched: there is no deadline"
    );
    detector.on_heard(START, PEER);
    detector.on_hint(START, PEER, Hint::Connected);
    detector.on_hint(START, PEER, Hint::Gone);
    detector.on_heard(START, PEER);
    detector.tick(START);
    assert_eq!(
        detector.verdict(START, PEER),
        Verdict::Disconnected,
        "who is not watched is disconnected, even when heard"
    );
    assert_eq!(
        detector.next_deadline(START),
        None,
        "who is not watched has no deadline"
    );
}

struct Suite {
    bounds: Bounds,
    /// When the peer is heard or watched.
    heard: Time,
}

impl Suite {
    /// A detector that began to count at `START`.
    fn started<D: FailureDetector>(&self, make: impl Fn() -> D) -> D {
        let mut detector = make();
        detector.tick(START);
        detector
    }

    /// `STEPS` moments after `heard`, the last one at `disconnected_after`.
    fn moments(&self) -> impl Iterator<Item = Time> {
        let (heard, whole) = (self.heard, self.bounds.disconnected_after);
        (0..=STEPS).map(move |step| heard + whole * step / STEPS)
    }

    fn watching_gives_grace<D: FailureDetector>(&self, detector: &mut D) {
        detector.watch(self.heard, PEER);
        assert_eq!(
            detector.verdict(self.heard, PEER),
            Verdict::Active,
            "a peer is active when watching it begins"
        );
        let last = self.heard + self.bounds.live_for;
        detector.tick(last);
        assert!(
            detector.verdict(last, PEER).is_live(),
            "a watched peer is live for live_for, without having been heard"
        );
    }

    fn silence_degrades_in_order<D: FailureDetector>(&self, detector: &mut D, ticks: Ticks) {
        detector.watch(self.heard, PEER);
        detector.on_heard(self.heard, PEER);
        let mut worst = Verdict::Active;
        for now in self.moments() {
            if ticks == Ticks::Given {
                detector.tick(now);
            }
            let verdict = detector.verdict(now, PEER);
            assert!(
                verdict >= worst,
                "silence never improves a verdict: {worst:?}, then {verdict:?}"
            );
            worst = verdict;
            let silent = now - self.heard;
            if silent <= self.bounds.live_for {
                assert!(
                    verdict.is_live(),
                    "live for live_for: {verdict:?} after {silent:?}"
                );
            }
            if silent >= self.bounds.not_live_after {
                assert!(
                    !verdict.is_live(),
                    "not live after not_live_after: {verdict:?} after {silent:?}"
                );
            }
        }
        assert_eq!(
            worst,
            Verdict::Disconnected,
            "disconnected after disconnected_after"
        );
    }

    fn hearing_makes_active_from_any_level<D: FailureDetector>(&self, detector: &mut D) {
        for now in self.moments() {
            detector.watch(self.heard, PEER);
            detector.tick(now);
            detector.on_heard(now, PEER);
            assert_eq!(
                detector.verdict(now, PEER),
                Verdict::Active,
                "who is heard is active, whatever it was"
            );
        }
    }

    fn regular_news_keep_it_live<D: FailureDetector>(&self, detector: &mut D) {
        detector.watch(self.heard, PEER);
        let mut now = self.heard;
        for _ in 0..10 * STEPS {
            now = now + self.bounds.live_for;
            detector.tick(now);
            assert!(
                detector.verdict(now, PEER).is_live(),
                "who is heard every live_for stays live"
            );
            detector.on_heard(now, PEER);
        }
    }

    fn gone_disconnects_until_heard<D: FailureDetector>(&self, detector: &mut D) {
        let now = self.heard;
        detector.watch(now, PEER);
        detector.on_hint(now, PEER, Hint::Gone);
        assert_eq!(
            detector.verdict(now, PEER),
            Verdict::Disconnected,
            "Gone disconnects at once"
        );
        assert_eq!(
            detector.next_deadline(now),
            None,
            "when all are disconnected there is no deadline"
        );
        detector.on_hint(now, PEER, Hint::Connected);
        detector.tick(now);
        assert_eq!(
            detector.verdict(now, PEER),
            Verdict::Disconnected,
            "a connection alone does not revive"
        );
        detector.on_heard(now, PEER);
        assert_eq!(
            detector.verdict(now, PEER),
            Verdict::Active,
            "being heard revives"
        );
    }

    fn verdicts_change_only_at_deadlines<D: FailureDetector>(&self, detector: &mut D) {
        detector.watch(self.heard, PEER);
        let mut now = self.heard;
        let mut levels = vec![detector.verdict(now, PEER)];
        while let Some(deadline) = detector.next_deadline(now) {
            assert!(deadline > now, "a deadline is in the future");
            let before = Time::from_nanos(deadline.as_nanos() - 1);
            assert_eq!(
                Some(&detector.verdict(before, PEER)),
                levels.last(),
                "no verdict changes before the deadline"
            );
            now = deadline;
            detector.tick(now);
            levels.push(detector.verdict(now, PEER));
            assert!(
                levels.len() < 1_000,
                "the deadlines of a silent peer come to an end"
            );
        }
        assert_eq!(
            levels.last(),
            Some(&Verdict::Disconnected),
            "there are deadlines until the peer is disconnected"
        );
        assert!(
            now <= self.heard + self.bounds.disconnected_after,
            "the last deadline is within disconnected_after"
        );
    }

    fn peers_are_independent<D: FailureDetector>(&self, detector: &mut D) {
        detector.watch(self.heard, PEER);
        detector.watch(self.heard, OTHER);
        let late = self.heard + self.bounds.disconnected_after;
        detector.on_heard(late, OTHER);
        detector.tick(late);
        assert_eq!(
            (detector.verdict(late, PEER), detector.verdict(late, OTHER)),
            (Verdict::Disconnected, Verdict::Active),
            "hearing one peer says nothing of another"
        );
        detector.on_hint(late, PEER, Hint::Gone);
        assert_eq!(
            detector.verdict(late, OTHER),
            Verdict::Active,
            "a hint about one peer says nothing of another"
        );
    }
}
