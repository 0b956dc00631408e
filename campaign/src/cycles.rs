//! One campaign: a group, its clients, one kind of fault again and again, and the judgement.

use crate::args::ConfirmArg;
use crate::fault::{Class, Disks, Fault, Outcome, strike};
use crate::group::{Group, Plan};
use crate::load::{Ended, Load, Recorded, Workload};
use crate::network::Kind;
use crate::report::{Row, Summary};
use crate::serve::Scale;
use crate::verdict::{Promise, copies, lost, violations};
use indicatif::ProgressBar;
use kvrep_core::random::Rng;
use kvrep_core::{Authority, Term};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// What is to be done.
#[derive(Clone, Debug)]
pub(crate) struct Campaign {
    pub(crate) authority: Authority,
    pub(crate) fault: Fault,
    pub(crate) cycles: u32,
    pub(crate) clients: u64,
    pub(crate) suspect_after: Duration,
    pub(crate) confirm: ConfirmArg,
    pub(crate) seed: u64,
    pub(crate) verbose: Verbosity,
}

/// Whether every cycle is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verbosity {
    Quiet,
    Cycles,
}

/// For everybody to be in sync again.
const HEALED_WITHIN: Duration = Duration::from_secs(30);

struct Strike {
    at: Duration,
    /// The primary's term, if it was the one that was struck or might have been.
    term: Term,
}

impl Campaign {
    /// What the scheme promises under this fault.
    pub(crate) fn promise(&self) -> Promise {
        match (self.authority, self.fault.class()) {
            (Authority::Alone, Class::Silence) => Promise::Reported,
            _ => Promise::Linearizable,
        }
    }

    /// Plays it. The data, logs and history of a campaign that fails stay in `directory`.
    ///
    /// # Errors
    /// When it could not run.
    pub(crate) async fn run(&self, directory: &Path, bar: &ProgressBar) -> Result<Row, String> {
        let network = if self.fault.needs_namespaces() {
            Kind::Namespaces
        } else {
            Kind::Loopback
        };
        let mut group = Group::new(Plan {
            directory: directory.to_owned(),
            replicas: 3,
            authority: self.authority,
            network,
            suspect_after: self.suspect_after,
            confirm: self.confirm,
            scale: Scale::Campaign,
        })?;
        let disks = match self.fault {
            Fault::FullDisk => Some(Disks::mount(&group)?),
            _ => None,
        };
        group.start()?;
        group.in_sync(HEALED_WITHIN).await?;
        let workload = Workload {
            clients: self.clients,
            pause: Duration::from_millis(4),
            deadline: Duration::from_secs(3),
            padding_bytes: 0,
            seed: self.seed,
        };
        let began = Instant::now();
        let load = Load::start(workload, &group.client_addresses());
        let (strikes, stopped) = self.cycles(&mut group, &load, bar).await?;
        let counted = load.counted();
        let summary = Summary {
            answered: counted.answered.load(Ordering::Relaxed),
            unknown: counted.unknown.load(Ordering::Relaxed),
            refused: counted.refused.load(Ordering::Relaxed),
        };
        let recorded = load.finish().await?;
        let mut wrong: Vec<String> = stopped.into_iter().collect();
        let mut missing = 0;
        match copies(&group, HEALED_WITHIN).await {
            Ok(copies) => {
                missing = lost(&recorded, &copies);
                wrong.extend(violations(
                    self.promise(),
                    &recorded,
                    &copies,
                    &group.told()?,
                ));
            }
            Err(why) => wrong.push(why),
        }
        group.stop().await;
        drop(group);
        let kept = if wrong.is_empty() {
            None
        } else {
            Some(keep(directory, &recorded, &wrong, disks)?)
        };
        Ok(Row {
            authority: crate::group::authority_word(self.authority).into(),
            fault: self.fault.word().into(),
            reads: self.confirm.word().into(),
            cycles: self.cycles,
            struck: strikes.len(),
            operations: summary,
            takeovers: takeovers(&strikes, &recorded),
            lost: missing,
            promise: self.promise().word().into(),
            violations: wrong,
            kept,
            took: began.elapsed(),
        })
    }

