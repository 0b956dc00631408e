//! φ-accrual: the timeout learns from how regularly a peer was heard (Hayashibara, Défago, Yared, Katayama: *The φ Accrual
//! Failure Detector*, SRDS 2004).
//!
//! The intervals between signs of life are taken for samples of a normal distribution. After a silence of t,
//! φ(t) = −log₁₀ P(an interval is longer than t): at φ = 8 one suspicion in 10⁸ intervals is wrong, if the future is like the
//! past. The four levels are bounds on φ:
//!
//! | φ | verdict |
//! |---|---|
//! | below [`phi_unconfirmed`](PhiConfig::phi_unconfirmed) | `Active` |
//! | below [`phi_unresponsive`](PhiConfig::phi_unresponsive) | `Unconfirmed` (still counted on) |
//! | below [`phi_disconnected`](PhiConfig::phi_disconnected) | `Unresponsive` |
//! | above, or seen to be gone | `Disconnected` |
//!
//! φ only grows with t, so each bound is a time: mean + pause + z · deviation, where z belongs to the bound and is computed
//! once. The verdict is then a comparison, the next deadline is exact, and no logarithm can differ between machines.
//! A normal tail and not an exponential one (as Cassandra has it): heartbeats are sent by a timer, so their intervals scatter
//! around a mean; an exponential tail has no memory, and would need three times the silence for the same φ.
//!
//! Invariants: the window is bounded; a silence shorter than [`silence_min`](PhiConfig::silence_min) makes nobody suspect, one
//! longer than [`silence_max`](PhiConfig::silence_max) everybody.
//!
//! Rejected: every message as a sample. Under load a peer is heard ten thousand times a second; when the load ends, the next
//! heartbeat would be an outlier. So intervals are measured over at least half a heartbeat. And a silence that led to
//! `Disconnected` is no sample: it says how long a failure lasted, not how late a healthy peer may be.
//!
//! Caveat: right after its start it knows no more than a fixed timeout; it takes the expected interval for the mean and a
//! quarter of it for the deviation until it has samples.

use super::{FailureDetector, Verdict};
use crate::config::Timing;
use crate::id::ReplicaId;
use crate::time::Time;
use crate::transport::Hint;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// How a [`PhiDetector`] judges.
///
/// ```
/// use kvrep_core::Timing;
/// use kvrep_core::detector::phi::{PhiConfig, PhiDetector};
/// let mut config = PhiConfig::for_timing(&Timing::default());
/// config.phi_unresponsive = 10.0; // rather late than wrong
/// assert!(PhiDetector::new(config).is_ok());
/// config.window = 0;
/// assert!(PhiDetector::new(config).is_err());
/// ```
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub struct PhiConfig {
    /// How often a peer should be heard: the mean before there are samples.
    pub expected: Duration,
    /// Samples kept for each peer. 1 to 10,000; 200 by default.
    pub window: usize,
    /// The deviation is never taken to be less: a peer that was punctual for long may still be a little late.
    pub deviation_min: Duration,
    /// A pause that every interval may have on top (a collector, a disk).
    pub pause: Duration,
    /// From here on [`Verdict::Unconfirmed`]. Above 0; 3 by default.
    pub phi_unconfirmed: f64,
    /// From here on [`Verdict::Unresponsive`]. 8 by default.
    pub phi_unresponsive: f64,
    /// From here on [`Verdict::Disconnected`]. At most 300; 12 by default.
    pub phi_disconnected: f64,
    /// Whoever has been silent for less is [`Verdict::Active`], whatever was learned.
    pub silence_min: Duration,
    /// Whoever has been silent for longer is [`Verdict::Disconnected`], whatever was learned.
    pub silence_max: Duration,
}

impl PhiConfig {
    /// For a group with these times: suspicion between half of `suspect_after` and four times of it.
    #[must_use]
    pub fn for_timing(timing: &Timing) -> Self {
        Self {
            expected: timing.heartbeat_every,
            window: 200,
            deviation_min: timing.heartbeat_every / 4,
            pause: timing.heartbeat_every,
            phi_unconfirmed: 3.0,
            phi_unresponsive: 8.0,
            phi_disconnected: 12.0,
            silence_min: timing.suspect_after / 2,
            silence_max: timing.suspect_after * 4,
        }
    }
}

