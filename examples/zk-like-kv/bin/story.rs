//! The story of system 3, played with real processes. See `examples/zk-like-kv/README.md`.

use clap::Parser;
use kvrep_examples::common::operator::asked_to_end;
use kvrep_examples::common::story::{Printed, Story};
use kvrep_examples::zk_like_kv::play;
use std::process::ExitCode;

/// Plays the stories of the Zookeeper-like store with real servers and clients: five consoles, a late follower, a follower that
/// is missing, a leader that is killed and started again.
///
/// The exit code is 0 only if every check held.
#[derive(Parser)]
#[command(
    name = "zk-kv-story",
    version,
    after_help = "Examples:\n  cargo build -p kvrep-examples --bins && target/debug/zk-kv-story\n  \
                  target/debug/zk-kv-story --json | jq .holds"
)]
struct Args {
    /// Print one JSON report at the end instead.
    #[arg(long)]
    json: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let printed = if Args::parse().json {
        Printed::Json
    } else {
        Printed::Text
    };
    let mut story = Story::begin(
        "Three servers, a fixed leader, and what clients see",
        printed,
    );
    let told = match asked_to_end() {
        Ok(asked) => tokio::select! {
            told = play::all(&mut story) => told.map_err(|error| error.to_string()),
            () = asked => Err("it was asked to end".into()),
        },
        Err(error) => Err(error.to_string()),
    };
    if story.end(told) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
