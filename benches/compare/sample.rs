//! What one run of one contestant gave, and how latencies are kept while it runs.

use serde::{Deserialize, Serialize};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The result of one run.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Acknowledged writes a second.
    pub(crate) per_s: f64,
    /// Median latency in microseconds.
    pub(crate) p50_us: f64,
    /// 99th percentile of the latency in microseconds.
    pub(crate) p99_us: f64,
}

/// Latencies of all clients of a run. Each client hands over a block at a time, so that the lock costs nothing.
#[derive(Default)]
pub(crate) struct Latencies(Mutex<Histogram>);

impl Latencies {
    /// Takes a block of nanoseconds and empties it.
    pub(crate) fn take(&self, block: &mut Vec<u64>) {
        let mut histogram = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for nanos in block.drain(..) {
            histogram.add(nanos);
        }
    }

    /// The result, measured for `time`.
    pub(crate) fn sample(&self, time: Duration) -> Sample {
        let histogram = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Sample {
            per_s: histogram.count as f64 / time.as_secs_f64(),
            p50_us: histogram.quantile(0.5) / 1e3,
            p99_us: histogram.quantile(0.99) / 1e3,
        }
    }
}

/// Counts of values in buckets whose width grows with the value: 32 to each power of two, so a quantile is right to
/// about 3 %. Its size does not depend on how much is measured.
struct Histogram {
    buckets: Vec<u64>,
    count: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: vec![0; (64 - FINE_BITS as usize + 1) << FINE_BITS],
            count: 0,
        }
    }
}

impl Histogram {
    fn add(&mut self, value: u64) {
        self.buckets[bucket_of(value)] += 1;
        self.count += 1;
    }

    /// The middle of the bucket in which the quantile lies; 0 without values.
    fn quantile(&self, share: f64) -> f64 {
        let rank = (self.count as f64 * share) as u64;
        let mut before = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            before += count;
            if before > rank {
                return (lowest_of(bucket) + lowest_of(bucket + 1)) as f64 / 2.0;
            }
        }
        0.0
    }
}

fn bucket_of(value: u64) -> usize {
    let power = (u64::BITS - value.leading_zeros()).saturating_sub(FINE_BITS + 1);
    ((power as usize) << FINE_BITS) + (value >> power) as usize
}

fn lowest_of(bucket: usize) -> u64 {
    let power = (bucket >> FINE_BITS).saturating_sub(1);
    ((bucket - (power << FINE_BITS)) as u64) << power
}

/// Two to this many buckets for each power of two.
const FINE_BITS: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_the_bucket_that_begins_at_or_below_it() {
        for value in (0..5_000).chain([u64::MAX / 3, 1 << 40]) {
            let bucket = bucket_of(value);
            assert!(lowest_of(bucket) <= value, "{value}");
            assert!(value < lowest_of(bucket + 1), "{value}");
        }
    }

    #[test]
    fn quantiles_are_right_to_three_percent() {
        let latencies = Latencies::default();
        latencies.take(&mut (1..=100_000).map(|us| us * 1_000).collect());
        let sample = latencies.sample(Duration::from_secs(10));
        assert_eq!(sample.per_s, 10_000.0);
        assert!((sample.p50_us / 50_000.0 - 1.0).abs() < 0.03, "{sample:?}");
        assert!((sample.p99_us / 99_000.0 - 1.0).abs() < 0.03, "{sample:?}");
    }
}
