//! `kvrep-witness`: the tiny process that decides, for one group, who may be primary.
//!
//! It keeps one register durable and answers the replicas that ask for it; it knows no member beforehand and holds no
//! data of the application. While it is down the group serves on, and only cannot change who belongs to it.

use clap::Parser;
use clap::builder::NonEmptyStringValueParser;
use kvrep_core::node::Node;
use kvrep_transport_tcp::{TcpConfig, TcpTransport, Unlisted};
use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// The witness of a kvrep group: a tiny process that decides who may be primary.
#[derive(Parser, Debug)]
#[command(name = "kvrep-witness", version, max_term_width = 100, after_help = EXAMPLES)]
struct Args {
    /// Name of the group; the same as its replicas'.
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    group: String,
    /// Where to listen. Port 0 takes a free one and tells which.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7000")]
    listen: String,
    /// Where its register is kept; made if need be. Belongs to this witness alone and must outlive it.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Report on standard output as JSON, one object a line.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  # A witness for a group on this machine:
  kvrep-witness --group orders --data /var/lib/kvrep-witness

  # For a group on several machines; on one that holds no replica, if there is one:
  kvrep-witness --group orders --listen 10.0.0.9:7000 --data /var/lib/kvrep-witness

Ends with Ctrl-C or SIGTERM. Exit code: 0 after that, 1 when it could not start or go on, 2 for wrong usage.
More is logged to standard error with RUST_LOG=debug.";

fn main() -> ExitCode {
    let args = Args::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let error = error.to_string();
            if args.json {
                report(&args, "failed", &[("error", &error)], "");
            }
            eprintln!("kvrep-witness: {error}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    // Listened for from the beginning, so that a signal during the start is not missed.
    let signal = signal()?;
    let data = &args.data;
    std::fs::create_dir_all(data).map_err(|e| {
        let data = data.display();
        format!("cannot use {data} as a directory: {e}; choose another one with --data")
    })?;
    let config = TcpConfig::new(&args.listen).unlisted(Unlisted::Answer);
    let transport = TcpTransport::bind(config).await?;
    let listen = transport.local_addr().map(|address| address.to_string());
    let node = Node::witness(&args.group)
        .data_dir(&args.data)
        .transport(transport)
        .start()
        .await?;
    let (listen, data) = (listen.unwrap_or_default(), args.data.display().to_string());
    report(
        args,
        "ready",
        &[("listen", &listen), ("data", &data)],
        &format!(
            "witness of group \"{}\" at {listen}, data in {data}",
            args.group
        ),
    );
    tokio::select! {
        name = signal => {
            node.shutdown().await?;
            report(args, "ended", &[("signal", name)], &format!("ended by {name}"));
            Ok(())
        }
        ended = node.wait() => Ok(ended?),
    }
}

/// The name of the signal that asks this process to end.
#[cfg(unix)]
fn signal() -> io::Result<impl Future<Output = &'static str>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
        }
    })
}

/// The name of the signal that asks this process to end.
#[cfg(not(unix))]
fn signal() -> io::Result<impl Future<Output = &'static str>> {
    Ok(async {
        match tokio::signal::ctrl_c().await {
            Ok(()) => "Ctrl-C",
            Err(_) => std::future::pending().await,
        }
    })
}

/// Says it on standard output. Nobody may be reading that, which is no reason to end.
fn report(args: &Args, event: &str, fields: &[(&str, &str)], text: &str) {
    let mut line = text.to_owned();
    if args.json {
        line = format!(
            "{{\"event\":{},\"group\":{}",
            quoted(event),
            quoted(&args.group)
        );
        for (name, value) in fields {
            let _ = write!(line, ",{}:{}", quoted(name), quoted(value));
        }
        line.push('}');
    }
    let _ = writeln!(io::stdout(), "{line}");
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut json = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(json, "\\u{:04x}", u32::from(c));
            }
            c => json.push(c),
        }
    }
    json.push('"');
    json
}
