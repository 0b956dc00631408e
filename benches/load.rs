//! Clients that each wait for their answer before they write again, and what came of it.

use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How contestants take their turns.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Turns {
    /// How often each contestant has its turn
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Milliseconds of a turn that are measured
    #[arg(long, value_name = "MS", default_value_t = 1_500, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    measure_ms: u64,
}

impl Turns {
    /// The plan for so many concurrent clients.
    #[must_use]
    pub fn plan(&self, clients: u32) -> Plan {
        Plan {
            clients,
            rounds: self.rounds,
            warm_up: Duration::from_millis(300),
            measure: Duration::from_millis(self.measure_ms),
        }
    }
}

/// How a system is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Concurrent clients.
    pub clients: u32,
    /// Turns of each contestant.
    pub rounds: u32,
    /// Load before a turn is measured.
    pub warm_up: Duration,
    /// How long it is measured.
    pub measure: Duration,
}

/// One client.
pub trait Caller: Send + 'static {
    /// Writes once, and returns when that is acknowledged.
    fn call(&mut self) -> impl Future<Output = Result<(), String>> + Send;
}

/// What one turn gave.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Acknowledged writes a second.
    pub per_s: f64,
    /// Median latency.
    pub p50: Duration,
    /// 99th percentile of the latency.
    pub p99: Duration,
}

/// Lets all of them write for a turn.
pub async fn turn<C: Caller>(callers: Vec<C>, plan: &Plan) -> Result<Sample, String> {
    let begin = Instant::now() + plan.warm_up;
    let end = begin + plan.measure;
    let mut tasks = JoinSet::new();
    for mut caller in callers {
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            loop {
                let asked = Instant::now();
                caller.call().await?;
                let answered = Instant::now();
                if answered >= end {
                    return Ok::<_, String>(latencies);
                }
                if asked >= begin {
                    latencies.push(answered - asked);
                }
            }
        });
    }
    let mut all: Vec<Duration> = Vec::new();
    while let Some(latencies) = tasks.join_next().await {
        all.extend(latencies.map_err(|e| e.to_string())??);
    }
    all.sort_unstable();
    let quantile = |share: f64| {
        let at = (all.len() as f64 * share) as usize;
        all.get(at).copied().ok_or("nothing was answered in time")
    };
    Ok(Sample {
        per_s: all.len() as f64 / plan.measure.as_secs_f64(),
        p50: quantile(0.5)?,
        p99: quantile(0.99)?,
    })
}

/// The turn in the middle, by throughput.
pub fn median(mut turns: Vec<Sample>) -> Option<Sample> {
    turns.sort_by(|a, b| a.per_s.total_cmp(&b.per_s));
    turns.get(turns.len() / 2).copied()
}

/// The turn with the lowest median latency: the one that other work on this machine disturbed least.
pub fn calmest(turns: Vec<Sample>) -> Option<Sample> {
    turns.into_iter().min_by_key(|turn| turn.p50)
}

/// A row of the table that is printed.
pub fn row(name: &str, sample: &Sample, beside: Option<&Sample>) -> String {
    let share = beside.map_or_else(String::new, |bare| {
        format!("{:>6.0} %", 100.0 * sample.per_s / bare.per_s)
    });
    format!(
        "{name:<44} {:>9.0}/s   p50 {:>8.3} ms   p99 {:>8.3} ms {share}",
        sample.per_s,
        millis(sample.p50),
        millis(sample.p99)
    )
}

/// For people.
pub fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
