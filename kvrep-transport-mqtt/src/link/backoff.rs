//! Waits between attempts to connect: doubling, with jitter, so that a group whose broker restarts does not come in step.

use crate::config::MqttTiming;
use kvrep_core::random::Rng;
use std::time::Duration;

pub(super) struct Backoff {
    attempts: u32,
    min: Duration,
    max: Duration,
    random: Rng,
}

impl Backoff {
    pub(super) fn new(timing: &MqttTiming, seed: u64) -> Self {
        Self {
            attempts: 0,
            min: timing.backoff_min,
            max: timing.backoff_max,
            random: Rng::new(seed),
        }
    }

    pub(super) fn reset(&mut self) {
        self.attempts = 0;
    }

    pub(super) fn next(&mut self) -> Duration {
        let factor = 1_u32 << self.attempts.min(20);
        self.attempts = self.attempts.saturating_add(1);
        self.jitter(self.min.saturating_mul(factor).min(self.max))
    }

    pub(super) fn longest(&mut self) -> Duration {
        self.jitter(self.max)
    }

    /// Between three quarters of the wait and all of it.
    fn jitter(&mut self, wait: Duration) -> Duration {
        let micros = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(micros - self.random.below(micros / 4 + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_start_again_after_a_success() {
        let timing = MqttTiming::default();
        let mut backoff = Backoff::new(&timing, 1);
        let mut at_most = timing.backoff_min;
        for _ in 0..40 {
            let wait = backoff.next();
            assert!(
                wait <= at_most && wait >= at_most * 3 / 4,
                "{wait:?} of {at_most:?}"
            );
            at_most = (at_most * 2).min(timing.backoff_max);
        }
        backoff.reset();
        assert!(backoff.next() <= timing.backoff_min);
        assert!(backoff.longest() >= timing.backoff_max * 3 / 4);
    }
}
