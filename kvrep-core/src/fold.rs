//! A state machine in one line: a value, and what a command does to it.

use crate::state_machine::{ApplyContext, StateMachine};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt;

/// Keeps one value of type `T` and folds commands of type `C` into it. The value is also the answer: to a command as it
/// is afterwards, to the query `()` as it is.
///
/// For small values: every answer and every snapshot is a copy of it. When the state grows, or commands and queries
/// should have answers of their own, implement [`StateMachine`].
///
/// The function is a plain one, which remembers nothing between calls, so that it does the same on every replica.
///
/// ```
/// use kvrep_core::{ApplyContext, Fold, Index, StateMachine, Timestamp};
///
/// let mut sum = Fold::new(40_i64, |sum, number: i64| *sum += number);
/// let mut context = ApplyContext::new(Index(1), Timestamp::default(), 0);
/// assert_eq!(sum.apply(&mut context, 2), 42);
/// assert_eq!(sum.query(()), 42);
/// ```
#[derive(Clone)]
pub struct Fold<T, C> {
    value: T,
    apply: fn(&mut T, C),
}

impl<T, C> Fold<T, C> {
    /// Begins with `value`; `apply` carries out a command. Both must be the same on every replica.
    pub const fn new(value: T, apply: fn(&mut T, C)) -> Self {
        Self { value, apply }
    }

    /// The state.
    #[must_use]
    pub const fn value(&self) -> &T {
        &self.value
    }
}

impl<T, C> StateMachine for Fold<T, C>
where
    T: Clone + Serialize + DeserializeOwned + Send + 'static,
    C: Serialize + DeserializeOwned + Send + 'static,
{
    type Command = C;
    type Query = ();
    type Response = T;
    type Snapshot = T;

    fn apply(&mut self, _: &mut ApplyContext, command: C) -> T {
        (self.apply)(&mut self.value, command);
        self.value.clone()
    }

    fn query(&self, (): ()) -> T {
        self.value.clone()
    }

    fn snapshot(&self) -> T {
        self.value.clone()
    }

    fn restore(&mut self, value: T) {
        self.value = value;
    }
}

impl<T: fmt::Debug, C> fmt::Debug for Fold<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Fold").field(&self.value).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Index;
    use crate::time::Timestamp;

    #[test]
    fn a_snapshot_of_one_replica_is_the_state_of_another() {
        let new = || Fold::new(Vec::new(), |all: &mut Vec<u8>, next: u8| all.push(next));
        let (mut one, mut two) = (new(), new());
        let mut context = ApplyContext::new(Index(1), Timestamp::default(), 0);
        one.apply(&mut context, 1);
        two.restore(one.snapshot());
        assert_eq!(two.apply(&mut context, 2), [1, 2]);
        assert_eq!(one.query(()), [1]);
    }
}
