//! How a node comes up, and how it goes down.

use super::events::{Ended, Events};
use super::feed::{Publisher, Registry};
use super::guard::{Fault, Guard, Guarded};
use super::host::{Log, TokioHost};
use super::local::Requests;
use super::log_thread::{LogThread, LogThreadEnd};
use super::queue::{self, Room};
use super::runner::{self, Bounds, Core, Stop};
use super::snapshots;
use super::stall::StallWatch;
use super::telemetry::{NodeCounters, Telemetry};
use super::{Node, NodeError, NodeIdentity, NodeStatus};
use crate::config::Limits;
use crate::engine::{Engine, Identity};
use crate::id::{GroupId, LogPoint, PersistToken, ReplicaId};
use crate::protocol::Protocol;
use crate::session::Machine;
use crate::state_machine::{Malformed, RawStateMachine};
use crate::storage::copy::{FromCopyError, StateCopy};
use crate::storage::{Durability, Recovered, SnapshotStore, Storage, StorageError};
use crate::time::Time;
use crate::transport::{Inbox, LocalPeer, Transport, TransportError};
use crate::wire;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant};
use tracing::Instrument;

/// Why a node did not start. Nothing runs then, and the storage is as it was found, but for a new incarnation.
///
/// ```
/// use kvrep_core::node::{Node, StartError};
/// use kvrep_core::{Fold, ReplicaId};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let stranger = Node::builder("counters", ReplicaId(4))
///     .members([1, 2, 3].map(ReplicaId))
///     .state_machine(Fold::new(0_i64, |sum, by: i64| *sum += by));
/// let error = stranger.start().await.unwrap_err();
/// assert!(matches!(error, StartError::Config(_)), "{error}");
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The description of the node is wrong: what to change.
    #[error("{0}")]
    Config(String),
    /// The storage cannot be used: locked, foreign, damaged, or an I/O error.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The copy cannot be used. It was not changed, and the storage is as it was found.
    #[error(transparent)]
    Copy(#[from] FromCopyError),
    /// What the storage holds is not this node's.
    #[error("the storage holds the data of something else ({0}): choose another directory")]
    Foreign(String),
    /// The snapshot does not fit the state machine. Nothing was changed.
    #[error(
        "the snapshot at {index} does not fit this state machine: {source}. \
         Start the version that wrote it, or begin with an empty directory"
    )]
    Restore {
        /// The last index in the snapshot.
        index: crate::Index,
        /// What the state machine said.
        source: std::io::Error,
    },
    /// The transport cannot start: a port in use, for one.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The system refused a thread, or the runtime is shutting down.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// Makes the protocol of what was recovered.
pub(super) type MakeProtocol =
    Box<dyn FnOnce(Recovered) -> Result<Box<dyn Protocol>, Malformed> + Send>;

/// Everything a node is made of.
pub(super) struct Plan {
    pub(super) group: String,
    pub(super) replica: ReplicaId,
    pub(super) config_hash: u64,
    pub(super) limits: Limits,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) storage: Box<dyn Storage>,
    /// Where an empty storage gets its first state from.
    pub(super) from_copy: Option<PathBuf>,
    pub(super) machine: Box<dyn RawStateMachine>,
    pub(super) guard: Guard,
    pub(super) protocol: MakeProtocol,
    pub(super) options: Options,
}

/// What belongs to the node, not to the group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    pub(super) request_queue_max: usize,
    pub(super) peer_queue_max: usize,
    pub(super) pending_max: usize,
    pub(super) reply_within: Duration,
    pub(super) shutdown_within: Duration,
    pub(super) log_backlog_bytes_max: usize,
    pub(super) storage_stall_max: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            request_queue_max: 16_384,
            peer_queue_max: 8_192,
            pending_max: 131_072,
            reply_within: Duration::from_secs(10),
            shutdown_within: Duration::from_secs(10),
            log_backlog_bytes_max: 64 << 20,
            storage_stall_max: Duration::from_secs(15),
        }
    }
}

