//! How long a log on disk takes to open: what a restarted replica waits for before it says a word.
//!
//! Writes a log of so many entries as a replica does, in batches with a sync each, closes it, and opens it again a few times.
//! The files come from the page cache then; a cold disk adds the time to read them, which is said beside.

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use kvrep_benches::log::{Written, write_log};
use kvrep_core::storage::Storage;
use kvrep_core::storage::wal::Wal;
use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Time to open a log of many entries
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:\n  open-log --entries 1000000\n  open-log --entries 100000 --payload-bytes 4096 --dir /var/tmp"
)]
struct Args {
    /// Entries in the log
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    entries: u64,
    /// Bytes of each entry's command
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    payload_bytes: u32,
    /// How often it is opened; the median counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// Where it is written; removed afterwards [default: beside this program]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let parent = match args.dir {
        Some(dir) => dir,
        None => {
            let program = std::env::current_exe()?;
            program.parent().map(PathBuf::from).unwrap_or_default()
        }
    };
    let dir = tempfile::Builder::new()
        .prefix("open-log-")
        .tempdir_in(parent)?;
    let bar = ProgressBar::new(args.entries).with_style(ProgressStyle::with_template(
        "{bar:30} {pos}/{len} written",
    )?);
    let payload_bytes = args.payload_bytes as usize;
    let written = write_log(dir.path(), args.entries, payload_bytes, |entries| {
        bar.set_position(entries);
    })?;
    bar.finish_and_clear();
    let Written { options, log_bytes } = written;
    let mut times = Vec::new();
    for _ in 0..args.rounds {
        let began = Instant::now();
        let mut wal = Wal::open_dir(dir.path().join("log"), options.clone());
        let recovered = wal.open()?;
        times.push(began.elapsed());
        if recovered.entries.len() as u64 != args.entries {
            let found = recovered.entries.len();
            return Err(format!("{found} entries were found of {}", args.entries).into());
        }
    }
    times.sort_unstable();
    report(&times, args.entries, log_bytes, args.json);
    Ok(())
}

fn report(times: &[Duration], entries: u64, log_bytes: u64, json: bool) {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let (min, max) = (ms(times[0]), ms(times[times.len() - 1]));
    let median = ms(times[times.len() / 2]);
    let mib = log_bytes as f64 / f64::from(1 << 20);
    if json {
        println!(
            "{{\"entries\":{entries},\"log_bytes\":{log_bytes},\"open_ms\":{{\"median\":{median:.1},\"min\":{min:.1},\"max\":{max:.1}}}}}"
        );
    } else {
        println!(
            "{entries} entries, {mib:.0} MiB of log: opened in {median:.0} ms ({min:.0} – {max:.0}), from the page cache"
        );
    }
}
