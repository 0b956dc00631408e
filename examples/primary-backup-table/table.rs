//! The table: the state machine that both servers hold.
//!
//! Whether a write changes anything (a conditional put of a key that exists, the deletion of one that does not) is decided
//! here, after the order is: both copies decide alike, so a write that fails changes neither.

use bytes::Bytes;
use kvrep_core::{ApplyContext, StateMachine};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Bound;

/// Entries by key. Both are opaque bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    entries: BTreeMap<Bytes, Bytes>,
    /// Sum of the entries' digests, kept up to date.
    digest: u64,
}

/// What changes a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Stores the data under the key, whatever was there.
    Put {
        /// The key.
        key: Bytes,
        /// The data.
        data: Bytes,
    },
    /// Stores the data only where the key is new.
    CondPut {
        /// The key.
        key: Bytes,
        /// The data.
        data: Bytes,
    },
    /// Removes the key.
    Del {
        /// The key.
        key: Bytes,
    },
}

/// What only looks at it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// The data under a key.
    Get {
        /// The key.
        key: Bytes,
    },
    /// How many entries there are.
    Size,
    /// All keys.
    Keys,
    /// Keys in their order, as many as fit an answer.
    KeysAfter {
        /// Those behind this one; without it from the first on.
        key: Option<Bytes>,
    },
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// The write changed the table.
    Done,
    /// It did not: the key exists already, or there is none.
    Failed,
    /// The data, if there are any.
    Data(Option<Bytes>),
    /// The number of entries.
    Size(u64),
    /// The keys, in order.
    Keys(Vec<Bytes>),
}

impl Table {
    /// The entries in order of their keys.
    pub fn entries(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.entries.iter()
    }

    fn keys_after(&self, key: Option<Bytes>) -> Vec<Bytes> {
        let from = key.map_or(Bound::Unbounded, Bound::Excluded);
        let mut bytes = 0;
        let behind = self.entries.range((from, Bound::Unbounded));
        let fits = behind.map(|(key, _)| key).take_while(|key| {
            bytes += key.len() + KEY_OVERHEAD_BYTES;
            bytes <= PAGE_BYTES_MAX
        });
        fits.cloned().collect()
    }

    fn put(&mut self, key: Bytes, data: Bytes) {
        self.digest = self.digest.wrapping_add(digest_of(&key, &data));
        if let Some(before) = self.entries.insert(key.clone(), data) {
            self.digest = self.digest.wrapping_sub(digest_of(&key, &before));
        }
    }
}

impl StateMachine for Table {
    type Command = Command;
    type Query = Query;
    type Response = Response;
    type Snapshot = BTreeMap<Bytes, Bytes>;

    fn apply(&mut self, _: &mut ApplyContext, command: Command) -> Response {
        match command {
            Command::Put { key, data } => {
                self.put(key, data);
                Response::Done
            }
            Command::CondPut { key, data } if !self.entries.contains_key(&key) => {
                self.put(key, data);
                Response::Done
            }
            Command::CondPut { .. } => Response::Failed,
            Command::Del { key } => match self.entries.remove(&key) {
                Some(data) => {
                    self.digest = self.digest.wrapping_sub(digest_of(&key, &data));
                    Response::Done
                }
                None => Response::Failed,
            },
        }
    }

    fn query(&self, query: Query) -> Response {
        match query {
            Query::Get { key } => Response::Data(self.entries.get(&key).cloned()),
            Query::Size => Response::Size(self.entries.len() as u64),
            Query::Keys => Response::Keys(self.entries.keys().cloned().collect()),
            Query::KeysAfter { key } => Response::Keys(self.keys_after(key)),
        }
    }

    fn snapshot(&self) -> Self::Snapshot {
        self.entries.clone() // shares keys and data
    }

    fn restore(&mut self, entries: Self::Snapshot) {
        self.digest = entries.iter().fold(0, |sum, (key, data)| {
            u64::wrapping_add(sum, digest_of(key, data))
        });
        self.entries = entries;
    }

    fn digest(&self) -> Option<u64> {
        Some(self.digest)
    }
}

/// What a page of keys takes at most; the longest key that there may be fits in.
const PAGE_BYTES_MAX: usize = 2 << 20;
/// What a key takes beside itself, at most.
const KEY_OVERHEAD_BYTES: usize = 8;

fn digest_of(key: &[u8], data: &[u8]) -> u64 {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    hash.update(&(key.len() as u64).to_be_bytes());
    hash.update(key);
    hash.update(data);
    hash.digest()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvrep_core::{Index, Timestamp};

    fn apply(table: &mut Table, command: Command) -> Response {
        table.apply(&mut ApplyContext::new(Index(1), Timestamp(0), 0), command)
    }

    fn put(key: &'static str, data: &'static str) -> Command {
        let (key, data) = (key.into(), data.into());
        Command::Put { key, data }
    }

    /// R1.36, C1.1, C1.2, C1.3.
    #[test]
    fn a_write_that_fails_changes_nothing() {
        let mut table = Table::default();
        let cput = |data: &'static str| Command::CondPut {
            key: "k".into(),
            data: data.into(),
        };
        let del = || Command::Del { key: "k".into() };
        assert_eq!(apply(&mut table, cput("1")), Response::Done);
        let before = table.clone();
        assert_eq!(apply(&mut table, cput("2")), Response::Failed);
        assert_eq!(table, before);
        assert_eq!(apply(&mut table, put("k", "3")), Response::Done);
        let get = Query::Get { key: "k".into() };
        assert_eq!(table.query(get.clone()), Response::Data(Some("3".into())));
        assert_eq!(apply(&mut table, del()), Response::Done);
        let before = table.clone();
        assert_eq!(apply(&mut table, del()), Response::Failed);
        assert_eq!(table, before);
        assert_eq!(table.query(get), Response::Data(None));
        assert_eq!(table.query(Query::Size), Response::Size(0));
    }

    #[test]
    fn the_digest_is_a_function_of_the_entries_alone() {
        let mut table = Table::default();
        let empty = table.digest();
        for command in [put("a", "1"), put("b", "2"), put("a", "3")] {
            apply(&mut table, command);
        }
        let mut other = Table::default();
        other.restore(table.snapshot());
        assert_eq!(other, table);
        assert_ne!(table.digest(), empty);
        for key in ["a", "b"] {
            apply(&mut other, Command::Del { key: key.into() });
        }
        assert_eq!(other.digest(), empty);
        assert_eq!(
            table.query(Query::Keys),
            Response::Keys(vec!["a".into(), "b".into()])
        );
    }

    #[test]
    fn all_keys_are_in_the_pages_once_also_the_empty_one() {
        let mut table = Table::default();
        table.put(Bytes::new(), "v".into());
        for number in 0..20 {
            let mut key = vec![b'x'; 1 << 20];
            key.push(number);
            table.put(key.into(), "v".into());
        }
        let (mut keys, mut pages) = (Vec::new(), 0);
        loop {
            let key = keys.last().cloned();
            let Response::Keys(page) = table.query(Query::KeysAfter { key }) else {
                panic!("keys");
            };
            if page.is_empty() {
                break;
            }
            pages += 1;
            assert!(page.iter().map(Bytes::len).sum::<usize>() <= PAGE_BYTES_MAX);
            keys.extend(page);
        }
        assert_eq!(Response::Keys(keys), table.query(Query::Keys));
        assert!(pages > 10, "{pages}");
    }
}
