//! The task that owns the engine.
//!
//! It sleeps until something came, then takes **everything** that came, in bounded gulps: completions first (they
//! free what waits), then peers, then requests, all of one gulp in one call of the engine, so that they are proposed,
//! shipped and synced together; then time. The more there is to do, the larger the batches, and the less each costs.

use super::answer;
use super::copy::CopyReply;
use super::host::{ReadPiece, TokioHost, Written};
use super::linger::Linger;
use super::log_thread::Synced;
use super::pace::{Alarm, Gathering};
use super::pending::{AtDeadline, Waiter};
use super::queue::{Asked, FromPeer, Mail};
use super::snapshots::{self, SnapshotError};
use super::stall::StallWatch;
use super::{NodeError, NodeEvent, NodeStatus, StateDigest};
use crate::client_wire::{Op, Outcome, Reply, Request};
use crate::config::Read;
use crate::engine::Engine;
use crate::id::{PersistToken, ReplicaId, Ticket};
use crate::state_machine::Look;
use crate::storage::copy::{CopyError, CopyInfo};
use crate::storage::{SnapshotMeta, StorageError};
use crate::time::{Time, Timestamp};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use tokio::sync::watch;
use tokio::time::{Duration, Instant};

/// What is told to the runner besides frames and requests.
pub(super) enum Control {
    Done(Done),
    Stop(Stop),
}

/// What another thread has finished.
pub(super) enum Done {
    Synced(Synced),
    LogFailed(StorageError),
    LogPanicked,
    SnapshotWritten(Written),
    SnapshotPiece {
        peer: ReplicaId,
        piece: ReadPiece,
    },
    Copied {
        reply: CopyReply,
        result: Result<CopyInfo, CopyError>,
    },
}

/// How the node is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Take no more requests, answer those under way, make everything durable.
    Graceful,
    /// Now.
    Abandon,
}

/// Local limits of the runner.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) pending_max: usize,
    pub(super) reply_within: Duration,
    pub(super) drain_within: Duration,
    pub(super) log_backlog_bytes_max: usize,
}

/// Everything that the runner owns but its queues, so that it can be lent to a blocking thread while a snapshot is
/// loaded.
pub(super) struct Core {
    pub(super) engine: Engine,
    pub(super) host: TokioHost,
    pub(super) origin: Instant,
    pub(super) bounds: Bounds,
    pub(super) status: watch::Sender<NodeStatus>,
    pub(super) published: Time,
    pub(super) dirty: bool,
    /// When the engine is next to be ticked.
    pub(super) due: Option<Time>,
    pub(super) batch: Vec<(Ticket, Op)>,
    pub(super) stall: StallWatch,
    /// The log is durable up to here, as far as its thread has said.
    pub(super) synced: PersistToken,
}

/// Runs until stopped or failed. Whoever still waits then is told *unknown* (or *behind*).
pub(super) async fn run(core: Box<Core>, mut mail: Mail) -> Result<Stop, NodeError> {
    let (mut core, ended) = serve(core, &mut mail).await;
    mail.close_requests();
    for asked in mail.taken.requests.drain(..) {
        refuse(asked);
    }
    core.host.pending.give_up();
    core.publish();
    if let Ok(Stop::Abandon) = ended {
        return ended;
    }
    // Before the storage is let go: a snapshot half written would be found by whoever opens it next.
    let jobs = async { while core.host.jobs.join_next().await.is_some() {} };
    drop(tokio::time::timeout(core.bounds.drain_within, jobs).await);
    ended
}

