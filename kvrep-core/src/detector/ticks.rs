//! Four levels counted in ticks.
//!
//! Each peer has a counter. Hearing from the peer fills it; every tick of a common period takes one off; the level is read
//! from what is left. With the defaults 4 and 3 are [`Verdict::Active`], 2 is [`Verdict::Unconfirmed`] (still counted on),
//! 1 is [`Verdict::Unresponsive`] and 0 is [`Verdict::Disconnected`]: a peer degrades in steps that a person can watch.
//!
//! Invariants: ticks are at `origin + k × period` whatever the pace at which the detector is called, so a node that was
//! paused for five periods has counted five ticks when it asks again; and the counter at a moment depends only on what
//! was heard before it, not on when [`tick`](FailureDetector::tick) was called.
//!
//! Caveat: the tick after a peer was heard comes anywhere between at once and one period later, so with the defaults a
//! silent peer is counted on for more than 2 and at most 3 periods.

use super::{FailureDetector, Verdict};
use crate::id::ReplicaId;
use crate::time::Time;
use crate::transport::Hint;
use std::collections::BTreeMap;
use std::time::Duration;

/// The period and what the counter means. A level may be empty: let its bound equal the one above it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TickConfig {
    /// Time between two ticks.
    pub period: Duration,
    /// What the counter is set to when the peer is heard.
    pub counter_on_heard: u32,
    /// The least counter that is [`Verdict::Active`].
    pub active_from: u32,
    /// The least counter that is [`Verdict::Unconfirmed`].
    pub unconfirmed_from: u32,
    /// The least counter that is [`Verdict::Unresponsive`]; below it is [`Verdict::Disconnected`]. At least 1.
    pub unresponsive_from: u32,
}

impl Default for TickConfig {
    /// One second; 4 and 3 active, 2 unconfirmed, 1 unresponsive, 0 disconnected.
    fn default() -> Self {
        Self {
            period: Duration::from_secs(1),
            counter_on_heard: 4,
            active_from: 3,
            unconfirmed_from: 2,
            unresponsive_from: 1,
        }
    }
}

/// Why a [`TickConfig`] was refused. No detector was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TickConfigError {
    /// The period is zero.
    #[error("the period of the ticks is zero; it must be longer")]
    NoPeriod,
    /// The bounds do not fall from level to level.
    #[error(
        "the counter's bounds must not rise from level to level: \
         counter_on_heard ≥ active_from ≥ unconfirmed_from ≥ unresponsive_from ≥ 1"
    )]
    UnorderedBounds,
}

/// Counts ticks of silence.
///
/// ```
/// use kvrep_core::detector::{FailureDetector, Verdict, ticks::{TickConfig, TickDetector}};
/// use kvrep_core::{ReplicaId, Time};
/// use std::time::Duration;
///
/// let second = |n| Time::ZERO + Duration::from_secs(n);
/// let mut detector = TickDetector::new(TickConfig::default()).unwrap();
/// detector.expect(second(0), ReplicaId(1)); // known, not heard yet
/// assert_eq!(detector.verdict(second(0), ReplicaId(1)), Verdict::Disconnected);
///
/// detector.on_heard(second(0), ReplicaId(1));
/// let levels: Vec<_> = (0..5).map(|n| detector.verdict(second(n), ReplicaId(1))).collect();
/// use Verdict::*;
/// assert_eq!(levels, [Active, Active, Unconfirmed, Unresponsive, Disconnected]);
/// ```
#[derive(Clone, Debug)]
pub struct TickDetector {
    config: TickConfig,
    /// Where the ticks are counted from: the first time this detector was told.
    origin: Option<Time>,
    /// The tick after which each peer was heard; `None` when it was not, or was seen to be gone.
    heard: BTreeMap<ReplicaId, Option<u64>>,
}

impl TickDetector {
    /// A detector that watches nobody yet.
    ///
    /// # Errors
    /// When the configuration makes no sense.
    pub fn new(config: TickConfig) -> Result<Self, TickConfigError> {
        if config.period.is_zero() {
            return Err(TickConfigError::NoPeriod);
        }
        let falling = config.counter_on_heard >= config.active_from
            && config.active_from >= config.unconfirmed_from
            && config.unconfirmed_from >= config.unresponsive_from
            && config.unresponsive_from >= 1;
        if !falling {
            return Err(TickConfigError::UnorderedBounds);
        }
        Ok(Self {
            config,
            origin: None,
            heard: BTreeMap::new(),
        })
    }

