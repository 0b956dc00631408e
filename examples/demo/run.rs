//! The story: start the group, load, kill the primary again and again, bring it back, verify.

use super::catalog::Asked;
use super::load::{Input, Load, Recorded};
use super::member::client_link;
use super::pair::{Fault, Order, Pair, Scheme};
use super::plot::{Mark, MarkKind, Timeline};
use super::processes::{Group, GroupError};
use super::report::{CatchUp, Check, Outcome, Report, Takeover, percentile};
use super::verify::verify;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kvrep_core::ReplicaId;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// What a run is made of.
#[derive(Debug)]
pub struct Plan {
    /// What is loaded, for people.
    pub input_name: String,
    /// Replica processes.
    pub replicas: u32,
    /// Who replicates how, over what.
    pub pair: Pair,
    /// How often the primary is taken away.
    pub kills: u32,
    /// How.
    pub fault: Fault,
    /// Concurrent clients.
    pub clients: u64,
    /// Where logs and data go.
    pub directory: PathBuf,
    /// Where the timeline goes.
    pub timeline: PathBuf,
}

/// Everything together may take this long.
const LOAD_WITHIN: Duration = Duration::from_secs(45);
const GROUP_WITHIN: Duration = Duration::from_secs(15);
/// How long a primary stays away.
const AWAY: Duration = Duration::from_millis(250);

/// Plays the story and reports.
///
/// # Errors
/// When the group cannot be started or does not do what it must in time. The group's processes have ended then.
pub async fn run(plan: &Plan, input: Input) -> Result<Report, String> {
    let input = Arc::new(input);
    let mut group =
        Group::start(&plan.directory, plan.replicas, plan.pair).map_err(|e| e.to_string())?;
    group
        .complete(GROUP_WITHIN)
        .await
        .map_err(|e| e.to_string())?;

    let records = input.records.len() as u64;
    let bar = progress_bar(records);
    let link = || client_link(plan.pair, group.carrier());
    let mut load = Load::start(&input, plan.clients, link);
    let mut chaos = Chaos::default();
    let deadline = load.began() + LOAD_WITHIN;
    for kill in 1..=plan.kills {
        let due = records * u64::from(kill) / u64::from(plan.kills + 1);
        loaded(&load, due, deadline, &bar).await?;
        chaos
            .strike(plan, &mut group, &mut load, &bar)
            .await
            .map_err(|e| e.to_string())?;
    }
    loaded(&load, records, deadline, &bar).await?;
    let (recorded, token) = load.finish().await?;
    bar.set_message("verifying");
    group
        .complete(GROUP_WITHIN)
        .await
        .map_err(|e| e.to_string())?;
    let mut checks = verify(&group, &input, &recorded, token).await?;
    if plan.kills > 0 {
        checks.push(every_kill_was_survived(plan, &chaos));
    }
    bar.finish_and_clear();
    group.stop().await;
    report(plan, &input, &recorded, chaos, checks)
}

/// Waits until so many writes are acknowledged.
async fn loaded(
    load: &Load,
    records: u64,
    deadline: Instant,
    bar: &ProgressBar,
) -> Result<(), String> {
    loop {
        let acknowledged = load.acknowledged();
        bar.set_position(acknowledged.min(bar.length().unwrap_or(u64::MAX)));
        if acknowledged >= records {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(format!(
                "only {acknowledged} writes were acknowledged within {LOAD_WITHIN:?}; use a smaller input or fewer kills"
            ));
        }
        sleep(Duration::from_millis(2)).await;
    }
}

/// What was done to the group, and when.
#[derive(Default)]
struct Chaos {
    takeovers: Vec<Takeover>,
    catch_ups: Vec<CatchUp>,
    marks: Vec<Mark>,
}

