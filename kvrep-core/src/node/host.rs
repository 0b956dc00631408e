//! What the engine needs done, done with tokio.

use super::feed::Publisher;
use super::guard::Fault;
use super::log_thread::LogThread;
use super::pending::Pending;
use super::queue::Mailbox;
use super::runner::{Control, Done};
use super::snapshots::{self, OpenSnapshot, SnapshotError};
use super::telemetry::Telemetry;
use super::{NodeError, NodeEvent};
use crate::client_wire::Outcome;
use crate::engine::Host;
use crate::entry::Entry;
use crate::id::{LogPoint, PersistToken, ReplicaId, Ticket};
use crate::protocol::{Event, SnapshotPiece};
use crate::state_machine::FrozenState;
use crate::storage::{SnapshotMeta, SnapshotStore, Storage, StorageOp};
use crate::transport::{Destination, Shipment, Transport};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant};

/// Where the log is written.
pub(super) enum Log {
    /// In memory: at once, here.
    Inline {
        storage: Box<dyn Storage>,
        persisted: Option<PersistToken>,
    },
    /// On disk: by a thread.
    Thread(LogThread),
}

pub(super) struct TokioHost {
    pub(super) transport: Arc<dyn Transport>,
    /// Whether the transport takes entries as they are.
    shares_memory: bool,
    pub(super) log: Log,
    pub(super) snapshots: Arc<dyn SnapshotStore>,
    pub(super) pending: Pending,
    pub(super) telemetry: Telemetry,
    /// What is wrong, once something is; nothing is acknowledged or sent from then on.
    pub(super) fatal: Option<NodeError>,
    /// Jobs that block, to be waited for at shutdown.
    pub(super) jobs: JoinSet<()>,
    /// A protocol event came: the status is worth publishing at once.
    pub(super) news: bool,
    /// When the snapshot that is being received began to come.
    receiving_since: Option<Instant>,
    /// The snapshot to be loaded next.
    pub(super) to_load: Option<SnapshotMeta>,
    /// A copy is being written.
    pub(super) copying: bool,
    events: broadcast::Sender<NodeEvent>,
    feed: Publisher,
    /// What the determinism guard found, where there is one.
    pub(super) fault: Option<Fault>,
    pub(super) mailbox: Mailbox,
    /// Snapshots being sent to peers, and when each was last used.
    open: BTreeMap<ReplicaId, (OpenSnapshot, Instant)>,
}

impl TokioHost {
    pub(super) fn new(
        transport: Arc<dyn Transport>,
        log: Log,
        snapshots: Arc<dyn SnapshotStore>,
        telemetry: Telemetry,
        (events, feed): (broadcast::Sender<NodeEvent>, Publisher),
        mailbox: Mailbox,
    ) -> Self {
        Self {
            shares_memory: transport.shares_memory(),
            transport,
            log,
            snapshots,
            pending: Pending::new(),
            telemetry,
            fatal: None,
            jobs: JoinSet::new(),
            news: false,
            receiving_since: None,
            to_load: None,
            copying: false,
            events,
            feed,
            fault: None,
            mailbox,
            open: BTreeMap::new(),
        }
    }

    /// What was made durable inline since the last call.
    pub(super) fn take_persisted(&mut self) -> Option<PersistToken> {
        match &mut self.log {
            Log::Inline { persisted, .. } => persisted.take(),
            Log::Thread(_) => None,
        }
    }

    /// What the log's thread was given last, if there is one.
    pub(super) fn queued(&self) -> Option<PersistToken> {
        match &self.log {
            Log::Inline { .. } => None,
            Log::Thread(thread) => Some(thread.queued()),
        }
    }

    /// Bytes that wait for the disk.
    pub(super) fn log_backlog_bytes(&self) -> usize {
        match &self.log {
            Log::Inline { .. } => 0,
            Log::Thread(thread) => thread.backlog_bytes(),
        }
    }

