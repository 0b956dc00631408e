//! The processes that are written to. Each ends when its standard input does, and so with whoever started it.

mod echo;
mod program;
mod replica;
mod sockets;

use clap::Subcommand;
use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;

/// What a process serves.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum Serve {
    /// A replica of the key-value store
    Replica {
        /// Which one
        #[arg(long)]
        id: u32,
        /// Where the replicas are, in the order of their ids from 1
        #[arg(long, value_delimiter = ',', required = true)]
        peers: Vec<SocketAddr>,
        /// Where its log is; without it, in memory
        #[arg(long)]
        data: Option<PathBuf>,
    },
    /// One side of the bare exchange
    Echo {
        /// Where it listens
        #[arg(long)]
        listen: SocketAddr,
        /// Whom it asks before it answers
        #[arg(long, value_delimiter = ',')]
        ask: Vec<SocketAddr>,
        /// What it appends each message to, with fdatasync
        #[arg(long)]
        data: Option<PathBuf>,
    },
    /// What answers at once
    Sockets {
        /// Where it listens
        #[arg(long)]
        listen: SocketAddr,
    },
    /// Another program, which is ended with this process
    Program {
        /// The program and its arguments
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

/// Serves until standard input ends.
pub(crate) fn run(serve: Serve) -> Result<(), String> {
    match serve {
        Serve::Replica { id, peers, data } => replica::run(id, &peers, data),
        Serve::Echo { listen, ask, data } => echo::run(listen, &ask, data),
        Serve::Sockets { listen } => sockets::run(listen),
        Serve::Program { command } => program::run(&command),
    }
}

/// The other end is held by the process that started this one: it is closed however that ends.
fn until_input_ends() {
    let mut byte = [0];
    while matches!(std::io::stdin().read(&mut byte), Ok(n) if n > 0) {}
}
