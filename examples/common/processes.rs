//! Programs of this package as real processes: typed to, read, stopped, killed.
//!
//! What a process prints is kept line by line and waited for with a deadline, so nothing sleeps and hopes. Each wait
//! goes on behind the line that the last one found: a test reads like the screen.
//!
//! Caveat: at most [`LINES_KEPT_MAX`] lines of a process are kept; further ones are read and thrown away.

use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

/// How many lines of a process are kept.
pub const LINES_KEPT_MAX: usize = 100_000;

/// Why a process does not do what it should.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// There is no such program beside this one.
    #[error("{} is not built; run `cargo build -p kvrep-examples --bins` (with --release if this program is)", .0.display())]
    NotBuilt(PathBuf),
    /// The system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A line did not come in time.
    #[error("{name} did not print {wanted:?} within {within:?}; it printed:\n{printed}")]
    Silent {
        /// Whose line.
        name: String,
        /// Which.
        wanted: String,
        /// For how long it was waited for.
        within: Duration,
        /// Its last lines.
        printed: String,
    },
    /// It does not end.
    #[error("{name} did not end within {within:?}")]
    Endless {
        /// Who.
        name: String,
        /// For how long it was waited for.
        within: Duration,
    },
}

/// A program that may be started more than once: its file, its arguments, where it runs.
#[derive(Clone, Debug)]
pub struct Program {
    name: String,
    file: PathBuf,
    arguments: Vec<OsString>,
    directory: Option<PathBuf>,
    environment: Vec<(OsString, OsString)>,
    errors_to: Option<PathBuf>,
}

impl Program {
    /// A program of this package, which lies beside the one that runs (a test's are one directory up). `name` is how it is
    /// called in messages.
    ///
    /// # Errors
    /// When it is not built.
    pub fn beside(name: impl Into<String>, file_name: &str) -> Result<Self, ProcessError> {
        let here = std::env::current_exe().map_err(failed("cannot find this program"))?;
        let mut directory = here.parent().map(PathBuf::from).unwrap_or_default();
        if directory.ends_with("deps") {
            directory.pop();
        }
        let file = directory.join(format!("{file_name}{}", std::env::consts::EXE_SUFFIX));
        if !file.is_file() {
            return Err(ProcessError::NotBuilt(file));
        }
        Ok(Self::at(name, file))
    }

    /// The program in this file.
    pub fn at(name: impl Into<String>, file: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            file: file.into(),
            arguments: Vec::new(),
            directory: None,
            environment: Vec::new(),
            errors_to: None,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(self, arguments: impl IntoIterator<Item = A>) -> Self {
        arguments.into_iter().fold(self, Self::arg)
    }

    /// Runs it in this directory.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment
            .push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Appends its standard error to this file, so that what is read is its standard output and nothing else.
    #[must_use]
    pub fn errors_to(mut self, file: impl Into<PathBuf>) -> Self {
        self.errors_to = Some(file.into());
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// When the system does not.
    pub fn start(&self) -> Result<Process, ProcessError> {
        let mut command = Command::new(&self.file);
        command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let Some(file) = &self.errors_to {
            let opened = OpenOptions::new().create(true).append(true).open(file);
            let errors = opened.map_err(failed(format!("cannot write {}", file.display())))?;
            command.stderr(Stdio::from(errors));
        }
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        let what = format!("cannot start {}", self.file.display());
        let mut child = command.spawn().map_err(failed(what))?;
        let lines = Arc::new(Lines::default());
        if let Some(stdout) = child.stdout.take() {
            tokio::spawn(keep(stdout, Arc::clone(&lines)));
        }
        match child.stderr.take() {
            Some(stderr) => drop(tokio::spawn(keep(stderr, Arc::clone(&lines)))),
            None => *lines.ended() += 1,
        }
        Ok(Process {
            name: self.name.clone(),
            input: child.stdin.take(),
            child,
            lines,
            read: 0,
        })
    }
}

/// A running program. Dropped, it is killed, and gone: what it held (its directory, its port) is free.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    lines: Arc<Lines>,
    /// Lines before this one were found already.
    read: usize,
}

impl Process {
    /// How it is called in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Types a line.
    ///
    /// # Errors
    /// When nobody reads there any more.
    pub async fn type_line(&mut self, line: &str) -> Result<(), ProcessError> {
        self.type_bytes(format!("{line}\n").as_bytes()).await
    }

