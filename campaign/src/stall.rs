//! A backup is stopped under load: what do clients notice, and what does the primary pile up?
//!
//! Expected: writes wait until the detector's timeout, then the backup is dropped and everything goes on as before;
//! the primary's memory stays flat, for what is in flight to a backup is bounded. What is judged: the longest time that
//! any write or linearizable read took around the stop is at most the timeout and 50 ms, and memory grew by at most 32 MiB.

use crate::args::ConfirmArg;
use crate::group::{Group, Plan, authority_word};
use crate::load::{Ended, Freshness, Load, Recorded, Workload};
use crate::memory::{Watch, most};
use crate::network::Kind;
use crate::serve::Scale;
use kvrep_core::Authority;
use rustix::process::Signal;
use serde::Serialize;
use std::path::Path;
use std::time::Duration;
use tokio::time::sleep;

/// How it is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stall {
    pub(crate) authority: Authority,
    pub(crate) clients: u64,
    pub(crate) suspect_after: Duration,
    /// Before the stop, during it, and after everybody is in sync again.
    pub(crate) each: Duration,
}

/// What was seen.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Stalled {
    pub(crate) authority: String,
    pub(crate) clients: u64,
    pub(crate) suspect_after_ms: u64,
    pub(crate) stopped_ms: u64,
    pub(crate) answered_per_second_before: u64,
    pub(crate) answered_per_second_after: u64,
    pub(crate) p99_before_ms: f64,
    pub(crate) p99_while_stopped_ms: f64,
    pub(crate) p99_after_ms: f64,
    pub(crate) longest_before_ms: f64,
    pub(crate) longest_at_the_stop_ms: f64,
    pub(crate) resident_before_bytes: u64,
    pub(crate) resident_while_stopped_bytes: u64,
    pub(crate) resident_after_bytes: u64,
    pub(crate) violations: Vec<String>,
}

const SETTLED_WITHIN: Duration = Duration::from_secs(30);
/// Beyond the detector's timeout.
const STALL_SLACK: Duration = Duration::from_millis(50);
const GROWTH_BYTES_MAX: u64 = 32 << 20;

impl Stall {
    /// Does it once.
    ///
    /// # Errors
    /// When it could not run.
    pub(crate) async fn run(&self, directory: &Path) -> Result<Stalled, String> {
        let mut group = Group::new(Plan {
            directory: directory.to_owned(),
            replicas: 3,
            authority: self.authority,
            network: Kind::Loopback,
            suspect_after: self.suspect_after,
            confirm: ConfirmArg::Round,
            scale: Scale::Steady,
        })?;
        group.start()?;
        let (primary, _) = group.in_sync(SETTLED_WITHIN).await?;
        let backups = group.replicas().into_iter().find(|id| *id != primary);
        let backup = backups.ok_or("a group of one has no backup")?;
        let pid = group.pid(primary).ok_or("the primary does not run")?;
        let workload = Workload {
            clients: self.clients,
            pause: Duration::ZERO,
            deadline: Duration::from_secs(10),
            padding_bytes: 256,
            seed: 1,
        };
        let load = Load::start(workload, &group.client_addresses());
        let watch = Watch::start(pid, load.began());
        // The log grows to its bound first.
        sleep(2 * self.each).await;
        let stop = load.began().elapsed();
        group.signal(backup, Signal::STOP)?;
        sleep(self.each).await;
        let go_on = load.began().elapsed();
        group.signal(backup, Signal::CONT)?;
        group.in_sync(SETTLED_WITHIN).await?;
        let settled = load.began().elapsed();
        sleep(self.each).await;
        let end = load.began().elapsed();
        let recorded = load.finish().await?;
        let seen = watch.finish().await?;
        group.stop().await;

        let from = stop.saturating_sub(self.each);
        let before = latencies(&recorded, from, stop);
        // Whatever was under way at any time of the stop.
        let stalled = latencies(
            &recorded,
            stop.saturating_sub(Duration::from_secs(1)),
            go_on,
        );
        let after = latencies(&recorded, settled, end);
        let longest = stalled.last().copied().unwrap_or_default();
        let resident =
            [(from, stop), (stop, go_on), (settled, end)].map(|(a, b)| most(&seen, a, b));
        let mut violations = Vec::new();
        let allowed = self.suspect_after + STALL_SLACK;
        if longest > allowed {
            violations.push(format!(
                "an operation took {longest:?}; at most {allowed:?} is allowed"
            ));
        }
        if resident[1] > resident[0] + GROWTH_BYTES_MAX {
            violations.push(format!(
                "the primary's memory grew from {} to {} MiB",
                resident[0] >> 20,
                resident[1] >> 20
            ));
        }
        let per_second = |count: usize, time: Duration| (count as f64 / time.as_secs_f64()) as u64;
        Ok(Stalled {
            authority: authority_word(self.authority).into(),
            clients: self.clients,
            suspect_after_ms: self.suspect_after.as_millis() as u64,
            stopped_ms: (go_on - stop).as_millis() as u64,
            answered_per_second_before: per_second(before.len(), stop - from),
            answered_per_second_after: per_second(after.len(), end - settled),
            p99_before_ms: p99(&before),
            p99_while_stopped_ms: p99(&latencies(&recorded, stop, go_on)),
            p99_after_ms: p99(&after),
            longest_before_ms: ms(before.last().copied().unwrap_or_default()),
            longest_at_the_stop_ms: ms(longest),
            resident_before_bytes: resident[0],
            resident_while_stopped_bytes: resident[1],
            resident_after_bytes: resident[2],
            violations,
        })
    }
}

/// How long the operations that began in this time took, in order; one without an answer took until the end.
fn latencies(recorded: &[Recorded], from: Duration, to: Duration) -> Vec<Duration> {
    let within = recorded.iter().filter(|r| (from..to).contains(&r.invoked));
    // A read that any replica may answer may be waiting at the stopped one itself, until its client asks another.
    let within = within.filter(|r| r.freshness == Freshness::Linearizable);
    let mut all: Vec<Duration> = within
        .map(|operation| match &operation.ended {
            Ended::Answered(answered) => answered.at - operation.invoked,
            Ended::Unknown | Ended::Refused => Duration::from_secs(10),
        })
        .collect();
    all.sort_unstable();
    all
}

fn p99(sorted: &[Duration]) -> f64 {
    ms(sorted
        .get(sorted.len() * 99 / 100)
        .copied()
        .unwrap_or_default())
}

fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// For people.
pub(crate) fn text(s: &Stalled) -> String {
    let mib = |bytes: u64| bytes >> 20;
    let verdict = if s.violations.is_empty() {
        "held".into()
    } else {
        s.violations.join("; ")
    };
    format!(
        "{} authority, {} clients, detector's timeout {} ms, a backup stopped for {} ms\n\
         operations per second   {} before, {} after\n\
         p99                     {} ms before, {} ms while stopped, {} ms after\n\
         longest operation       {} ms before, {} ms at the stop\n\
         primary's memory        {} MiB before, {} MiB while stopped, {} MiB after\n\
         verdict                 {verdict}",
        s.authority,
        s.clients,
        s.suspect_after_ms,
        s.stopped_ms,
        s.answered_per_second_before,
        s.answered_per_second_after,
        s.p99_before_ms,
        s.p99_while_stopped_ms,
        s.p99_after_ms,
        s.longest_before_ms,
        s.longest_at_the_stop_ms,
        mib(s.resident_before_bytes),
        mib(s.resident_while_stopped_bytes),
        mib(s.resident_after_bytes),
    )
}
