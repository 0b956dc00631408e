//! Waits between attempts.

use crate::random::Rng;
use std::time::Duration;

/// Waits between attempts to connect: doubling up to a longest, with jitter, so that a group that starts at once does not dial in step.
///
/// ```
/// use kvrep_core::backoff::Backoff;
/// use std::time::Duration;
///
/// let (shortest, longest) = (Duration::from_millis(10), Duration::from_secs(1));
/// let mut backoff = Backoff::new(shortest, longest, 7);
/// assert!(backoff.next() <= shortest);
/// assert!(backoff.next() <= 2 * shortest);
/// backoff.reset(); // after a success
/// assert!(backoff.next() <= shortest);
/// ```
#[derive(Clone, Debug)]
pub struct Backoff {
    failures: u32,
    shortest: Duration,
    longest: Duration,
    random: Rng,
}

impl Backoff {
    /// Waits from the shortest to the longest. Those who wait for the same thing take different seeds.
    #[must_use]
    pub fn new(shortest: Duration, longest: Duration, seed: u64) -> Self {
        Self {
            failures: 0,
            shortest,
            longest,
            random: Rng::new(seed),
        }
    }

    /// An attempt succeeded.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// One more attempt failed: how long to wait before the next.
    #[allow(
        clippy::should_implement_trait,
        reason = "an endless source, not an iterator"
    )]
    pub fn next(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.nth(self.failures)
    }

    /// The wait after the `n`th failure in a row, from 1.
    pub fn nth(&mut self, n: u32) -> Duration {
        let factor = 1_u32 << n.saturating_sub(1).min(20);
        self.jitter(self.shortest.saturating_mul(factor).min(self.longest))
    }

    /// The wait after a failure that will not pass soon.
    pub fn longest(&mut self) -> Duration {
        self.jitter(self.longest)
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
    fn waits_double_from_the_shortest_to_the_longest_and_start_again_after_a_success() {
        let (shortest, longest) = (Duration::from_millis(5), Duration::from_secs(1));
        let mut backoff = Backoff::new(shortest, longest, 1);
        let mut at_most = shortest;
        for _ in 0..40 {
            let wait = backoff.next();
            assert!(
                wait <= at_most && wait >= at_most * 3 / 4,
                "{wait:?} of {at_most:?}"
            );
            at_most = (at_most * 2).min(longest);
        }
        assert!(backoff.longest() >= longest * 3 / 4);
        backoff.reset();
        assert!(backoff.next() <= shortest);
    }
}
