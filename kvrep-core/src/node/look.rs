//! Reading the state of this process's own replica in its own type, without a serialiser between.
//!
//! A query is bytes, because it may come from anywhere. Somebody in the same process can do better: a closure is carried
//! to the node's task, waits there until a query of the same freshness would be answered, and then sees the state
//! machine itself, between two commands. The promises of [`Read`] are therefore those of a query, word for word.
//!
//! Caveat: while the closure runs, the node does nothing else, heartbeats included. Copy out what is needed and
//! compute elsewhere.

use super::Node;
use super::answer::answer;
use super::queue::Asked;
use crate::client_wire::Outcome;
use crate::config::{Read, Token};
use crate::id::ReplicaId;
use crate::state_machine::Look;
use std::any::{Any, type_name};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use tokio::sync::oneshot;

/// Why a closure did not see the state. It has not run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LocalReadError {
    /// The node's state machine is of another type.
    #[error(
        "this node's state machine is not a {asked}: name the type that was given to \
         NodeBuilder::state_machine (a raw one must show itself in RawStateMachine::as_any)"
    )]
    WrongType {
        /// The type that was asked for.
        asked: &'static str,
    },
    /// Only the primary answers linearizable reads.
    #[error("not the primary{}", .primary.map(|p| format!("; {p} is")).unwrap_or_default())]
    NotPrimary {
        /// Who is, as far as this replica knows.
        primary: Option<ReplicaId>,
    },
    /// Too much is under way. Retry a little later.
    #[error("busy: too many requests wait; retry")]
    Busy,
    /// The group promises no such reads (see `Visibility::OnAppend`).
    #[error("refused: {0}")]
    Refused(String),
    /// This replica did not catch up with the token within four times `Timing::suspect_after`, is taking a snapshot over, or does
    /// not belong to the group.
    #[error(
        "this replica has not caught up with what was seen, or does not belong to the group (any more); ask another one, or later"
    )]
    Behind,
    /// The node has stopped.
    #[error("the node has stopped")]
    Stopped,
}

impl Node {
    /// Lets a closure look at this replica's state, as fresh as `read` says; `M` is the type that was given to
    /// [`NodeBuilder::state_machine`](super::NodeBuilder::state_machine). Returns what the closure returns, and what
    /// has been seen with it: the state is the one after the entry at that index.
    ///
    /// It runs on the node's own task between two commands, so it must be short: microseconds, not milliseconds. A
    /// panic in it is the caller's, not the node's.
    ///
    /// # Errors
    /// [`LocalReadError`]: the closure has not run.
    ///
    /// ```
    /// use kvrep_core::node::Node;
    /// use kvrep_core::{Fold, Read, ReplicaId};
    ///
    /// type Words = Fold<Vec<String>, String>;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let node = Node::builder("words", ReplicaId(1))
    ///     .state_machine(Words::new(Vec::new(), |words, word| words.push(word)))
    ///     .start()
    ///     .await?;
    /// let count = |words: &Words| words.value().len(); // no copy of the words is made
    /// assert_eq!(node.read_local(Read::Local, count).await?.0, 0);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn read_local<M: 'static, R: Send + 'static>(
        &self,
        read: Read,
        closure: impl FnOnce(&M) -> R + Send + 'static,
    ) -> Result<(R, Token), LocalReadError> {
        let (look, seen) = look_at(closure);
        let (reply, answer) = answer();
        let asked = Asked::Look { read, look, reply };
        self.requests
            .ask(asked)
            .await
            .ok_or(LocalReadError::Stopped)?;
        let token = match answer.await.ok_or(LocalReadError::Stopped)? {
            Outcome::Done { token, .. } => token,
            Outcome::NotPrimary { primary, .. } => {
                return Err(LocalReadError::NotPrimary { primary });
            }
            Outcome::Busy => return Err(LocalReadError::Busy),
            Outcome::Behind => return Err(LocalReadError::Behind),
            Outcome::Refused(why) => return Err(LocalReadError::Refused(why)),
            other @ (Outcome::Opened { .. }
            | Outcome::Closed
            | Outcome::SessionExpired
            | Outcome::OutOfWindow
            | Outcome::Malformed(_)
            | Outcome::TooLarge { .. }
            | Outcome::ResponseTooLarge { .. }
            | Outcome::Unknown
            | Outcome::Status(_)
            | Outcome::Managed(_)) => unreachable!("a look is not answered {other:?}"),
        };
        Ok((seen.await?, token))
    }
}

/// A closure as something that a node's task may be asked to do, and what comes of it.
pub(super) fn look_at<M: 'static, R: Send + 'static>(
    closure: impl FnOnce(&M) -> R + Send + 'static,
) -> (Look, impl Future<Output = Result<R, LocalReadError>>) {
    let (found, finding) = oneshot::channel();
    let look: Look = Box::new(move |state: Option<&dyn Any>| {
        // Whoever asked has been told already that nothing was seen.
        if found.is_closed() {
            return;
        }
        let seen = state.and_then(|state| state.downcast_ref::<M>());
        let result = seen.map(|machine| catch_unwind(AssertUnwindSafe(|| closure(machine))));
        drop(found.send(result));
    });
    let seen = async {
        match finding.await.map_err(|_| LocalReadError::Stopped)? {
            None => Err(LocalReadError::WrongType {
                asked: type_name::<M>(),
            }),
            Some(Ok(value)) => Ok(value),
            Some(Err(panic)) => resume_unwind(panic),
        }
    };
    (look, seen)
}
