//! A client of system 4. See `examples/multicast-calculator/README.md`.

use clap::Parser;
use clap::error::ErrorKind;
use kvrep_examples::common::operator::asked_to_end;
use kvrep_examples::common::runtime;
use kvrep_examples::multicast_calculator::client::Patience;
use kvrep_examples::multicast_calculator::menu::{Menu, Outcome};
use kvrep_transport_multicast::MulticastConfig;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::ExitCode;
use std::time::Duration;
use tokio::runtime::Builder;

/// A client of the fault-tolerant calculator.
///
/// Expressions are Python's: + - * / // % **, parentheses, integers of any size, floats. Without any on the command line they are asked for, one a line.
#[derive(Parser)]
#[command(
    name = "calc-client",
    version,
    after_help = "Examples:\n  calc-client\n      asks\n  calc-client '3+5-4/3*4' '2**100'\n      two expressions\n  \
                  calc-client -- '-7//2'\n      one that begins like an option\n  \
                  seq 10 | sed 's/$/**2/' | calc-client --interface 127.0.0.1\n      from a script, without a network\n\n\
                  Exit code: 0 when every expression had a result, 1 when one was invalid or had no answer (also when \
                  Ctrl-C ended the wait for it), 2 for wrong options."
)]
struct Args {
    /// What to evaluate.
    expressions: Vec<String>,
    /// The group of clients and servers.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "224.1.1.1:5007")]
    group: SocketAddrV4,
    /// The address of the interface over which to ask; without it the system's routes decide.
    #[arg(long, value_name = "ADDRESS")]
    interface: Option<Ipv4Addr>,
    /// How long to wait for an answer.
    #[arg(long, value_name = "MS", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    timeout: u64,
    /// How long to wait before a request is sent again.
    #[arg(long, value_name = "MS", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(10..=3_600_000))]
    resend_every: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let group = match group(&args) {
        Ok(group) => group,
        Err(why) => <Args as clap::CommandFactory>::command()
            .error(ErrorKind::ValueValidation, why)
            .exit(),
    };
    match runtime::run(&mut Builder::new_current_thread(), client(args, group)).flatten() {
        Ok(Outcome::Results) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("calc-client: {why}");
            ExitCode::FAILURE
        }
    }
}

fn group(args: &Args) -> Result<MulticastConfig, String> {
    let config = MulticastConfig::new(args.group);
    let config = match args.interface {
        Some(interface) => config.interface(interface),
        None => config,
    };
    config.validate().map(|()| config)
}

async fn client(args: Args, group: MulticastConfig) -> Result<Outcome, String> {
    let mut menu = Menu::new(
        group,
        Patience {
            timeout: Duration::from_millis(args.timeout),
            resend_every: Duration::from_millis(args.resend_every),
        },
    );
    let asked = asked_to_end().map_err(|error| error.to_string())?;
    let run = async {
        if args.expressions.is_empty() {
            menu.typed().await
        } else {
            menu.given(&args.expressions).await
        }
    };
    tokio::select! {
        ended = run => ended.map_err(|error| error.to_string())?,
        () = asked => {}
    }
    Ok(menu.outcome())
}
