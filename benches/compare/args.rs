//! The command line.

use crate::load::Load;
use crate::serve::Serve;
use clap::{Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// kvrep beside openraft, Redis and etcd, measured in turns on this machine
///
/// Peers that are not installed (redis-server, etcd) or not built in (openraft: --features openraft) are named, not
/// measured. Every client waits for its answer before it writes again.
#[derive(Parser, Clone, Debug)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  compare                                       everything; about five minutes
  compare --only tcp-memory --clients 1,64      over TCP, without a disk
  compare --only tcp-durable --dir /var/tmp     acknowledged after fdatasync, with the data in /var/tmp
  compare --rounds 7 --seconds 5 --svg speed.svg --json > speed.json
  compare --only in-process --clients 1 --rounds 1 --seconds 1     a quick look"
)]
pub(crate) struct Args {
    /// What to measure; everything if not given
    #[arg(long, value_delimiter = ',', value_enum)]
    pub(crate) only: Vec<Section>,
    /// Concurrent clients, a row each [default: 1,64,1024,4096 in one process; 1,64 over TCP]
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) clients: Vec<u32>,
    /// Within one process: threads of the runtime; each contestant counts with the number that serves it best
    /// [default: 1 and as many as there are processors]
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) workers: Vec<u32>,
    /// How many turns each contestant has; the median counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub(crate) rounds: u32,
    /// Seconds measured in each turn, after half a second of load
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Where the data are while it runs; on a real disk [default: beside this program]
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// Draws the result to this file, too
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Prints the result as JSON instead of tables
    #[arg(long)]
    pub(crate) json: bool,
    /// The processes that this program starts of itself
    #[command(subcommand)]
    pub(crate) task: Option<Task>,
}

/// What to measure.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Section {
    /// Three replicas in one process, logs in memory, empty commands
    InProcess,
    /// Three processes over TCP, in memory, values of 256 bytes
    TcpMemory,
    /// The same, acknowledged when it is on three disks
    TcpDurable,
}

impl Section {
    /// The name on the command line and in the JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::InProcess => "in-process",
            Self::TcpMemory => "tcp-memory",
            Self::TcpDurable => "tcp-durable",
        }
    }
}

/// Processes of one contest.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum Task {
    /// (internal) The clients of one run
    Load(Load),
    /// (internal) A server
    #[command(subcommand)]
    Serve(Serve),
}

impl Args {
    /// The sections to measure, each once.
    pub(crate) fn sections(&self) -> Vec<Section> {
        let all = Section::value_variants().iter().copied();
        all.filter(|s| self.only.is_empty() || self.only.contains(s))
            .collect()
    }

    /// The numbers of threads in a section; one `None` where contestants are processes of their own.
    pub(crate) fn workers_in(&self, section: Section) -> Vec<Option<u32>> {
        match (self.workers.as_slice(), section) {
            (_, Section::TcpMemory | Section::TcpDurable) => vec![None],
            ([], Section::InProcess) => {
                let processors = std::thread::available_parallelism().map_or(1, usize::from);
                let mut workers = vec![Some(1), u32::try_from(processors).ok()];
                workers.dedup();
                workers
            }
            (given, Section::InProcess) => given.iter().copied().map(Some).collect(),
        }
    }

    /// The numbers of clients in a section.
    pub(crate) fn clients_in(&self, section: Section) -> Vec<u32> {
        match (self.clients.as_slice(), section) {
            ([], Section::InProcess) => vec![1, 64, 1_024, 4_096],
            ([], Section::TcpMemory | Section::TcpDurable) => vec![1, 64],
            (given, _) => given.to_vec(),
        }
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=600.0).contains(&seconds) => Ok(seconds),
        _ => Err("between 0.1 and 600 seconds".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound_and_its_examples_can_be_read() {
        use clap::CommandFactory;
        Args::command().debug_assert();
        let help = Args::command().render_long_help().to_string();
        let examples = help
            .lines()
            .filter_map(|line| line.trim().strip_prefix("compare "));
        let mut read = 0;
        for example in examples {
            let words = example.split("   ").next().unwrap_or_default();
            let words = words.split('>').next().unwrap_or_default();
            let parsed =
                Args::try_parse_from(["compare"].into_iter().chain(words.split_whitespace()));
            assert!(parsed.is_ok(), "{example}: {parsed:?}");
            read += 1;
        }
        assert!(read >= 4, "{help}");
    }
}