    /// Types these bytes, without a line's end.
    ///
    /// # Errors
    /// When nobody reads there any more.
    pub async fn type_bytes(&mut self, bytes: &[u8]) -> Result<(), ProcessError> {
        let cannot = failed(format!("cannot type to {}", self.name));
        let Some(input) = &mut self.input else {
            return Err(cannot(io::Error::other("its input was closed")));
        };
        let typed = async {
            input.write_all(bytes).await?;
            input.flush().await
        };
        match timeout(TYPED_WITHIN, typed).await {
            Ok(typed) => typed.map_err(cannot),
            Err(_) => Err(cannot(io::Error::from(io::ErrorKind::TimedOut))),
        }
    }

    /// Ends its standard input.
    pub fn close_input(&mut self) {
        self.input = None;
    }

    /// Waits for a line (of either stream) with `part` in it, behind the one found last, and returns it.
    ///
    /// # Errors
    /// [`ProcessError::Silent`], with what it printed instead.
    pub async fn line(&mut self, part: &str, within: Duration) -> Result<String, ProcessError> {
        self.line_that(part, |line| line.contains(part), within)
            .await
    }

    /// Waits for a line that is as wanted; `wanted` says how, for the message.
    ///
    /// # Errors
    /// As [`line`](Self::line).
    pub async fn line_that(
        &mut self,
        wanted: &str,
        is_wanted: impl Fn(&str) -> bool,
        within: Duration,
    ) -> Result<String, ProcessError> {
        let deadline = Instant::now() + within;
        loop {
            // Registered before looking, so that no line comes in between.
            let mut more = std::pin::pin!(self.lines.more.notified());
            more.as_mut().enable();
            let found = {
                let kept = self.lines.kept();
                let rest = kept.iter().enumerate().skip(self.read);
                rest.map(|(at, line)| (at, line.clone()))
                    .find(|(_, line)| is_wanted(line))
            };
            if let Some((at, line)) = found {
                self.read = at + 1;
                return Ok(line);
            }
            if timeout_at(deadline, more).await.is_err() {
                return Err(ProcessError::Silent {
                    name: self.name.clone(),
                    wanted: wanted.to_owned(),
                    within,
                    printed: self.lines.last(LINES_SHOWN),
                });
            }
        }
    }

    /// Everything it has printed so far.
    #[must_use]
    pub fn printed(&self) -> Vec<String> {
        self.lines.kept().clone()
    }

