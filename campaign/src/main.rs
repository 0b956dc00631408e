//! `campaign`: attacks a group of real processes and checks what its clients saw.

mod args;
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

use args::{Cli, FloodArgs, RunArgs, ServeArgs, StallArgs, SyncSitesArgs, What};
use clap::Parser as _;
use cycles::{Campaign, Verbosity};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kvrep_core::ReplicaId;
use serve::Served;
use sites::Sites;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

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
        confirm: args.confirm,
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
                confirm: args.confirm,
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
