//! `campaign`: attacks a group of real processes and checks what its clients saw.

mod cycles;
mod fault;
mod flood;
mod group;
mod lists;
mod load;
mod memory;
mod network;
mod report;
mod serve;
mod sites;
mod stall;
mod sync_sites;
mod verdict;

use clap::{Args, Parser, Subcommand, ValueEnum};
use cycles::{Campaign, Verbosity};
use fault::Fault;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kvrep_core::{Authority, ReplicaId};
use serve::{Scale, Served};
use sites::{Sites, Strike};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Attacks a group of three real processes while clients write and read, and checks what they saw.
#[derive(Parser)]
#[command(version, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

const EXAMPLES: &str = "Examples:
  campaign run                                     kill and pause, 10 cycles each, both authorities
  campaign run --faults kill=100 --authority alone 100 kill -9
  sudo campaign run --faults cut-both,cut-one-way=50 -v
  sudo campaign run --faults full-disk=5,eio=10    needs mount and strace
  campaign sync-sites                              every sync of a replica's life fails once

Exit code: 0 when every promise was kept, 1 when one was broken, 2 when something could not run.";

#[derive(Subcommand)]
enum What {
    /// Faults in cycles; then the recorded history is checked
    Run(RunArgs),
    /// Every sync of a replica's scripted life fails once, or its process is killed at it
    SyncSites(SyncSitesArgs),
    /// A backup is stopped under load: what clients notice, and the primary's memory
    Stall(StallArgs),
    /// A thousand slow, silent and garbage connections at the primary: its memory, and healthy clients
    Flood(FloodArgs),
    /// One process of a group; started by the campaign itself
    #[command(hide = true)]
    Serve(ServeArgs),
}

