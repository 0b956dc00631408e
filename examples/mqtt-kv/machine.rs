//! The replicated state: pairs of strings.
//!
//! A snapshot is text, one pair a line, in the order of the keys: an empty line, then `["key","value"]` each. Equal tables have equal
//! snapshots, and a piece of one shows the pairs that are whole in it without knowing the rest ([`super::dialect`] sends them as the
//! JSON objects of the text).

use bytes::Bytes;
use kvrep_core::state_machine::{FrozenState, decode, encode};
use kvrep_core::{ApplyContext, Malformed, RawStateMachine};
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use xxhash_rust::xxh3::xxh3_64;

/// What changes the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// `insercao`: the pair is there afterwards, whatever was there before.
    Insert {
        /// `chave`.
        key: String,
        /// `novovalor`.
        value: String,
    },
}

/// What looks at it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// `consulta`.
    Get(String),
    /// A request that cannot be carried out, and why: it is answered like the others, where it stands in the order.
    Wrong(String),
}

/// The answer to either.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// The value that is there (now).
    Value(String),
    /// There is no such key.
    Missing,
    /// Why it was not carried out.
    Wrong(String),
}

/// The table.
#[derive(Clone, Debug, Default)]
pub struct Table {
    pairs: BTreeMap<String, String>,
    /// The sum of the hashes of the lines of the snapshot.
    digest: u64,
}

impl Table {
    /// The pairs, by their keys.
    #[must_use]
    pub fn pairs(&self) -> &BTreeMap<String, String> {
        &self.pairs
    }

    fn insert(&mut self, key: String, value: String) {
        self.digest = self.digest.wrapping_add(hash(&key, &value));
        if let Some(before) = self.pairs.insert(key.clone(), value) {
            self.digest = self.digest.wrapping_sub(hash(&key, &before));
        }
    }
}

impl RawStateMachine for Table {
    fn apply(&mut self, _: &mut ApplyContext, command: &[u8]) -> Result<Bytes, Malformed> {
        let Command::Insert { key, value } = decode(command)?;
        self.insert(key, value.clone());
        Ok(encode(&Response::Value(value)))
    }

    fn query(&self, query: &[u8]) -> Result<Bytes, Malformed> {
        let response = match decode(query)? {
            Query::Get(key) => match self.pairs.get(&key) {
                Some(value) => Response::Value(value.clone()),
                None => Response::Missing,
            },
            Query::Wrong(why) => Response::Wrong(why),
        };
        Ok(encode(&response))
    }

    fn freeze(&self) -> FrozenState {
        let mut text = Vec::from(*b"\n");
        for (key, value) in &self.pairs {
            write_line(&mut text, key, value);
        }
        Box::new(move |out: &mut dyn Write| out.write_all(&text))
    }

    fn restore(&mut self, state: &mut dyn Read) -> io::Result<()> {
        let mut read = Self::default();
        let mut state = BufReader::new(state);
        let mut line = Vec::new();
        state.read_until(b'\n', &mut line)?;
        if line != b"\n" {
            return Err(damaged("it does not begin with an empty line"));
        }
        loop {
            line.clear();
            if state.read_until(b'\n', &mut line)? == 0 {
                *self = read;
                return Ok(());
            }
            let (key, value) = read_line(&line).ok_or_else(|| damaged("a line is no pair"))?;
            if read
                .pairs
                .last_key_value()
                .is_some_and(|(last, _)| *last >= key)
            {
                return Err(damaged("its keys are not in order"));
            }
            read.insert(key, value);
        }
    }

    fn digest(&self) -> Option<u64> {
        Some(self.digest)
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

/// Adds the line of a pair to a snapshot.
pub fn write_line(out: &mut Vec<u8>, key: &str, value: &str) {
    // Strings have a JSON, and memory takes what is written.
    if let Ok(line) = serde_json::to_vec(&(key, value)) {
        out.extend_from_slice(&line);
        out.push(b'\n');
    }
}

/// The pair of a line with its end, if it is exactly what [`write_line`] makes of that pair.
#[must_use]
pub fn read_line(line: &[u8]) -> Option<(String, String)> {
    // What is no line at all is told without an effort.
    if !line.starts_with(b"[\"") || !line.ends_with(b"\"]\n") {
        return None;
    }
    let (key, value): (String, String) = serde_json::from_slice(line).ok()?;
    let mut again = Vec::with_capacity(line.len());
    write_line(&mut again, &key, &value);
    (again == line).then_some((key, value))
}

fn hash(key: &str, value: &str) -> u64 {
    let mut line = Vec::with_capacity(key.len() + value.len() + 8);
    write_line(&mut line, key, value);
    xxh3_64(&line)
}

fn damaged(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not a table: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvrep_core::{Index, Timestamp};
    use proptest::prelude::*;

    fn table(pairs: &[(String, String)]) -> Table {
        let mut table = Table::default();
        for (key, value) in pairs {
            let (key, value) = (key.clone(), value.clone());
            let mut context = ApplyContext::new(Index(1), Timestamp(0), 0);
            let command = encode(&Command::Insert { key, value });
            table.apply(&mut context, &command).expect("a command");
        }
        table
    }

    fn snapshot(table: &Table) -> Vec<u8> {
        let mut written = Vec::new();
        table.freeze()(&mut written).expect("memory");
        written
    }

    fn get(table: &Table, key: &str) -> Response {
        decode(
            &table
                .query(&encode(&Query::Get(key.into())))
                .expect("a query"),
        )
        .expect("a response")
    }

    #[test]
    fn r0_2_r0_7_pairs_of_strings_are_kept_and_an_insertion_of_a_key_that_exists_replaces() {
        let pairs = [("k", "1"), ("", "empty"), ("k", "2")].map(|(k, v)| (k.into(), v.into()));
        let table = table(&pairs);
        assert_eq!(get(&table, "k"), Response::Value("2".into()));
        assert_eq!(get(&table, ""), Response::Value("empty".into()));
        assert_eq!(get(&table, "K"), Response::Missing);
    }

    #[test]
    fn what_is_no_snapshot_is_refused_and_changes_nothing() {
        let kept = table(&[("k".into(), "v".into())]);
        for wrong in [
            "",
            "[\"a\",\"b\"]\n",
            "\n[\"a\",\"b\"]",
            "\n[\"b\",\"\"]\n[\"a\",\"\"]\n",
            "\n[\"a\",\"\"]\n[\"a\",\"\"]\n",
            "\n[\"a\", \"b\"]\n",
            "\n[1,2]\n",
        ] {
            let mut table = kept.clone();
            assert!(table.restore(&mut wrong.as_bytes()).is_err(), "{wrong:?}");
            assert_eq!(table.pairs(), kept.pairs());
        }
    }

    proptest! {
        #[test]
        fn equal_tables_have_equal_snapshots_and_digests_however_they_came_about(
            pairs in proptest::collection::vec((".{0,3}", ".{0,8}"), 0..20)
        ) {
            let one = table(&pairs);
            let mut other = Table::default();
            other.restore(&mut snapshot(&one).as_slice()).expect("a snapshot");
            prop_assert_eq!(one.pairs(), other.pairs());
            prop_assert_eq!(snapshot(&one), snapshot(&other));
            prop_assert_eq!(one.digest(), other.digest());
        }
    }
}