    /// Watches `peer` without the grace of [`watch`](FailureDetector::watch): its counter is 0, it is
    /// [`Verdict::Disconnected`] until it is heard. A peer that is already watched keeps its counter.
    pub fn expect(&mut self, now: Time, peer: ReplicaId) {
        self.origin.get_or_insert(now);
        self.heard.entry(peer).or_insert(None);
    }

    /// What is left of the counter of `peer`; 0 for a peer that is not watched.
    #[must_use]
    pub fn counter(&self, now: Time, peer: ReplicaId) -> u32 {
        self.left(now, self.heard.get(&peer).copied().flatten())
    }

    /// Every watched peer, by id, with its level.
    pub fn verdicts(&self, now: Time) -> impl Iterator<Item = (ReplicaId, Verdict)> + '_ {
        self.heard
            .iter()
            .map(move |(&peer, &heard)| (peer, self.level(self.left(now, heard))))
    }

    /// The first tick after `now`. A program that sends its own heartbeats with the ticks sends one then.
    #[must_use]
    pub fn next_tick(&self, now: Time) -> Time {
        self.time_of(self.ticks_until(now).saturating_add(1))
    }

    fn hear(&mut self, now: Time, peer: ReplicaId) {
        let tick = self.ticks_until(now);
        self.heard.insert(peer, Some(tick));
    }

    fn left(&self, now: Time, heard: Option<u64>) -> u32 {
        let Some(heard) = heard else { return 0 };
        let ticks = self.ticks_until(now).saturating_sub(heard);
        let ticks = u32::try_from(ticks).unwrap_or(u32::MAX);
        self.config.counter_on_heard.saturating_sub(ticks)
    }

    fn level(&self, counter: u32) -> Verdict {
        if counter >= self.config.active_from {
            Verdict::Active
        } else if counter >= self.config.unconfirmed_from {
            Verdict::Unconfirmed
        } else if counter >= self.config.unresponsive_from {
            Verdict::Unresponsive
        } else {
            Verdict::Disconnected
        }
    }

    /// Ticks until a peer with this counter changes its level; `None` when it is disconnected.
    fn ticks_to_next_level(&self, counter: u32) -> Option<u64> {
        let level_from = match self.level(counter) {
            Verdict::Active => self.config.active_from,
            Verdict::Unconfirmed => self.config.unconfirmed_from,
            Verdict::Unresponsive => self.config.unresponsive_from,
            Verdict::Disconnected => return None,
        };
        Some(u64::from(counter - level_from) + 1)
    }

    fn ticks_until(&self, now: Time) -> u64 {
        let since = now - self.origin.unwrap_or(now);
        let ticks = since.as_nanos() / self.config.period.as_nanos();
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }

    fn time_of(&self, tick: u64) -> Time {
        let period = u64::try_from(self.config.period.as_nanos()).unwrap_or(u64::MAX);
        self.origin.unwrap_or_default() + Duration::from_nanos(period.saturating_mul(tick))
    }
}

impl FailureDetector for TickDetector {
    fn watch(&mut self, now: Time, peer: ReplicaId) {
        self.origin.get_or_insert(now);
        self.hear(now, peer);
    }

    fn forget(&mut self, peer: ReplicaId) {
        self.heard.remove(&peer);
    }

    fn on_heard(&mut self, now: Time, peer: ReplicaId) {
        if self.heard.contains_key(&peer) {
            self.hear(now, peer);
        }
    }

    fn on_hint(&mut self, _now: Time, peer: ReplicaId, hint: Hint) {
        match hint {
            Hint::Connected | Hint::Superseded | Hint::Unheard => {}
            Hint::Gone => {
                if let Some(heard) = self.heard.get_mut(&peer) {
                    *heard = None;
                }
            }
        }
    }

    fn tick(&mut self, now: Time) {
        self.origin.get_or_insert(now);
    }

    fn verdict(&self, now: Time, peer: ReplicaId) -> Verdict {
        self.level(self.counter(now, peer))
    }

