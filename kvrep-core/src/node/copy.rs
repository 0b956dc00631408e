//! Copies of a running node, and starting from one.
//!
//! The state is frozen on the node's task, as for a snapshot, and written by a thread that may block; the node goes on.
//! One copy at a time, so that frozen states do not pile up.

use super::Node;
use super::host::TokioHost;
use super::queue::Asked;
use super::runner::{Control, Done};
use crate::engine::Engine;
use crate::storage::copy::{self, CopyError, CopyInfo, Origin};
use crate::storage::fs::OsFs;
use std::path::PathBuf;
use tokio::sync::oneshot;

/// Where the outcome of a copy goes.
pub(super) type CopyReply = oneshot::Sender<Result<CopyInfo, CopyError>>;

impl Node {
    /// Writes a copy of this replica's state into a directory: the state after an exact entry, with the clients'
    /// sessions, while the node goes on. The directory is made where there is none and must be empty; it holds a whole
    /// copy, durably, or none. A backup's copy is as good as the primary's, but for the writes that it has not applied yet;
    /// `Read::AtLeast` through [`read_local`](Self::read_local) waits for them.
    ///
    /// It costs what a snapshot costs: freezing on the node's task, then writing beside it. To use one, see
    /// [`NodeBuilder::from_copy`](super::NodeBuilder::from_copy).
    ///
    /// # Errors
    /// [`CopyError`]: the directory holds no copy.
    ///
    /// ```
    /// use kvrep_core::node::{Client, LocalLink, Node};
    /// use kvrep_core::{Fold, Read, ReplicaId};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let temporary = tempfile::tempdir()?;
    /// # let backup = temporary.path().join("monday");
    /// type Counter = Fold<i64, i64>;
    /// let counter = || Counter::new(0, |counter, by| *counter += by);
    ///
    /// let node = Node::builder("counter", ReplicaId(1)).state_machine(counter()).start().await?;
    /// Client::<Counter>::new(LocalLink::new([&node])).execute(42).await?;
    /// let copy = node.copy_to(&backup).await?;
    /// assert_eq!(copy.group, kvrep_core::GroupId::named("counter"));
    /// node.shutdown().await?; // it was in memory: all is lost, but for the copy
    ///
    /// let node = Node::builder("counter", ReplicaId(1))
    ///     .state_machine(counter())
    ///     .from_copy(&backup)
    ///     .forced() // nobody who has more will ever return
    ///     .start()
    ///     .await?;
    /// let (count, _) = node.read_local(Read::Local, |c: &Counter| *c.value()).await?;
    /// assert_eq!(count, 42);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn copy_to(&self, directory: impl Into<PathBuf>) -> Result<CopyInfo, CopyError> {
        let (reply, answer) = oneshot::channel();
        let directory = directory.into();
        let asked = Asked::Copy { directory, reply };
        self.requests.ask(asked).await.ok_or(CopyError::Stopped)?;
        answer.await.map_err(|_| CopyError::Stopped)?
    }
}

impl TokioHost {
    /// Starts to write a copy; the outcome comes as [`Done::Copied`].
    pub(super) fn copy(&mut self, engine: &Engine, directory: PathBuf, reply: CopyReply) {
        if self.copying {
            drop(reply.send(Err(CopyError::Busy)));
            return;
        }
        let Some((last, hard_state, state)) = engine.copy() else {
            drop(reply.send(Err(CopyError::Nothing)));
            return;
        };
        self.copying = true;
        let who = engine.identity();
        let origin = Origin {
            group: who.group,
            replica: who.replica,
            last,
            hard_state,
        };
        let mailbox = self.mailbox.clone();
        self.jobs.spawn_blocking(move || {
            let result = copy::write(&OsFs, &directory, &origin, state);
            mailbox.tell(Control::Done(Done::Copied { reply, result }));
        });
    }
}
