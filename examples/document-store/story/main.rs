//! `docstore-story`: the document store's failures, played with real processes.

mod failures;
mod partition;

use clap::Parser;
use kvrep_examples::common::story::{Printed, Story};
use std::process::ExitCode;

/// Plays how the document store fails and recovers, with real processes, and says what is seen at each step.
#[derive(Parser, Debug)]
#[command(name = "docstore-story", version, max_term_width = 100, after_help = EXAMPLES)]
struct Args {
    /// Play what a partition does, without and with a witness, instead of kills and stops. Drops packets between addresses of
    /// the loopback with iptables, so it needs root; the rules go when the story ends.
    #[arg(long)]
    partition: bool,
    /// Print one JSON object at the end.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  docstore-story
  sudo docstore-story --partition

Exit code: 0 if every check holds, 1 if not, 2 for wrong usage.";

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let printed = if args.json {
        Printed::Json
    } else {
        Printed::Text
    };
    let title = if args.partition {
        "A document store that is cut in two"
    } else {
        "A document store whose nodes are killed and stopped"
    };
    let mut story = Story::begin(title, printed);
    let told = async {
        if args.partition {
            partition::tell(&mut story).await
        } else {
            failures::tell(&mut story).await
        }
    };
    // Dropping what is told kills the processes and takes the rules back.
    let told = tokio::select! {
        told = told => told,
        _ = tokio::signal::ctrl_c() => Err("it was interrupted".into()),
    };
    if story.end(told) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
