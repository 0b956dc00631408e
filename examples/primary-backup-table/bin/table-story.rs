//! `table-story`: the failure story of the replicated table, played with real processes.

use clap::Parser;
use kvrep_examples::common::story::Printed;
use kvrep_examples::primary_backup_table::story::tell;
use std::process::ExitCode;

/// Plays the failure story of the replicated table with real processes, and checks it: kill -9, a restart, a stopped server, a
/// partition, the loss of both.
#[derive(Parser)]
#[command(name = "table-story", version, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    /// Print a report as JSON at the end
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  cargo build -p kvrep-examples --bins && target/debug/table-story
  table-story --json > story.json

It starts the table-server that lies beside it, on free ports of the loopback, with its directories in a temporary one.
Exit code: 0 if every check holds, 1 if one does not or the story was broken off, 2 for wrong usage.";

fn main() -> ExitCode {
    let cli = Cli::parse();
    let printed = if cli.json {
        Printed::Json
    } else {
        Printed::Text
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) if runtime.block_on(tell(printed)) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("table-story: cannot start: {e}");
            ExitCode::FAILURE
        }
    }
}