async fn serve(mut core: Box<Core>, mail: &mut Mail) -> (Box<Core>, Result<Stop, NodeError>) {
    let mut alarm = Alarm::new();
    let mut gathering = Gathering::default();
    let mut linger = Linger::new();
    let mut draining_until: Option<Instant> = None;
    let mut rounds = 0_u32;
    core.start();
    loop {
        while let Some(meta) = core.host.to_load.take() {
            core = core.load_elsewhere(meta).await;
        }
        if let Some(error) = core.host.fatal.take() {
            return (core, Err(error));
        }
        if let Some(until) = draining_until
            && (core.host.pending.len() == 0 || Instant::now() >= until)
        {
            return (core, Ok(Stop::Graceful));
        }
        alarm.set(core.next_deadline(draining_until));
        let woken = poll_fn(|context| match mail.poll_take(context) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => alarm.poll_ring(context),
        });
        linger.on(woken).await;
        // Only requests are worth standing back for: what peers send has been under way long enough.
        if !mail.taken.requests.is_empty() && gathering.is_worth_it() {
            gather(&mut core, mail, &mut gathering).await;
        }
        let now = core.now();
        while let Some(event) = mail.taken.control.pop_front() {
            match event {
                Control::Stop(Stop::Abandon) => return (core, Ok(Stop::Abandon)),
                Control::Stop(Stop::Graceful) => {
                    draining_until = Some(Instant::now() + core.bounds.drain_within);
                    mail.close_requests();
                }
                Control::Done(done) => core.on_done(now, done),
            }
        }
        core.on_peers(now, &mut mail.taken.peers);
        core.on_asked(now, &mut mail.taken.requests, draining_until.is_some());
        core.on_time(now);
        // Under load there is always something: others of this runtime want to run, too.
        rounds = rounds.wrapping_add(1);
        if rounds.is_multiple_of(ROUNDS_MAX) {
            tokio::task::yield_now().await;
        }
    }
}

/// Lets others run as long as that brings requests to be proposed with those that are there.
///
/// What peers say meanwhile is handled at once: whoever is answered by it may ask again, and then stands in this batch. (Else the
/// clients would part into groups, each proposed while the one before is under way, and stay so.)
async fn gather(core: &mut Core, mail: &mut Mail, gathering: &mut Gathering) {
    gathering.begin();
    let came = mail.taken.requests.len();
    loop {
        let (before, waiting) = (mail.taken.requests.len(), core.host.pending.len());
        if before >= GULP || !gathering.has_time() {
            break;
        }
        tokio::task::yield_now().await;
        mail.take_more_requests(GULP);
        let comes = mail.taken.requests.len() > before;
        core.on_peers(core.now(), &mut mail.taken.peers);
        if !comes && core.host.pending.len() == waiting {
            break;
        }
    }
    gathering.gathered(mail.taken.requests.len() - came);
}

impl Core {
    /// The time of this node's clock.
    #[allow(clippy::disallowed_methods, reason = "this is where time comes in")]
    fn now(&self) -> Time {
        Time::ZERO + self.origin.elapsed()
    }

    fn start(&mut self) {
        let now = self.now();
        self.engine.start(now, &mut self.host);
        self.settle(now);
        self.due = self.engine.next_deadline(now);
        self.publish();
    }

    /// Tells the engine what was made durable inline, until nothing more is to be told.
    fn settle(&mut self, now: Time) {
        self.dirty = true;
        while let Some(token) = self.host.take_persisted() {
            self.engine.on_persisted(now, token, &mut self.host);
        }
    }

    fn on_peers(&mut self, now: Time, events: &mut VecDeque<FromPeer>) {
        if events.is_empty() {
            return;
        }
        for event in events.drain(..events.len().min(GULP)) {
            match event {
                FromPeer::Frame(body) => self.engine.on_frame(now, body, &mut self.host),
                FromPeer::Shipment(shipment) => {
                    self.engine.on_shipment(now, shipment, &mut self.host);
                }
                FromPeer::Hint { peer, hint } => {
                    tracing::debug!(%peer, ?hint, "hint");
                    self.engine.on_hint(now, peer, hint, &mut self.host);
                }
            }
        }
        self.settle(now);
    }

