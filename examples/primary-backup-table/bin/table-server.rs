//! `table-server`: one of the two servers of a replicated table.

use clap::Parser;
use kvrep_examples::common::logging::log_to_stderr;
use kvrep_examples::common::runtime;
use kvrep_examples::primary_backup_table::arguments::{address, addresses, advertised, seconds};
use kvrep_examples::primary_backup_table::message::Dialect;
use kvrep_examples::primary_backup_table::policy::dialect;
use kvrep_examples::primary_backup_table::server::{Options, serve};
use kvrep_examples::primary_backup_table::start::{Force, Wanted};
use kvrep_examples::primary_backup_table::state_dir::Durability;
use kvrep_examples::primary_backup_table::told;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::runtime::Builder;

/// One of the two servers of a replicated key-value table. Typing `print` shows the table and the server's role.
#[derive(Parser)]
#[command(name = "table-server", version, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    /// The port on which clients and the other server find this one
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// Where the primary is: IP:PORT, or IP and PORT. Without it this server begins as the primary
    ///
    /// It counts at the first start only; later the server's directory says who the other one is.
    #[arg(value_name = "PRIMARY", num_args = 0..=2)]
    primary: Vec<String>,
    /// The server's directory [default: table-PORT.d, in the working directory]
    ///
    /// It says who the other server is and, with --durable, holds the log. Started with another one, this server is a new one.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Keep a log in the directory, so that the table outlives the process
    #[arg(long)]
    durable: bool,
    /// A witness (kvrep-witness --group kvrep-table) that decides who may be primary; the same for both servers
    ///
    /// It serves one table: a server that is to begin another one with it is told so, and waits.
    /// Without one the pair is right as long as servers crash. When they are cut off from each other, or stop for a while,
    /// there may be two primaries; that is then found and reported, and what one of them took is lost.
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    witness: Option<String>,
    /// The clients' TIMEOUT, in seconds: a request that cannot be served (while the secondary is brought up to date, or nobody may serve) is held
    /// for a little less, and then its client is hung up on
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    timeout: Duration,
    /// Serve without the other server, which never returns. WHAT ONLY IT HAD IS LOST; without --durable the table starts EMPTY
    ///
    /// Refused while the other one serves, or has more. If it returns after all, it becomes the secondary and gets a copy of this server's
    /// table in place of its own (with --durable its own is set aside in its directory).
    #[arg(long)]
    force: bool,
    /// The address of this machine to listen on
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    listen: IpAddr,
    /// Where the other server reaches this one, if not where it listens
    #[arg(long, value_name = "HOST:PORT", value_parser = advertised)]
    advertise: Option<String>,
    /// What replies begin with: simples, or c-prefixo for a role byte before each frame. Requests are taken in both forms
    #[arg(long = "dialeto", value_name = "NOME", default_value = "simples", value_parser = dialect)]
    dialect: Dialect,
}

const EXAMPLES: &str = "\
Examples:
  # A pair on this machine, each in a terminal of its own:
  table-server 5000
  table-server 5001 127.0.0.1:5000

  # The same, with logs, safe also when the two cannot reach each other:
  kvrep-witness --group kvrep-table --data witness.d
  table-server 5000 --durable --witness 127.0.0.1:7000
  table-server 5001 127.0.0.1:5000 --durable --witness 127.0.0.1:7000

Ends with Ctrl-C or SIGTERM. Exit code: 0 after that, 1 when it could not start or go on, 2 for wrong usage.
More is logged to standard error with RUST_LOG=info.";

fn main() -> ExitCode {
    let cli = Cli::parse();
    log_to_stderr("off,kvrep_transport_tcp=error");
    let options = match options(cli) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("table-server: {why}; see --help");
            return ExitCode::from(2);
        }
    };
    let served = runtime::run(&mut Builder::new_current_thread(), serve(options));
    told::drain();
    let served = match served {
        Ok(served) => served,
        Err(why) => {
            eprintln!("table-server: {why}");
            return ExitCode::FAILURE;
        }
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("table-server: {why}");
            ExitCode::FAILURE
        }
    }
}

fn options(cli: Cli) -> Result<Options, String> {
    let primary = match addresses(&cli.primary)?.as_slice() {
        [] => None,
        [primary] => Some(primary.clone()),
        _ => return Err("one address is expected, the primary's".into()),
    };
    let data = cli.data;
    Ok(Options {
        wanted: Wanted {
            port: cli.port,
            primary,
            durability: if cli.durable {
                Durability::Log
            } else {
                Durability::Memory
            },
            force: if cli.force { Force::Yes } else { Force::No },
        },
        listen: cli.listen,
        advertise: cli.advertise,
        data: data.unwrap_or_else(|| format!("table-{}.d", cli.port).into()),
        timeout: cli.timeout,
        witness: cli.witness,
        dialect: cli.dialect,
    })
}