/// Why a [`PhiConfig`] was refused. No detector was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PhiConfigError {
    /// Nothing is expected, or nothing can be kept.
    #[error("expected must not be zero, and window 1 to 10,000")]
    NoSamples,
    /// The bounds do not rise from level to level.
    #[error(
        "the bounds must rise: 0 < phi_unconfirmed ≤ phi_unresponsive ≤ phi_disconnected ≤ 300, and \
         silence_min ≤ silence_max"
    )]
    UnorderedBounds,
}

/// Suspects whoever is silent for longer than what was heard of it makes likely.
///
/// ```
/// use kvrep_core::detector::{FailureDetector, Verdict, phi::{PhiConfig, PhiDetector}};
/// use kvrep_core::{ReplicaId, Time, Timing};
/// use std::time::Duration;
///
/// let ms = |n| Time::ZERO + Duration::from_millis(n);
/// let mut detector = PhiDetector::new(PhiConfig::for_timing(&Timing::default())).unwrap();
/// detector.watch(ms(0), ReplicaId(2));
/// for beat in 1..=100 {
///     detector.on_heard(ms(beat * 50), ReplicaId(2)); // punctual: suspected soon
/// }
/// assert!(!detector.verdict(ms(5_250), ReplicaId(2)).is_live());
///
/// for beat in 0..200 {
///     let late = if beat % 2 == 0 { 0 } else { 80 }; // irregular: given more time
///     detector.on_heard(ms(5_000 + beat * 100 + late), ReplicaId(2));
/// }
/// assert!(detector.verdict(ms(24_980 + 250), ReplicaId(2)).is_live());
/// ```
#[derive(Clone, Debug)]
pub struct PhiDetector {
    config: PhiConfig,
    /// How many deviations beyond the mean each bound lies.
    z: [f64; 3],
    peers: BTreeMap<ReplicaId, Heard>,
}

/// What was heard of one peer. Times in nanoseconds; the sums are exact, so that nothing drifts.
#[derive(Clone, Debug)]
struct Heard {
    /// `None` once it was seen to be gone.
    last: Option<Time>,
    /// Where the interval that is being measured began.
    since: Time,
    intervals: VecDeque<u64>,
    sum: u128,
    sum_of_squares: u128,
    /// After how much silence each bound is reached.
    bounds: [Duration; 3],
}

impl PhiDetector {
    /// A detector that watches nobody yet.
    ///
    /// # Errors
    /// When the configuration makes no sense.
    pub fn new(config: PhiConfig) -> Result<Self, PhiConfigError> {
        let phis = [
            config.phi_unconfirmed,
            config.phi_unresponsive,
            config.phi_disconnected,
        ];
        if config.expected.is_zero() || !(1..=WINDOW_MAX).contains(&config.window) {
            return Err(PhiConfigError::NoSamples);
        }
        let rises = phis[0] > 0.0
            && phis.is_sorted()
            && phis[2] <= PHI_MAX
            && config.silence_min <= config.silence_max;
        if !rises {
            return Err(PhiConfigError::UnorderedBounds);
        }
        Ok(Self {
            config,
            z: phis.map(deviations),
            peers: BTreeMap::new(),
        })
    }

    /// After how much silence `peer` is unconfirmed, unresponsive, disconnected; `None` if it is not watched.
    #[must_use]
    pub fn bounds(&self, peer: ReplicaId) -> Option<[Duration; 3]> {
        self.peers.get(&peer).map(|heard| heard.bounds)
    }

    fn bounds_of(&self, intervals: usize, sum: u128, sum_of_squares: u128) -> [Duration; 3] {
        let config = &self.config;
        let nanos = |d: Duration| d.as_nanos() as f64;
        let (mean, deviation) = if intervals < SAMPLES_MIN {
            (nanos(config.expected), nanos(config.expected) / 4.0)
        } else {
            let n = intervals as f64;
            let mean = sum as f64 / n;
            let variance = (sum_of_squares as f64 / n - mean * mean).max(0.0);
            (mean, variance.sqrt())
        };
        let deviation = deviation.max(nanos(config.deviation_min));
        self.z.map(|z| {
            let silence = mean + nanos(config.pause) + z * deviation;
            Duration::from_nanos(silence.max(0.0) as u64)
                .clamp(config.silence_min, config.silence_max)
        })
    }
}

