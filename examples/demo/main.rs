//! `demo`: loads a real file through a group of replica processes, kills the primary in the middle, and proves that
//! nothing acknowledged was lost.

use clap::{Args, Parser, Subcommand, ValueEnum};
use kvrep_core::{Authority, ReplicaId};
use kvrep_examples::common::runtime;
use kvrep_examples::demo::input::{self, InputLimits, Source};
use kvrep_examples::demo::load::Input;
use kvrep_examples::demo::report::Colour;
use kvrep_examples::demo::run::{Fault, Plan, run};
use kvrep_examples::demo::serve::{Served, Start, serve};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::runtime::Builder;

/// Loads a file through a group of replica processes, kills the primary in the middle, and proves that nothing that
/// was acknowledged is lost.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    role: Option<RoleArgs>,
    #[command(flatten)]
    demo: DemoArgs,
}

const EXAMPLES: &str = "Examples:
  demo                                        34,006 cities, three replicas, three kills
  demo --replicas 5 --kills 5                 a larger group, more kills
  demo --input orders.csv --key order_id      a file of yours (CSV with a header, or JSON lines)
  demo --authority alone                      without a witness
  sudo demo --fault cut                       drop the primary's packets instead of killing it
  demo --json > report.json                   for programs

Exit code: 0 if every check holds, 1 if one fails or the demo could not run, 2 for wrong arguments.";

#[derive(Args)]
struct DemoArgs {
    /// File to load: CSV with a header line, or JSON lines [default: bundled cities]
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Column (CSV) or field (JSON) that is the key of a record
    #[arg(long, value_name = "COLUMN")]
    key: Option<String>,
    /// Number of replica processes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(2..=9))]
    replicas: u32,
    /// Who decides who is primary
    #[arg(long, value_enum, default_value = "witness")]
    authority: AuthorityArg,
    /// How often the primary is taken away
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=100))]
    kills: u32,
    /// How it is taken away: SIGKILL, or packets dropped by iptables (needs root)
    #[arg(long, value_enum, default_value = "kill")]
    fault: FaultArg,
    /// Concurrent clients
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=512))]
    clients: u64,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// Keep data and logs of all processes in this directory (must not exist yet, or be empty)
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Where the picture goes
    #[arg(long, value_name = "FILE", default_value = "demo-timeline.svg")]
    timeline: PathBuf,
}

#[derive(Subcommand)]
enum RoleArgs {
    /// One process of the group: started by the demo itself, or by hand on data that --keep has left
    ///
    /// Serves until its standard input ends, and tells on standard output what an operator must not miss.
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(ServeArgs),
}

#[derive(Args)]
struct ServeArgs {
    /// Which member it is: a number, or `witness`
    #[arg(long, value_parser = replica)]
    id: ReplicaId,
    /// Who decides who is primary; the same for all
    #[arg(long, value_enum)]
    authority: AuthorityArg,
    /// Where its data are
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Where a member listens, this one too; once for each
    #[arg(long = "peer", value_name = "ID=HOST:PORT", value_parser = peer)]
    peers: Vec<(ReplicaId, String)>,
    /// Become primary without those that never return
    ///
    /// A replica that cannot know whether others hold newer writes waits for them, and says for whom. This ends the waiting:
    /// it serves with what it has. WHAT ONLY THE MISSING HAD IS LOST, though it was acknowledged; the process says from which
    /// entry on. One that returns after all sets such writes aside and reports them. Never force two replicas, and none while
    /// another serves. It counts for this start only; without effect where somebody serves already.
    #[arg(long)]
    force: bool,
}

const SERVE_EXAMPLES: &str = "Example: the first of two replicas and its disk are gone; go on with what the second has:
  demo serve --id 2 --authority alone --data kept/n2 --peer 1=127.0.0.1:7001 --peer 2=127.0.0.1:7002 --force

Exit code: 0 when its standard input has ended, 1 if it could not start or go on, 2 for wrong arguments.";

