//! Was the promise kept? What the clients were told, against what the replicas have in the end.
//!
//! | promise | what is checked |
//! |---|---|
//! | linearizable | the recorded history is linearizable for each list; session guarantees hold for reads by any replica; every acknowledged write is at the place that its answer named, once; nothing refused is there; all replicas are equal |
//! | reported | all replicas are equal; nothing is there twice or was refused; every acknowledged write that is missing lies at or behind a position that some replica reported as lost or cut off, or in a tail that it set aside |
//!
//! The second is all that `Authority::Alone` promises when processes live and are not heard.

use crate::group::Group;
use crate::lists::{Answer, Asked, OneCopy, Query, Seen};
use crate::load::{Ended, Freshness, Recorded};
use crate::serve::Told as Reported;
use kvrep_core::check::sessions::{self, Access, SessionOp};
use kvrep_core::check::{
    Budget, ClientId, History, Linearizability, Operation, Response, linearizable,
};
use kvrep_core::client_wire::{Op, Outcome};
use kvrep_core::state_machine::{decode, encode};
use kvrep_core::{Index, Read, ReplicaId, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// What was to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    Linearizable,
    Reported,
}

impl Promise {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Linearizable => "linearizable",
            Self::Reported => "loss reported",
        }
    }
}

/// All lists of one replica.
pub(crate) type Copy = BTreeMap<u64, Arc<Vec<u64>>>;

/// Waits until all replicas have applied the same log; returns what each has.
///
/// # Errors
/// When they do not become equally long in time, or do not answer.
pub(crate) async fn copies(
    group: &Group,
    within: Duration,
) -> Result<BTreeMap<ReplicaId, Copy>, String> {
    let deadline = Instant::now() + within;
    group.in_sync(within).await?;
    loop {
        let mut positions = BTreeMap::new();
        for id in group.replicas() {
            positions.insert(id, group.status(id).await.map(|s| (s.last, s.applied)));
        }
        let all: BTreeSet<_> = positions.values().collect();
        let done = |(last, applied): &(kvrep_core::LogPoint, Index)| last.index == *applied;
        if all.len() == 1 && all.iter().all(|p| p.as_ref().is_some_and(done)) {
            break;
        }
        if Instant::now() >= deadline {
            return Err(format!(
                "replicas do not converge within {within:?}: {positions:?}"
            ));
        }
        sleep(Duration::from_millis(5)).await;
    }
    let mut copies = BTreeMap::new();
    for id in group.replicas() {
        copies.insert(id, copy_of(group, id).await?);
    }
    Ok(copies)
}

async fn copy_of(group: &Group, id: ReplicaId) -> Result<Copy, String> {
    let mut copy = Copy::new();
    let mut after = None;
    loop {
        let query = encode(&Query::Page { after, ids: 50_000 });
        let read = Read::Local;
        let op = Op::Query { read, query };
        let answer = group.ask(id, op, Duration::from_secs(10)).await;
        let Some(Outcome::Done { response, .. }) = answer else {
            return Err(format!("{id} does not show its lists: {answer:?}"));
        };
        let Ok(Answer::Page(page)) = decode(&response) else {
            return Err(format!("{id} answers a page with something else"));
        };
        match page.last() {
            Some((last, _)) => after = Some(*last),
            None => return Ok(copy),
        }
        copy.extend(page);
    }
}

/// Everything that contradicts the promise, in sentences; at most some of each kind.
pub(crate) fn violations(
    promise: Promise,
    recorded: &[Recorded],
    copies: &BTreeMap<ReplicaId, Copy>,
    reported: &[Reported],
) -> Vec<String> {
    let Some((_, copy)) = copies.iter().next() else {
        return vec!["no replica was asked".into()];
    };
    let mut wrong = differing(copies);
    wrong.extend(twice_or_refused(recorded, copy));
    let missing = missing(recorded, copy);
    match promise {
        Promise::Linearizable => {
            wrong.extend(shown(missing.iter().map(|m| m.what.clone())));
            wrong.extend(not_linearizable(recorded));
            wrong.extend(broken_sessions(recorded));
        }
        Promise::Reported => {
            let unreported = missing.iter().filter(|m| !is_reported(m.index, reported));
            wrong.extend(shown(
                unreported.map(|m| format!("{}, and not reported", m.what)),
            ));
        }
    }
    wrong
}

