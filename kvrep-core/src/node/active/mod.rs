//! The driver of the [active scheme](crate::protocol::active): an [`ActiveNode`] runs one replica over an [ordered stream](crate::stream).
//!
//! One task owns the sans-IO [`Active`](crate::protocol::active::Active), with the state machine in it, and the stream. It takes what the stream
//! delivers, item by item, and looks at the clock between two of them.
//!
//! # Metrics
//!
//! Through the [`metrics`] facade, with the labels `group` and `replica`.
//!
//! | name | kind | what |
//! |---|---|---|
//! | `kvrep_delivered_total` | counter | items of the stream |
//! | `kvrep_answers_total` | counter | answers given |
//! | `kvrep_fenced_total` | counter | how often it had to join again |
//! | `kvrep_serving` | gauge | it answers for its slots (0 or 1) |
//! | `kvrep_answers_owed` | gauge | answers that are not where they go |
//!
//! # Caveats
//!
//! What takes long in `apply` or `query`, and writing the state for a newcomer, delays heartbeats: keep all of it well below
//! [`suspect_after`](crate::protocol::active::Timing::suspect_after). Nothing is on a disk: a group of which nobody is left begins anew.

mod builder;
mod runner;

pub use builder::ActiveBuilder;

use super::events::{Ended, Events};
use super::look::look_at;
use super::{LocalReadError, NodeError};
use crate::id::{Incarnation, Index, ReplicaId};
use crate::protocol::active::{Event, Status};
use runner::Asked;
use std::fmt;
use std::path::PathBuf;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

/// A running replica of the active scheme. Dropped, it ends at once; [`shutdown`](Self::shutdown) ends it in good order.
///
/// ```
/// use kvrep_core::node::{ActiveNode, Client};
/// use kvrep_core::stream::memory::StreamHub;
/// use kvrep_core::{Fold, ReplicaId};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let hub = StreamHub::new();
/// let node = ActiveNode::builder("counters", ReplicaId(1)) // alone in its group
///     .stream(hub.stream())
///     .state_machine(Fold::new(0_i64, |sum, by: i64| *sum += by))
///     .start()
///     .await?;
/// let client = Client::<Fold<i64, i64>>::new(hub.client("counters"));
/// assert_eq!(client.execute(4).await?, 4);
/// assert!(node.status().serving);
/// node.shutdown().await?;
/// # Ok(())
/// # }
/// ```
pub struct ActiveNode {
    identity: ActiveIdentity,
    asked: mpsc::Sender<Asked>,
    status: watch::Receiver<Status>,
    events: Events<ActiveEvent>,
    ended: Ended,
}

/// Who a replica is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveIdentity {
    /// Name of the group.
    pub group: String,
    /// The replica.
    pub replica: ReplicaId,
    /// This life of it, as it was started; [`Status::life`] is the one that counts.
    pub incarnation: Incarnation,
}

/// Something that an operator should hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ActiveEvent {
    /// From the protocol.
    Protocol(Event),
    /// The state of a history that does not count was kept in this file.
    SetAside(PathBuf),
    /// It was thrown away, or could not be kept: why.
    NotSetAside(String),
    /// That member has another configuration, and is not believed.
    ConfiguredOtherwise(ReplicaId),
    /// From the stream, in a sentence: its keeper is away, or refuses something.
    Trouble(String),
}

/// A position and the digest of the state there. Equal chains must have equal digests on all replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveDigest {
    /// Where in the stream; `None` without a history.
    pub at: Option<Index>,
    /// The chain of hashes up to there.
    pub chain: u64,
    /// XXH3-64 of the state with its sessions, as a snapshot holds them.
    pub digest: u64,
}

impl ActiveNode {
    /// Starts to describe replica `replica` of the group of this name.
    #[must_use]
    pub fn builder(group: &str, replica: ReplicaId) -> ActiveBuilder {
        ActiveBuilder::new(group, replica)
    }

    /// Who it is.
    #[must_use]
    pub fn identity(&self) -> &ActiveIdentity {
        &self.identity
    }

    /// What it knows of itself; at most a heartbeat old.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// The status as it changes: at once with an [event](Self::events), else with each heartbeat.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// What happens: since the start, for the first who asks; from now on, for all others. A receiver that falls 1,024 events
    /// behind is told so and misses some.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<ActiveEvent> {
        self.events.receiver()
    }

    /// The digest of the state and where it was taken. As expensive as writing a snapshot, on the replica's own task. `None` when the
    /// replica has stopped.
    pub async fn digest(&self) -> Option<ActiveDigest> {
        let (reply, answer) = oneshot::channel();
        self.asked.send(Asked::Digest(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Lets a closure look at this replica's state as it is now, which may be behind what others have answered; `M` is the type that
    /// was given to [`ActiveBuilder::state_machine`]. Returns what the closure returns, and the position.
    ///
    /// It runs on the replica's own task between two items, so it must be short. A panic in it is the caller's.
    ///
    /// # Errors
    /// [`LocalReadError`]: the closure has not run.
    ///
    /// ```
    /// use kvrep_core::stream::memory::StreamHub;
    /// use kvrep_core::{ActiveNode, Fold, ReplicaId};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// type Words = Fold<Vec<String>, String>;
    /// let node = ActiveNode::builder("words", ReplicaId(1))
    ///     .stream(StreamHub::new().stream())
    ///     .state_machine(Words::new(Vec::new(), |words, word| words.push(word)))
    ///     .start()
    ///     .await?;
    /// assert_eq!(node.read_local(|words: &Words| words.value().len()).await?.0, 0);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn read_local<M: 'static, R: Send + 'static>(
        &self,
        closure: impl FnOnce(&M) -> R + Send + 'static,
    ) -> Result<(R, Index), LocalReadError> {
        let (look, seen) = look_at(closure);
        let (reply, answer) = oneshot::channel();
        let sent = self.asked.send(Asked::Look { look, reply }).await;
        sent.map_err(|_| LocalReadError::Stopped)?;
        let at = answer.await.map_err(|_| LocalReadError::Stopped)?;
        Ok((seen.await?, at))
    }

    /// Waits until the replica has ended.
    ///
    /// # Errors
    /// When it ended by itself: why.
    pub async fn wait(&self) -> Result<(), NodeError> {
        self.ended.wait().await
    }

    /// Ends the replica: answers those whose answers are ready, closes the stream. The others notice by its silence, or by what the stream
    /// says of it.
    ///
    /// # Errors
    /// When it had already ended by itself, or did not end in time.
    pub async fn shutdown(self) -> Result<(), NodeError> {
        // An error: it has ended.
        drop(self.asked.send(Asked::Stop).await);
        self.wait().await
    }
}

impl fmt::Debug for ActiveNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ActiveIdentity { group, replica, .. } = &self.identity;
        write!(f, "ActiveNode({group} {replica})")
    }
}
