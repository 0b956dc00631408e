//! What the command line says, and its help.

use crate::fault::Fault;
use crate::serve::Scale;
use crate::sites::Strike;
use clap::{Args, Parser, Subcommand, ValueEnum};
use kvrep_core::{Authority, ReplicaId};
use std::path::PathBuf;

/// Attacks a group of three real processes while clients write and read, and checks what they saw.
#[derive(Parser)]
#[command(name = "campaign", version, max_term_width = 100, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) what: What,
}

const EXAMPLES: &str = "\
Examples:
  campaign run                                      kill and pause, 10 cycles each, with and without a witness; a minute
  campaign run --faults kill=100 --authority alone  kill -9 a hundred times
  campaign run --faults pause=25 --confirm lease    stopped primaries must not answer reads under an old lease
  sudo campaign run --faults cut-both,cut-one-way=50 -v
  sudo campaign run --faults full-disk=5,eio=10     needs mount and strace
  campaign sync-sites --every 10                    every tenth sync of a replica's life fails once
  campaign stall; campaign flood                    what one stopped backup, or a thousand bad connections, cost

The replicas are processes of this program; they end with it, however it ends. Data and logs are
removed, but for what a broken promise leaves (see `run --keep`).

Exit code:
  0  every promise was kept
  1  one was broken; the report says which, and where history, logs and data are kept
  2  wrong arguments, or something could not run (a tool or a right is missing); the message says what";

const EXIT: &str =
    "Exit code: 0 when everything held, 1 when something did not, 2 when it could not run.";

/// The faults with what they do, for the help.
fn faults() -> String {
    let mut text = String::from("Faults:\n");
    for fault in Fault::value_variants() {
        let value = fault.to_possible_value();
        let help = value.and_then(|value| value.get_help().map(ToString::to_string));
        text += &format!("  {:<12} {}\n", fault.word(), help.unwrap_or_default());
    }
    text + "\nThe report's columns: `struck` counts the cycles in which the fault came about; `unknown` operations may or may
not have been done, `refused` ones were not; `takeover` is the time from a strike that ended a reign to the next reign's first answer (median,
95th percentile, longest, in ms); `lost` are acknowledged writes that no replica has, which breaks every promise but
`loss reported` (no witness, under faults that silence live processes: lost writes must be in a replica's events).\n\n" + EXIT
}

#[derive(Subcommand)]
pub(crate) enum What {
    /// Faults in cycles; then the recorded history is checked
    ///
    /// One campaign for each authority and fault: three replicas (and a witness) are started, clients write and read all the
    /// time, and in each cycle the fault strikes one process, ends, and everybody must be in sync again within 30 s. In
    /// the end everything that the clients saw must be linearizable, every replica must have the same state, and no
    /// acknowledged write may be missing.
    #[command(after_help = faults())]
    Run(RunArgs),
    /// Every sync of a replica's scripted life fails once, or its process is killed at it
    ///
    /// The life: a first start, writes with snapshots and new segments, a restart, and a transfer to its wiped disk. It is
    /// played once for each of its syncs (some hundred), which is struck; then the process is started again on what it left.
    /// A life takes some seconds, so all of them take long: see --every, --victims and --strikes.
    #[command(after_help = EXIT)]
    SyncSites(SyncSitesArgs),
    /// A backup is stopped under load: what clients notice, and the primary's memory
    ///
    /// It holds when the longest operation took at most the detector's timeout and 50 ms, and the primary's memory grew
    /// by at most 32 MiB. The first is for a machine that does nothing else, with data in memory (TMPDIR=/dev/shm).
    #[command(after_help = EXIT)]
    Stall(StallArgs),
    /// A thousand slow, silent and garbage connections at the primary: its memory, and healthy clients
    ///
    /// Some connections say nothing, some send a byte at a time, some ask much and read no answer, some send garbage and come
    /// again. It holds when every operation of the healthy clients is answered within 2 s, and the primary's memory grew
    /// by at most 64 MiB.
    #[command(after_help = EXIT)]
    Flood(FloodArgs),
    /// One process of a group; started by the campaign itself
    #[command(hide = true)]
    Serve(ServeArgs),
}

