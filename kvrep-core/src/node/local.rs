//! Requests from within the process.

use super::Node;
use super::answer::{Answer, answer};
use super::link::{ClientLink, LinkError};
use super::queue::{Asked, Mailbox, Refusal};
use crate::client_wire::{Op, Outcome};
use crate::id::ReplicaId;
use crate::time::Time;
use async_trait::async_trait;
use std::fmt;
use std::pin::Pin;
use std::sync::{PoisonError, RwLock};
use std::task::{Context, Poll, ready};
use tokio::time::Instant;

/// The way into a node's queue. Does not keep the node alive.
#[derive(Clone)]
pub(super) struct Requests {
    pub(super) mailbox: Mailbox,
    pub(super) origin: Instant,
}

impl Requests {
    /// Puts a request in the queue: its answer, or *busy* when the queue is full.
    fn submit(&self, op: Op, deadline: Instant) -> Result<Submitted, LinkError> {
        let (reply, answer) = answer();
        let asked = Asked::Here {
            op,
            deadline: Time::ZERO + deadline.saturating_duration_since(self.origin),
            reply,
        };
        match self.mailbox.try_ask(asked) {
            Ok(()) => Ok(Submitted::Waiting(answer)),
            Err(Refusal::Full(_)) => Ok(Submitted::QueueFull),
            Err(Refusal::Closed(_)) => Err(LinkError::NotSent("the node has stopped".into())),
        }
    }

    /// Submits the request when it is first polled.
    pub(super) fn call(&self, op: Op, deadline: Instant) -> Call<'_> {
        Call::Unsent {
            requests: self,
            op,
            deadline,
        }
    }

    pub(super) async fn ask(&self, asked: Asked) -> Option<()> {
        self.mailbox.ask(asked).await
    }
}

enum Submitted {
    Waiting(Answer),
    QueueFull,
}

impl Submitted {
    async fn outcome(self) -> Result<Outcome, LinkError> {
        match self {
            Self::Waiting(answer) => outcome(answer.await),
            Self::QueueFull => Ok(Outcome::Busy),
        }
    }
}

fn outcome(answer: Option<Outcome>) -> Result<Outcome, LinkError> {
    answer.ok_or_else(|| LinkError::Lost("the node stopped".into()))
}

/// A call under way. By hand: a task that calls again and again keeps the request and its answer in one place, not in one for each
/// function that they pass.
pub(super) enum Call<'a> {
    Unsent {
        requests: &'a Requests,
        op: Op,
        deadline: Instant,
    },
    /// The node itself answers at the deadline: no timer is needed here.
    Waiting(Answer),
    Ended,
}

impl Future for Call<'_> {
    type Output = Result<Outcome, LinkError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Self::Unsent { .. } = &*self
            && let Self::Unsent {
                requests,
                op,
                deadline,
            } = std::mem::replace(&mut *self, Self::Ended)
        {
            match requests.submit(op, deadline)? {
                Submitted::Waiting(answer) => *self = Self::Waiting(answer),
                Submitted::QueueFull => return Poll::Ready(Ok(Outcome::Busy)),
            }
        }
        let Self::Waiting(answer) = &mut *self else {
            panic!("a call that has ended is not polled again");
        };
        let answer = ready!(Pin::new(answer).poll(context));
        *self = Self::Ended;
        Poll::Ready(outcome(answer))
    }
}

/// A link to nodes of this process: one, or several of a group.
///
/// Its targets are the nodes in the order in which they were given. It does not keep them alive.
/// See [`Client`](super::Client) for an example.
pub struct LocalLink(RwLock<Vec<(ReplicaId, Requests)>>);

impl LocalLink {
    /// A link to these nodes.
    ///
    /// # Panics
    /// Without a node.
    pub fn new<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> Self {
        let targets: Vec<_> = nodes.into_iter().map(target_of).collect();
        assert!(!targets.is_empty(), "a link needs a node");
        Self(RwLock::new(targets))
    }

    /// Adds a node, or puts it in the place of an earlier life of its replica.
    pub fn add(&self, node: &Node) {
        let mut targets = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let new = target_of(node);
        match targets.iter_mut().find(|(replica, _)| *replica == new.0) {
            Some(old) => *old = new,
            None => targets.push(new),
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Vec<(ReplicaId, Requests)>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn target_of(node: &Node) -> (ReplicaId, Requests) {
    (node.identity.replica, node.requests.clone())
}

#[async_trait]
impl ClientLink for LocalLink {
    fn targets(&self) -> usize {
        self.read().len()
    }

    fn resolve(&self, replica: ReplicaId, _address: Option<&str>) -> Option<usize> {
        self.read().iter().position(|(r, _)| *r == replica)
    }

    async fn call(&self, target: usize, op: Op, deadline: Instant) -> Result<Outcome, LinkError> {
        let submitted = match self.read().get(target) {
            Some((_, requests)) => requests.submit(op, deadline)?,
            None => return Err(LinkError::NotSent(format!("no target {target}"))),
        };
        submitted.outcome().await
    }
}

impl fmt::Debug for LocalLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let replicas: Vec<_> = self.read().iter().map(|(r, _)| *r).collect();
        write!(f, "LocalLink({replicas:?})")
    }
}
