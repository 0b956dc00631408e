//! The demo's state machine: records by key, and how often each was written.
//!
//! The count makes exactly-once visible: a write that was carried out twice leaves a count that no history of the
//! clients explains.

use kvrep_core::check::Model;
use kvrep_core::{ApplyContext, StateMachine};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// Records by key. A frozen copy shares the texts.
#[derive(Debug, Default)]
pub struct Catalog {
    records: BTreeMap<Arc<str>, Stored>,
}

/// One record as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// The record, a JSON object.
    pub value: Arc<str>,
    /// How often it was written.
    pub times: u32,
}

/// What changes a catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    /// Of the record.
    pub key: String,
    /// The record.
    pub value: String,
}

/// What may be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// One record.
    Get(String),
    /// A page of digests, in order of the keys, behind this key.
    Page {
        /// The last key of the page before; empty for the first.
        after: String,
        /// How many at most; never more than 4,096.
        rows: u32,
    },
    /// The digest of everything.
    Digest,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The record was written, now for the n-th time.
    Written(u32),
    /// The record's digest and how often it was written.
    Found(Option<(u64, u32)>),
    /// Rows of a page.
    Page(Vec<Row>),
    /// Records and their digest.
    Digest {
        /// How many.
        records: u64,
        /// Of all keys, values and counts.
        digest: u64,
    },
}

/// One row of a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The key.
    pub key: String,
    /// Digest of the value.
    pub digest: u64,
    /// How often it was written.
    pub times: u32,
}

const ROWS_MAX: u32 = 4_096;

/// XXH3-64 of a text.
#[must_use]
pub fn digest(text: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(text.as_bytes())
}

impl StateMachine for Catalog {
    type Command = Put;
    type Query = Query;
    type Response = Answer;
    type Snapshot = BTreeMap<Arc<str>, Stored>;

    fn apply(&mut self, _: &mut ApplyContext, put: Put) -> Answer {
        let times = self.records.get(put.key.as_str()).map_or(0, |s| s.times) + 1;
        let value = put.value.into();
        self.records.insert(put.key.into(), Stored { value, times });
        Answer::Written(times)
    }

    fn query(&self, query: Query) -> Answer {
        match query {
            Query::Get(key) => Answer::Found(
                self.records
                    .get(key.as_str())
                    .map(|s| (digest(&s.value), s.times)),
            ),
            Query::Page { after, rows } => {
                let from = (Bound::Excluded(after.as_str()), Bound::Unbounded);
                let page = self.records.range::<str, _>(from);
                let rows = rows.min(ROWS_MAX) as usize;
                let row = |(key, stored): (&Arc<str>, &Stored)| Row {
                    key: key.to_string(),
                    digest: digest(&stored.value),
                    times: stored.times,
                };
                Answer::Page(page.take(rows).map(row).collect())
            }
            Query::Digest => {
                let mut hash = xxhash_rust::xxh3::Xxh3::new();
                for (key, stored) in &self.records {
                    for text in [key, &stored.value] {
                        hash.update(&(text.len() as u64).to_be_bytes());
                        hash.update(text.as_bytes());
                    }
                    hash.update(&stored.times.to_be_bytes());
                }
                Answer::Digest {
                    records: self.records.len() as u64,
                    digest: hash.digest(),
                }
            }
        }
    }

    fn snapshot(&self) -> Self::Snapshot {
        self.records.clone()
    }

    fn restore(&mut self, records: Self::Snapshot) {
        self.records = records;
    }
}

/// What one copy of a catalog would answer: for the check of the recorded history.
#[derive(Debug)]
pub struct OneCopy;

/// An operation on the record of one key (by its number in the input).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Write a record with this digest.
    Put(u32, u64),
    /// Read it.
    Get(u32),
}

/// The answer: the digest read (writes: the one written) and the count.
pub type Told = Option<(u64, u32)>;

impl Model for OneCopy {
    type Op = Asked;
    type Ret = Told;
    type Key = u32;
    type State = Told;

    fn key<'a>(&self, op: &'a Asked) -> &'a u32 {
        match op {
            Asked::Put(key, _) | Asked::Get(key) => key,
        }
    }

    fn init(&self, _: &u32) -> Told {
        None
    }

    fn step(&self, state: &Told, op: &Asked, ret: Option<&Told>) -> Option<Told> {
        let (answer, after) = match op {
            Asked::Put(_, digest) => {
                let times = state.map_or(0, |(_, times)| times) + 1;
                (Some((*digest, times)), Some((*digest, times)))
            }
            Asked::Get(_) => (*state, *state),
        };
        ret.is_none_or(|told| *told == answer).then_some(after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvrep_core::check::{Budget, ClientId, History, Linearizability, linearizable};
    use kvrep_core::{Index, Time, Timestamp};

    fn put(catalog: &mut Catalog, key: &str) -> Answer {
        let mut context = ApplyContext::new(Index(1), Timestamp(0), 0);
        let value = format!("{{\"key\":\"{key}\"}}");
        let key = key.into();
        catalog.apply(&mut context, Put { key, value })
    }

    #[test]
    fn every_write_is_counted_and_pages_follow_each_other() {
        let mut catalog = Catalog::default();
        assert_eq!(put(&mut catalog, "b"), Answer::Written(1));
        assert_eq!(put(&mut catalog, "b"), Answer::Written(2));
        assert_eq!(put(&mut catalog, "a"), Answer::Written(1));
        let page = |after: &str| {
            let after = after.into();
            match catalog.query(Query::Page { after, rows: 1 }) {
                Answer::Page(rows) => rows.into_iter().map(|r| r.key).collect(),
                other => panic!("{other:?}"),
            }
        };
        let pages: [Vec<String>; 3] = [page(""), page("a"), page("b")];
        assert_eq!(pages, [vec!["a".to_owned()], vec!["b".to_owned()], vec![]]);
    }

    #[test]
    fn a_write_carried_out_twice_is_not_linearizable() {
        let verdict = |told| {
            let mut history = History::new();
            for (at, times) in [(1, 1), (3, told)] {
                let id = history.invoke(Time::from_nanos(at), ClientId(1), Asked::Put(0, 7));
                history.respond(Time::from_nanos(at + 1), id, Some((7, times)));
            }
            linearizable::check(&OneCopy, &history, Budget::default())
        };
        assert_eq!(verdict(2), Linearizability::Holds);
        assert!(matches!(verdict(3), Linearizability::Violated(_)));
    }
}
