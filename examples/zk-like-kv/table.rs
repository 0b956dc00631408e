//! The state machine: a table of values with timestamps, and the counter that gives them.
//!
//! A timestamp is a count of writes, one for all keys; it lives in the state, so it is replicated, is part of every snapshot, and
//! never repeats nor goes back as long as any replica holds the state. A clock could do both. What a leader had shown but not
//! shipped when it was killed is in no other state, and when all three are stopped there is no state: the leader's next life leaves
//! out every timestamp that those can have been, as it has [noted](super::given).
//!
//! A read is decided here, by comparing what the client has seen of the key with what this replica has: `GET` is a query, and
//! *try another server* one of its answers.
//!
//! Invariant: `clock` is the highest timestamp ever given; each key's is at most that, and no two writes have the same.

use super::given::Given;
use super::message::Answer;
use super::recent::Recent;
use bytes::Bytes;
use kvrep_core::state_machine::encode;
use kvrep_core::{ApplyContext, StateMachine};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The replicated table.
#[derive(Debug, Default)]
pub struct Table {
    state: State,
    /// Told what was written, for this server's console and wire; nothing of it comes back.
    recent: Option<Arc<Recent>>,
    /// Told what will be given, at the leader; nothing of it comes back.
    given: Option<Given>,
}

/// Everything that answers depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    clock: u64,
    entries: BTreeMap<String, Stamped>,
}

/// A value and when it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamped {
    value: String,
    timestamp: u64,
}

/// What changes the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Writes a value under the next timestamp.
    Put {
        /// Where.
        key: String,
        /// What.
        value: String,
    },
    /// Leaves timestamps out: those that an earlier life of the leader may have shown and nobody else has.
    Skip {
        /// How many, at least.
        timestamps: u64,
        /// All up to this one.
        up_to: u64,
    },
}

/// What is asked of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// For a value at least as new as what the client has seen.
    Get {
        /// Of which key.
        key: String,
        /// What the client has seen of it; 0: nothing.
        timestamp: u64,
    },
    /// For the highest timestamp that was ever given or left out.
    Clock,
}

/// What the table says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Said {
    /// Written, with this timestamp.
    Written(u64),
    /// The value and its timestamp.
    Value(String, u64),
    /// Neither the table nor the client knows the key.
    Null,
    /// The client has seen something newer than this timestamp, which is the table's.
    Behind(u64),
    /// The highest timestamp that was ever given or left out.
    Clock(u64),
}

impl Change {
    /// A write as the bytes of a command; whoever wants it keeps its texts.
    #[must_use]
    pub fn put(key: &str, value: &str) -> Bytes {
        #[derive(Serialize)]
        enum Borrowed<'a> {
            Put { key: &'a str, value: &'a str },
        }
        encode(&Borrowed::Put { key, value })
    }
}

impl Table {
    /// An empty table that tells `recent` what is written.
    #[must_use]
    pub fn told_to(recent: Arc<Recent>) -> Self {
        Self {
            state: State::default(),
            recent: Some(recent),
            given: None,
        }
    }

    /// Notes what is given, before it is.
    #[must_use]
    pub fn noting(self, given: Given) -> Self {
        Self {
            given: Some(given),
            ..self
        }
    }
}

impl State {
    fn get(&self, key: &str, seen: u64) -> Said {
        match self.entries.get(key) {
            Some(found) if found.timestamp >= seen => {
                Said::Value(found.value.clone(), found.timestamp)
            }
            Some(found) => Said::Behind(found.timestamp),
            None if seen == 0 => Said::Null,
            None => Said::Behind(0),
        }
    }
}

impl Said {
    /// What the client that asked for `key` is told.
    #[must_use]
    pub fn into_answer(self, key: String) -> Answer {
        match self {
            Self::Value(value, timestamp) => Answer::GetOk {
                key,
                value,
                timestamp,
            },
            Self::Null => Answer::Null { key },
            Self::Behind(timestamp) | Self::Written(timestamp) | Self::Clock(timestamp) => {
                Answer::TryOtherServerOrLater { key, timestamp }
            }
        }
    }
}

impl StateMachine for Table {
    type Command = Change;
    type Query = Ask;
    type Response = Said;
    type Snapshot = State;