    /// Keeps what a peer is being sent open until its next piece, or until it is not asked for any more.
    pub(super) fn keep_open(&mut self, peer: ReplicaId, snapshot: OpenSnapshot, now: Instant) {
        self.open.retain(|_, (_, used)| now - *used < OPEN_UNUSED);
        self.open.insert(peer, (snapshot, now));
    }

    /// Tells whoever listens.
    pub(super) fn tell(&self, event: NodeEvent) {
        // Nobody listening is no error.
        drop(self.events.send(event));
    }

    pub(super) fn fail(&mut self, error: NodeError) {
        if self.fatal.is_none() {
            tracing::error!(%error, "this node ends");
            self.fatal = Some(error);
        }
    }
}

impl Host for TokioHost {
    fn send(&mut self, to: Destination, frame: Bytes) {
        if self.fatal.is_none() {
            self.transport.send(to, frame);
        }
    }

    fn takes_shipments(&self) -> bool {
        self.shares_memory
    }

    fn ship(&mut self, to: ReplicaId, shipment: Shipment) {
        if self.fatal.is_none() {
            self.transport.ship(to, shipment);
        }
    }

    fn persist(&mut self, token: PersistToken, ops: Vec<StorageOp>) {
        if self.fatal.is_some() {
            return;
        }
        if let Some(StorageOp::SnapshotChunk { offset: 0, .. }) = ops.first() {
            self.receiving_since = Some(Instant::now());
        }
        let result = match &mut self.log {
            Log::Thread(thread) => {
                thread.persist(token, ops);
                return;
            }
            Log::Inline { storage, persisted } => storage.write(ops).and_then(|events| {
                storage.sync()?;
                *persisted = Some(token);
                Ok(events)
            }),
        };
        match result {
            Ok(events) => {
                for event in events {
                    self.tell(NodeEvent::Storage(event));
                }
            }
            Err(error) => self.fail(NodeError::Storage(Arc::new(error))),
        }
    }

    fn reply(&mut self, ticket: Ticket, mut outcome: Outcome) {
        if self.fatal.is_some() {
            return;
        }
        let Some(waiter) = self.pending.remove(ticket) else {
            return;
        };
        match &mut outcome {
            Outcome::NotPrimary {
                primary: Some(primary),
                address: address @ None,
            } => *address = self.transport.address_of(*primary),
            Outcome::Unknown => self.telemetry.unknown(1),
            Outcome::Busy => self.telemetry.busy(1),
            Outcome::Done { .. }
            | Outcome::Opened { .. }
            | Outcome::Closed
            | Outcome::SessionExpired
            | Outcome::OutOfWindow
            | Outcome::Malformed(_)
            | Outcome::TooLarge { .. }
            | Outcome::ResponseTooLarge { .. }
            | Outcome::NotPrimary { .. }
            | Outcome::Behind
            | Outcome::Status(_)
            | Outcome::Managed(_)
            | Outcome::Refused(_) => {}
        }
        waiter.answer(outcome);
    }

    fn write_snapshot(&mut self, last: LogPoint, state: FrozenState) {
        let (created, mailbox) = (self.snapshots.create(last), self.mailbox.clone());
        self.jobs.spawn_blocking(move || {
            let begun = Instant::now();
            let written = snapshots::write(created, state).map(|meta| (meta, begun.elapsed()));
            mailbox.tell(Control::Done(Done::SnapshotWritten(written)));
        });
    }

    fn read_snapshot(&mut self, peer: ReplicaId, offset: u64, bytes_max: usize) {
        let (store, mailbox) = (Arc::clone(&self.snapshots), self.mailbox.clone());
        let open = self.open.remove(&peer).map(|(snapshot, _)| snapshot);
        let read = move || {
            let piece = snapshots::read_piece(&*store, open, offset, bytes_max);
            mailbox.tell(Control::Done(Done::SnapshotPiece { peer, piece }));
        };
        match self.log {
            // A piece of memory is at hand: waiting for another thread's turn would take longer.
            Log::Inline { .. } => read(),
            Log::Thread(_) => drop(self.jobs.spawn_blocking(read)),
        }
    }

