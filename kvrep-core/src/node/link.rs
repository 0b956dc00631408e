//! How a [`Client`](super::Client) reaches replicas, whatever lies between.
//!
//! A link knows a few *targets*, numbered from 0: places where a replica may be asked. It carries one [`Op`] to one
//! of them and brings back the [`Outcome`]. Retrying, finding the primary and counting requests is the client's
//! work, the same over every link.
//!
//! Rules for implementers:
//!
//! * targets are only ever added, so a number stays good;
//! * [`call`](ClientLink::call) returns soon after its deadline, whatever the other side does, and many calls may be
//!   under way together;
//! * [`LinkError::NotSent`] and [`LinkError::Hopeless`] are a promise: the replica has not seen and will not see the
//!   request. In doubt it is [`LinkError::Lost`].

use crate::client_wire::{Op, Outcome};
use crate::id::ReplicaId;
use async_trait::async_trait;
use std::sync::Arc;
use tokio::time::Instant;

/// Carries requests to replicas. See the [module](self) for the rules.
///
/// ```
/// use async_trait::async_trait;
/// use kvrep_core::ReplicaId;
/// use kvrep_core::client_wire::{Op, Outcome};
/// use kvrep_core::node::{ClientLink, LinkError};
/// use tokio::time::Instant;
///
/// /// Another link, with every request told on standard error.
/// struct Told<L>(L);
///
/// #[async_trait]
/// impl<L: ClientLink> ClientLink for Told<L> {
///     fn targets(&self) -> usize {
///         self.0.targets()
///     }
///     fn resolve(&self, replica: ReplicaId, address: Option<&str>) -> Option<usize> {
///         self.0.resolve(replica, address)
///     }
///     async fn call(&self, target: usize, op: Op, deadline: Instant) -> Result<Outcome, LinkError> {
///         eprintln!("to {target}: {op:?}");
///         self.0.call(target, op, deadline).await
///     }
/// }
/// ```
#[async_trait]
pub trait ClientLink: Send + Sync + 'static {
    /// How many targets there are now; at least one.
    fn targets(&self) -> usize;

    /// The target at which this replica is found; what a redirect
    /// ([`Outcome::NotPrimary`]) names. A link may add a target for an address that it did not know. `None`: the
    /// client tries the others in turn.
    fn resolve(&self, replica: ReplicaId, address: Option<&str>) -> Option<usize>;

    /// Whether nothing came from `target` lately although others were heard that were asked in the same way: then it is passed
    /// over. `false` for links that cannot know it before they call.
    fn is_silent(&self, target: usize) -> bool {
        let _ = target;
        false
    }

    /// Asks `target` and waits for the outcome, at most until `deadline` and a few milliseconds more.
    ///
    /// # Errors
    /// [`LinkError`]: there is no outcome.
    async fn call(&self, target: usize, op: Op, deadline: Instant) -> Result<Outcome, LinkError>;
}

/// For a link that several hold, and, as `Arc<dyn ClientLink>`, for a program that chooses its way when it runs.
#[async_trait]
impl<L: ClientLink + ?Sized> ClientLink for Arc<L> {
    fn targets(&self) -> usize {
        (**self).targets()
    }

    fn resolve(&self, replica: ReplicaId, address: Option<&str>) -> Option<usize> {
        (**self).resolve(replica, address)
    }

    fn is_silent(&self, target: usize) -> bool {
        (**self).is_silent(target)
    }

    async fn call(&self, target: usize, op: Op, deadline: Instant) -> Result<Outcome, LinkError> {
        (**self).call(target, op, deadline).await
    }
}

/// Why there is no outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The request did not reach the replica and never will.
    #[error("not sent: {0}")]
    NotSent(String),
    /// The same, and no later one will either as things are: the address is none, or belongs to another group. A client whose
    /// every target says so gives up at once.
    #[error("not sent, and never will be: {0}")]
    Hopeless(String),
    /// The request was sent, or may have been, and no answer came. It may still be carried out.
    #[error("no answer: {0}")]
    Lost(String),
}
