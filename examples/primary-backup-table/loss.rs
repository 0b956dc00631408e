//! Whether the table is lost: in memory it lives as long as a server that had all of it runs.
//!
//! A server that starts again without its table waits for the other one to give it. If that one has nothing either, or only an
//! older table than was acknowledged, both would wait for each other for ever; so the operator is told what is lost, and
//! what he can do. A pure function of what the two servers say of themselves, and of what this one wrote down.

use kvrep_core::ReplicaId;
use kvrep_core::protocol::ProtocolStatus;

/// What the operator is told; nothing while somebody may still have the table. `was_alone`: when this server ended, it alone had
/// everything, as far as its directory knows. `other`: what the other one answers.
pub(super) fn told_of_loss(
    me: &ProtocolStatus,
    was_alone: bool,
    other: Option<(ReplicaId, &ProtocolStatus)>,
) -> Option<&'static str> {
    if !has_nothing(me) {
        return None;
    }
    match other {
        Some((_, status)) if has_nothing(status) => Some(NOBODY),
        Some((id, status)) if was_alone && !may_serve(id, status) => Some(OLDER),
        None if was_alone => Some(ALONE),
        Some(_) | None => None,
    }
}

/// It started without a table, and nobody has given it one.
pub(super) fn has_nothing(status: &ProtocolStatus) -> bool {
    status.configuration.is_none() && status.last.index.0 == 0 && status.primary.is_none()
}

/// Whether it serves, or had everything when that was last agreed on.
fn may_serve(id: ReplicaId, status: &ProtocolStatus) -> bool {
    let agreed = status.configuration.as_ref();
    status.serving || status.primary.is_some() || agreed.is_some_and(|c| c.has(id, status.store))
}

const NOBODY: &str = "nobody has the table any more: both servers were started again without it. Start one of them with --force to begin with an EMPTY table";
const ALONE: &str = "nobody has the table any more, as far as this server knows: it was in its memory alone when it ended, for the other one was DOWN, and that one does not answer. If it runs \
     after all, see to it that it can be reached; if not, start this one with --force to begin with an EMPTY table";
const OLDER: &str = "the table is LOST as it was last: it was in this server's memory alone when it ended, for the other one was DOWN. The other one has an older table: start that one with --force to \
     go on with it, without what was written since; or this one, to begin with an EMPTY table";

#[cfg(test)]
mod tests {
    use super::*;
    use kvrep_core::{Configuration, MemberKind, StoreId, Term, Version};

    fn status(store: u64, in_sync: Option<(u32, u64)>) -> ProtocolStatus {
        let configuration = in_sync.map(|(id, store)| Configuration {
            term: Term::ZERO.next_for(ReplicaId(1)),
            version: Version(3),
            in_sync: [(ReplicaId(id), StoreId(store))].into(),
            members: [1, 2].map(|id| (ReplicaId(id), MemberKind::Full)).into(),
        });
        ProtocolStatus {
            configuration,
            ..ProtocolStatus::of_nothing(StoreId(store))
        }
    }

    /// A1.6: the last one that had the table in its memory comes back without it, and says what is lost and what to do.
    #[test]
    fn the_last_one_that_had_the_table_is_told_that_it_is_lost() {
        let empty = status(10, None);
        let other = |status: ProtocolStatus, was_alone| {
            told_of_loss(&empty, was_alone, Some((ReplicaId(2), &status)))
        };
        assert_eq!(told_of_loss(&empty, true, None), Some(ALONE));
        assert_eq!(told_of_loss(&empty, false, None), None);
        for was_alone in [true, false] {
            assert_eq!(other(status(20, None), was_alone), Some(NOBODY));
            // It counts, with the storage that it has: it will serve.
            assert_eq!(other(status(20, Some((2, 20))), was_alone), None);
        }
        assert_eq!(other(status(20, Some((1, 10))), true), Some(OLDER));
        assert_eq!(other(status(20, Some((1, 10))), false), None);
        // Whoever has been given a table has lost none.
        assert_eq!(told_of_loss(&status(10, Some((1, 10))), true, None), None);
    }
}
