//! The pair as real processes: what the story and the tests play with.

use super::client_stub::ClientStub;
use super::network_client::{NetworkClient, Patience};
use super::server_console::{UPDATING, WAITING};
use crate::common::processes::{Process, ProcessError, Program, free_ports};
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// One server's files and arguments; it may be started again and again.
#[derive(Debug)]
pub struct Seat {
    /// Its port.
    pub port: u16,
    program: Program,
}

/// What a server printed on `print`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dump {
    /// The role, and how the other one is.
    pub role: String,
    /// The entries, one a line.
    pub entries: Vec<String>,
}

/// Two ports, two directories, and the programs to start there.
#[derive(Debug)]
pub struct Pair {
    /// The server that begins the table.
    pub first: Seat,
    /// The one that joins it.
    pub second: Seat,
    directory: TempDir,
}

/// Everything that a process does happens within this, or not at all.
pub const WITHIN: Duration = Duration::from_secs(60);

impl Pair {
    /// A pair of which nothing runs yet. Both servers get these arguments besides their own.
    ///
    /// # Errors
    /// When the programs are not built, or there are no ports.
    pub fn prepare(both: &[&str]) -> Result<Self, ProcessError> {
        let [first, second] = free_ports::<2>()?;
        let directory = tempfile::tempdir().map_err(|source| ProcessError::Io {
            what: "cannot make a directory".into(),
            source,
        })?;
        let primary = format!("127.0.0.1:{first}");
        Ok(Self {
            first: Seat::new(first, directory.path(), both, &[])?,
            second: Seat::new(second, directory.path(), both, &[&primary])?,
            directory,
        })
    }

    /// Starts both, and waits until the second one counts.
    ///
    /// # Errors
    /// When they do not.
    pub async fn start(&self) -> Result<(Process, Process), ProcessError> {
        let first = self.first.start().await?;
        let mut second = self.second.start().await?;
        second.line("tabela atualizada", WITHIN).await?;
        Ok((first, second))
    }

    /// A directory of its own, for whatever else is needed.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A client that asks the first server first.
    #[must_use]
    pub fn client(&self, patience: Patience) -> ClientStub {
        let (first, second) = (self.first.address(), self.second.address());
        ClientStub::new(NetworkClient::new(first, second, patience))
    }
}

impl Seat {
    fn new(port: u16, dir: &Path, both: &[&str], own: &[&str]) -> Result<Self, ProcessError> {
        let program = Program::beside(format!("table-server {port}"), "table-server")?
            .directory(dir)
            .arg(port.to_string())
            .args(own)
            .args(["--listen", "127.0.0.1"])
            .args(both);
        Ok(Self { port, program })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The same seat with more arguments.
    #[must_use]
    pub fn with(&self, arguments: &[&str]) -> Self {
        Self {
            port: self.port,
            program: self.program.clone().args(arguments),
        }
    }

    /// Another program for this seat: the server with only these arguments.
    ///
    /// # Errors
    /// When it is not built.
    pub fn alone(&self, dir: &Path, arguments: &[&str]) -> Result<Self, ProcessError> {
        Self::new(self.port, dir, arguments, &[])
    }

    /// Starts the server and waits until it listens.
    ///
    /// # Errors
    /// When it does not.
    pub async fn start(&self) -> Result<Process, ProcessError> {
        let mut process = self.program.start()?;
        process.line("na porta", WITHIN).await?;
        Ok(process)
    }

    /// Starts the server without waiting for anything.
    ///
    /// # Errors
    /// When the system does not.
    pub fn launch(&self) -> Result<Process, ProcessError> {
        self.program.start()
    }
}

/// Types `print` and returns what comes.
///
/// # Errors
/// When nothing comes.
pub async fn dump(server: &mut Process) -> Result<Dump, ProcessError> {
    server.type_line("print").await?;
    let is_role = |line: &str| line.contains("(outro servidor: ");
    let role = server.line_that("the role", is_role, WITHIN).await?;
    let mut entries = Vec::new();
    loop {
        let line = server.line("", WITHIN).await?;
        if line.is_empty() {
            return Ok(Dump { role, entries });
        }
        if !line.starts_with("table-server: ") {
            entries.push(line);
        }
    }
}

/// Types `print` until what comes is as wanted.
///
/// # Errors
/// What came last, when that does not happen in time.
pub async fn dump_when(
    server: &mut Process,
    what: &str,
    is_wanted: impl Fn(&Dump) -> bool,
) -> Result<Dump, ProcessError> {
    let deadline = Instant::now() + WITHIN;
    loop {
        let now = dump(server).await?;
        if is_wanted(&now) {
            return Ok(now);
        }
        if Instant::now() >= deadline {
            return Err(ProcessError::Silent {
                name: server.name().to_owned(),
                wanted: what.to_owned(),
                within: WITHIN,
                printed: format!("{now:?}"),
            });
        }
        sleep(Duration::from_millis(20)).await;
    }
}

impl Dump {
    /// Whether the server is primary.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        self.role.starts_with("primário")
    }

    /// Whether the server has the whole table, as far as it knows.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let lacks = |line: &String| [UPDATING, WAITING].contains(&line.as_str());
        !self.entries.iter().any(lacks)
    }

    /// Whether the other one counts.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.role.contains("UP")
    }
}
