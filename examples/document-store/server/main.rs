//! `docstore-server`: a node of the document store.

use clap::Parser as _;
use kvrep_examples::common::logging::log_to_stderr;
use kvrep_examples::document_store::server::args::Args;
use kvrep_examples::document_store::server::run::{Failed, run};
use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    log_to_stderr("off,kvrep_transport_tcp=error");
    match run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed::Usage(why)) => {
            eprintln!("docstore-server: {why}; see --help");
            ExitCode::from(2)
        }
        Err(Failed::Running(why)) => {
            eprintln!("docstore-server: {why}");
            ExitCode::FAILURE
        }
    }
}
