//! A node's own monotonic clock: it starts anew with each life, somewhere, and may run too fast or too slow.

use crate::random::Rng;
use crate::time::Time;
use std::time::Duration;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clock {
    /// What it shows at the start of this life.
    origin: Duration,
    born: Time,
    /// By how many millionths it runs too fast.
    drift_ppm: i64,
}

impl Clock {
    /// One that starts now, and runs wrong by at most so many millionths.
    pub(super) fn draw(rng: &mut Rng, now: Time, drift_ppm_max: u32) -> Self {
        let origin = Duration::from_nanos(rng.below(1 << 50));
        let most = i64::from(drift_ppm_max);
        let drift_ppm = match drift_ppm_max {
            0 => 0,
            // The bound itself is the hardest.
            _ if rng.one_in(2) => most * if rng.one_in(2) { 1 } else { -1 },
            max => i64::try_from(rng.below(2 * u64::from(max) + 1)).unwrap_or(0) - most,
        };
        Self {
            origin,
            born: now,
            drift_ppm,
        }
    }

    /// What it shows.
    pub(super) fn shows(&self, now: Time) -> Time {
        Time::ZERO + self.origin + scale(now - self.born, self.ticks_a_second(), MILLION)
    }

    /// When it shows `local`.
    pub(super) fn when(&self, local: Time) -> Time {
        let shown = local - (Time::ZERO + self.origin);
        // Not before it shows that.
        let rounding = Duration::from_nanos(u64::from(self.drift_ppm != 0));
        self.born + scale(shown, MILLION, self.ticks_a_second()) + rounding
    }

    /// How many millionths of a second pass on it in a true one.
    fn ticks_a_second(&self) -> u64 {
        MILLION.saturating_add_signed(self.drift_ppm)
    }
}

const MILLION: u64 = 1_000_000;

fn scale(length: Duration, by: u64, of: u64) -> Duration {
    if by == of {
        return length;
    }
    let nanos = length.as_nanos() * u128::from(by) / u128::from(of);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
