//! `demo`: loads a real file through a group of replica processes, kills the primary in the middle, and proves that
//! nothing acknowledged was lost.

use clap::{Args, Parser, Subcommand, ValueEnum};
use kvrep_core::{Authority, ReplicaId};
use kvrep_examples::common::runtime;
use kvrep_examples::demo::carrier::Carrier;
use kvrep_examples::demo::input::{self, InputLimits, Source};
use kvrep_examples::demo::load::Input;
use kvrep_examples::demo::member::{Served, Start};
use kvrep_examples::demo::pair::{Fault, MEMORY_REFUSED, Over, Pair, Scheme, lowest_refused};
use kvrep_examples::demo::report::Colour;
use kvrep_examples::demo::run::{Plan, run};
use kvrep_examples::demo::serve::serve;
use std::io::Write as _;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tempfile::TempDir;
use tokio::runtime::Builder;

/// Loads a file through a group of replica processes, kills the primary in the middle, and proves that nothing that
/// was acknowledged is lost.
#[derive(Parser)]
#[command(name = "demo", version, args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
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
  demo --transport mqtt                       through a broker, which the demo starts itself
  demo --transport multicast                  by UDP multicast, over the loopback interface
  demo --scheme active --transport mqtt       all carry out the broker's order, each answers its share
  demo --scheme active                        the same, ordered by the log of a passive group over TCP
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
    /// Who replicates how
    #[arg(long, value_enum, default_value = "passive")]
    scheme: SchemeArg,
    /// Over what
    #[arg(long, value_enum, default_value = "tcp")]
    transport: TransportArg,
    /// Number of replica processes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(2..=9))]
    replicas: u32,
    /// Who decides who is primary [default: witness; with the active scheme over MQTT there is no primary]
    #[arg(long, value_enum)]
    authority: Option<AuthorityArg>,
    /// How often the primary is taken away, or with the active scheme the replica whose log orders, or each in turn
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=100))]
    kills: u32,
    /// How it is taken away: SIGKILL, or packets dropped by iptables (needs root; passive scheme over TCP only)
    #[arg(long, value_enum, default_value = "kill")]
    fault: Fault,
    /// Concurrent clients
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=512))]
    clients: u64,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// Keep data and logs of all processes in this directory (must not exist yet, or be empty). Those of a run that fails are kept without it, too
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
    /// Who replicates how; the same for all
    #[arg(long, value_enum, default_value = "passive")]
    scheme: Scheme,
    /// Over what; the same for all
    #[arg(long, value_enum, default_value = "tcp")]
    transport: Over,
    /// Who decides who is primary; the same for all, and none with the active scheme over MQTT
    #[arg(long, value_enum)]
    authority: Option<AuthorityArg>,
    /// Where its data are
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// A member, this one too; once for each. Over TCP with where it listens
    #[arg(long = "peer", value_name = "ID[=HOST:PORT]", value_parser = peer, required = true)]
    peers: Vec<(ReplicaId, Option<String>)>,
    /// Where the broker is
    #[arg(long, value_name = "HOST:PORT", required_if_eq("transport", "mqtt"))]
    broker: Option<String>,
    /// The group's address
    #[arg(long, value_name = "IP:PORT", required_if_eq("transport", "multicast"))]
    multicast: Option<SocketAddrV4>,
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

#[derive(Clone, Copy, ValueEnum)]
enum SchemeArg {
    /// One primary orders, and ships its log to the others
    Passive,
    /// All carry out one ordered stream, and each answers its share
    Active,
    /// The lowest that lives answers; refused, for it replicates no state
    Lowest,
}

#[derive(Clone, Copy, ValueEnum)]
enum TransportArg {
    /// TCP
    Tcp,
    /// An MQTT broker, which the demo starts itself
    Mqtt,
    /// UDP multicast, over the loopback interface
    Multicast,
    /// Memory; refused, for it connects nodes of one process
    Memory,
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
    let ended = match cli.role {
        Some(RoleArgs::Serve(args)) => {
            tracing_subscriber::fmt()
                .with_writer(std::io::stderr)
                .with_ansi(false)
                .init();
            runtime::run(&mut threads, replica_process(args))
        }
        None => runtime::run(&mut threads, demo(cli.demo)),
    };
    match ended.map_err(Ended::Failed).flatten() {
        Ok(()) => ExitCode::SUCCESS,
        Err(Ended::CheckFailed) => ExitCode::FAILURE,
        Err(Ended::Failed(why)) => {
            eprintln!("demo: {why}");
            ExitCode::FAILURE
        }
        Err(Ended::Wrong(why)) => {
            eprintln!("demo: {why}");
            ExitCode::from(2)
        }
    }
}

