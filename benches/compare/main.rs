//! kvrep beside the programs that people would use instead, in one run of one command.
//!
//! Absolute figures say more about a machine, and about what else it does, than about a program. So every figure here is
//! taken beside its peers: the contestants take turns, round by round, and what is judged is the ratio of the medians.
//! Payload, fsync policy and what is promised stand beside each number.
//!
//! Each run of each contestant has a process of its own for the clients ([`load`]), and the servers are processes too
//! ([`serve`], or the peers' own programs): this program only starts them and writes down what they say. Speed is no test: the
//! exit code does not depend on it.

mod args;
mod contest;
mod field;
mod json;
mod load;
mod processes;
mod report;
mod sample;
mod serve;
mod svg;

use args::{Args, Task};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match args.task {
        None => compare(&args),
        Some(Task::Load(load)) => load::run(&load).and_then(|sample| {
            let line = serde_json::to_string(&sample).map_err(|e| e.to_string())?;
            println!("{line}");
            Ok(())
        }),
        Some(Task::Serve(serve)) => serve::run(serve),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn compare(args: &Args) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| e.to_string())?;
    let report = runtime.block_on(async {
        // Whoever ends it early leaves neither its processes nor its directory behind.
        tokio::select! {
            report = contest::run(args) => report,
            () = told_to_end() => Err("interrupted; all processes were ended".into()),
        }
    })?;
    if args.json {
        println!("{}", json::of(&report)?);
    } else {
        print!("{report}");
    }
    if let Some(file) = &args.svg {
        std::fs::write(file, svg::of(&report)).map_err(|e| format!("{}: {e}", file.display()))?;
    }
    Ok(())
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
