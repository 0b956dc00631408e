//! A server of system 3. See `examples/zk-like-kv/README.md`.

use clap::Parser;
use kvrep_examples::common::logging::log_to_stderr;
use kvrep_examples::zk_like_kv::server::{DELAY_MAX, Settings, serve};
use std::io::{BufRead, IsTerminal, Write};
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// One of the three servers of a replicated key-value store with a fixed leader.
///
/// What is not given as an option is asked on standard input, in this order: own IP, own port, leader's IP, leader's port. An
/// empty answer takes the default.
#[derive(Parser)]
#[command(
    name = "zk-kv-server",
    version,
    after_help = "Examples:\n  zk-kv-server\n      asks for everything\n  \
                  printf '127.0.0.1\\n10098\\n127.0.0.1\\n10097\\n' | zk-kv-server\n      a follower, from a script\n  \
                  zk-kv-server --ip 127.0.0.1 --porta 10097 --ip-lider 127.0.0.1 --porta-lider 10097\n      the leader: its own \
                  address is the leader's\n  \
                  zk-kv-server --porta 10099 --porta-lider 10097 --ip '' --ip-lider '' --atraso-replicacao 3000\n      a follower that is told \
                  of writes three seconds late\n  \
                  zk-kv-server --porta 10099 --porta-lider 10097 --ip '' --ip-lider '' --no-lugar-de 127.0.0.1:10089\n      the right \
                  follower, after one was started with a wrong port and has been stopped\n\nIt prints the lines of its console on standard output and everything else on standard error.\nEnds with Ctrl-C \
                  or SIGTERM. Exit code: 0 after that, 1 when it could not start or go on, 2 for wrong options."
)]
struct Args {
    /// Own IP (or name). Empty: 127.0.0.1.
    #[arg(long, value_name = "IP")]
    ip: Option<String>,
    /// Own port. Empty: 10097.
    #[arg(long, value_name = "PORTA", value_parser = port_or_nothing)]
    porta: Option<String>,
    /// The leader's IP (or name). Empty: 127.0.0.1.
    #[arg(long, value_name = "IP")]
    ip_lider: Option<String>,
    /// The leader's port. Empty: 10097.
    #[arg(long, value_name = "PORTA", value_parser = port_or_nothing)]
    porta_lider: Option<String>,
    /// Take the place of this follower, which was a mistake or does not return: for a server that the leader does not let in because it
    /// knows three others. That one must be stopped.
    #[arg(long, value_name = "IP:PORTA")]
    no_lugar_de: Option<String>,
    /// Delay replication at this server, to show TRY_OTHER_SERVER_OR_LATER: at the leader what it sends, at a follower what it
    /// receives.
    #[arg(long, value_name = "MS", default_value = "0", value_parser = delay)]
    atraso_replicacao: Duration,
    /// How long a PUT may wait for the other servers before its client is told that its outcome is unknown.
    #[arg(long, value_name = "MS", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    limite_put: u64,
    /// Where a leader keeps a small file that says which timestamps it may have given, so that none is ever given again, even when all
    /// three servers have been stopped.
    #[arg(long, value_name = "DIR", default_value = ".")]
    dados: PathBuf,
}

fn main() -> ExitCode {
    let args = Args::parse();
    log_to_stderr("error");
    match settings(args).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("zk-kv-server: {why}");
            ExitCode::FAILURE
        }
    }
}

/// One thread: the replica, its connections and its clients take turns without waking each other.
fn run(settings: Settings) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_io_events_per_tick(EVENTS_AT_ONCE)
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(serve(settings))
}

fn settings(args: Args) -> Result<Settings, String> {
    let own_ip = answer(args.ip, "IP deste servidor", "127.0.0.1")?;
    let own_port = answer(args.porta, "porta deste servidor", "10097")?;
    let leader_ip = answer(args.ip_lider, "IP do líder", "127.0.0.1")?;
    let leader_port = answer(args.porta_lider, "porta do líder", "10097")?;
    Ok(Settings {
        own: address(&own_ip, &own_port)?,
        leader: address(&leader_ip, &leader_port)?,
        instead_of: args.no_lugar_de,
        delay: args.atraso_replicacao,
        put_within: Duration::from_millis(args.limite_put),
        directory: args.dados,
    })
}

/// What was given as an option, or is typed now.
fn answer(given: Option<String>, question: &str, default: &str) -> Result<String, String> {
    let typed = match given {
        Some(given) => given,
        None => ask(question, default)?,
    };
    let typed = typed.trim();
    Ok(if typed.is_empty() { default } else { typed }.to_owned())
}

fn ask(question: &str, default: &str) -> Result<String, String> {
    let mut input = std::io::stdin().lock();
    if std::io::stdin().is_terminal() {
        // Not on standard output: that has the lines of the text and nothing else.
        eprint!("{question} [{default}]: ");
        let _ = std::io::stderr().flush();
    }
    let mut line = Vec::new();
    let read = std::io::Read::take(&mut input, ANSWER_BYTES_MAX).read_until(b'\n', &mut line);
    match read {
        Ok(0) => Err(format!("falta uma resposta: {question}")),
        Ok(_) => Ok(String::from_utf8_lossy(&line).into_owned()),
        Err(error) => Err(format!("{question}: {error}")),
    }
}

/// A port, or nothing, which stands for the default one.
fn port_or_nothing(typed: &str) -> Result<String, String> {
    let trimmed = typed.trim();
    if !trimmed.is_empty() {
        number(trimmed)?;
    }
    Ok(typed.to_owned())
}

fn number(port: &str) -> Result<NonZeroU16, String> {
    port.parse()
        .map_err(|_| format!("{port:?} não é uma porta (1 a 65535)"))
}

fn delay(typed: &str) -> Result<Duration, String> {
    let delay = typed.parse().map(Duration::from_millis);
    let delay = delay.ok().filter(|delay| *delay <= DELAY_MAX);
    delay.ok_or_else(|| {
        format!(
            "um número de milissegundos, no máximo {}",
            DELAY_MAX.as_millis()
        )
    })
}

fn address(ip: &str, port: &str) -> Result<String, String> {
    let port = number(port)?;
    Ok(if ip.contains(':') && !ip.starts_with('[') {
        format!("[{ip}]:{port}")
    } else {
        format!("{ip}:{port}")
    })
}

/// Of many clients that ask at once, so many are read before what they asked is passed on: the leader begins meanwhile.
const EVENTS_AT_ONCE: usize = 16;
const ANSWER_BYTES_MAX: u64 = 1_024;
