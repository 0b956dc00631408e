//! Session guarantees (Terry et al. 1994): what each client may rely on from one of its operations to the next.
//!
//! Every access is known by a version: the position up to which a read saw the writes, or the position that a write
//! got. Versions count the writes to one object, or to everything (then let the object be `()`, and the version of a
//! read the index as of which the replica answered). The four guarantees then are comparisons:
//!
//! | guarantee | later access | must be |
//! |---|---|---|
//! | read your writes | read | at or above the session's earlier writes |
//! | monotonic reads | read | at or above its earlier reads |
//! | monotonic writes | write | above its earlier writes |
//! | writes follow reads | write | above its earlier reads |
//!
//! *Earlier* means: answered by the time the later one was sent. Accesses of one session that overlap are not compared.
//!
//! Caveat: this says nothing about what other clients see; [`linearizable`](super::linearizable) does.

use super::history::ClientId;
use crate::id::Index;
use crate::time::Time;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;

/// What an answered operation says about versions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// A read that saw all writes up to this one, and none after it. [`Index::ZERO`]: before the first.
    Read(Index),
    /// A write that got this position.
    Write(Index),
}

/// One answered operation of a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionOp<K> {
    /// The session.
    pub client: ClientId,
    /// What was read or written; `()` when versions count the writes to everything.
    pub object: K,
    /// When it was sent.
    pub invoked: Time,
    /// When the answer came.
    pub responded: Time,
    /// What it saw or did.
    pub access: Access,
}

/// One of the four promises.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Guarantee {
    /// A read sees the session's own earlier writes.
    ReadYourWrites,
    /// A read sees no less than an earlier one.
    MonotonicReads,
    /// Writes of a session are ordered as they were sent.
    MonotonicWrites,
    /// A write is ordered after what the session had read before.
    WritesFollowReads,
}

impl fmt::Display for Guarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadYourWrites => "read your writes",
            Self::MonotonicReads => "monotonic reads",
            Self::MonotonicWrites => "monotonic writes",
            Self::WritesFollowReads => "writes follow reads",
        })
    }
}

/// A promise that was not kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionViolation {
    /// Which one.
    pub guarantee: Guarantee,
    /// To whom.
    pub client: ClientId,
    /// The earlier operation: its place in what was checked.
    pub earlier: usize,
    /// The later one, which contradicts it.
    pub later: usize,
}

impl fmt::Display for SessionViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            guarantee,
            client,
            earlier,
            later,
        } = self;
        write!(
            f,
            "{client}: no {guarantee}: operation {later} contradicts operation {earlier}"
        )
    }
}

/// Every operation that breaks a promise, at most once for each promise, with the earlier one it contradicts most.
///
/// ```
/// use kvrep_core::check::{ClientId, sessions::{Access, Guarantee, SessionOp, check}};
/// use kvrep_core::{Index, Time};
///
/// let op = |from, to, access| SessionOp {
///     client: ClientId(1),
///     object: (),
///     invoked: Time::from_nanos(from),
///     responded: Time::from_nanos(to),
///     access,
/// };
/// let broken = check(&[op(0, 1, Access::Write(Index(7))), op(2, 3, Access::Read(Index(6)))]);
/// assert_eq!(broken[0].guarantee, Guarantee::ReadYourWrites);
/// ```
#[must_use]
pub fn check<K: Ord>(operations: &[SessionOp<K>]) -> Vec<SessionViolation> {
    let mut sessions: BTreeMap<(ClientId, &K), Vec<usize>> = BTreeMap::new();
    for (n, operation) in operations.iter().enumerate() {
        let session = sessions.entry((operation.client, &operation.object));
        session.or_default().push(n);
    }
    let mut violations = Vec::new();
    for mut session in sessions.into_values() {
        session.sort_by_key(|&n| operations[n].invoked);
        check_session(operations, &session, &mut violations);
    }
    violations.sort_by_key(|violation| (violation.later, violation.guarantee));
    violations
}

/// The highest version that a session saw or wrote so far, and where.
type Floor = Option<(Index, usize)>;