impl FailureDetector for PhiDetector {
    fn watch(&mut self, now: Time, peer: ReplicaId) {
        let bounds = self.bounds_of(0, 0, 0);
        let heard = self.peers.entry(peer).or_insert_with(|| Heard {
            last: None,
            since: now,
            intervals: VecDeque::new(),
            sum: 0,
            sum_of_squares: 0,
            bounds,
        });
        // Grace, not a sign of life: the interval that ends now is no sample.
        heard.last = Some(now);
        heard.since = now;
    }

    fn forget(&mut self, peer: ReplicaId) {
        self.peers.remove(&peer);
    }

    fn on_heard(&mut self, now: Time, peer: ReplicaId) {
        let (window, shortest) = (self.config.window, self.config.expected / 2);
        let Some(heard) = self.peers.get_mut(&peer) else {
            return;
        };
        let failed = heard.last.is_none_or(|last| now - last >= heard.bounds[2]);
        heard.last = Some(now);
        let interval = now - heard.since;
        if failed {
            heard.since = now;
            return;
        }
        if interval < shortest {
            return;
        }
        heard.since = now;
        let interval = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
        if heard.intervals.len() == window
            && let Some(oldest) = heard.intervals.pop_front()
        {
            heard.sum -= u128::from(oldest);
            heard.sum_of_squares -= u128::from(oldest).pow(2);
        }
        heard.intervals.push_back(interval);
        heard.sum += u128::from(interval);
        heard.sum_of_squares = heard
            .sum_of_squares
            .saturating_add(u128::from(interval).pow(2));
        let (n, sum, squares) = (heard.intervals.len(), heard.sum, heard.sum_of_squares);
        let bounds = self.bounds_of(n, sum, squares);
        if let Some(heard) = self.peers.get_mut(&peer) {
            heard.bounds = bounds;
        }
    }

    fn on_hint(&mut self, _now: Time, peer: ReplicaId, hint: Hint) {
        match hint {
            // A connection is not a sign of life of the protocol behind it.
            Hint::Connected | Hint::Superseded | Hint::Unheard => {}
            Hint::Gone => {
                if let Some(heard) = self.peers.get_mut(&peer) {
                    heard.last = None;
                }
            }
        }
    }

    fn tick(&mut self, _now: Time) {}

    fn verdict(&self, now: Time, peer: ReplicaId) -> Verdict {
        let Some((last, bounds)) = self
            .peers
            .get(&peer)
            .and_then(|heard| Some((heard.last?, heard.bounds)))
        else {
            return Verdict::Disconnected;
        };
        match bounds.iter().filter(|bound| now - last >= **bound).count() {
            0 => Verdict::Active,
            1 => Verdict::Unconfirmed,
            2 => Verdict::Unresponsive,
            _ => Verdict::Disconnected,
        }
    }

    fn next_deadline(&self, now: Time) -> Option<Time> {
        self.peers
            .values()
            .filter_map(|heard| Some((heard.last?, heard.bounds)))
            .flat_map(|(last, bounds)| bounds.map(|bound| last + bound))
            .filter(|at| *at > now)
            .min()
    }
}

/// How many deviations above the mean φ is reached: where the normal distribution's upper tail is 10^−φ. By bisection over
/// the approximation of the tail by Börjesson and Sundberg (*Simple Approximations of the Error Function Q(x) for
/// Communications Applications*, 1979; relative error of the tail below 0.3 %), rounded so that the last bits of a machine's
/// exponential do not matter.
fn deviations(phi: f64) -> f64 {
    let half_ln_of_two_pi = 0.918_938_533_204_672_7;
    // −ln of the tail above z ≥ 0.
    let above =
        |z: f64| z * z / 2.0 + half_ln_of_two_pi + (0.661 * z + 0.339 * (z * z + 5.51).sqrt()).ln();
    let reached = |z: f64| {
        let tail = if z >= 0.0 {
            above(z)
        } else {
            -(-(-above(-z)).exp()).ln_1p()
        };
        tail / std::f64::consts::LN_10
    };
    let (mut low, mut high) = (-10.0, 40.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if reached(middle) < phi {
            low = middle;
        } else {
            high = middle;
        }
    }
    (high * 1_024.0).round() / 1_024.0
}