    /// Requests that came together are proposed together.
    fn on_asked(&mut self, now: Time, asked: &mut VecDeque<Asked>, stopping: bool) {
        if asked.is_empty() {
            return;
        }
        let gulp = asked.len().min(GULP);
        self.host.telemetry.requests(gulp);
        let log_full = self.host.log_backlog_bytes() > self.bounds.log_backlog_bytes_max;
        for asked in asked.drain(..gulp) {
            let (op, deadline, waiter) = match asked {
                Asked::Here {
                    op,
                    deadline,
                    reply,
                } => (op, deadline, Waiter::Here(reply)),
                Asked::Remote { request, reply } => match Request::from_body(&request) {
                    Ok(Request { id, op }) => (
                        op,
                        now + self.bounds.reply_within,
                        Waiter::Remote { id, reply },
                    ),
                    Err(error) => {
                        tracing::debug!(%error, "a request that cannot be read");
                        self.host.telemetry.malformed();
                        continue;
                    }
                },
                Asked::Look { read, look, reply } => {
                    self.on_look(now, (read, look), reply, stopping);
                    continue;
                }
                Asked::Copy { directory, reply } => {
                    self.host.copy(&self.engine, directory, reply);
                    continue;
                }
                Asked::Digest(reply) => {
                    let _ = reply.send(StateDigest {
                        applied: self.engine.applied(),
                        digest: self.engine.machine().full_digest(),
                    });
                    continue;
                }
            };
            let (at_deadline, needs_log) = match &op {
                Op::Query { .. } | Op::Status => (AtDeadline::Behind, false),
                Op::Manage(_) => (AtDeadline::Unknown, false),
                Op::OpenSession | Op::Command { .. } | Op::Plain(_) | Op::CloseSession(_) => {
                    (AtDeadline::Unknown, true)
                }
            };
            let full = self.host.pending.len() >= self.bounds.pending_max;
            if stopping || full || (log_full && needs_log) {
                self.host.telemetry.busy(1);
                waiter.answer(Outcome::Busy);
                continue;
            }
            let ticket = self.host.pending.insert(waiter, deadline, at_deadline);
            self.batch.push((ticket, op));
        }
        self.engine
            .on_requests(now, wall_clock(), self.batch.drain(..), &mut self.host);
        self.settle(now);
    }

    fn on_look(
        &mut self,
        now: Time,
        (read, look): (Read, Look),
        reply: answer::Reply,
        stopping: bool,
    ) {
        let waiter = Waiter::Here(reply);
        if stopping || self.host.pending.len() >= self.bounds.pending_max {
            self.host.telemetry.busy(1);
            waiter.answer(Outcome::Busy);
            return;
        }
        let deadline = now + self.bounds.reply_within;
        let ticket = self
            .host
            .pending
            .insert(waiter, deadline, AtDeadline::Behind);
        self.engine.on_look(now, ticket, read, look, &mut self.host);
    }

    fn on_done(&mut self, now: Time, done: Done) {
        match done {
            Done::Synced(synced) => {
                self.host
                    .telemetry
                    .synced(synced.batches, synced.bytes, synced.took);
                for event in synced.events {
                    self.host.tell(NodeEvent::Storage(event));
                }
                self.synced = synced.token;
                self.engine.on_persisted(now, synced.token, &mut self.host);
            }
            Done::LogFailed(error) => self.host.fail(NodeError::Storage(Arc::new(error))),
            Done::LogPanicked => self
                .host
                .fail(NodeError::Panicked("the storage panicked".into())),
            Done::SnapshotWritten(Ok((meta, took))) => {
                self.host.telemetry.snapshot_written(took);
                tracing::info!(last = ?meta.last, bytes = meta.bytes, ?took, "snapshot written");
                self.engine.on_snapshot_written(now, meta, &mut self.host);
            }
            Done::SnapshotWritten(Err(SnapshotError::Storage(StorageError::Superseded))) => {
                tracing::info!("a snapshot was superseded while it was written");
                self.engine.on_snapshot_dropped(now, &mut self.host);
            }
            Done::SnapshotWritten(Err(error)) => self
                .host
                .fail(NodeError::Fatal(format!("writing a snapshot: {error}"))),
            Done::Copied { reply, result } => {
                self.host.copying = false;
                match &result {
                    Ok(info) => {
                        tracing::info!(last = ?info.last, bytes = info.bytes, "copy written");
                    }
                    Err(error) => tracing::warn!(%error, "no copy was written"),
                }
                drop(reply.send(result));
            }
            Done::SnapshotPiece { peer, piece } => {
                let piece = match piece {
                    Ok(Some((piece, open))) => {
                        self.host.keep_open(peer, open, Instant::now());
                        Some(piece)
                    }
                    Ok(None) => None,
                    Err(error) => {
                        tracing::warn!(%error, %peer, "cannot read the snapshot for a peer");
                        None
                    }
                };
                self.engine
                    .on_snapshot_piece(now, peer, piece, &mut self.host);
            }
        }
        while self.host.jobs.try_join_next().is_some() {}
        self.settle(now);
    }

