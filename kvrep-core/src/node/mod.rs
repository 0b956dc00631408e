//! The tokio driver: a [`Node`] runs one replica (or the witness) of a group; a [`Client`] talks to the group.
//!
//! One task owns the sans-IO [`Engine`](crate::engine::Engine) and feeds it frames, requests, completions and the
//! time; a log on disk has a thread of its own, and snapshots are written and read on tokio's blocking pool.
//!
//! # Invariants
//!
//! * Nothing here blocks the task but the state machine's own `apply`, `query` and `snapshot`.
//! * Every queue is bounded and says what happens at its end: requests are answered [`Outcome::Busy`], frames are
//!   given back to the transport, which makes its sender wait or drops and counts.
//! * Every request is answered: at its deadline with [`Outcome::Unknown`] (a command) or [`Outcome::Behind`] (a
//!   query).
//! * An error of the storage, or a panic, ends the node; nothing is acknowledged after it. [`Node::wait`] says why.
//!
//! # Metrics
//!
//! Through the [`metrics`] facade, with the labels `group` and `replica`; install a recorder before the node starts.
//! Counters and gauges are brought up to date every 10 ms at most.
//!
//! | name | kind | what |
//! |---|---|---|
//! | `kvrep_requests_total` | counter | requests taken from the queue |
//! | `kvrep_busy_total`, `kvrep_unknown_total`, `kvrep_malformed_total` | counter | how some of them ended |
//! | `kvrep_request_batch` | histogram | requests proposed together |
//! | `kvrep_applied_total` | counter | entries applied |
//! | `kvrep_transfers_total` | counter | snapshots of a primary that were put into the state machine |
//! | `kvrep_transfer_receive_seconds`, `kvrep_transfer_load_seconds` | histogram | per snapshot of a primary: time from its first piece to all of it durable, and to put it into the state machine |
//! | `kvrep_snapshot_write_seconds` | histogram | per snapshot of the own state: time to write it |
//! | `kvrep_log_sync_seconds`, `_batches`, `_bytes` | histogram | per sync of the log: time to write and sync, batches and bytes |
//! | `kvrep_last_index`, `kvrep_durable_index`, `kvrep_commit_index`, `kvrep_applied_index` | gauge | how far the replica is: proposed, durable, committed, applied |
//! | `kvrep_role` | gauge | 0 seeking, 1 candidate, 2 backup, 3 primary, 4 witness |
//! | `kvrep_serving`, `kvrep_term`, `kvrep_in_sync` | gauge | takes writes (0 or 1); number of the term; size of the in-sync set |
//! | `kvrep_frames_{sent,received,dropped,refused}_total` | counter | the transport's |
//! | `kvrep_messages_dropped_total` | counter | the protocol's: malformed, stale, of another life |
//!
//! # Caveats
//!
//! A state machine that takes long in `apply` or `snapshot` delays heartbeats: keep both well below
//! `Timing::suspect_after`. A [`Node`] that is dropped ends at once and in the background; to use its storage again in
//! the same process, [`shutdown`](Node::shutdown) it.

mod absent;
pub mod active;
mod answer;
mod builder;
pub mod client;
mod copy;
mod events;
mod feed;
mod guard;
mod host;
pub mod linger;
pub mod link;
mod local;
mod log_thread;
mod look;
mod pace;
mod pending;
mod queue;
mod runner;
mod snapshots;
mod stall;
mod start;
mod telemetry;

pub use active::{ActiveBuilder, ActiveNode};
pub use builder::{NodeBuilder, ProtocolContext, WitnessBuilder};
pub use client::{Client, ClientError, ClientOptions};
pub use feed::{AppliedCommand, Feed, FeedLimits, Subscription};
pub use guard::Guard;
pub use link::{ClientLink, LinkError};
pub use local::LocalLink;
pub use look::LocalReadError;
pub use start::StartError;
pub use telemetry::NodeCounters;