    fn load_snapshot(&mut self, meta: SnapshotMeta) {
        if let Some(since) = self.receiving_since.take() {
            self.telemetry.received(meta.bytes, since.elapsed());
        }
        self.to_load = Some(meta);
    }

    fn event(&mut self, event: Event) {
        self.news = true;
        match &event {
            Event::RoleChanged { role, term } => {
                tracing::info!(?role, %term, "role changed");
            }
            Event::Configured(configuration) => tracing::info!(?configuration, "configured"),
            Event::Dropped(peer) => tracing::warn!(%peer, "dropped from the in-sync set"),
            Event::Joined(peer) => tracing::info!(%peer, "joined the in-sync set"),
            Event::TailTruncated { from, entries, .. } => {
                tracing::warn!(%from, entries, "an uncommitted tail was cut off");
            }
            Event::AcknowledgedWritesLost {
                from,
                commit,
                writes,
            } => {
                tracing::error!(%from, %commit, writes, "ACKNOWLEDGED WRITES ARE LOST");
            }
            Event::Refused(why) => tracing::warn!(%why, "refused to serve"),
            Event::Forced {
                replaced,
                not_awaited,
                from,
            } => tracing::error!(
                ?replaced,
                ?not_awaited,
                %from,
                "FORCED: acknowledged writes from here on may be lost"
            ),
            Event::Removed(configuration) => {
                tracing::warn!(?configuration, "removed from the group");
            }
            Event::HandingOver { to } => tracing::info!(%to, "handing over"),
            Event::RivalRefused { term } => {
                tracing::warn!(%term, "refused the writes of another primary");
            }
            Event::OtherGroup {
                replica,
                ours,
                theirs,
            } => {
                tracing::error!(%replica, %ours, %theirs, "ANOTHER GROUP OF THIS NAME: it is not followed");
            }
            Event::RegisterLost => {
                tracing::error!(
                    "THE WITNESS HAS LOST ITS REGISTER: nobody can take over from now on"
                );
            }
            Event::HandedOver { to } => tracing::info!(%to, "handed over"),
            Event::HandoverFailed { to, why } => tracing::warn!(%to, %why, "handover failed"),
            Event::StateDiffers { replica, index } => {
                tracing::error!(%replica, %index, "ITS STATE IS NOT THAT OF THE OTHERS; it is to be repaired");
            }
            Event::StatesDiffer { index } => {
                tracing::error!(%index, "STATES DIFFER, and it cannot be told whose is right");
            }
            Event::StateDiscarded { upto } => {
                tracing::warn!(%upto, "state and log were thrown away, to be given those of the primary");
            }
        }
        self.tell(NodeEvent::Protocol(event));
    }

    fn fatal(&mut self, reason: String) {
        self.fail(NodeError::Fatal(reason));
    }

    fn observes(&self) -> bool {
        self.fault.is_some() || !self.feed.is_idle()
    }

    fn progressed(&mut self, entries: usize) {
        self.telemetry.applied(entries);
    }

    fn applied(&mut self, entry: &Entry, response: Option<&Bytes>) {
        if let Some(fault) = &self.fault
            && let Some(why) = fault.get()
        {
            let why = why.clone();
            self.fail(NodeError::Fatal(why));
            return;
        }
        if let Some(response) = response {
            self.feed.applied(entry, response);
        }
    }

    fn replaced(&mut self, last: LogPoint) {
        self.feed.replaced(last);
    }
}

/// The piece a job read.
pub(super) type ReadPiece =
    Result<Option<(SnapshotPiece, OpenSnapshot)>, crate::storage::StorageError>;

/// What a job wrote, and how long it took.
pub(super) type Written = Result<(SnapshotMeta, Duration), SnapshotError>;

/// After how long without use a snapshot that was being sent is closed.
const OPEN_UNUSED: Duration = Duration::from_secs(30);
