//! A client of system 3. See `examples/zk-like-kv/README.md`.

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use kvrep_examples::common::operator::asked_to_end;
use kvrep_examples::common::runtime;
use kvrep_examples::zk_like_kv::menu::{Menu, Questions};
use kvrep_examples::zk_like_kv::trio::SERVERS;
use std::hash::{BuildHasher, RandomState};
use std::io::IsTerminal;
use std::num::NonZeroU16;
use std::process::ExitCode;
use std::time::Duration;
use tokio::io::BufReader;
use tokio::runtime::Builder;

/// A client of a replicated key-value store of three servers: a menu with INIT, PUT and GET.
///
/// On a terminal it asks; what comes through a pipe is taken as the answers, one a line.
#[derive(Parser)]
#[command(
    name = "zk-kv-client",
    version,
    after_help = "Examples:\n  zk-kv-client\n      asks; INIT first\n  \
                  printf 'INIT\\n\\n\\n\\n\\n\\n\\nPUT\\na\\n1\\nGET\\na\\n' | zk-kv-client\n      the usual servers, a write and a \
                  read\n  \
                  printf 'GET\\na\\n' | zk-kv-client --servidores 10.0.0.1:10097,10.0.0.2:10098,10.0.0.3:10099\n\n\
                  Exit code: 0 when every choice succeeded, 1 when one did not, 2 for wrong options."
)]
struct Args {
    /// The three servers (IP:porta, with commas): as if INIT had been answered.
    #[arg(long, value_delimiter = ',', value_name = "IP:PORTA", value_parser = server)]
    servidores: Vec<String>,
    /// Fixes which server is asked when.
    #[arg(long, value_name = "N")]
    semente: Option<u64>,
    /// How long to wait for an answer.
    #[arg(long, value_name = "MS", default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    espera: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(why) = three(&args.servidores) {
        Args::command()
            .error(ErrorKind::ValueValidation, why)
            .exit();
    }
    match runtime::run(&mut Builder::new_current_thread(), client(args)).flatten() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("zk-kv-client: {why}");
            ExitCode::FAILURE
        }
    }
}

/// How many choices failed.
async fn client(args: Args) -> Result<u64, String> {
    let seed = args
        .semente
        .unwrap_or_else(|| RandomState::new().hash_one(std::process::id()));
    let questions = if std::io::stdin().is_terminal() {
        Questions::Asked
    } else {
        Questions::Known
    };
    let console = (BufReader::new(tokio::io::stdin()), tokio::io::stdout());
    let patience = Duration::from_millis(args.espera);
    let menu = Menu::new(console, questions, args.servidores, seed, patience);
    let asked = asked_to_end().map_err(|error| error.to_string())?;
    tokio::select! {
        ended = menu.run() => ended.map_err(|error| error.to_string()),
        () = asked => Ok(0),
    }
}

/// Three servers, each once; or none, before INIT.
fn three(servers: &[String]) -> Result<(), String> {
    let n = servers.len();
    if n != 0 && n != SERVERS {
        return Err(format!(
            "--servidores: os servidores são três, e estes são {n}"
        ));
    }
    let twice = (servers.iter().enumerate()).find(|(at, server)| servers[..*at].contains(server));
    twice.map_or(Ok(()), |(_, server)| {
        Err(format!(
            "--servidores: {server} aparece duas vezes; os servidores são três"
        ))
    })
}

/// An address as INIT would have made it of its two answers.
fn server(typed: &str) -> Result<String, String> {
    let (ip, port) = typed.rsplit_once(':').unwrap_or((typed, ""));
    let bracketed = ip.starts_with('[') && ip.ends_with(']');
    if ip.is_empty() || (ip.contains(':') && !bracketed) || port.parse::<NonZeroU16>().is_err() {
        return Err("escreva IP:PORTA, por exemplo 127.0.0.1:10097 ou [::1]:10097".into());
    }
    Ok(typed.to_owned())
}
