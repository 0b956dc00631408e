//! One replica in a process of its own, and what its parent sees of it.

use crate::state::{FREEZE_MICROS, Sharded};
use clap::Args;
use kvrep_core::{Authority, Node, ReplicaId};
use kvrep_transport_tcp::{TcpConfig, TcpTransport};
use std::error::Error;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::Ordering;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child as Process, ChildStdout, Command};

pub(crate) const GROUP: &str = "transfer";

#[derive(Args)]
pub(crate) struct NodeArgs {
    #[arg(long)]
    id: u32,
    #[arg(long, value_delimiter = ',')]
    addresses: Vec<String>,
    #[arg(long)]
    data: Option<PathBuf>,
}

/// Serves until standard input ends; says on standard output how far it has come.
pub(crate) async fn serve(args: NodeArgs) -> Result<(), Box<dyn Error>> {
    let me = ReplicaId(args.id);
    let members = (1_u32..).map(ReplicaId).zip(args.addresses);
    let peers: Vec<(ReplicaId, String)> = members.collect();
    let listen = peers
        .iter()
        .find(|(id, _)| *id == me)
        .map(|(_, address)| address.clone())
        .ok_or("no address of its own")?;
    let mut builder = Node::builder(GROUP, me)
        .members(peers.iter().map(|(id, _)| *id))
        .authority(Authority::Alone)
        .transport(TcpTransport::new(TcpConfig::new(listen).peers(peers)))
        .state_machine(Sharded::default());
    if let Some(data) = args.data {
        builder = builder.data_dir(data.join(me.to_string()));
    }
    let node = builder.start().await?;
    let mut status = node.watch();
    say("up");
    let mut loaded = false;
    let mut in_sync = false;
    let mut stdin = tokio::io::stdin();
    let mut byte = [0];
    loop {
        tokio::select! {
            changed = status.changed() => {
                changed?;
                let now = status.borrow_and_update().clone();
                let counters = now.node;
                if !loaded && counters.transfers > 0 {
                    loaded = true;
                    say(&format!(
                        "loaded {} {} {}",
                        counters.transfer_bytes,
                        counters.transfer_receive_micros,
                        counters.transfer_load_micros,
                    ));
                }
                let counts = now.protocol.configuration.is_some_and(|c| c.in_sync.contains_key(&me));
                if !in_sync && counts {
                    in_sync = true;
                    say("in sync");
                }
            }
            read = stdin.read(&mut byte) => {
                if !matches!(read, Ok(n) if n > 0) {
                    let status = node.status();
                    say(&format!(
                        "ended {} {} {} {}",
                        u8::from(status.protocol.serving),
                        status.node.snapshots,
                        FREEZE_MICROS.load(Ordering::Relaxed),
                        status.node.snapshot_write_micros,
                    ));
                    node.shutdown().await?;
                    return Ok(());
                }
            }
        }
    }
}

fn say(what: &str) {
    println!("{} {what}", micros());
}

/// Microseconds of the clock that all processes of this machine share.
fn micros() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_micros()).unwrap_or(u64::MAX)
}

/// Snapshots that a replica wrote of its own state.
#[derive(Clone, Copy, Default)]
pub(crate) struct Snapshots {
    pub(crate) written: u64,
    /// How long the state was frozen for the last of them, and how long it took to write it.
    pub(crate) freeze_micros: u64,
    pub(crate) write_micros: u64,
}

/// A replica's process.
pub(crate) struct Child {
    process: Process,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Child {
    pub(crate) fn start(id: u32, addresses: &[String], data: Option<&Path>) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("node")
            .args(["--id", &id.to_string()])
            .args(["--addresses", &addresses.join(",")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        if let Some(data) = data {
            command.arg("--data").arg(data);
        }
        let mut process = command.spawn()?;
        let stdout = process.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let lines = BufReader::new(stdout).lines();
        Ok(Self { process, lines })
    }

    /// When it said this, in microseconds.
    pub(crate) async fn said(&mut self, what: &str) -> io::Result<u64> {
        let (at, _) = self.told::<0>(what).await?;
        Ok(at)
    }

    /// The same with the numbers that it said behind it.
    pub(crate) async fn told<const N: usize>(&mut self, what: &str) -> io::Result<(u64, [u64; N])> {
        while let Some(line) = self.lines.next_line().await? {
            if let Some((at, said)) = line.split_once(' ')
                && let Some(rest) = said.strip_prefix(what)
            {
                let numbers = rest.split_whitespace().map(str::parse);
                let numbers = numbers
                    .collect::<Result<Vec<u64>, _>>()
                    .map_err(io::Error::other)?;
                let numbers =
                    <[u64; N]>::try_from(numbers).map_err(|_| io::ErrorKind::InvalidData)?;
                return Ok((at.parse().map_err(io::Error::other)?, numbers));
            }
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    /// Ends it; what its snapshots cost it, if it was the primary.
    pub(crate) async fn end(mut self) -> io::Result<Option<Snapshots>> {
        drop(self.process.stdin.take());
        let (_, [serving, written, freeze_micros, write_micros]) = self.told("ended").await?;
        self.process.wait().await?;
        Ok((serving == 1).then_some(Snapshots {
            written,
            freeze_micros,
            write_micros,
        }))
    }

    pub(crate) async fn kill(mut self) -> io::Result<()> {
        self.process.kill().await
    }
}

/// A free port for each replica.
pub(crate) fn free_addresses(replicas: usize) -> io::Result<Vec<String>> {
    let bind = |_| TcpListener::bind("127.0.0.1:0");
    let listeners = (0..replicas).map(bind).collect::<io::Result<Vec<_>>>()?;
    let address = |l: &TcpListener| l.local_addr().map(|a| a.to_string());
    listeners.iter().map(address).collect()
}