use crate::client_wire::{Op, Outcome};
use crate::id::{Configuration, Incarnation, LogPoint, ReplicaId, StoreId};
use crate::manage::Manage;
use crate::protocol::{Event, ProtocolStatus};
use crate::storage::{StorageError, StorageEvent};
use crate::transport::TransportCounters;
use events::{Ended, Events};
use local::Requests;
use runner::{Control, Stop};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, oneshot, watch};
use tokio::time::Instant;

/// A running replica, or the witness, of a group. Dropped, it ends at once; [`shutdown`](Self::shutdown) ends it in
/// good order.
///
/// ```
/// use kvrep_core::node::{Node, NodeEvent};
/// use kvrep_core::{Fold, ReplicaId};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let node = Node::builder("counters", ReplicaId(1)) // alone in its group, in memory
///     .state_machine(Fold::new(0_i64, |sum, by: i64| *sum += by))
///     .start()
///     .await?;
/// node.watch().wait_for(|status| status.protocol.serving).await?;
/// assert_eq!(node.status().protocol.primary, Some(ReplicaId(1)));
/// assert!(node.digest().await.is_some());
/// node.shutdown().await?;
/// # Ok(())
/// # }
/// ```
pub struct Node {
    identity: NodeIdentity,
    requests: Requests,
    status: watch::Receiver<NodeStatus>,
    events: Events<NodeEvent>,
    feed: Arc<feed::Registry>,
    ended: Ended,
}

/// Who a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeIdentity {
    /// Name of the group.
    pub group: String,
    /// The replica.
    pub replica: ReplicaId,
    /// This life of it.
    pub incarnation: Incarnation,
    /// Its storage.
    pub store: StoreId,
}

/// What a node knows of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeStatus {
    /// Role, term, positions.
    pub protocol: ProtocolStatus,
    /// What the transport did.
    pub transport: TransportCounters,
    /// What the driver did.
    pub node: NodeCounters,
}

/// Something an operator should hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeEvent {
    /// From the protocol.
    Protocol(Event),
    /// From the storage.
    Storage(StorageEvent),
}

/// A position and the digest of the state there. Equal positions must have equal digests on all replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateDigest {
    /// Up to here everything is applied.
    pub applied: LogPoint,
    /// XXH3-64 of the state with its sessions, as a snapshot holds them.
    pub digest: u64,
}

/// Why a node ended by itself. Nothing was acknowledged after it happened.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The storage failed. What was not durable then is not acknowledged; start the node again when the cause is
    /// removed.
    #[error("the storage failed: {0}")]
    Storage(Arc<StorageError>),
    /// The storage did not answer for as long as [`NodeBuilder::storage_stall_max`] allows. What was not durable then is not
    /// acknowledged; look at the disk, and start the node again.
    #[error(
        "the storage has not answered for {waited:?}: look at the disk (and the system's log), and start this replica again; what is slow by nature needs a longer storage_stall_max"
    )]
    StorageStalled {
        /// How long it was waited for.
        waited: Duration,
    },
    /// The node cannot go on.
    #[error("{0}")]
    Fatal(String),
    /// Of the active scheme: a member that is there has another configuration of the group. Start this replica with the same one.
    #[error(
        "{0} is there and has another configuration of this group: start this replica with the same one"
    )]
    ConfiguredOtherwise(ReplicaId),
    /// Of the active scheme: another process runs in this replica's name, and was heard before this one said anything. Nobody has heard of this
    /// one. Stop the other one first, if this one is to take its place, or start this one under the number of a member that does not run.
    #[error(
        "{0} runs already, in another process: stop that one first, or start this one under the number of a member that does not run"
    )]
    AlreadyRunning(ReplicaId),
    /// Of the active scheme: a later process was started in this replica's name, and stays. Nothing is lost with this one that was not reported.
    #[error(
        "a process that was started later has this replica's name: that one stays, this one has ended"
    )]
    Superseded,
    /// A panic, most likely in the state machine.
    #[error("the node panicked: {0}")]
    Panicked(String),
    /// A graceful end took too long and was broken off; it is as if the process had crashed.
    #[error("the shutdown was broken off: {0}")]
    ShutdownTimedOut(&'static str),
}