#[derive(Args)]
struct RunArgs {
    /// Who decides who is primary
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "witness,alone"
    )]
    authority: Vec<AuthorityArg>,
    /// Which faults, each in a campaign of its own: FAULT or FAULT=CYCLES
    #[arg(long, value_name = "FAULT", value_delimiter = ',', default_value = "kill,pause", value_parser = counted)]
    faults: Vec<Counted>,
    /// Cycles where a fault says none
    #[arg(long, value_name = "N", default_value_t = 10)]
    cycles: u32,
    /// Concurrent clients
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u64).range(1..=256))]
    clients: u64,
    /// The detector's timeout
    #[arg(long, value_name = "MS", default_value_t = 500, value_parser = clap::value_parser!(u64).range(150..=10_000))]
    suspect_after_ms: u64,
    /// Decides victims and lengths of the faults (not what the processes make of them)
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Below this directory data and logs of violated promises are kept
    #[arg(long, value_name = "DIR", default_value = "campaign-kept")]
    keep: PathBuf,
    /// A line for each cycle
    #[arg(short, long)]
    verbose: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct SyncSitesArgs {
    /// Who decides who is primary
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "witness,alone"
    )]
    authority: Vec<AuthorityArg>,
    /// The replicas that are struck, one at a time; the first to be primary is most often 1
    #[arg(long, value_name = "ID", value_delimiter = ',', default_value = "1,3", value_parser = clap::value_parser!(u32).range(1..=3))]
    victims: Vec<u32>,
    /// What happens at the sync
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "eio,kill-before,kill-after"
    )]
    strikes: Vec<Strike>,
    /// The first sync that is struck
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    first: u64,
    /// Only every N-th sync
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    every: u64,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct StallArgs {
    /// Who decides who is primary
    #[arg(long, value_enum, default_value = "witness")]
    authority: AuthorityArg,
    /// Concurrent clients
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=256))]
    clients: u64,
    /// The detector's timeout
    #[arg(long, value_name = "MS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(150..=10_000))]
    suspect_after_ms: u64,
    /// How long it is stopped, and observed before and after
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct FloodArgs {
    /// Bad connections at a time
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    connections: u64,
    /// Connections at a time that send nothing but garbage
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(0..=256))]
    garbage: u64,
    /// How long
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct ServeArgs {
    #[arg(long)]
    id: u32,
    #[arg(long, value_enum)]
    authority: AuthorityArg,
    #[arg(long)]
    data: PathBuf,
    #[arg(long)]
    suspect_after_ms: u64,
    #[arg(long, value_enum)]
    scale: Scale,
    /// ID=HOST:PORT, for everybody
    #[arg(long = "peer", value_parser = peer)]
    peers: Vec<(ReplicaId, String)>,
    /// What to do at a sync
    #[arg(long, value_enum, requires = "strike_at", requires = "count")]
    strike: Option<Strike>,
    /// At which, from 1
    #[arg(long, default_value_t = 0)]
    strike_at: u64,
    /// Where syncs are counted
    #[arg(long)]
    count: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum AuthorityArg {
    /// A witness process: safe under partitions and pauses
    Witness,
    /// The group itself: right when processes only crash
    Alone,
}

impl From<AuthorityArg> for Authority {
    fn from(arg: AuthorityArg) -> Self {
        match arg {
            AuthorityArg::Witness => Self::Witness,
            AuthorityArg::Alone => Self::Alone,
        }
    }
}

/// A fault and how often.
#[derive(Clone, Copy)]
struct Counted {
    fault: Fault,
    cycles: Option<u32>,
}

fn counted(text: &str) -> Result<Counted, String> {
    let (fault, cycles) = match text.split_once('=') {
        None => (text, None),
        Some((fault, cycles)) => {
            let cycles = cycles
                .parse()
                .map_err(|e| format!("cycles {cycles:?}: {e}"))?;
            (fault, Some(cycles))
        }
    };
    let fault = Fault::from_str(fault, false).map_err(|_| {
        let words = Fault::value_variants().iter().map(|fault| fault.word());
        format!(
            "no such fault; one of: {}",
            words.collect::<Vec<_>>().join(", ")
        )
    })?;
    Ok(Counted { fault, cycles })
}

fn peer(text: &str) -> Result<(ReplicaId, String), String> {
    let (id, address) = text.split_once('=').ok_or("ID=HOST:PORT is wanted")?;
    let id = id.parse().map_err(|e| format!("{id:?}: {e}"))?;
    Ok((ReplicaId(id), address.to_owned()))
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(e) => return could_not(&format!("cannot start: {e}")),
    };
    let done = match cli.what {
        What::Run(args) => runtime.block_on(run(args)),
        What::SyncSites(args) => runtime.block_on(sync_sites(args)),
        What::Stall(args) => runtime.block_on(stall(args)),
        What::Flood(args) => runtime.block_on(flood(args)),
        What::Serve(args) => {
            tracing_subscriber::fmt()
                .with_writer(std::io::stderr)
                .with_ansi(false)
                .init();
            runtime.block_on(serve::serve(served(args))).map(|()| true)
        }
    };
    // A process that ends by itself does not wait for the read of its standard input.
    runtime.shutdown_background();
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(why) => could_not(&why),
    }
}

fn could_not(why: &str) -> ExitCode {
    eprintln!("campaign: {why}");
    ExitCode::from(2)
}

fn served(args: ServeArgs) -> Served {
    let sites = match (args.strike, args.count) {
        (Some(strike), Some(count)) => Some(Sites {
            count,
            at: args.strike_at,
            strike,
        }),
        _ => None,
    };
    Served {
        id: ReplicaId(args.id),
        peers: args.peers.into_iter().collect(),
        authority: args.authority.into(),
        data: args.data,
        suspect_after: Duration::from_millis(args.suspect_after_ms),
        scale: args.scale,
        sites,
    }
}