/// So few samples say nothing yet.
const SAMPLES_MIN: usize = 5;
const WINDOW_MAX: usize = 10_000;
const PHI_MAX: f64 = 300.0;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PEER: ReplicaId = ReplicaId(1);

    fn ms(n: u64) -> Time {
        Time::ZERO + Duration::from_millis(n)
    }

    fn detector() -> PhiDetector {
        PhiDetector::new(PhiConfig::for_timing(&Timing::default())).unwrap()
    }

    #[test]
    fn the_bounds_lie_where_the_tables_of_the_normal_distribution_say() {
        // Upper tails of 10^-0.1 (79 %), 10^-1, 10^-3, 10^-8.
        for (phi, z) in [(0.1, -0.8211), (1.0, 1.2816), (3.0, 3.0902), (8.0, 5.6120)] {
            assert!(
                (deviations(phi) - z).abs() < 0.01,
                "{phi}: {}",
                deviations(phi)
            );
        }
    }

    #[test]
    fn a_load_that_ends_makes_nobody_suspect() {
        let mut detector = detector();
        detector.watch(ms(0), PEER);
        for tenth in 0..100_000 {
            detector.on_heard(Time::from_nanos(tenth * 100_000), PEER);
        }
        // Ten seconds of messages every 100 µs; then only heartbeats.
        for beat in 1..20 {
            let now = ms(10_000 + beat * 50);
            assert_eq!(detector.verdict(now, PEER), Verdict::Active);
            detector.on_heard(now, PEER);
        }
    }

    #[test]
    fn a_failure_that_lasted_for_long_is_no_sample() {
        let mut detector = detector();
        detector.watch(ms(0), PEER);
        for beat in 1..=100 {
            detector.on_heard(ms(beat * 50), PEER);
        }
        let before = detector.bounds(PEER);
        detector.on_heard(ms(600_000), PEER);
        assert_eq!(detector.bounds(PEER), before);
    }

    proptest! {
        #[test]
        fn whatever_was_heard_levels_only_get_worse_with_silence_and_change_at_deadlines(
            intervals in prop::collection::vec(0_u64..2_000, 0..400),
            silence in 0_u64..3_000,
        ) {
            let mut detector = detector();
            let mut now = ms(0);
            detector.watch(now, PEER);
            for interval in intervals {
                now = now + Duration::from_millis(interval);
                detector.on_heard(now, PEER);
                prop_assert_eq!(detector.verdict(now, PEER), Verdict::Active);
            }
            let config = PhiConfig::for_timing(&Timing::default());
            let bounds = detector.bounds(PEER).unwrap();
            prop_assert!(bounds.is_sorted());
            prop_assert!(bounds[0] >= config.silence_min && bounds[2] <= config.silence_max);
            let later = now + Duration::from_millis(silence);
            let (mut at, mut verdict) = (now, Verdict::Active);
            while let Some(next) = detector.next_deadline(at).filter(|next| *next <= later) {
                prop_assert_eq!(detector.verdict(Time::from_nanos(next.as_nanos() - 1), PEER), verdict);
                prop_assert!(detector.verdict(next, PEER) > verdict);
                (at, verdict) = (next, detector.verdict(next, PEER));
            }
            prop_assert_eq!(detector.verdict(later, PEER), verdict);
        }
    }

    #[cfg(feature = "testing")]
    #[test]
    fn it_passes_the_conformance_suite() {
        use crate::testing::detector_suite::{Bounds, check};
        let config = PhiConfig {
            silence_min: Duration::from_millis(150),
            silence_max: Duration::from_millis(300),
            ..PhiConfig::for_timing(&Timing::default())
        };
        check(
            || PhiDetector::new(config).unwrap(),
            Bounds {
                live_for: config.silence_min - Duration::from_nanos(1),
                not_live_after: config.silence_max,
                disconnected_after: config.silence_max,
            },
        );
    }
}
