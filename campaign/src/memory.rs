//! The memory of a process, as the system counts it.

use rustix::process::Pid;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// Resident bytes of a process; `None` when it has ended or the system does not tell.
pub(crate) fn resident_bytes(pid: Pid) -> Option<u64> {
    let path = format!("/proc/{}/status", pid.as_raw_nonzero());
    let status = std::fs::read_to_string(path).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

/// Looks at a process again and again.
pub(crate) struct Watch {
    enough: Arc<AtomicBool>,
    task: JoinHandle<Vec<(Duration, u64)>>,
}

const EVERY: Duration = Duration::from_millis(20);

impl Watch {
    /// Times are since `began`.
    pub(crate) fn start(pid: Pid, began: Instant) -> Self {
        let enough = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&enough);
        let task = tokio::spawn(async move {
            let mut seen = Vec::new();
            while !told.load(Ordering::Relaxed) {
                seen.extend(resident_bytes(pid).map(|bytes| (began.elapsed(), bytes)));
                sleep(EVERY).await;
            }
            seen
        });
        Self { enough, task }
    }

    /// What was seen.
    ///
    /// # Errors
    /// When the system told nothing.
    pub(crate) async fn finish(self) -> Result<Vec<(Duration, u64)>, String> {
        self.enough.store(true, Ordering::Relaxed);
        let seen = self.task.await.map_err(|e| e.to_string())?;
        if seen.is_empty() {
            return Err("this system does not tell the memory of a process in /proc".into());
        }
        Ok(seen)
    }
}

/// The most between two moments.
pub(crate) fn most(seen: &[(Duration, u64)], from: Duration, to: Duration) -> u64 {
    let within = seen.iter().filter(|(at, _)| (from..to).contains(at));
    within.map(|(_, bytes)| *bytes).max().unwrap_or(0)
}