impl Node {
    /// Starts to describe replica `replica` of the group of this name. See [`NodeBuilder`] for an example.
    pub fn builder(group: &str, replica: ReplicaId) -> NodeBuilder {
        NodeBuilder::new(group, replica)
    }

    /// Starts to describe the witness of the group of this name.
    pub fn witness(group: &str) -> WitnessBuilder {
        WitnessBuilder::new(group)
    }

    /// Who it is.
    #[must_use]
    pub fn identity(&self) -> &NodeIdentity {
        &self.identity
    }

    /// What it knows of itself; at most about 10 ms old.
    #[must_use]
    pub fn status(&self) -> NodeStatus {
        self.status.borrow().clone()
    }

    /// The status as it changes: at once with a change of role or configuration, else every 10 ms at most.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<NodeStatus> {
        self.status.clone()
    }

    /// What happens: since the start, for the first who asks (else the first events of a node could be missed); from now on,
    /// for all others. A receiver that falls 1,024 events behind is told so and misses some.
    ///
    /// ```
    /// use kvrep_core::node::{Node, NodeEvent};
    /// use kvrep_core::protocol::Event;
    ///
    /// /// What must wake an operator.
    /// async fn alarm(node: &Node) {
    ///     let mut events = node.events();
    ///     while let Ok(event) = events.recv().await {
    ///         if let NodeEvent::Protocol(Event::AcknowledgedWritesLost { from, .. }) = event {
    ///             eprintln!("acknowledged writes from {from} on are lost; see the files set aside");
    ///         }
    ///     }
    /// }
    /// # let _ = alarm;
    /// ```
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<NodeEvent> {
        self.events.receiver()
    }

    /// Asks this replica, and only it, once. For exactly-once commands and failover use a [`Client`].
    ///
    /// # Errors
    /// When the node has stopped; see [`LinkError`].
    pub fn call(
        &self,
        op: Op,
        deadline: Instant,
    ) -> impl Future<Output = Result<Outcome, LinkError>> + Send + use<'_> {
        self.requests.call(op, deadline)
    }

    /// Asks this replica to change how the group runs. Only the primary can; use [`Client::manage`] to find it.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::Unavailable`] when another replica is primary.
    pub async fn manage(&self, manage: Manage) -> Result<Configuration, ClientError> {
        let client = Client::<()>::new(LocalLink::new([self]));
        client.manage(manage).await
    }

    /// Leaves the group for good: this replica belongs to it no more, and may be stopped. A primary hands over first.
    ///
    /// # Errors
    /// [`ClientError::Refused`]: why not, as for the last member. [`ClientError::Unavailable`] while there is no primary.
    pub async fn leave(&self) -> Result<Configuration, ClientError> {
        self.manage(Manage::Remove(self.identity.replica)).await
    }

    /// The digest of the state and where it was taken: what to compare replicas by. As expensive as freezing *and*
    /// writing a snapshot, on the node's own task. `None` when the node has stopped.
    pub async fn digest(&self) -> Option<StateDigest> {
        let (reply, answer) = oneshot::channel();
        self.requests.ask(queue::Asked::Digest(reply)).await?;
        answer.await.ok()
    }

    /// Waits until the node has ended.
    ///
    /// # Errors
    /// When it ended by itself: why.
    pub async fn wait(&self) -> Result<(), NodeError> {
        self.ended.wait().await
    }

    /// Ends the node in good order: takes no more requests, answers those under way, makes everything durable, closes
    /// the transport and waits until every task and thread has ended and the storage is free again.
    ///
    /// # Errors
    /// When it had already ended by itself, or did not end in time.
    pub async fn shutdown(self) -> Result<(), NodeError> {
        self.requests.mailbox.tell(Control::Stop(Stop::Graceful));
        self.wait().await
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // After a graceful end nobody listens any more.
        self.requests.mailbox.tell(Control::Stop(Stop::Abandon));
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({} {})", self.identity.group, self.identity.replica)
    }
}
