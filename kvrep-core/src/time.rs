//! Time as an input. Protocols never read a clock; the driver (or the simulator) tells them what time it is.
//!
//! Two clocks, never mixed: [`Time`] measures waits at one node and is never sent; [`Timestamp`] is the date that the
//! primary writes into an entry, for the state machine and for the expiry of sessions, and decides nothing else.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// A moment of one node's monotonic clock: nanoseconds since an origin of the driver's choice. Never sent to others.
///
/// ```
/// use kvrep_core::Time;
/// use std::time::Duration;
/// let t = Time::ZERO + Duration::from_millis(5);
/// assert_eq!(t - Time::ZERO, Duration::from_millis(5));
/// assert_eq!(Time::ZERO - t, Duration::ZERO); // never negative
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(u64);

impl Time {
    /// The origin.
    pub const ZERO: Self = Self(0);

    /// `nanos` nanoseconds after the origin.
    #[must_use]
    pub fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    #[must_use]
    pub fn as_nanos(self) -> u64 {
        self.0
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, d: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub for Time {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}s", self.0 as f64 / 1e9)
    }
}

/// The primary's wall clock as it is replicated with an entry: microseconds since the Unix epoch. The scheme makes
/// it monotonic along the log, whatever the clocks do.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
pub struct Timestamp(pub u64);