    fn apply(&mut self, context: &mut ApplyContext, change: Change) -> Said {
        let (key, value) = match change {
            Change::Put { key, value } => (key, value),
            Change::Skip { timestamps, up_to } => {
                self.state.clock = self.state.clock.saturating_add(timestamps).max(up_to);
                return Said::Written(self.state.clock);
            }
        };
        self.state.clock = self.state.clock.saturating_add(1);
        let timestamp = self.state.clock;
        if let Some(given) = &mut self.given {
            given.cover(timestamp);
        }
        if let Some(recent) = &self.recent {
            recent.written(context.index, &key, &value, timestamp);
        }
        self.state.entries.insert(key, Stamped { value, timestamp });
        Said::Written(timestamp)
    }

    fn query(&self, ask: Ask) -> Said {
        match ask {
            Ask::Get { key, timestamp } => self.state.get(&key, timestamp),
            Ask::Clock => Said::Clock(self.state.clock),
        }
    }

    fn snapshot(&self) -> State {
        self.state.clone()
    }

    fn restore(&mut self, state: State) {
        self.state = state;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvrep_core::{Index, Timestamp};

    #[test]
    fn a_write_from_borrowed_texts_is_the_same_command() {
        let (key, value) = ("k".into(), "ç\n".repeat(100));
        let borrowed = Change::put("k", &value);
        assert_eq!(borrowed, encode(&Change::Put { key, value }));
    }

    fn put(table: &mut Table, key: &str, value: &str) -> u64 {
        let mut context = ApplyContext::new(Index(1), Timestamp(0), 0);
        let (key, value) = (key.into(), value.into());
        match table.apply(&mut context, Change::Put { key, value }) {
            Said::Written(timestamp) => timestamp,
            other => panic!("{other:?}"),
        }
    }

    fn get(table: &Table, key: &str, timestamp: u64) -> Said {
        let key = key.into();
        table.query(Ask::Get { key, timestamp })
    }

    #[test]
    fn a3_2_timestamps_are_a_counter_from_one_for_all_keys() {
        let mut table = Table::default();
        assert_eq!(put(&mut table, "a", "1"), 1);
        assert_eq!(put(&mut table, "b", "2"), 2);
        assert_eq!(put(&mut table, "a", "3"), 3);
        assert_eq!(get(&table, "a", 0), Said::Value("3".into(), 3));
        assert_eq!(get(&table, "b", 0), Said::Value("2".into(), 2));
    }

    #[test]
    fn r3_25_c3_6_a_value_is_shown_when_it_is_as_new_as_what_the_client_has_seen() {
        let mut table = Table::default();
        put(&mut table, "a", "1");
        put(&mut table, "a", "2");
        assert_eq!(get(&table, "a", 1), Said::Value("2".into(), 2));
        assert_eq!(get(&table, "a", 2), Said::Value("2".into(), 2));
        assert_eq!(get(&table, "a", 3), Said::Behind(2));
    }

    #[test]
    fn c3_2_a3_5_a_missing_key_is_null_only_to_who_has_never_seen_it() {
        let table = Table::default();
        assert_eq!(get(&table, "a", 0), Said::Null);
        assert_eq!(get(&table, "a", 1), Said::Behind(0));
    }

    #[test]
    fn timestamps_that_were_left_out_are_never_given() {
        let mut table = Table::default();
        put(&mut table, "a", "1");
        let mut context = ApplyContext::new(Index(1), Timestamp(0), 0);
        let skip = |timestamps, up_to| Change::Skip { timestamps, up_to };
        table.apply(&mut context, skip(10, 0));
        assert_eq!(get(&table, "a", 1), Said::Value("1".into(), 1));
        assert_eq!(put(&mut table, "a", "2"), 12);
        table.apply(&mut context, skip(0, 20));
        assert_eq!(put(&mut table, "a", "3"), 21);
        // Only ever forwards.
        table.apply(&mut context, skip(0, 5));
        assert_eq!(put(&mut table, "a", "4"), 22);
        assert_eq!(table.query(Ask::Clock), Said::Clock(22));
    }

    #[test]
    fn what_is_given_is_noted_first() {
        let directory = tempfile::tempdir().unwrap();
        let open = || Given::open(directory.path(), "127.0.0.1:1".parse().unwrap()).unwrap();
        let mut table = Table::default().noting(open());
        let timestamp = put(&mut table, "a", "1");
        assert!(open().up_to() >= timestamp);
    }

    #[test]
    fn the_counter_goes_on_behind_a_snapshot() {
        let mut table = Table::default();
        put(&mut table, "a", "1");
        let mut copy = Table::default();
        copy.restore(table.snapshot());
        assert_eq!(put(&mut copy, "a", "2"), 2);
    }
}
