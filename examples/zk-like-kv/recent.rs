//! What was written last on this server: the console's `REPLICATION` lines, and names for what goes over the wire.
//!
//! The log counts entries, the text counts timestamps. Whoever writes a `REPLICATION` or a `REPLICATION_OK` for a message of the
//! library needs key and timestamp of an index; they are remembered here, for a while. The table tells when it applies a
//! command, which is before that is shipped or acknowledged.
//!
//! Invariant: a line is printed once for a timestamp, also when a command is carried out twice: a replica may throw its
//! state away and load it again, and debug builds check in that way that the table is deterministic.

use super::console::Console;
use kvrep_core::Index;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Remembers what was written last.
pub struct Recent {
    inner: Mutex<Inner>,
    /// Where followers print; the leader does not.
    console: Option<Arc<Console>>,
}

#[derive(Default)]
struct Inner {
    writes: VecDeque<(Index, Written)>,
    highest: u64,
}

/// Key and timestamp of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// What was written.
    pub key: String,
    /// When.
    pub timestamp: u64,
}

impl Recent {
    /// The leader's: prints nothing.
    #[must_use]
    pub fn silent() -> Self {
        Self {
            inner: Mutex::default(),
            console: None,
        }
    }

    /// A follower's: prints what is replicated to it.
    #[must_use]
    pub fn printing(console: Arc<Console>) -> Self {
        Self {
            inner: Mutex::default(),
            console: Some(console),
        }
    }

    /// A command was carried out.
    pub fn written(&self, index: Index, key: &str, value: &str, timestamp: u64) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if timestamp > inner.highest {
            inner.highest = timestamp;
            if let Some(console) = &self.console {
                console.replication(key, value, timestamp);
            }
        }
        while inner.writes.back().is_some_and(|(last, _)| *last >= index) {
            inner.writes.pop_back();
        }
        if inner.writes.len() >= REMEMBERED_MAX {
            inner.writes.pop_front();
        }
        if key.len() <= KEY_BYTES_MAX {
            let key = key.to_owned();
            inner.writes.push_back((index, Written { key, timestamp }));
        }
    }

    /// What was written at this index, if it is still known.
    #[must_use]
    pub fn at(&self, index: Index) -> Option<Written> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let at = inner.writes.binary_search_by_key(&index, |(at, _)| *at);
        at.ok().map(|at| inner.writes[at].1.clone())
    }
}

impl fmt::Debug for Recent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recent")
    }
}

const REMEMBERED_MAX: usize = 4_096;
/// Longer keys are not remembered: their messages travel without words.
const KEY_BYTES_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_last_is_known_by_its_index_and_what_was_long_ago_is_not() {
        let recent = Recent::silent();
        for n in 1..=REMEMBERED_MAX as u64 + 1 {
            recent.written(Index(2 * n), &format!("k{n}"), "v", n);
        }
        assert_eq!(recent.at(Index(2)), None);
        assert_eq!(recent.at(Index(5)), None);
        assert_eq!(recent.at(Index(6)).unwrap().key, "k3");
        // Another history took the place of what was there.
        recent.written(Index(6), "other", "v", 9_999);
        assert_eq!(recent.at(Index(6)).unwrap().key, "other");
        assert_eq!(recent.at(Index(8)), None);
    }

    #[test]
    fn r3_30_a_replication_is_printed_once_though_it_is_carried_out_twice() {
        let (console, lines) = Console::kept();
        let recent = Recent::printing(Arc::new(console));
        for _ in 0..2 {
            recent.written(Index(2), "a", "1", 1);
        }
        recent.written(Index(3), "a", "2", 2);
        recent.written(Index(2), "a", "1", 1);
        assert_eq!(
            lines.so_far(),
            [
                "REPLICATION key:a value:1 ts:1",
                "REPLICATION key:a value:2 ts:2"
            ]
        );
    }
}
