//! `docstore-server`: a node of the document store.

use clap::Parser as _;
use kvrep_examples::document_store::server::args::Args;
use kvrep_examples::document_store::server::run::{Failed, run};
use std::io::IsTerminal as _;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("off,kvrep_transport_tcp=error"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
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
