//! Which part of the log is durable, from the completions of the storage.

use crate::id::{Index, PersistToken};
use std::collections::VecDeque;

#[derive(Debug)]
pub(super) struct Durable {
    index: Index,
    /// For each batch under way: up to where the log is durable once it is done.
    under_way: VecDeque<(PersistToken, Index)>,
    done: PersistToken,
}

impl Durable {
    pub(super) fn new(index: Index) -> Self {
        Self {
            index,
            under_way: VecDeque::new(),
            done: PersistToken(0),
        }
    }

    pub(super) fn index(&self) -> Index {
        self.index
    }

    /// A batch was handed over; once done, the log is durable up to `last`.
    pub(super) fn submitted(&mut self, token: PersistToken, last: Index) {
        self.under_way.push_back((token, last));
    }

    pub(super) fn persisted(&mut self, token: PersistToken) {
        self.done = token;
        while let Some(&(first, last)) = self.under_way.front()
            && first <= token
        {
            self.index = self.index.max(last);
            self.under_way.pop_front();
        }
    }

    /// Everything up to this token is durable.
    pub(super) fn done(&self) -> PersistToken {
        self.done
    }

    /// The log was cut: nothing from `from` on is durable, whatever completes.
    pub(super) fn truncated(&mut self, from: Index) {
        let keep = from.prev();
        self.index = self.index.min(keep);
        for (_, last) in &mut self.under_way {
            *last = (*last).min(keep);
        }
    }

    /// The log starts again behind `index`, which is durable.
    pub(super) fn restarted(&mut self, index: Index) {
        self.under_way.clear();
        self.index = index;
    }
}
