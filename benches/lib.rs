//! What the measurements of this package share.

pub mod inprocess;
pub mod load;
pub mod log;
pub mod program;

use criterion::Criterion;
use std::time::Duration;

/// Settings of the micro-benchmarks: short, to be run in passing. `--measurement-time` and the others lengthen them.
#[must_use]
pub fn short() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args()
}