async fn run(args: RunArgs) -> Result<bool, String> {
    let mut campaigns = Vec::new();
    for authority in &args.authority {
        for counted in &args.faults {
            campaigns.push(Campaign {
                authority: (*authority).into(),
                fault: counted.fault,
                cycles: counted.cycles.unwrap_or(args.cycles),
                clients: args.clients,
                suspect_after: Duration::from_millis(args.suspect_after_ms),
                seed: args.seed,
                verbose: if args.verbose && !args.json {
                    Verbosity::Cycles
                } else {
                    Verbosity::Quiet
                },
            });
        }
    }
    let bar = progress_bar(campaigns.iter().map(|c| u64::from(c.cycles)).sum());
    let mut rows = Vec::new();
    for (n, campaign) in campaigns.iter().enumerate() {
        let word = group::authority_word(campaign.authority);
        bar.set_message(format!("{word} {}", campaign.fault.word()));
        let scratch = tempfile::Builder::new().prefix("kvrep-campaign-").tempdir();
        let scratch = scratch.map_err(|e| format!("cannot make a directory: {e}"))?;
        let mut row = tokio::select! {
            row = campaign.run(scratch.path(), &bar) => {
                row.map_err(|why| format!("{word} {}: {why}", campaign.fault.word()))?
            }
            () = told_to_end() => return Err("interrupted; all processes were ended".into()),
        };
        if row.kept.is_some() {
            let place = args
                .keep
                .join(format!("{n}-{word}-{}", campaign.fault.word()));
            row.kept = Some(moved(scratch, &place)?);
        }
        rows.push(row);
    }
    bar.finish_and_clear();
    let text = if args.json {
        report::json(&rows)
    } else {
        report::table(&rows)
    };
    // Whoever closed the other end does not want to read it.
    drop(writeln!(std::io::stdout(), "{text}"));
    Ok(report::holds(&rows))
}

async fn sync_sites(args: SyncSitesArgs) -> Result<bool, String> {
    let bar = progress_bar(0);
    bar.set_style(
        ProgressStyle::with_template("{pos} lives {elapsed} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    let mut rows = Vec::new();
    for authority in &args.authority {
        for victim in &args.victims {
            for strike in &args.strikes {
                let sites = sync_sites::SyncSites {
                    authority: (*authority).into(),
                    victim: ReplicaId(*victim),
                    strike: *strike,
                    first: args.first,
                    every: args.every,
                };
                rows.push(tokio::select! {
                    row = sites.run(&bar) => row?,
                    () = told_to_end() => return Err("interrupted; all processes were ended".into()),
                });
            }
        }
    }
    bar.finish_and_clear();
    let text = if args.json {
        report::sites_json(&rows)
    } else {
        report::sites_table(&rows)
    };
    drop(writeln!(std::io::stdout(), "{text}"));
    Ok(report::sites_hold(&rows))
}

async fn stall(args: StallArgs) -> Result<bool, String> {
    let stall = stall::Stall {
        authority: args.authority.into(),
        clients: args.clients,
        suspect_after: Duration::from_millis(args.suspect_after_ms),
        each: Duration::from_secs(args.seconds),
    };
    let scratch = tempfile::tempdir().map_err(|e| format!("cannot make a directory: {e}"))?;
    let seen = tokio::select! {
        seen = stall.run(scratch.path()) => seen?,
        () = told_to_end() => return Err("interrupted; all processes were ended".into()),
    };
    let text = if args.json {
        format!("{:#}", serde_json::json!(seen))
    } else {
        stall::text(&seen)
    };
    drop(writeln!(std::io::stdout(), "{text}"));
    Ok(seen.violations.is_empty())
}

async fn flood(args: FloodArgs) -> Result<bool, String> {
    let flood = flood::Flood {
        connections: args.connections,
        garbage_writers: args.garbage,
        lasts: Duration::from_secs(args.seconds),
    };
    let scratch = tempfile::tempdir().map_err(|e| format!("cannot make a directory: {e}"))?;
    let seen = tokio::select! {
        seen = flood.run(scratch.path()) => seen?,
        () = told_to_end() => return Err("interrupted; all processes were ended".into()),
    };
    let text = if args.json {
        format!("{:#}", serde_json::json!(seen))
    } else {
        flood::text(&seen)
    };
    drop(writeln!(std::io::stdout(), "{text}"));
    Ok(seen.violations.is_empty())
}

/// Keeps a directory that would have been removed.
fn moved(scratch: tempfile::TempDir, place: &Path) -> Result<PathBuf, String> {
    let made = place.parent().map_or(Ok(()), std::fs::create_dir_all);
    made.map_err(|e| format!("{}: {e}", place.display()))?;
    let from = scratch.keep();
    // Another file system, or something is there already: then where it is.
    Ok(match std::fs::rename(&from, place) {
        Ok(()) => place.to_owned(),
        Err(_) => from,
    })
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

fn progress_bar(cycles: u64) -> ProgressBar {
    // Not drawn where standard error is no terminal.
    let bar = ProgressBar::with_draw_target(Some(cycles), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} cycles {elapsed} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}