fn check_session<K>(
    operations: &[SessionOp<K>],
    by_invocation: &[usize],
    violations: &mut Vec<SessionViolation>,
) {
    let mut unanswered: BinaryHeap<Reverse<(Time, usize)>> = BinaryHeap::new();
    let (mut read, mut written): (Floor, Floor) = (None, None);
    for &later in by_invocation {
        let operation = &operations[later];
        while let Some(&Reverse((at, n))) = unanswered.peek()
            && at <= operation.invoked
        {
            unanswered.pop();
            match operations[n].access {
                Access::Read(version) => read = read.max(Some((version, n))),
                Access::Write(version) => written = written.max(Some((version, n))),
            }
        }
        let is_behind = |floor: Floor| match (floor, operation.access) {
            (Some((floor, earlier)), Access::Read(version)) if version < floor => Some(earlier),
            (Some((floor, earlier)), Access::Write(version)) if version <= floor => Some(earlier),
            (Some(_) | None, Access::Read(_) | Access::Write(_)) => None,
        };
        let (after_write, after_read) = match operation.access {
            Access::Read(_) => (Guarantee::ReadYourWrites, Guarantee::MonotonicReads),
            Access::Write(_) => (Guarantee::MonotonicWrites, Guarantee::WritesFollowReads),
        };
        for (guarantee, floor) in [(after_write, written), (after_read, read)] {
            violations.extend(is_behind(floor).map(|earlier| SessionViolation {
                guarantee,
                client: operation.client,
                earlier,
                later,
            }));
        }
        unanswered.push(Reverse((operation.responded, later)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Operations of one client on one object, one after the other.
    fn session(accesses: &[Access]) -> Vec<SessionOp<char>> {
        (0..)
            .zip(accesses)
            .map(|(n, &access)| op(1, 'x', (2 * n, 2 * n + 1), access))
            .collect()
    }

    fn op(client: u64, object: char, (from, to): (u64, u64), access: Access) -> SessionOp<char> {
        SessionOp {
            client: ClientId(client),
            object,
            invoked: Time::from_nanos(from),
            responded: Time::from_nanos(to),
            access,
        }
    }

    fn read(version: u64) -> Access {
        Access::Read(Index(version))
    }

    fn write(version: u64) -> Access {
        Access::Write(Index(version))
    }

    fn broken(accesses: &[Access]) -> Vec<(Guarantee, usize, usize)> {
        check(&session(accesses))
            .into_iter()
            .map(|violation| (violation.guarantee, violation.earlier, violation.later))
            .collect()
    }

    #[test]
    fn a_session_in_order_breaks_nothing() {
        assert_eq!(
            broken(&[read(0), write(1), read(1), read(5), write(6), read(6)]),
            []
        );
    }

    #[test]
    fn a_read_behind_an_own_write_is_not_read_your_writes() {
        let found = broken(&[write(3), read(2)]);
        assert_eq!(found, [(Guarantee::ReadYourWrites, 0, 1)]);
    }

    #[test]
    fn a_read_behind_a_read_is_not_monotonic_reads() {
        let found = broken(&[read(3), read(4), read(3)]);
        assert_eq!(found, [(Guarantee::MonotonicReads, 1, 2)]);
    }

    #[test]
    fn a_write_ordered_before_an_earlier_one_is_not_monotonic_writes() {
        let found = broken(&[write(3), write(2)]);
        assert_eq!(found, [(Guarantee::MonotonicWrites, 0, 1)]);
    }

    #[test]
    fn two_writes_at_one_position_are_not_monotonic_writes() {
        let found = broken(&[write(3), write(3)]);
        assert_eq!(found, [(Guarantee::MonotonicWrites, 0, 1)]);
    }

    #[test]
    fn a_write_ordered_before_what_was_read_does_not_follow_reads() {
        let found = broken(&[read(5), write(4)]);
        assert_eq!(found, [(Guarantee::WritesFollowReads, 0, 1)]);
    }

    #[test]
    fn one_operation_can_break_two_promises() {
        let found = broken(&[write(4), read(5), read(1)]);
        let expected = [
            (Guarantee::ReadYourWrites, 0, 2),
            (Guarantee::MonotonicReads, 1, 2),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn operations_that_overlap_are_not_compared() {
        let overlapping = [op(1, 'x', (0, 10), write(5)), op(1, 'x', (9, 12), read(4))];
        assert_eq!(check(&overlapping), []);
        let touching = [op(1, 'x', (0, 10), write(5)), op(1, 'x', (10, 12), read(4))];
        assert_eq!(check(&touching).len(), 1);
    }

    #[test]
    fn other_clients_and_other_objects_promise_nothing() {
        let others = [
            op(1, 'x', (0, 1), write(5)),
            op(2, 'x', (2, 3), read(4)),
            op(1, 'y', (4, 5), read(0)),
        ];
        assert_eq!(check(&others), []);
    }
}