/// Acknowledged writes that are not where their answer said.
pub(crate) fn lost(recorded: &[Recorded], copies: &BTreeMap<ReplicaId, Copy>) -> usize {
    let copy = copies.values().next();
    copy.map_or(0, |copy| missing(recorded, copy).len())
}

fn differing(copies: &BTreeMap<ReplicaId, Copy>) -> Vec<String> {
    let mut all = copies.iter();
    let Some((first, one)) = all.next() else {
        return Vec::new();
    };
    let differ = all.filter_map(|(id, other)| {
        let keys: BTreeSet<&u64> = one.keys().chain(other.keys()).collect();
        let key = keys
            .into_iter()
            .find(|key| one.get(key) != other.get(key))?;
        Some(format!("{first} and {id} differ in list {key}"))
    });
    shown(differ)
}

fn twice_or_refused(recorded: &[Recorded], copy: &Copy) -> Vec<String> {
    let mut sent = BTreeMap::new();
    for operation in recorded {
        if let Asked::Append { key, id } = operation.asked {
            sent.insert(id, (key, matches!(operation.ended, Ended::Refused)));
        }
    }
    let mut there = BTreeSet::new();
    let lists = copy
        .iter()
        .flat_map(|(key, list)| list.iter().map(move |id| (*key, *id)));
    shown(lists.filter_map(|(key, id)| {
        if !there.insert(id) {
            return Some(format!("write {id} is there twice"));
        }
        match sent.get(&id) {
            Some((sent_to, false)) if *sent_to == key => None,
            Some((_, true)) => Some(format!(
                "write {id} is there, though nothing was to be done"
            )),
            Some(_) | None => Some(format!("write {id} in list {key} was never sent there")),
        }
    }))
}

struct Missing {
    what: String,
    index: Index,
}

fn missing(recorded: &[Recorded], copy: &Copy) -> Vec<Missing> {
    let mut missing = Vec::new();
    for operation in recorded {
        let (Asked::Append { key, id }, Ended::Answered(answered)) =
            (operation.asked, &operation.ended)
        else {
            continue;
        };
        let Seen { length, .. } = answered.told.after;
        let place = usize::try_from(length).unwrap_or(0).wrapping_sub(1);
        let found = copy.get(&key).and_then(|list| list.get(place));
        if found != Some(&id) {
            let index = answered.index;
            let what =
                format!("acknowledged write {id} ({index}) is not at place {length} of list {key}");
            missing.push(Missing { what, index });
        }
    }
    missing
}

fn is_reported(index: Index, reported: &[Reported]) -> bool {
    reported.iter().any(|told| match told {
        Reported::WritesLost { from } | Reported::Truncated { from } => *from <= index.0,
        // A refuted replica knows a place where the histories differ, but not the first; it keeps its whole log.
        Reported::SetAside { from, entries } => (*from..from + entries).contains(&index.0),
        Reported::Other { .. } => false,
    })
}

fn not_linearizable(recorded: &[Recorded]) -> Vec<String> {
    let mut history = History::new();
    for operation in recorded {
        let response = match &operation.ended {
            Ended::Answered(answered) => Some(Response {
                at: time(answered.at),
                ret: answered.told,
            }),
            Ended::Unknown => None,
            Ended::Refused => continue,
        };
        if operation.freshness == Freshness::Linearizable {
            history.push(Operation {
                client: ClientId(operation.client),
                op: operation.asked,
                invoked: time(operation.invoked),
                response,
            });
        }
    }
    match linearizable::check(&OneCopy, &history, Budget::default()) {
        Linearizability::Holds => Vec::new(),
        Linearizability::Violated(violation) => vec![violation.explain(&OneCopy, &history)],
        Linearizability::Undecided { keys } => {
            vec![format!(
                "linearizability was not decided for {} lists",
                keys.len()
            )]
        }
    }
}