#[derive(Clone, Copy, ValueEnum)]
enum AuthorityArg {
    /// A witness process: safe under partitions
    Witness,
    /// The group itself: right when processes only crash
    Alone,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FaultArg {
    /// SIGKILL
    Kill,
    /// Drop all its packets for a while
    Cut,
}

impl From<AuthorityArg> for Authority {
    fn from(arg: AuthorityArg) -> Self {
        match arg {
            AuthorityArg::Witness => Self::Witness,
            AuthorityArg::Alone => Self::Alone,
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut threads = Builder::new_multi_thread();
    threads.worker_threads(2);
    match cli.role {
        Some(RoleArgs::Serve(args)) => {
            tracing_subscriber::fmt()
                .with_writer(std::io::stderr)
                .with_ansi(false)
                .init();
            let served = Served {
                id: args.id,
                peers: args.peers.into_iter().collect(),
                authority: args.authority.into(),
                data: args.data,
                start: if args.force {
                    Start::Forced
                } else {
                    Start::Normal
                },
            };
            match runtime::run(&mut threads, serve(served)).flatten() {
                Ok(()) => ExitCode::SUCCESS,
                Err(why) => fail(&why),
            }
        }
        None => match runtime::run(&mut threads, demo(cli.demo)).flatten() {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(why) => fail(&why),
        },
    }
}

fn fail(why: &str) -> ExitCode {
    eprintln!("demo: {why}");
    ExitCode::FAILURE
}

async fn demo(args: DemoArgs) -> Result<bool, String> {
    if args.fault == FaultArg::Cut && matches!(args.authority, AuthorityArg::Alone) {
        return Err(
            "without a witness two primaries are possible while packets are dropped, and the demo's checks would rightly fail; use --authority witness"
                .into(),
        );
    }
    let source = args.input.map_or(Source::Bundled, Source::File);
    let name = match &source {
        Source::Bundled => "bundled cities (GeoNames, CC BY 4.0)".to_owned(),
        Source::File(path) => path.display().to_string(),
    };
    let records = input::read(&source, args.key.as_deref(), InputLimits::default())
        .map_err(|e| e.to_string())?;
    let scratch = match &args.keep {
        None => Some(
            tempfile::Builder::new()
                .prefix("kvrep-demo-")
                .tempdir()
                .map_err(|e| format!("cannot make a directory: {e}"))?,
        ),
        Some(keep) => {
            prepare(keep)?;
            None
        }
    };
    let directory = scratch.as_ref().map_or_else(
        || args.keep.clone().unwrap_or_default(),
        |s| s.path().to_owned(),
    );
    let plan = Plan {
        input_name: name,
        replicas: args.replicas,
        authority: args.authority.into(),
        kills: args.kills,
        fault: match args.fault {
            FaultArg::Kill => Fault::Kill,
            FaultArg::Cut => Fault::Cut,
        },
        clients: args.clients,
        directory,
        timeline: args.timeline,
    };
    let report = tokio::select! {
        report = run(&plan, Input::new(records)) => report?,
        () = told_to_end() => return Err("interrupted; all processes were ended".into()),
    };
    let text = if args.json {
        report.json()
    } else {
        report.table(Colour::for_stdout())
    };
    // Whoever closed the other end does not want to read it.
    drop(writeln!(std::io::stdout(), "{text}"));
    Ok(report.holds())
}

/// Ctrl-C, or what a terminal or a service manager sends.
async fn told_to_end() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut hangup)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::hangup()),
    ) else {
        drop(tokio::signal::ctrl_c().await);
        return;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = term.recv() => {}
        _ = hangup.recv() => {}
    }
}

fn prepare(keep: &PathBuf) -> Result<(), String> {
    std::fs::create_dir_all(keep).map_err(|e| format!("cannot make {}: {e}", keep.display()))?;
    let mut entries =
        std::fs::read_dir(keep).map_err(|e| format!("cannot read {}: {e}", keep.display()))?;
    if entries.next().is_some() {
        return Err(format!(
            "{} is not empty; give --keep a new directory",
            keep.display()
        ));
    }
    Ok(())
}

fn peer(text: &str) -> Result<(ReplicaId, String), String> {
    let (id, address) = text.split_once('=').ok_or("expected ID=HOST:PORT")?;
    Ok((replica(id)?, address.to_owned()))
}

fn replica(text: &str) -> Result<ReplicaId, String> {
    if text == "witness" {
        return Ok(ReplicaId::WITNESS);
    }
    let id = text.parse().map_err(|e| format!("{text}: {e}"))?;
    Ok(ReplicaId(id))
}
