//! `table-client`: a client of a replicated table.

use clap::Parser;
use kvrep_examples::common::runtime;
use kvrep_examples::primary_backup_table::arguments::{seconds, two_servers};
use kvrep_examples::primary_backup_table::client_console::{Ended, run};
use kvrep_examples::primary_backup_table::message::Dialect;
use kvrep_examples::primary_backup_table::network_client::{Identity, Patience};
use kvrep_examples::primary_backup_table::policy::dialect;
use std::process::ExitCode;
use std::time::Duration;
use tokio::runtime::Builder;

/// A client of a replicated table: reads commands from standard input, with line editing and a history on a terminal.
#[derive(Parser)]
#[command(name = "table-client", version, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    /// The primary and the secondary, each as IP:PORT, or as IP and PORT
    #[arg(value_name = "SERVER", required = true, num_args = 2..=4)]
    servers: Vec<String>,
    /// Seconds to wait before both servers are tried a second time, and for an answer of either
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    timeout: Duration,
    /// What requests begin with: simples, or c-prefixo for a role byte before each frame
    #[arg(long = "dialeto", value_name = "NOME", default_value = "simples", value_parser = dialect)]
    dialect: Dialect,
    /// Send writes as every table server knows them, without an identity: one that is sent again may be carried out twice
    #[arg(long)]
    plain: bool,
}

const EXAMPLES: &str = "\
Commands:
  put <data> <key>    cput <data> <key>    get <key>    del <key>    size    getkeys    quit
  Data may contain spaces; the key is the last word.

Examples:
  table-client 127.0.0.1:5000 127.0.0.1:5001
  printf 'put two words k\\nget k\\n' | table-client 127.0.0.1 5000 127.0.0.1 5001 --timeout 1

When the primary does not answer, the same request goes to the secondary; if that does not either, to both again after the
timeout. Exit code: 0 after quit or the end of the input, 1 when neither server answered, 2 for wrong usage.";

fn main() -> ExitCode {
    let cli = Cli::parse();
    let [primary, secondary] = match two_servers(&cli.servers) {
        Ok(servers) => servers,
        Err(why) => {
            eprintln!("table-client: {why}; see --help");
            return ExitCode::from(2);
        }
    };
    let patience = Patience {
        timeout: cli.timeout,
        dialect: cli.dialect,
        identity: if cli.plain {
            Identity::Never
        } else {
            Identity::WherePossible
        },
    };
    let ended = match runtime::run(
        &mut Builder::new_current_thread(),
        run(primary, secondary, patience),
    ) {
        Ok(ended) => ended,
        Err(why) => {
            eprintln!("table-client: {why}");
            return ExitCode::FAILURE;
        }
    };
    match ended {
        Ok(Ended::Quit) => ExitCode::SUCCESS,
        Ok(Ended::GaveUp) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("table-client: {e}");
            ExitCode::FAILURE
        }
    }
}