    /// The strikes, and why they ended early.
    async fn cycles(
        &self,
        group: &mut Group,
        load: &Load,
        bar: &ProgressBar,
    ) -> Result<(Vec<Strike>, Option<String>), String> {
        let mut random = Rng::new(self.seed);
        let mut strikes = Vec::new();
        let mut answered = 0;
        for cycle in 1..=self.cycles {
            // Never the last copy: all must count before one is struck.
            let (primary, status) = match group.in_sync(HEALED_WITHIN).await {
                Ok(found) => found,
                Err(why) => return Ok((strikes, Some(format!("before cycle {cycle}: {why}")))),
            };
            // Something is under way, and something was done since the last one.
            if !served(load, answered + 20).await {
                let why = format!("before cycle {cycle}: no operation is answered any more");
                return Ok((strikes, Some(why)));
            }
            sleep(Duration::from_millis(random.below(150))).await;
            answered = load.counted().answered.load(Ordering::Relaxed);
            let at = load.began().elapsed();
            let done = strike(self.fault, group, primary, &mut random).await?;
            if self.verbose == Verbosity::Cycles {
                let now = load.counted().answered.load(Ordering::Relaxed);
                bar.suspend(|| {
                    println!(
                        "{} {} cycle {cycle}: {} ({:?}), {} answered meanwhile",
                        crate::group::authority_word(self.authority),
                        self.fault.word(),
                        done.what,
                        done.outcome,
                        now - answered
                    );
                });
            }
            if done.outcome == Outcome::Struck {
                let term = status.term;
                strikes.push(Strike { at, term });
            }
            bar.inc(1);
        }
        Ok((strikes, None))
    }
}

/// Waits until so many operations are answered in all.
async fn served(load: &Load, operations: u64) -> bool {
    let deadline = Instant::now() + HEALED_WITHIN;
    while load.counted().answered.load(Ordering::Relaxed) < operations {
        if Instant::now() >= deadline {
            return false;
        }
        sleep(Duration::from_millis(5)).await;
    }
    true
}

/// From each strike that ended a reign to the first acknowledgement of the next one.
fn takeovers(strikes: &[Strike], recorded: &[Recorded]) -> Vec<Duration> {
    let mut acknowledged: Vec<(Duration, Term)> = recorded
        .iter()
        .filter_map(|operation| match &operation.ended {
            Ended::Answered(answered) => Some((answered.at, answered.term)),
            Ended::Unknown | Ended::Refused => None,
        })
        .collect();
    acknowledged.sort_unstable();
    let ends = strikes
        .iter()
        .skip(1)
        .map(|next| next.at)
        .chain([Duration::MAX]);
    let mut found: Vec<Duration> = strikes
        .iter()
        .zip(ends)
        .filter_map(|(strike, end)| {
            let first = acknowledged.partition_point(|(at, _)| *at < strike.at);
            let mut later = acknowledged[first..].iter().take_while(|(at, _)| *at < end);
            let (at, _) = later.find(|(_, term)| *term > strike.term)?;
            Some(*at - strike.at)
        })
        .collect();
    found.sort_unstable();
    found
}

/// Writes the history beside the processes' data and logs.
fn keep(
    directory: &Path,
    recorded: &[Recorded],
    wrong: &[String],
    disks: Option<Disks>,
) -> Result<PathBuf, String> {
    let mut text = String::new();
    for why in wrong {
        let _ = writeln!(text, "# {why}");
    }
    for operation in recorded {
        let _ = writeln!(text, "{operation:?}");
    }
    let path = directory.join("history");
    std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    if let Some(disks) = disks {
        disks.leave_mounted();
    }
    Ok(directory.to_owned())
}