impl Chaos {
    /// Takes the primary away, or a replica where there is none; waits until the others do its work; brings it back.
    async fn strike(
        &mut self,
        plan: &Plan,
        group: &mut Group,
        load: &mut Load,
        bar: &ProgressBar,
    ) -> Result<(), GroupError> {
        // Never the last copy: all must count before one is taken away.
        let (serving, standing) = group.complete(GROUP_WITHIN).await?;
        let old = match plan.pair.order() {
            Order::Primary => serving,
            Order::Log => group.sequencer(GROUP_WITHIN).await?,
            Order::Broker => self.next_in_turn(group),
        };
        let began = load.began();
        bar.set_message(format!("taking away {old}"));
        let (at, cut) = match plan.fault {
            Fault::Kill => (group.kill(old).await?, None),
            Fault::Cut => {
                let at = Instant::now();
                (at, Some(group.cut_off(old)?))
            }
        };
        let verb = match plan.fault {
            Fault::Kill => "killed",
            Fault::Cut => "cut off",
        };
        self.mark(at - began, MarkKind::Kill, format!("{old} {verb}"));
        let next = match plan.pair.scheme {
            Scheme::Passive => load.acknowledged_beyond(standing.term, GROUP_WITHIN).await,
            Scheme::Active => {
                group.without(old, GROUP_WITHIN).await?;
                load.answered_up_to_now(GROUP_WITHIN).await
            }
        };
        let next = next.ok_or_else(|| group.late("a takeover", GROUP_WITHIN))?;
        let new: Vec<String> = (group.without(old, GROUP_WITHIN).await?.iter())
            .map(ToString::to_string)
            .collect();
        let new = new.join(", ");
        let words = plan.pair.words();
        self.mark(
            next - began,
            MarkKind::Takeover,
            format!("{new} {}", words.mark),
        );
        self.takeovers.push(Takeover {
            from: old.to_string(),
            to: new.clone(),
            after: next - at,
        });
        bar.set_message(format!("{new} took over"));
        sleep(AWAY).await;
        drop(cut);
        let back = Instant::now();
        if plan.fault == Fault::Kill {
            group.launch(old)?;
        }
        group.complete(GROUP_WITHIN).await?;
        self.mark(began.elapsed(), MarkKind::CaughtUp, format!("{old} back"));
        self.catch_ups.push(CatchUp {
            replica: old.to_string(),
            after: back.elapsed(),
        });
        bar.set_message(String::new());
        Ok(())
    }

    /// One after the other.
    fn next_in_turn(&self, group: &Group) -> ReplicaId {
        let replicas: Vec<ReplicaId> = group.replicas().collect();
        replicas[self.takeovers.len() % replicas.len()]
    }

    fn mark(&mut self, at: Duration, kind: MarkKind, label: String) {
        self.marks.push(Mark { at, kind, label });
    }
}

fn every_kill_was_survived(plan: &Plan, chaos: &Chaos) -> Check {
    let survived = chaos.takeovers.len();
    Check {
        claim: plan.pair.words().survived.into(),
        outcome: if survived == plan.kills as usize {
            Outcome::Holds
        } else {
            Outcome::Fails
        },
        detail: format!("{survived} of {} times", plan.kills),
    }
}

fn report(
    plan: &Plan,
    input: &Input,
    recorded: &[Recorded],
    chaos: Chaos,
    checks: Vec<Check>,
) -> Result<Report, String> {
    let acknowledgements: Vec<(Duration, Duration)> = recorded
        .iter()
        .filter(|r| matches!(r.asked, Asked::Put(..)))
        .filter_map(|r| r.told.map(|(at, _)| (at, at.saturating_sub(r.invoked))))
        .collect();
    let mut latencies: Vec<Duration> = acknowledgements.iter().map(|(_, l)| *l).collect();
    latencies.sort_unstable();
    let elapsed = acknowledgements.iter().map(|(at, _)| *at).max();
    let title = format!("{} replicas, {} clients", plan.replicas, plan.clients);
    let subtitle = format!("{}, {}", plan.input_name, plan.pair.described());
    let every = Duration::from_millis(50);
    let acknowledged = acknowledgements.len() as u64;
    let picture = Timeline::new(title, subtitle, every, acknowledgements, chaos.marks).svg();
    std::fs::write(&plan.timeline, picture).map_err(|e| {
        format!(
            "cannot write {}: {e}; choose another --timeline",
            plan.timeline.display()
        )
    })?;
    Ok(Report {
        input: plan.input_name.clone(),
        replicas: plan.replicas as usize,
        pair: plan.pair,
        records: input.records.len() as u64,
        acknowledged,
        elapsed: elapsed.unwrap_or_default(),
        latency_p50: percentile(&latencies, 50),
        latency_p99: percentile(&latencies, 99),
        takeovers: chaos.takeovers,
        catch_ups: chaos.catch_ups,
        checks,
        timeline: Some(plan.timeline.clone()),
    })
}

fn progress_bar(records: u64) -> ProgressBar {
    // Not drawn where standard error is no terminal.
    let bar = ProgressBar::with_draw_target(Some(records), ProgressDrawTarget::stderr());
    let style = "{bar:40} {pos}/{len} records {per_sec} {msg}";
    bar.set_style(
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    bar
}
