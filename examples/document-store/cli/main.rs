//! `docstore-cli`: the command line of the document store.

use clap::Parser as _;
use kvrep_examples::document_store::cli::args::{Args, HELP};
use kvrep_examples::document_store::cli::console::{Session, converse};
use kvrep_examples::document_store::cli::remote::{Redirect, Remote};
use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;
use std::time::Duration;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    if args.node == "help" {
        return match writeln!(std::io::stdout(), "{HELP}") {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) if e.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Err(e) => {
                eprintln!("docstore-cli: {e}");
                ExitCode::FAILURE
            }
        };
    }
    let remote = Remote {
        redirect: if args.follow_leader {
            Redirect::Follow
        } else {
            Redirect::Show
        },
        within: Duration::from_secs(args.timeout),
        node: args.node,
    };
    match converse(&remote).await {
        Ok(Session::Good) => ExitCode::SUCCESS,
        Ok(Session::Failed) => ExitCode::FAILURE,
        // Whoever closed the other end does not want to read more.
        Err(e) if e.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("docstore-cli: {e}");
            ExitCode::FAILURE
        }
    }
}