/// Why it ended otherwise than well.
enum Ended {
    /// It has said which.
    CheckFailed,
    /// It could not run.
    Failed(String),
    /// What was asked for does not go together.
    Wrong(String),
}

impl From<String> for Ended {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

async fn replica_process(args: ServeArgs) -> Result<(), Ended> {
    let pair = Pair::new(args.scheme, args.transport, args.authority.map(Into::into));
    let pair = pair.map_err(Ended::Wrong)?;
    if args.authority.is_none() && pair.authority.is_some() {
        return Err(missing("--authority witness or alone, the same for all,"));
    }
    if args.force && args.scheme != Scheme::Passive {
        return Err(Ended::Wrong(
            "--force is for --scheme passive: a replica of the active scheme has nothing on its disk to go on with; start all of them again"
                .into(),
        ));
    }
    let served = Served {
        pair,
        id: args.id,
        members: args.peers.iter().map(|(id, _)| *id).collect(),
        carrier: carrier(&args)?,
        data: args.data,
        start: if args.force {
            Start::Forced
        } else {
            Start::Normal
        },
    };
    Ok(serve(served).await?)
}

fn missing(flag: &str) -> Ended {
    Ended::Wrong(format!("{flag} is missing"))
}

fn carrier(args: &ServeArgs) -> Result<Carrier, Ended> {
    Ok(match args.transport {
        Over::Tcp => {
            let address = |(id, address): &(ReplicaId, Option<String>)| {
                let address = address.clone();
                let address =
                    address.ok_or_else(|| missing("the address in a --peer ID=HOST:PORT"));
                address.map(|address| (*id, address))
            };
            Carrier::Tcp(args.peers.iter().map(address).collect::<Result<_, _>>()?)
        }
        Over::Mqtt => Carrier::Mqtt(args.broker.clone().ok_or_else(|| missing("--broker"))?),
        Over::Multicast => {
            Carrier::Multicast(args.multicast.ok_or_else(|| missing("--multicast"))?)
        }
    })
}

/// Who replicates how, over what; or why that does not work.
async fn pair(args: &DemoArgs) -> Result<Pair, String> {
    let scheme = match args.scheme {
        SchemeArg::Passive => Scheme::Passive,
        SchemeArg::Active => Scheme::Active,
        SchemeArg::Lowest => return Err(lowest_refused().await),
    };
    let over = match args.transport {
        TransportArg::Tcp => Over::Tcp,
        TransportArg::Mqtt => Over::Mqtt,
        TransportArg::Multicast => Over::Multicast,
        TransportArg::Memory => return Err(MEMORY_REFUSED.into()),
    };
    let pair = Pair::new(scheme, over, args.authority.map(Into::into))?;
    pair.bears(args.fault)?;
    Ok(pair)
}

async fn demo(args: DemoArgs) -> Result<(), Ended> {
    let pair = pair(&args).await.map_err(Ended::Wrong)?;
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
        pair,
        kills: args.kills,
        fault: args.fault,
        clients: args.clients,
        directory,
        timeline: args.timeline,
    };
    let report = tokio::select! {
        report = run(&plan, Input::new(records)) => report,
        () = told_to_end() => return Err("interrupted; all processes were ended".to_owned().into()),
    };
    let failed = report.as_ref().map_or(true, |report| !report.holds());
    let kept = failed.then(|| kept(scratch, &plan.directory));
    let report = report.map_err(|why| match &kept {
        Some(kept) => format!("{why}\n{kept}"),
        None => why,
    })?;
    let text = if args.json {
        report.json()
    } else {
        report.table(Colour::for_stdout())
    };
    // Whoever closed the other end does not want to read it.
    drop(writeln!(std::io::stdout(), "{text}"));
    match kept {
        None => Ok(()),
        Some(kept) => {
            eprintln!("demo: {kept}");
            Err(Ended::CheckFailed)
        }
    }
}

/// Keeps what the processes of a failed run have left, and says where.
fn kept(scratch: Option<TempDir>, directory: &Path) -> String {
    if let Some(scratch) = scratch {
        let _ = scratch.keep();
    }
    format!(
        "the data and logs of all processes are kept in {}",
        directory.display()
    )
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

fn peer(text: &str) -> Result<(ReplicaId, Option<String>), String> {
    match text.split_once('=') {
        Some((id, address)) => Ok((replica(id)?, Some(address.to_owned()))),
        None => Ok((replica(text)?, None)),
    }
}

fn replica(text: &str) -> Result<ReplicaId, String> {
    if text == "witness" {
        return Ok(ReplicaId::WITNESS);
    }
    let id = text.parse().map_err(|e| format!("{text}: {e}"))?;
    Ok(ReplicaId(id))
}