/// A storage that was opened, with the state machine as it was at its snapshot.
struct Opened {
    storage: Box<dyn Storage>,
    snapshots: Arc<dyn SnapshotStore>,
    durability: Durability,
    recovered: Recovered,
    machine: Machine,
    applied: LogPoint,
}

pub(super) async fn start(plan: Plan) -> Result<Node, StartError> {
    let Plan {
        group,
        replica,
        config_hash,
        limits,
        transport,
        storage,
        from_copy,
        mut machine,
        guard,
        protocol,
        options,
    } = plan;
    check_frames(&*transport, &limits)?;
    // What changes is in the events: a field recorded again would be written beside its older values, for ever.
    let span = tracing::info_span!("node", %group, %replica);
    let opening = span.clone();
    let mut fault = None;
    if let Guard::Sampled { bytes_per_command } = guard {
        let told = Fault::default();
        fault = Some(Arc::clone(&told));
        machine = Box::new(Guarded::new(machine, bytes_per_command, told));
    }
    let number = GroupId::named(&group);
    let opened = blocking(move || {
        opening.in_scope(|| {
            let copy = from_copy.map(StateCopy::open).transpose()?;
            open(storage, copy.map(|copy| (number, copy)), machine, &limits)
        })
    });
    let opened = opened.await??;
    let identity = Identity {
        group: number,
        replica,
        incarnation: opened.recovered.incarnation,
    };
    let who = NodeIdentity {
        group: group.clone(),
        replica,
        incarnation: identity.incarnation,
        store: opened.recovered.store,
    };
    let protocol = protocol(opened.recovered).map_err(|Malformed(why)| StartError::Foreign(why))?;
    let engine = Engine::new(identity, protocol, opened.machine, opened.applied, limits);

    let (mailbox, mail) = queue::mailbox(Room {
        peers_max: options.peer_queue_max,
        requests_max: options.request_queue_max,
    });
    let (happens, events) = Events::channel();
    let feed = Arc::new(Registry::default());
    let origin = Instant::now();
    let (log, log_end) = match opened.durability {
        Durability::Memory => {
            let (storage, persisted) = (opened.storage, None);
            (Log::Inline { storage, persisted }, None)
        }
        Durability::Disk => {
            let name = format!("{group} {replica}");
            let (thread, end) = LogThread::spawn(&name, opened.storage, mailbox.clone())
                .map_err(StartError::Thread)?;
            (Log::Thread(thread), Some(end))
        }
    };
    let me = LocalPeer {
        group: identity.group,
        replica,
        incarnation: identity.incarnation,
        config_hash,
    };
    transport
        .start(me, Inbox::new(Arc::new(mailbox.clone())))
        .await?;

    let mut host = TokioHost::new(
        Arc::clone(&transport),
        log,
        opened.snapshots,
        Telemetry::new(&group, replica),
        (happens, Publisher::new(Arc::clone(&feed))),
        mailbox.clone(),
    );
    host.fault = fault;
    let (status, watched) = watch::channel(NodeStatus {
        protocol: engine.status(),
        transport: transport.counters(),
        node: NodeCounters::default(),
    });
    let core = Box::new(Core {
        engine,
        host,
        origin,
        bounds: Bounds {
            pending_max: options.pending_max,
            reply_within: options.reply_within,
            drain_within: options.shutdown_within / 2,
            log_backlog_bytes_max: options.log_backlog_bytes_max,
        },
        status,
        published: Time::ZERO,
        dirty: false,
        due: None,
        batch: Vec::new(),
        stall: StallWatch::new(options.storage_stall_max),
        synced: PersistToken(0),
    });
    let runner = tokio::spawn(runner::run(core, mail).instrument(span.clone()));
    let (ends, ended) = Ended::channel();
    let supervisor = Supervisor {
        transport,
        log_end,
        shutdown_within: options.shutdown_within,
    };
    tokio::spawn(
        async move {
            let result = supervisor.watch(runner).await;
            ends.send_replace(Some(result));
        }
        .instrument(span),
    );
    Ok(Node {
        identity: who,
        requests: Requests { mailbox, origin },
        status: watched,
        events,
        feed,
        ended,
    })
}