    fn next_deadline(&self, now: Time) -> Option<Time> {
        let ticks = self
            .heard
            .values()
            .filter_map(|&heard| self.ticks_to_next_level(self.left(now, heard)))
            .min()?;
        Some(self.time_of(self.ticks_until(now).saturating_add(ticks)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: ReplicaId = ReplicaId(1);

    fn ms(n: u64) -> Time {
        Time::from_nanos(n * 1_000_000)
    }

    fn detector() -> TickDetector {
        TickDetector::new(TickConfig::default()).unwrap()
    }

    #[test]
    fn a_peer_that_is_only_expected_starts_disconnected() {
        let mut detector = detector();
        detector.expect(ms(0), PEER);
        assert_eq!(detector.counter(ms(0), PEER), 0);
        assert_eq!(detector.verdict(ms(0), PEER), Verdict::Disconnected);
        assert_eq!(detector.next_deadline(ms(0)), None);
        detector.on_heard(ms(10), PEER);
        assert_eq!(detector.verdict(ms(10), PEER), Verdict::Active);
    }

    #[test]
    fn a_healthy_peer_is_active_right_after_each_tick() {
        let mut detector = detector();
        detector.expect(ms(0), PEER);
        for second in 0..10 {
            detector.on_heard(ms(second * 1000 + 500), PEER);
            let tick = ms(second * 1000 + 1000);
            assert_eq!(detector.counter(tick, PEER), 3);
            assert_eq!(detector.verdict(tick, PEER), Verdict::Active);
        }
    }

    #[test]
    fn silence_for_more_than_two_ticks_is_unresponsive() {
        let mut detector = detector();
        detector.expect(ms(0), PEER);
        detector.on_heard(ms(999), PEER);
        let counters =
            [999, 1000, 1999, 2000, 3000, 4000, 9000].map(|t| detector.counter(ms(t), PEER));
        assert_eq!(counters, [4, 3, 3, 2, 1, 0, 0]);
        assert!(detector.verdict(ms(2999), PEER).is_live());
        assert_eq!(detector.verdict(ms(3000), PEER), Verdict::Unresponsive);
        assert_eq!(detector.verdict(ms(4000), PEER), Verdict::Disconnected);
    }

    #[test]
    fn several_periods_between_two_calls_count_as_several_ticks() {
        let mut detector = detector();
        detector.expect(ms(0), PEER);
        detector.on_heard(ms(0), PEER);
        detector.tick(ms(3500));
        assert_eq!(detector.counter(ms(3500), PEER), 1);
        assert_eq!(detector.next_tick(ms(3500)), ms(4000));
    }

    #[test]
    fn the_thresholds_can_be_changed() {
        let config = TickConfig {
            period: Duration::from_millis(100),
            counter_on_heard: 2,
            active_from: 1,
            unconfirmed_from: 1,
            unresponsive_from: 1,
        };
        let mut detector = TickDetector::new(config).unwrap();
        detector.watch(ms(0), PEER);
        assert_eq!(detector.next_deadline(ms(0)), Some(ms(200)));
        assert_eq!(detector.verdict(ms(199), PEER), Verdict::Active);
        assert_eq!(detector.verdict(ms(200), PEER), Verdict::Disconnected);
    }

    #[test]
    fn a_senseless_configuration_is_refused() {
        let no_period = TickConfig {
            period: Duration::ZERO,
            ..TickConfig::default()
        };
        assert_eq!(
            TickDetector::new(no_period).unwrap_err(),
            TickConfigError::NoPeriod
        );
        let rising = TickConfig {
            unconfirmed_from: 5,
            ..TickConfig::default()
        };
        assert_eq!(
            TickDetector::new(rising).unwrap_err(),
            TickConfigError::UnorderedBounds
        );
    }

    #[test]
    fn the_status_block_lists_every_watched_peer_by_id() {
        let mut detector = detector();
        for id in [3, 1, 2] {
            detector.expect(ms(0), ReplicaId(id));
        }
        detector.on_heard(ms(0), ReplicaId(2));
        detector.on_heard(ms(0), ReplicaId(9)); // not one of ours
        let block: Vec<_> = detector.verdicts(ms(1)).collect();
        assert_eq!(
            block,
            [
                (ReplicaId(1), Verdict::Disconnected),
                (ReplicaId(2), Verdict::Active),
                (ReplicaId(3), Verdict::Disconnected),
            ]
        );
    }

    #[cfg(feature = "testing")]
    #[test]
    fn it_passes_the_conformance_suite() {
        use crate::testing::detector_suite::{Bounds, check};
        let period = Duration::from_secs(1);
        check(
            detector,
            Bounds {
                live_for: 2 * period,
                not_live_after: 3 * period,
                disconnected_after: 4 * period,
            },
        );
    }
}