/// The version of a list is its length: every write makes it one longer.
fn broken_sessions(recorded: &[Recorded]) -> Vec<String> {
    let operations: Vec<SessionOp<u64>> = recorded
        .iter()
        .filter_map(|operation| {
            let Ended::Answered(answered) = &operation.ended else {
                return None;
            };
            let version = Index(answered.told.after.length);
            let (object, access) = match operation.asked {
                Asked::Append { key, .. } => (key, Access::Write(version)),
                Asked::Get { key } => (key, Access::Read(version)),
            };
            Some(SessionOp {
                client: ClientId(operation.client),
                object,
                invoked: time(operation.invoked),
                responded: time(answered.at),
                access,
            })
        })
        .collect();
    shown(
        sessions::check(&operations)
            .into_iter()
            .map(|v| v.to_string()),
    )
}

fn time(since: Duration) -> Time {
    Time::ZERO + since
}

/// The first ones, and how many there are.
fn shown(all: impl Iterator<Item = String>) -> Vec<String> {
    const SHOWN: usize = 3;
    let mut all: Vec<String> = all.collect();
    let more = all.len().saturating_sub(SHOWN);
    all.truncate(SHOWN);
    if more > 0 {
        all.push(format!("and {more} more like these"));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lists::Told;
    use crate::load::Answered;
    use kvrep_core::Term;

    /// Client 1 appends 5 and then reads; both answered.
    fn story(read: Seen) -> Vec<Recorded> {
        let of = |n: u64, asked, before, after| Recorded {
            client: 1,
            asked,
            freshness: Freshness::Linearizable,
            invoked: Duration::from_nanos(2 * n),
            ended: Ended::Answered(Answered {
                at: Duration::from_nanos(2 * n + 1),
                told: Told { before, after },
                index: Index(7),
                term: Term::ZERO,
            }),
        };
        let written = Seen { length: 1, last: 5 };
        vec![
            of(1, Asked::Append { key: 3, id: 5 }, Seen::default(), written),
            of(2, Asked::Get { key: 3 }, read, read),
        ]
    }

    fn copies(lists: [&[u64]; 2]) -> BTreeMap<ReplicaId, Copy> {
        let copy = |list: &[u64]| Copy::from([(3, Arc::new(list.to_vec()))]);
        let ids = [1, 2].map(ReplicaId);
        ids.into_iter().zip(lists.map(copy)).collect()
    }

    fn judged(promise: Promise, read: Seen, lists: [&[u64]; 2], told: &[Reported]) -> String {
        violations(promise, &story(read), &copies(lists), told).join("; ")
    }

    const RIGHT: Seen = Seen { length: 1, last: 5 };

    #[test]
    fn what_was_told_and_is_there_breaks_nothing() {
        assert_eq!(judged(Promise::Linearizable, RIGHT, [&[5], &[5]], &[]), "");
    }

    #[test]
    fn a_lost_a_doubled_and_an_invented_write_are_seen() {
        let seen = |lists| judged(Promise::Linearizable, RIGHT, lists, &[]);
        assert!(seen([&[], &[]]).contains("is not at place 1"));
        assert!(seen([&[5, 5], &[5, 5]]).contains("is there twice"));
        assert!(seen([&[5, 6], &[5, 6]]).contains("was never sent"));
        assert!(seen([&[5], &[]]).contains("differ in list 3"));
    }

    #[test]
    fn a_stale_read_is_neither_linearizable_nor_read_your_writes() {
        let seen = judged(Promise::Linearizable, Seen::default(), [&[5], &[5]], &[]);
        assert!(seen.contains("not linearizable"), "{seen}");
        assert!(seen.contains("read your writes"), "{seen}");
    }

    #[test]
    fn a_loss_must_be_reported_at_or_before_it() {
        let seen = |told: &[Reported]| judged(Promise::Reported, RIGHT, [&[], &[]], told);
        assert!(seen(&[]).contains("not reported"));
        assert!(seen(&[Reported::WritesLost { from: 8 }]).contains("not reported"));
        assert_eq!(seen(&[Reported::WritesLost { from: 7 }]), "");
        assert_eq!(seen(&[Reported::Truncated { from: 1 }]), "");
        let aside = |from, entries| seen(&[Reported::SetAside { from, entries }]);
        assert!(aside(1, 6).contains("not reported"));
        assert_eq!(aside(1, 7), "");
    }
}
