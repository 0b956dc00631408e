//! What clients did and saw, and when.
//!
//! An operation begins when its client sends it and ends when the client has the answer. An operation without an
//! answer is *pending*: it may have taken effect at any time since, may still, or never will.

use crate::time::Time;
use std::fmt;

/// Whoever sends operations: a client, or one session of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClientId(pub u64);

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client {}", self.0)
    }
}

/// An operation of one [`History`], in the order in which they were added, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OpId(pub usize);

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// The end of an operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Response<Ret> {
    /// When the client had it.
    pub at: Time,
    /// What it said.
    pub ret: Ret,
}

/// One operation of one client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operation<Op, Ret> {
    /// Who sent it.
    pub client: ClientId,
    /// What was asked.
    pub op: Op,
    /// When it was sent.
    pub invoked: Time,
    /// The answer; `None` while the outcome is unknown.
    pub response: Option<Response<Ret>>,
}

/// Operations of any number of clients. All times must come from one clock.
///
/// ```
/// use kvrep_core::Time;
/// use kvrep_core::check::{ClientId, History};
///
/// let mut history = History::new();
/// let sent = history.invoke(Time::from_nanos(1), ClientId(1), "increment");
/// let lost = history.invoke(Time::from_nanos(2), ClientId(2), "increment"); // no answer will come
/// let refused = history.invoke(Time::from_nanos(2), ClientId(3), "increment");
/// history.respond(Time::from_nanos(5), sent, 1);
/// history.withdraw(refused); // the answer was: nothing was done
/// assert!(history.get(lost).unwrap().response.is_none());
/// assert_eq!(history.operations().count(), 2);
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct History<Op, Ret> {
    /// `None` for those that were withdrawn.
    operations: Vec<Option<Operation<Op, Ret>>>,
}

impl<Op, Ret> Default for History<Op, Ret> {
    fn default() -> Self {
        Self::new()
    }
}

impl<Op, Ret> History<Op, Ret> {
    /// A history of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self {
            operations: Vec::new(),
        }
    }

    /// `client` sends `op`. Until [`respond`](Self::respond) its outcome is unknown.
    pub fn invoke(&mut self, now: Time, client: ClientId, op: Op) -> OpId {
        self.push(Operation {
            client,
            op,
            invoked: now,
            response: None,
        })
    }

    /// The answer to `id` came.
    ///
    /// # Panics
    /// When `id` is not of this history, was withdrawn, has an answer already, or was sent later than `now`.
    pub fn respond(&mut self, now: Time, id: OpId, ret: Ret) {
        let operation = self
            .operations
            .get_mut(id.0)
            .and_then(Option::as_mut)
            .expect("a response belongs to an operation of this history");
        assert!(
            operation.response.is_none(),
            "an operation has one response: {id}"
        );
        assert!(
            operation.invoked <= now,
            "a response does not come before its operation: {id}"
        );
        operation.response = Some(Response { at: now, ret });
    }

    /// `id` certainly had no effect and never will: forgets it.
    pub fn withdraw(&mut self, id: OpId) {
        if let Some(slot) = self.operations.get_mut(id.0) {
            *slot = None;
        }
    }

    /// Adds a whole operation, for histories recorded elsewhere.
    ///
    /// # Panics
    /// When its response comes before its invocation.
    pub fn push(&mut self, operation: Operation<Op, Ret>) -> OpId {
        let backwards = operation
            .response
            .as_ref()
            .is_some_and(|response| response.at < operation.invoked);
        let id = OpId(self.operations.len());
        assert!(
            !backwards,
            "a response does not come before its operation: {id}"
        );
        self.operations.push(Some(operation));
        id
    }

    /// The operation of this number, unless it was withdrawn.
    #[must_use]
    pub fn get(&self, id: OpId) -> Option<&Operation<Op, Ret>> {
        self.operations.get(id.0).and_then(Option::as_ref)
    }

    /// All operations that were not withdrawn.
    pub fn operations(&self) -> impl Iterator<Item = (OpId, &Operation<Op, Ret>)> {
        self.operations
            .iter()
            .enumerate()
            .filter_map(|(n, operation)| operation.as_ref().map(|operation| (OpId(n), operation)))
    }
}

impl<Op, Ret> Extend<Operation<Op, Ret>> for History<Op, Ret> {
    fn extend<I: IntoIterator<Item = Operation<Op, Ret>>>(&mut self, operations: I) {
        for operation in operations {
            self.push(operation);
        }
    }
}

impl<Op, Ret> FromIterator<Operation<Op, Ret>> for History<Op, Ret> {
    fn from_iter<I: IntoIterator<Item = Operation<Op, Ret>>>(operations: I) -> Self {
        let mut history = Self::new();
        history.extend(operations);
        history
    }
}
