//! The server's arguments.

use crate::common::address::address;
use clap::Parser;
use std::path::PathBuf;

/// A node of the MondongoDB document store: the leader, or a follower of one.
#[derive(Parser, Clone, Debug)]
#[command(name = "docstore-server", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Args {
    /// Where the store's data are. Each node of this machine has a directory of its own in it, named by its port.
    pub path: PathBuf,
    /// Where to listen, for clients and for the other nodes. All nodes of a store live in one /16 network.
    #[arg(value_name = "HOST:PORT", value_parser = address)]
    pub listen: String,
    /// A node of the store to join (any: it says who leads). Without it the node begins a store, or goes on with what its
    /// directory holds.
    #[arg(value_name = "LEADER HOST:PORT", value_parser = address)]
    pub leader: Option<String>,
    /// Where the others and clients reach this node, if it listens on 0.0.0.0.
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    pub advertise: Option<String>,
    /// The witness that decides who leads, so that a partition makes no two leaders. The same for all nodes of a store, from
    /// its beginning; remembered in the directory. Start one with: kvrep-witness --group docstore --data DIR
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    pub witness: Option<String>,
    /// How many nodes may belong to the store, those that are away included; the same for all of them. When there are so many, a new one takes
    /// the place of the one that has been away longest.
    #[arg(long, value_name = "NODES", default_value_t = 64, value_parser = nodes_max)]
    pub nodes_max: usize,
    /// Lead with what this node has, without those that never return. What only they had is lost.
    ///
    /// The nodes that this one knows of are asked first, and while one of them leads nothing is forced.
    #[arg(long)]
    pub force: bool,
}

fn nodes_max(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(nodes @ 1..=64) => Ok(nodes),
        Ok(_) | Err(_) => Err("expected 1 to 64".into()),
    }
}

const EXAMPLES: &str = "\
Examples:
  # The leader, and a follower of it:
  docstore-server db localhost:8000
  docstore-server db localhost:8001 localhost:8000

  # Any of them is started again with the command that started it:
  docstore-server db localhost:8000

  # On three machines, safe under partitions:
  kvrep-witness --group docstore --listen 10.0.0.9:7000 --data /var/lib/kvrep-witness
  docstore-server /var/lib/db 10.0.0.1:8000 --witness 10.0.0.9:7000
  docstore-server /var/lib/db 10.0.0.2:8000 10.0.0.1:8000 --witness 10.0.0.9:7000

Ends with Ctrl-C or SIGTERM. Exit code: 0 after that, 1 when it could not start or go on, 2 for wrong usage.
More is logged to standard error with RUST_LOG=debug.";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn a2_20_the_arguments_are_a_path_an_address_and_maybe_a_leader() {
        Args::command().debug_assert();
        let args = Args::parse_from(["server", "db", "localhost:8001", "localhost:8000"]);
        assert_eq!(args.path, PathBuf::from("db"));
        assert_eq!(args.leader.as_deref(), Some("localhost:8000"));
        assert!(Args::try_parse_from(["server", "db"]).is_err());
        for wrong in [
            "localhost",
            ":8000",
            "localhost:0",
            "localhost:x",
            "localhost:99999",
        ] {
            let refused = Args::try_parse_from(["server", "db", wrong]).expect_err(wrong);
            assert_eq!(refused.exit_code(), 2, "{wrong}");
        }
    }
}