    /// `now`: the time at which this round's events were handled; what becomes due until the next round is due then. A
    /// protocol may say only deadlines that lie ahead, so what was due before (`self.due`) is looked at, too.
    fn on_time(&mut self, now: Time) {
        let next = self.engine.next_deadline(now);
        if [self.due, next].into_iter().flatten().any(|at| at <= now) {
            self.engine.tick(now, &mut self.host);
            self.settle(now);
            self.due = self.engine.next_deadline(now);
        } else {
            self.due = next;
        }
        if let Some(queued) = self.host.queued()
            && self.stall.look(now, self.synced, queued)
        {
            let waited = self.stall.max();
            self.host.fail(NodeError::StorageStalled { waited });
        }
        let expired = self.host.pending.expire(now);
        self.host.telemetry.unknown(expired);
        let due = now - self.published >= PUBLISH_EVERY;
        if self.dirty && (due || std::mem::take(&mut self.host.news)) {
            self.publish();
        }
    }

    /// When the runner must wake at the latest.
    fn next_deadline(&self, draining_until: Option<Instant>) -> Option<Instant> {
        let of_node = [
            self.due,
            self.host.pending.next_deadline(),
            self.stall.next_look(),
        ];
        let publish = self.dirty.then(|| self.published + PUBLISH_EVERY);
        let of_node = of_node.into_iter().chain([publish]).flatten().min();
        let of_node = of_node.map(|at| self.origin + (at - Time::ZERO));
        [of_node, draining_until].into_iter().flatten().min()
    }

    fn publish(&mut self) {
        self.dirty = false;
        self.published = self.now();
        let status = NodeStatus {
            protocol: self.engine.status(),
            transport: self.host.transport.counters(),
            node: self.host.telemetry.counters,
        };
        self.host
            .telemetry
            .show(&status.protocol, &status.transport);
        self.status.send_replace(status);
    }

    /// Loads the snapshot that was installed, on a thread that may block.
    async fn load_elsewhere(mut self: Box<Self>, meta: SnapshotMeta) -> Box<Self> {
        let span = tracing::Span::current();
        let loaded = tokio::task::spawn_blocking(move || {
            span.in_scope(|| self.load(meta));
            self
        });
        match loaded.await {
            Ok(core) => core,
            Err(error) => match error.try_into_panic() {
                // The state machine's own panic: the supervisor reports it.
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime shuts down; so does this task.
                Err(_) => std::future::pending().await,
            },
        }
    }

    fn load(&mut self, meta: SnapshotMeta) {
        let now = self.now();
        match snapshots::open_current(&*self.host.snapshots) {
            Ok(Some((found, mut state))) if found == meta => {
                let begun = Instant::now();
                self.engine
                    .on_snapshot_loaded(now, meta, &mut state, &mut self.host);
                self.host.telemetry.loaded(begun.elapsed());
            }
            Ok(found) => self.host.fail(NodeError::Fatal(format!(
                "the snapshot installed at {} is not there (found {:?}): start this replica again",
                meta.last.index,
                found.map(|(m, _)| m.last.index)
            ))),
            Err(error) => self.host.fail(NodeError::Storage(Arc::new(error))),
        }
        self.settle(self.now());
        self.due = [self.due, self.engine.next_deadline(now)]
            .into_iter()
            .flatten()
            .min();
    }
}

/// Answers a request that came too late.
fn refuse(asked: Asked) {
    match asked {
        Asked::Here { reply, .. } | Asked::Look { reply, .. } => {
            reply.send(Outcome::Busy);
        }
        Asked::Remote { request, reply } => {
            if let Ok(Request { id, .. }) = Request::from_body(&request) {
                let outcome = Outcome::Busy;
                reply.send(Reply { id, outcome }.to_frame());
            }
        }
        Asked::Copy { reply, .. } => drop(reply.send(Err(CopyError::Stopped))),
        Asked::Digest(reply) => drop(reply),
    }
}

/// Microseconds since the Unix epoch. The protocol makes it monotonic along the log.
#[allow(
    clippy::disallowed_methods,
    reason = "this is where the wall clock comes in"
)]
pub(super) fn wall_clock() -> Timestamp {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

/// How many events of one kind are taken at once.
const GULP: usize = 1_024;
/// How many rounds are done in a row at most, before others of the runtime have their turn.
const ROUNDS_MAX: u32 = 16;
/// How often the status is published while things change.
const PUBLISH_EVERY: Duration = Duration::from_millis(10);