    /// Its process id; `None` once it has ended.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// How much memory it has in use, from `/proc`; `None` where that is not known.
    #[must_use]
    pub fn resident_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()?)).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kib << 10)
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    ///
    /// # Errors
    /// When the system does not.
    pub async fn kill(&mut self) -> Result<(), ProcessError> {
        let cannot = failed(format!("cannot kill {}", self.name));
        self.child.kill().await.map_err(cannot)
    }

    /// Stops it (SIGSTOP): it keeps its connections and answers nothing.
    ///
    /// # Errors
    /// When the system does not.
    pub fn pause(&self) -> Result<(), ProcessError> {
        self.signal(rustix::process::Signal::STOP)
    }

    /// Lets it go on after [`pause`](Self::pause).
    ///
    /// # Errors
    /// When the system does not.
    pub fn resume(&self) -> Result<(), ProcessError> {
        self.signal(rustix::process::Signal::CONT)
    }

    /// Asks it to end, as Ctrl-C does.
    ///
    /// # Errors
    /// When the system does not.
    pub fn interrupt(&self) -> Result<(), ProcessError> {
        self.signal(rustix::process::Signal::INT)
    }

    /// Waits until it has ended, and until its last lines are here.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn ended(&mut self, within: Duration) -> Result<ExitStatus, ProcessError> {
        let endless = |_| ProcessError::Endless {
            name: self.name.clone(),
            within,
        };
        let both = async {
            let status = self.child.wait().await;
            self.lines.complete().await;
            status
        };
        let status = timeout(within, both).await.map_err(endless)?;
        status.map_err(failed(format!("cannot wait for {}", self.name)))
    }

    fn signal(&self, signal: rustix::process::Signal) -> Result<(), ProcessError> {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        let sent = match id.and_then(rustix::process::Pid::from_raw) {
            Some(id) => rustix::process::kill_process(id, signal).map_err(io::Error::from),
            None => Err(io::Error::other("it has ended")),
        };
        sent.map_err(failed(format!("cannot signal {}", self.name)))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error: it is gone already. Else the system needs a moment for it.
        if self.child.start_kill().is_err() {
            return;
        }
        for _ in 0..GONE_WITHIN.as_millis() {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// What a process prints.
#[derive(Debug, Default)]
struct Lines {
    kept: Mutex<Vec<String>>,
    /// Streams that have ended, of two.
    ended: Mutex<usize>,
    more: Notify,
}

impl Lines {
    fn kept(&self) -> MutexGuard<'_, Vec<String>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self) -> MutexGuard<'_, usize> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last(&self, lines: usize) -> String {
        let kept = self.kept();
        kept[kept.len().saturating_sub(lines)..].join("\n")
    }

    async fn complete(&self) {
        loop {
            let mut more = std::pin::pin!(self.more.notified());
            more.as_mut().enable();
            if *self.ended() == 2 {
                return;
            }
            more.await;
        }
    }
}

async fn keep(stream: impl AsyncRead + Unpin, lines: Arc<Lines>) {
    let mut stream = BufReader::new(stream);
    let (mut line, mut has_room) = (Vec::new(), true);
    // A prompt without an end of line is kept with the line that follows it.
    while has_room && matches!(stream.read_until(b'\n', &mut line).await, Ok(1..)) {
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches(['\r', '\n']).to_owned();
        line.clear();
        let mut kept = lines.kept();
        has_room = kept.len() < LINES_KEPT_MAX;
        if has_room {
            kept.push(text);
        }
        drop(kept);
        lines.more.notify_waiters();
    }
    // Read all the same: whoever writes must not stand still. A stream that cannot be read has ended.
    let _ = tokio::io::copy_buf(&mut stream, &mut tokio::io::sink()).await;
    *lines.ended() += 1;
    lines.more.notify_waiters();
}

/// Ports of the loopback that nobody listens on now. They lie below those that the system gives to outgoing connections, so
/// that none is taken while its server is being started again; another test may still choose the same at the same
/// moment.
///
/// # Errors
/// When there are not so many.
pub fn free_ports<const N: usize>() -> Result<[u16; N], ProcessError> {
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new();
    let mut held = Vec::new();
    for attempt in 0..10_000_u32 {
        let span = u64::from(PORTS.end - PORTS.start);
        let offset = u16::try_from(random.hash_one(attempt) % span).unwrap_or_default();
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, PORTS.start + offset)) {
            held.push(listener);
        }
        if held.len() == N {
            break;
        }
    }
    // Given back only when all are chosen, so that no two are equal.
    let ports: Result<Vec<u16>, io::Error> = held
        .iter()
        .map(|listener| Ok(listener.local_addr()?.port()))
        .collect();
    let none_left = |_| io::Error::other("too few are free");
    ports
        .and_then(|ports| ports.try_into().map_err(none_left))
        .map_err(failed("cannot find free ports"))
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> ProcessError {
    let what = what.into();
    move |source| ProcessError::Io { what, source }
}

const PORTS: std::ops::Range<u16> = 15_000..32_000;
/// A killed process that writes to a slow disk is not gone before that is done.
const GONE_WITHIN: Duration = Duration::from_secs(5);
const TYPED_WITHIN: Duration = Duration::from_secs(30);
const LINES_SHOWN: usize = 40;

#[cfg(test)]
#[path = "processes_tests.rs"]
mod tests;
