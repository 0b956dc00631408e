//! A piece of a state as pairs.
//!
//! The library sends a state as bytes in pieces of one size, each acknowledged, and this system's table stands in them as text, a pair a
//! line ([`crate::mqtt_kv::machine`]). So a piece shows the pairs that are whole in it by itself: they are sent as the JSON object of the
//! text, and what is before and behind them (half a pair, or what the scheme needs beside the table) as bytes.
//!
//! Invariant: [`join`] of [`split`] is the piece, byte by byte, whatever the piece is. Of the pairs only those are taken whose lines come
//! out the same again.

use crate::mqtt_kv::machine::{read_line, write_line};
use serde_json::{Map, Value};

/// A piece, taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// What is before the pairs.
    pub before: Vec<u8>,
    /// Whole pairs, in their order.
    pub pairs: Map<String, Value>,
    /// What is behind them.
    pub after: Vec<u8>,
}

/// Takes a piece apart. Before `table` it is certain that no pairs are.
#[must_use]
pub fn split(piece: &[u8], table: usize) -> Parts {
    let mut parts = Parts::default();
    let mut at = table.min(piece.len());
    let mut first = None;
    while let Some(length) = piece[at..].iter().position(|byte| *byte == b'\n') {
        let line = &piece[at..=at + length];
        match read_line(line) {
            Some((key, value)) if !parts.pairs.contains_key(&key) => {
                first.get_or_insert(at);
                parts.pairs.insert(key, Value::String(value));
            }
            // The first line is perhaps the rest of one; behind pairs, whatever this is ends them.
            Some(_) | None if first.is_none() => {}
            Some(_) | None => break,
        }
        at += line.len();
    }
    let first = first.unwrap_or(piece.len());
    parts.before = piece[..first].to_vec();
    parts.after = piece[at.max(first)..].to_vec();
    parts
}

/// The piece that these are parts of; `None` when a value is no text.
#[must_use]
pub fn join(parts: &Parts) -> Option<Vec<u8>> {
    let mut piece = parts.before.clone();
    for (key, value) in &parts.pairs {
        write_line(&mut piece, key, value.as_str()?);
    }
    piece.extend_from_slice(&parts.after);
    Some(piece)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn r0_29_the_pairs_that_are_whole_in_a_piece_are_shown_as_pairs() {
        let piece = b"x\x00\n[\"no\n[\"k\",\"v\"]\n[\"quote\\\"\",\"new\\nline\"]\n[\"half\",\"of";
        let parts = split(piece, 0);
        let shown = serde_json::to_string(&parts.pairs).expect("strings");
        assert_eq!(shown, r#"{"k":"v","quote\"":"new\nline"}"#);
        assert_eq!(parts.before, b"x\x00\n[\"no\n");
        assert_eq!(parts.after, b"[\"half\",\"of");
        assert_eq!(join(&parts).as_deref(), Some(&piece[..]));
        // What stands before the table is not looked at.
        assert!(split(piece, piece.len()).pairs.is_empty());
        let nothing = Parts {
            pairs: serde_json::from_str(r#"{"k":1}"#).expect("an object"),
            ..Parts::default()
        };
        assert_eq!(join(&nothing), None);
    }

    fn pieces() -> impl Strategy<Value = Vec<u8>> {
        let line = (".{0,4}", ".{0,6}").prop_map(|(key, value)| {
            let mut line = Vec::new();
            write_line(&mut line, &key, &value);
            line
        });
        let junk = proptest::collection::vec(any::<u8>(), 0..12);
        let part = prop_oneof![3 => line, 1 => junk, 1 => Just(b"[\"a\" ,\"b\"]\n".to_vec())];
        proptest::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn a_piece_comes_out_as_it_went_in(piece in pieces(), table in 0_usize..100, cut in 0_usize..200) {
            let piece = &piece[..piece.len().min(cut)];
            let joined = join(&split(piece, table));
            prop_assert_eq!(joined.as_deref(), Some(piece));
        }
    }
}
