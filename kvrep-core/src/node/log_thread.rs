//! The one thread that writes a log on disk.
//!
//! It takes everything that has queued, writes it, syncs **once**, and reports the highest token: the more there is
//! to do, the more commands share one `fdatasync` (group commit). Meanwhile the runner sends and receives; nothing but
//! what waits for these tokens waits.
//!
//! The queue itself refuses nothing, because a protocol's order to persist cannot be refused. It is bounded at the
//! door: the runner answers *busy* to commands while more than `log_backlog_bytes_max` wait here, and what peers may
//! send is bounded by the group's `inflight_bytes_max`.

use super::queue::Mailbox;
use super::runner::{Control, Done};
use crate::id::PersistToken;
use crate::storage::{Storage, StorageError, StorageEvent, StorageOp};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// What one sync made durable.
pub(super) struct Synced {
    pub(super) token: PersistToken,
    pub(super) events: Vec<StorageEvent>,
    pub(super) batches: usize,
    pub(super) bytes: usize,
    pub(super) took: Duration,
}

struct Batch {
    token: PersistToken,
    ops: Vec<StorageOp>,
    bytes: usize,
}

/// The runner's end of the thread. Dropping it lets the thread finish what has queued and end.
pub(super) struct LogThread {
    batches: mpsc::Sender<Batch>,
    backlog_bytes: Arc<AtomicUsize>,
    queued: PersistToken,
}

/// The supervisor's end of the thread.
pub(super) struct LogThreadEnd {
    /// Tells the thread to write nothing more.
    pub(super) abandon: Arc<AtomicBool>,
    /// Resolves when the thread has dropped the storage.
    pub(super) ended: oneshot::Receiver<()>,
}

impl LogThread {
    /// Starts the thread.
    pub(super) fn spawn(
        name: &str,
        storage: Box<dyn Storage>,
        mailbox: Mailbox,
    ) -> std::io::Result<(Self, LogThreadEnd)> {
        let (batches, queue) = mpsc::channel();
        let backlog_bytes = Arc::new(AtomicUsize::new(0));
        let abandon = Arc::new(AtomicBool::new(false));
        let (done, ended) = oneshot::channel();
        let writer = Writer {
            storage,
            queue,
            mailbox,
            backlog_bytes: Arc::clone(&backlog_bytes),
            abandon: Arc::clone(&abandon),
        };
        std::thread::Builder::new()
            .name(format!("kvrep-log {name}"))
            .spawn(move || {
                writer.run();
                let _ = done.send(());
            })?;
        Ok((
            Self {
                batches,
                backlog_bytes,
                queued: PersistToken(0),
            },
            LogThreadEnd { abandon, ended },
        ))
    }

    /// Queues a batch. One that comes after the thread's end is never reported durable.
    pub(super) fn persist(&mut self, token: PersistToken, ops: Vec<StorageOp>) {
        self.queued = token;
        let bytes = ops.iter().map(bytes_of).sum();
        self.backlog_bytes.fetch_add(bytes, Ordering::Relaxed);
        drop(self.batches.send(Batch { token, ops, bytes }));
    }

    /// What was queued last.
    pub(super) fn queued(&self) -> PersistToken {
        self.queued
    }

    /// Bytes queued and not yet durable.
    pub(super) fn backlog_bytes(&self) -> usize {
        self.backlog_bytes.load(Ordering::Relaxed)
    }
}

struct Writer {
    storage: Box<dyn Storage>,
    queue: mpsc::Receiver<Batch>,
    mailbox: Mailbox,
    backlog_bytes: Arc<AtomicUsize>,
    abandon: Arc<AtomicBool>,
}

impl Writer {
    fn run(mut self) {
        let _report = ReportPanic(self.mailbox.clone());
        while let Ok(first) = self.queue.recv() {
            if self.abandon.load(Ordering::Relaxed) {
                return;
            }
            match self.write_all(first) {
                Ok(synced) => {
                    self.backlog_bytes
                        .fetch_sub(synced.bytes, Ordering::Relaxed);
                    self.mailbox.tell(Control::Done(Done::Synced(synced)));
                }
                // Final: the storage is never touched again.
                Err(error) => {
                    self.mailbox.tell(Control::Done(Done::LogFailed(error)));
                    return;
                }
            }
        }
    }

    fn write_all(&mut self, first: Batch) -> Result<Synced, StorageError> {
        #[allow(
            clippy::disallowed_methods,
            reason = "a driver's thread measures its disk"
        )]
        let begun = Instant::now();
        let Batch {
            mut token,
            mut ops,
            mut bytes,
        } = first;
        let mut batches = 1;
        while bytes < SYNC_BYTES_MAX
            && let Ok(next) = self.queue.try_recv()
        {
            token = next.token;
            bytes += next.bytes;
            ops.extend(next.ops);
            batches += 1;
        }
        let events = self.storage.write(ops)?;
        self.storage.sync()?;
        Ok(Synced {
            token,
            events,
            batches,
            bytes,
            took: begun.elapsed(),
        })
    }
}

/// A panic of the storage ends the node; it would wait for ever otherwise.
struct ReportPanic(Mailbox);

impl Drop for ReportPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.tell(Control::Done(Done::LogPanicked));
        }
    }
}

fn bytes_of(op: &StorageOp) -> usize {
    match op {
        StorageOp::Append(entries) => entries.iter().map(crate::Entry::encoded_bytes).sum(),
        StorageOp::HardState(state) => state.len(),
        StorageOp::SnapshotChunk { data, .. } => data.len(),
        StorageOp::TruncateSuffix { .. }
        | StorageOp::PurgePrefix { .. }
        | StorageOp::InstallSnapshot { .. }
        | StorageOp::Reset { .. } => 0,
    }
}

/// At most about this much is written before a sync, so that the first of a long queue does not wait for the last.
const SYNC_BYTES_MAX: usize = 16 << 20;