/// A frame that the group may send must fit the transport.
fn check_frames(transport: &dyn Transport, limits: &Limits) -> Result<(), StartError> {
    let (can, must) = (
        transport.capabilities().frame_bytes_max,
        limits.frame_bytes_max + wire::HEADER_BYTES,
    );
    if can < must {
        return Err(StartError::Config(format!(
            "the transport carries frames of at most {can} bytes, the group's are up to {must}: \
             raise the transport's limit or lower Limits::frame_bytes_max"
        )));
    }
    Ok(())
}

/// Opens the storage and restores the state machine. May block.
fn open(
    mut storage: Box<dyn Storage>,
    copy: Option<(GroupId, StateCopy)>,
    machine: Box<dyn RawStateMachine>,
    limits: &Limits,
) -> Result<Opened, StartError> {
    let mut recovered = storage.open()?;
    if let Some((group, copy)) = copy {
        copy.install(group, &mut *storage, &mut recovered)?;
        tracing::info!(copy = ?copy.info(), "starts from a copy");
    }
    for note in &recovered.notes {
        tracing::warn!(note, "at recovery");
    }
    let snapshots = storage.snapshots();
    let restore = |index| move |source| StartError::Restore { index, source };
    let mut machine = Machine::new(machine, limits).map_err(restore(crate::Index::ZERO))?;
    let applied = match recovered.snapshot {
        None => LogPoint::ZERO,
        Some(meta) => {
            let Some((_, mut state)) = snapshots::open_current(&*snapshots)? else {
                return Err(StorageError::Misuse("its snapshot cannot be opened".into()).into());
            };
            machine
                .restore(&mut state)
                .map_err(restore(meta.last.index))?;
            meta.last
        }
    };
    Ok(Opened {
        durability: storage.durability(),
        storage,
        snapshots,
        recovered,
        machine,
        applied,
    })
}

async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StartError> {
    match tokio::task::spawn_blocking(job).await {
        Ok(value) => Ok(value),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(StartError::Thread(std::io::Error::other(error))),
        },
    }
}

/// Sees the runner end, however it does, and ends everything else.
struct Supervisor {
    transport: Arc<dyn Transport>,
    log_end: Option<LogThreadEnd>,
    shutdown_within: Duration,
}

impl Supervisor {
    async fn watch(self, runner: JoinHandle<Result<Stop, NodeError>>) -> Result<(), NodeError> {
        let ended = match runner.await {
            Ok(ended) => ended,
            Err(error) => Err(NodeError::Panicked(panic_text(error))),
        };
        let (abandon, log_ended) = match self.log_end {
            Some(LogThreadEnd { abandon, ended }) => (Some(abandon), Some(ended)),
            None => (None, None),
        };
        if let (Some(abandon), Err(_) | Ok(Stop::Abandon)) = (abandon, &ended) {
            abandon.store(true, Ordering::Relaxed);
        }
        let deadline = Instant::now() + self.shutdown_within;
        let (closed, flushed) = tokio::join!(
            tokio::time::timeout_at(deadline, self.transport.close()),
            tokio::time::timeout_at(deadline, flushed(log_ended)),
        );
        ended?;
        flushed.map_err(|_| NodeError::ShutdownTimedOut("the log is still being written"))?;
        closed.map_err(|_| NodeError::ShutdownTimedOut("the transport did not close"))
    }
}

async fn flushed(ended: Option<oneshot::Receiver<()>>) {
    if let Some(ended) = ended {
        // An error is the thread's panic: it has ended, too.
        drop(ended.await);
    }
}

pub(super) fn panic_text(error: tokio::task::JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => match panic.downcast_ref::<&str>() {
            Some(text) => (*text).to_owned(),
            None => panic
                .downcast_ref::<String>()
                .cloned()
                .unwrap_or_else(|| "without a message".into()),
        },
        Err(_) => "its runtime was shut down".into(),
    }
}