#[derive(Args)]
pub(crate) struct RunArgs {
    /// Who decides who is primary
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "witness,alone"
    )]
    pub(crate) authority: Vec<AuthorityArg>,
    /// Which faults, each in a campaign of its own: FAULT or FAULT=CYCLES
    #[arg(long, value_name = "FAULT", value_delimiter = ',', default_value = "kill,pause", value_parser = counted)]
    pub(crate) faults: Vec<Counted>,
    /// How often a fault strikes that says no number itself
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) cycles: u32,
    /// Concurrent clients
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u64).range(1..=256))]
    pub(crate) clients: u64,
    /// The detector's timeout
    #[arg(long, value_name = "MS", default_value_t = 500, value_parser = clap::value_parser!(u64).range(150..=10_000))]
    pub(crate) suspect_after_ms: u64,
    /// How the primary makes sure of its reign before it answers a linearizable read
    #[arg(long, value_enum, default_value = "round")]
    pub(crate) confirm: ConfirmArg,
    /// Decides victims and lengths of the faults (not what the processes make of them)
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Below this directory data and logs of violated promises are kept
    #[arg(long, value_name = "DIR", default_value = "campaign-kept")]
    pub(crate) keep: PathBuf,
    /// A line for each cycle
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// Print the report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct SyncSitesArgs {
    /// Who decides who is primary
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "witness,alone"
    )]
    pub(crate) authority: Vec<AuthorityArg>,
    /// The replicas that are struck, one at a time; the first to be primary is most often 1
    #[arg(long, value_name = "ID", value_delimiter = ',', default_value = "1,3", value_parser = clap::value_parser!(u32).range(1..=3))]
    pub(crate) victims: Vec<u32>,
    /// What happens at the sync
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "eio,kill-before,kill-after"
    )]
    pub(crate) strikes: Vec<Strike>,
    /// The first sync that is struck
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) first: u64,
    /// Only every N-th sync is struck, to be done sooner
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) every: u64,
    /// Print the report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct StallArgs {
    /// Who decides who is primary
    #[arg(long, value_enum, default_value = "witness")]
    pub(crate) authority: AuthorityArg,
    /// Concurrent clients
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=256))]
    pub(crate) clients: u64,
    /// The detector's timeout
    #[arg(long, value_name = "MS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(150..=10_000))]
    pub(crate) suspect_after_ms: u64,
    /// How long it is stopped, and observed before and after
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) seconds: u64,
    /// Print the report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct FloodArgs {
    /// Bad connections at a time
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(crate) connections: u64,
    /// Connections at a time that send nothing but garbage
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(0..=256))]
    pub(crate) garbage: u64,
    /// How long
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) seconds: u64,
    /// Print the report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct ServeArgs {
    #[arg(long)]
    pub(crate) id: u32,
    #[arg(long, value_enum)]
    pub(crate) authority: AuthorityArg,
    #[arg(long)]
    pub(crate) data: PathBuf,
    #[arg(long)]
    pub(crate) suspect_after_ms: u64,
    #[arg(long, value_enum)]
    pub(crate) confirm: ConfirmArg,
    #[arg(long, value_enum)]
    pub(crate) scale: Scale,
    /// ID=HOST:PORT, for everybody
    #[arg(long = "peer", value_parser = peer)]
    pub(crate) peers: Vec<(ReplicaId, String)>,
    /// What to do at a sync
    #[arg(long, value_enum, requires = "strike_at", requires = "count")]
    pub(crate) strike: Option<Strike>,
    /// At which, from 1
    #[arg(long, default_value_t = 0)]
    pub(crate) strike_at: u64,
    /// Where syncs are counted
    #[arg(long)]
    pub(crate) count: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AuthorityArg {
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

/// How reads are confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ConfirmArg {
    /// By asking every in-sync member
    Round,
    /// By a lease as long as the detector's timeout
    Lease,
}

impl ConfirmArg {
    /// As it is written on the command line.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Round => "round",
            Self::Lease => "lease",
        }
    }
}

/// A fault and how often.
#[derive(Clone, Copy)]
pub(crate) struct Counted {
    pub(crate) fault: Fault,
    pub(crate) cycles: Option<u32>,
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
