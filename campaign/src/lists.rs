//! The state machine under attack: a list of numbers under each key.
//!
//! Every write appends a number that is used once. So one look at the lists at the end tells which write is there,
//! at which place, and how often; and every answer says how long the list was, so that one lost or doubled write shows
//! in all answers after it.

use kvrep_core::check::{Hint, Model};
use kvrep_core::{ApplyContext, Index, StateMachine};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// Lists by key. A frozen copy shares them.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    lists: BTreeMap<u64, Arc<Vec<u64>>>,
}

/// Appends `id` to the list of `key`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Append {
    pub(crate) key: u64,
    pub(crate) id: u64,
    /// Ignored; makes commands as large as the campaign wants them.
    pub(crate) padding: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Query {
    /// One list.
    Get(u64),
    /// The lists behind this key (from the first: `None`), at most so many numbers.
    Page { after: Option<u64>, ids: u64 },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// Appended by the entry at `index`: the list before and after.
    Appended {
        before: Seen,
        after: Seen,
        index: Index,
    },
    Found(Seen),
    Page(Vec<(u64, Arc<Vec<u64>>)>),
}

/// What an answer tells of a list: its length and its last number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) length: u64,
    pub(crate) last: u64,
}

impl Seen {
    fn of(list: &[u64]) -> Self {
        Self {
            length: list.len() as u64,
            last: list.last().copied().unwrap_or(0),
        }
    }
}

impl StateMachine for Lists {
    type Command = Append;
    type Query = Query;
    type Response = Answer;
    type Snapshot = BTreeMap<u64, Arc<Vec<u64>>>;

    fn apply(&mut self, context: &mut ApplyContext, append: Append) -> Answer {
        let list = Arc::make_mut(self.lists.entry(append.key).or_default());
        let before = Seen::of(list);
        list.push(append.id);
        Answer::Appended {
            before,
            after: Seen::of(list),
            index: context.index,
        }
    }

    fn query(&self, query: Query) -> Answer {
        match query {
            Query::Get(key) => {
                let list = self.lists.get(&key);
                Answer::Found(list.map_or(Seen::default(), |list| Seen::of(list)))
            }
            Query::Page { after, ids } => {
                let from = after.map_or(Bound::Unbounded, Bound::Excluded);
                let mut left = ids;
                let lists = self.lists.range((from, Bound::Unbounded));
                // The first always, else a list longer than a page would never be shown.
                let page = lists.enumerate().take_while(|(n, (_, list))| {
                    let fits = *n == 0 || list.len() as u64 <= left;
                    left = left.saturating_sub(list.len() as u64);
                    fits
                });
                Answer::Page(
                    page.map(|(_, (key, list))| (*key, Arc::clone(list)))
                        .collect(),
                )
            }
        }
    }

    fn snapshot(&self) -> Self::Snapshot {
        self.lists.clone()
    }

    fn restore(&mut self, lists: Self::Snapshot) {
        self.lists = lists;
    }
}

/// What one copy of the lists would answer.
#[derive(Debug)]
pub(crate) struct OneCopy;

/// An operation on one list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Append { key: u64, id: u64 },
    Get { key: u64 },
}

/// The list before the operation and after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) before: Seen,
    pub(crate) after: Seen,
}

impl Model for OneCopy {
    type Op = Asked;
    type Ret = Told;
    type Key = u64;
    type State = Seen;

    fn key<'a>(&self, op: &'a Asked) -> &'a u64 {
        match op {
            Asked::Append { key, .. } | Asked::Get { key } => key,
        }
    }

    fn init(&self, _: &u64) -> Seen {
        Seen::default()
    }

    fn step(&self, state: &Seen, op: &Asked, told: Option<&Told>) -> Option<Seen> {
        let after = match op {
            Asked::Append { id, .. } => Seen {
                length: state.length + 1,
                last: *id,
            },
            Asked::Get { .. } => *state,
        };
        let right = Told {
            before: *state,
            after,
        };
        told.is_none_or(|told| *told == right).then_some(after)
    }

    fn hint(&self, op: &Asked, told: Option<&Told>) -> Hint<Seen> {
        Hint {
            only_looks: matches!(op, Asked::Get { .. }),
            needs: told.map(|told| told.before),
            makes: match op {
                Asked::Append { .. } => told.map(|told| told.after),
                Asked::Get { .. } => None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvrep_core::Timestamp;
    use kvrep_core::check::{Budget, ClientId, History, Linearizability, linearizable};

    fn append(lists: &mut Lists, key: u64, id: u64) -> Answer {
        let padding = Vec::new();
        let command = Append { key, id, padding };
        lists.apply(&mut ApplyContext::new(Index(1), Timestamp(0), 0), command)
    }

    #[test]
    fn pages_show_every_list_once() {
        let mut lists = Lists::default();
        for id in 1..=10 {
            append(&mut lists, id % 3, id);
        }
        let (mut after, mut shown) = (None, Vec::new());
        while let Answer::Page(page) = lists.query(Query::Page { after, ids: 4 }) {
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            shown.extend(page);
        }
        let keys: Vec<u64> = shown.iter().map(|(key, _)| *key).collect();
        assert_eq!(keys, [0, 1, 2]);
        assert_eq!(shown.iter().map(|(_, list)| list.len()).sum::<usize>(), 10);
    }

    #[test]
    fn a_write_carried_out_twice_is_not_linearizable() {
        let verdict = |length| {
            let seen = |length, last| Seen { length, last };
            let mut history = History::new();
            let at = kvrep_core::Time::from_nanos;
            let write = history.invoke(at(1), ClientId(1), Asked::Append { key: 1, id: 5 });
            let (before, after) = (seen(0, 0), seen(1, 5));
            history.respond(at(2), write, Told { before, after });
            let read = history.invoke(at(3), ClientId(1), Asked::Get { key: 1 });
            let (before, after) = (seen(length, 5), seen(length, 5));
            history.respond(at(4), read, Told { before, after });
            linearizable::check(&OneCopy, &history, Budget::default())
        };
        assert_eq!(verdict(1), Linearizability::Holds);
        assert!(matches!(verdict(2), Linearizability::Violated(_)));
    }
}
