//! The timeline as SVG: throughput above, latency below, kills and takeovers across both.
//!
//! Colours are those of Okabe and Ito, told apart with every kind of colour vision; lines differ in their dashes too.

mod picture;

use super::report::percentile;
use picture::Picture;
use std::collections::BTreeMap;
use std::time::Duration;

/// One run of the demo. Times count from its start.
#[derive(Clone, PartialEq, Debug)]
pub struct Timeline {
    /// The headline.
    pub title: String,
    /// The line below it.
    pub subtitle: String,
    /// Time covered by one bucket; 50–100 ms look best.
    pub bucket_every: Duration,
    /// The buckets, one after the other from the start.
    pub buckets: Vec<Bucket>,
    /// What happened, in any order.
    pub marks: Vec<Mark>,
}

/// What was acknowledged within one bucket's time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bucket {
    /// How many writes.
    pub acknowledged: u64,
    /// Their median and 99th percentile of latency; `None` when there were none.
    pub latency: Option<(Duration, Duration)>,
}

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mark {
    /// When.
    pub at: Duration,
    /// What.
    pub kind: MarkKind,
    /// In a few words, for example `n1 killed`.
    pub label: String,
}

/// Kinds of marks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum MarkKind {
    /// A replica was killed.
    Kill,
    /// Another is primary and acknowledges.
    Takeover,
    /// One that was restarted has caught up.
    CaughtUp,
}

impl Timeline {
    /// Puts acknowledgements, each with its time and its latency, into buckets. Those after `BUCKETS_MAX` buckets are left
    /// out.
    #[must_use]
    pub fn new(
        title: impl Into<String>,
        subtitle: impl Into<String>,
        bucket_every: Duration,
        acknowledgements: impl IntoIterator<Item = (Duration, Duration)>,
        marks: Vec<Mark>,
    ) -> Self {
        let bucket_every = bucket_every.max(Duration::from_millis(1));
        let mut latencies: BTreeMap<usize, Vec<Duration>> = BTreeMap::new();
        for (at, latency) in acknowledgements {
            let bucket = usize::try_from(at.as_nanos() / bucket_every.as_nanos());
            if let Ok(bucket) = bucket
                && bucket < BUCKETS_MAX
            {
                latencies.entry(bucket).or_default().push(latency);
            }
        }
        let count = latencies.last_key_value().map_or(0, |(last, _)| last + 1);
        let mut buckets = vec![Bucket::default(); count];
        for (n, mut latencies) in latencies {
            latencies.sort_unstable();
            buckets[n] = Bucket {
                acknowledged: latencies.len() as u64,
                latency: Some((percentile(&latencies, 50), percentile(&latencies, 99))),
            };
        }
        Self {
            title: title.into(),
            subtitle: subtitle.into(),
            bucket_every,
            buckets,
            marks,
        }
    }

    /// The picture.
    #[must_use]
    pub fn svg(&self) -> String {
        let mut svg = String::new();
        Picture::of(self)
            .write(&mut svg)
            .expect("writing to a string does not fail");
        svg
    }
}

/// Two minutes of buckets of 50 ms.
const BUCKETS_MAX: usize = 2_400;

#[cfg(test)]
mod tests;
