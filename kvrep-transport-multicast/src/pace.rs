//! How fast is sent: a bucket that fills evenly and holds one burst.
//!
//! A receiver of datagrams cannot say that it does not follow, and what does not fit into its buffer is lost without a word. So nobody sends more at a time, or
//! faster, than is set.

use std::time::{Duration, Instant};

#[derive(Debug)]
pub(crate) struct Pace {
    bytes_per_second: u64,
    burst: u64,
    /// What may be sent now.
    left: u64,
    filled: Instant,
}

impl Pace {
    pub(crate) fn new(now: Instant, bytes_per_second: u64, burst: u64) -> Self {
        Self {
            bytes_per_second,
            burst,
            left: burst,
            filled: now,
        }
    }

    /// Takes so much, if it is there.
    pub(crate) fn take(&mut self, now: Instant, bytes: u64) -> bool {
        if self.left < bytes {
            self.fill(now);
        }
        if self.left < bytes {
            return false;
        }
        self.left -= bytes;
        true
    }

    /// How long until so much will be there.
    pub(crate) fn wait_for(&self, bytes: u64) -> Duration {
        let lacking = bytes.min(self.burst).saturating_sub(self.left);
        let nanos = u128::from(lacking) * 1_000_000_000 / u128::from(self.bytes_per_second);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled).as_nanos();
        let more = passed * u128::from(self.bytes_per_second) / 1_000_000_000;
        let more = u64::try_from(more).unwrap_or(u64::MAX);
        if more > 0 {
            self.filled = now;
            self.left = self.left.saturating_add(more).min(self.burst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_then_as_much_as_comes_in() {
        let start = Instant::now();
        let mut pace = Pace::new(start, 1_000, 100);
        assert!(pace.take(start, 60) && pace.take(start, 40) && !pace.take(start, 1));
        assert_eq!(pace.wait_for(50), Duration::from_millis(50));
        let later = start + Duration::from_millis(50);
        assert!(pace.take(later, 50) && !pace.take(later, 1));
        // What was not used is not saved up beyond one burst.
        let much_later = start + Duration::from_secs(100);
        assert!(pace.take(much_later, 100) && !pace.take(much_later, 1));
    }
}
