//! The turns: every contestant of a section runs once a round, each round begins with another one.

use crate::args::{Args, Section};
use crate::field::{self, Contestant};
use crate::load::Target;
use crate::processes::{Medium, Servers, kvrep_is_whole, own_program};
use crate::report::{Measured, Report, Row, Table};
use crate::sample::Sample;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;

/// Measures what was asked for.
pub(crate) async fn run(args: &Args) -> Result<Report, String> {
    let dir = data_dir(args)?;
    let turns: u64 = args.sections().iter().map(|s| turns(args, *s)).sum();
    let bar = ProgressBar::new(turns).with_style(
        ProgressStyle::with_template("{bar:30} {pos}/{len} {eta} left, {msg}")
            .map_err(|e| e.to_string())?,
    );
    bar.enable_steady_tick(Duration::from_millis(500));
    let mut tables = Vec::new();
    for section in args.sections() {
        let dir = dir.path().join(section.name());
        tables.push(table(args, section, &dir, &bar).await?);
    }
    bar.finish_and_clear();
    Report::new(args, dir.path(), tables)
}

/// A directory that is gone afterwards.
fn data_dir(args: &Args) -> Result<TempDir, String> {
    let parent = match &args.dir {
        Some(dir) => dir.clone(),
        None => own_program()?
            .parent()
            .map(PathBuf::from)
            .unwrap_or_default(),
    };
    let made = tempfile::Builder::new()
        .prefix("compare-")
        .tempdir_in(&parent);
    made.map_err(|e| format!("{}: {e}. Choose another with --dir", parent.display()))
}

fn turns(args: &Args, section: Section) -> u64 {
    let present = field::contestants(section)
        .into_iter()
        .filter(|c| c.absent().is_none());
    let clients = args.clients_in(section);
    let rows: usize = present
        .map(|c| {
            clients
                .iter()
                .filter(|clients| **clients <= c.clients_max)
                .count()
        })
        .sum();
    (rows * args.workers_in(section).len()) as u64 * u64::from(args.rounds)
}

/// A contestant with its servers.
struct Entrant {
    contestant: Contestant,
    state: State,
    rows: Vec<Row>,
}

enum State {
    Ready(Option<Servers>),
    /// Not here, or failed: why.
    Out(String),
}

async fn table(
    args: &Args,
    section: Section,
    dir: &Path,
    bar: &ProgressBar,
) -> Result<Table, String> {
    let medium = match section {
        Section::InProcess | Section::TcpMemory => Medium::Memory,
        Section::TcpDurable => Medium::Disk,
    };
    let mut entrants = Vec::new();
    for contestant in field::contestants(section) {
        bar.set_message(format!("starting {}", contestant.name));
        let state = match contestant.absent() {
            Some(why) => State::Out(why),
            None => match contestant.start(dir, medium).await {
                Ok(servers) => State::Ready(servers),
                Err(why) => State::Out(why),
            },
        };
        let rows = Vec::new();
        entrants.push(Entrant {
            contestant,
            state,
            rows,
        });
    }
    for clients in args.clients_in(section) {
        for entrant in &mut entrants {
            for workers in args.workers_in(section) {
                entrant
                    .rows
                    .push(Row::new(&entrant.contestant, clients, workers));
            }
        }
        for round in 0..args.rounds as usize {
            for turn in 0..entrants.len() {
                let at = (round + turn) % entrants.len();
                let entrant = &mut entrants[at];
                if clients > entrant.contestant.clients_max {
                    continue;
                }
                bar.set_message(format!(
                    "{} {} with {clients} clients",
                    section.name(),
                    entrant.contestant.name
                ));
                for workers in args.workers_in(section) {
                    entrant.turn(args, clients, workers).await;
                    bar.inc(1);
                }
            }
        }
    }
    let mut rows = Vec::new();
    for entrant in entrants {
        rows.extend(entrant.rows);
        if let State::Ready(Some(servers)) = entrant.state {
            servers.stop().await;
        }
    }
    rows.retain(|row| row.clients <= row.clients_max);
    // A stable sort: within a number of clients the contestants keep their order.
    rows.sort_by_key(|row| row.clients);
    Ok(Table::new(section, rows))
}

impl Entrant {
    /// One run. One that fails puts the contestant out, with the reason: its figures would mean nothing.
    async fn turn(&mut self, args: &Args, clients: u32, workers: Option<u32>) {
        let mut rows = self.rows.iter_mut().rev();
        let Some(row) = rows.find(|row| row.clients == clients && row.workers == workers) else {
            return;
        };
        let servers = match &self.state {
            State::Ready(servers) => servers.as_ref(),
            State::Out(why) => {
                row.measured = Measured::Not(why.clone());
                return;
            }
        };
        match run_clients(args, self.contestant.target, (clients, workers), servers).await {
            Ok(sample) => row.add(sample),
            Err(why) => {
                row.measured = Measured::Not(why.clone());
                self.state = State::Out(why);
            }
        }
    }
}

async fn run_clients(
    args: &Args,
    target: Target,
    (clients, workers): (u32, Option<u32>),
    servers: Option<&Servers>,
) -> Result<Sample, String> {
    let measure = Duration::from_secs_f64(args.seconds);
    let mut command = Command::new(own_program()?);
    command
        .args(["load", target.name()])
        .args(["--clients", &clients.to_string()])
        .args(["--measure-ms", &measure.as_millis().to_string()])
        .args(["--warm-up-ms", &WARM_UP.as_millis().to_string()]);
    if let Some(workers) = workers {
        command.args(["--workers", &workers.to_string()]);
    }
    if let Some(servers) = servers {
        command.args(["--at", &servers.addresses.join(",")]);
    }
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| format!("cannot start the clients: {e}"))?;
    let limit = WARM_UP + measure + RUN_SLACK;
    let output = timeout(limit, child.wait_with_output())
        .await
        .map_err(|_| "the clients did not end in time".to_owned())?
        .map_err(|e| format!("the clients: {e}"))?;
    if !output.status.success() {
        let told = String::from_utf8_lossy(&output.stderr);
        return Err(told
            .lines()
            .last()
            .unwrap_or("the clients failed")
            .to_owned());
    }
    if target == Target::Kvrep
        && let Some(first) = servers.and_then(|s| s.addresses.first())
        && !kvrep_is_whole(first).await?
    {
        return Err("a replica was dropped while it was measured".into());
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|e| format!("the clients said nothing clear: {e}"))
}

const WARM_UP: Duration = Duration::from_millis(500);
/// For thousands of connections and sessions, before the load begins.
const RUN_SLACK: Duration = Duration::from_secs(60);
