//! The command line's arguments.

use crate::common::address::address;
use clap::Parser;

/// A command line for the MondongoDB document store. `docstore-cli help` lists its commands.
#[derive(Parser, Clone, Debug)]
#[command(name = "docstore-cli", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Args {
    /// A node of the store; `help` lists the commands instead.
    #[arg(value_name = "HOST:PORT", value_parser = node)]
    pub node: String,
    /// Send a write that this node refuses, because it does not lead, to the leader that it names.
    #[arg(long)]
    pub follow_leader: bool,
    /// Give up an operation after this many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
}

/// `help` stands where a node does.
fn node(text: &str) -> Result<String, String> {
    match text {
        "help" => Ok(text.into()),
        _ => address(text),
    }
}

const EXAMPLES: &str = "\
Commands of this program's own, beside those that help lists:
  nodes: list the store's nodes, and how they are
  rmnode <host:port>: remove a node that is gone for good

Examples:
  docstore-cli localhost:8000
  echo 'search users age>10 age<20' | docstore-cli localhost:8001

On a terminal lines can be edited and recalled. Exit code: 0; 1 if a command that came through a pipe failed; 2 for
wrong usage.";

/// What `help` prints, as an argument and in the prompt.
pub const HELP: &str = "\
Usage: docstore-cli <host:port>
Available commands within the prompt
  help: show this message
  addcol <name> {key=val,}+: add a new collection with the specified schema
  rmcol <name>: remove de specified collection
  desc: describe the store
  add <col> {key=val,}+: add a new document with the specified attributes
  search <col> <query>: obtain all the documents which meet the specified query
  update <col> <query> {key=val,}+: update the documents meeting the query
  remove <col> <query>: remove the documents which meet the specified query
  exit: close the current connection";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn an_address_that_is_none_is_wrong_usage() {
        assert!(Args::try_parse_from(["cli", "help"]).is_ok());
        assert!(Args::try_parse_from(["cli", "localhost:8000"]).is_ok());
        for wrong in ["localhost", "localhost:0", ":1", "localhost:70000"] {
            let refused = Args::try_parse_from(["cli", wrong]).expect_err(wrong);
            assert_eq!(refused.exit_code(), 2, "{wrong}");
        }
    }

    #[test]
    fn r2_20_help_says_exactly_what_the_text_says_but_for_the_programs_name() {
        Args::command().debug_assert();
        let text = "Usage: python3 cli-remote.py <host:port>\nAvailable commands within the prompt\n  help: show this message\n  addcol <name> {key=val,}+: add a new collection with the specified schema\n  rmcol <name>: remove de specified collection\n  desc: describe the store\n  add <col> {key=val,}+: add a new document with the specified attributes\n  search <col> <query>: obtain all the documents which meet the specified query\n  update <col> <query> {key=val,}+: update the documents meeting the query\n  remove <col> <query>: remove the documents which meet the specified query\n  exit: close the current connection";
        assert_eq!(HELP, text.replace("python3 cli-remote.py", "docstore-cli"));
    }
}
