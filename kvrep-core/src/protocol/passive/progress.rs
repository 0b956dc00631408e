//! How far one peer's copy is, as its primary sees it.

use super::local::Local;
use super::message::Standing;
use super::transfer::Sending;
use crate::id::{Incarnation, Index, Nonce, StoreId};
use crate::time::Time;

#[derive(Debug)]
pub(super) struct Progress {
    pub(super) incarnation: Incarnation,
    pub(super) store: StoreId,
    /// The next entry to send.
    pub(super) next: Index,
    /// Durable there and equal, up to here.
    pub(super) durable: Index,
    /// Equal there, up to here.
    pub(super) matched: Index,
    /// The newest round it has answered.
    pub(super) round: Nonce,
    /// Answers to older rounds do not count: they tell of what it has thrown away since.
    fence: Nonce,
    pub(super) pace: Pace,
    /// When `matched` last moved, or everything was matched.
    pub(super) moved_at: Time,
    pub(super) sent_at: Time,
    /// It needed a snapshot, and has not caught up since.
    pub(super) transferring: bool,
    /// When it last took a piece or acknowledged something new.
    pub(super) progressed_at: Time,
    /// For a planted bug: when its last answer came.
    #[cfg(feature = "sim")]
    pub(super) answered_at: Time,
    /// Whether writes wait for it already, so that it can catch up.
    pub(super) awaited: Awaited,
    /// What was committed when it last acknowledged something.
    commit_then: Index,
}

/// Whether writes wait for a peer that does not count yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaited {
    /// They do not, and may again from this time on.
    NotBefore(Time),
    /// Since when they do.
    Since(Time),
}

/// How it is sent to (Raft's dissertation §10.2.1 has the same three states).
#[derive(Debug)]
pub(super) enum Pace {
    /// One append at a time until the logs are known to meet. Holds when the next may go out.
    Probing(Time),
    /// As much as the window allows.
    Streaming,
    /// A snapshot goes over first.
    Snapshot(Sending),
}

impl Progress {
    pub(super) fn new(
        local: &Local,
        incarnation: Incarnation,
        standing: &Standing,
        now: Time,
    ) -> Self {
        let theirs = standing.last;
        let ours = local.log.last();
        let next = if local.log.point(theirs.index) == Some(theirs) {
            theirs.index.next()
        } else {
            theirs.index.min(ours.index).next()
        };
        Self {
            incarnation,
            store: standing.store,
            next,
            durable: Index::ZERO,
            matched: Index::ZERO,
            round: Nonce(0),
            fence: Nonce(0),
            pace: Pace::Probing(now),
            moved_at: now,
            sent_at: Time::ZERO,
            transferring: false,
            progressed_at: now,
            #[cfg(feature = "sim")]
            answered_at: Time::ZERO,
            awaited: Awaited::NotBefore(now),
            commit_then: Index(u64::MAX),
        }
    }

    /// Whether it is behind by no more than what came since it last acknowledged something.
    pub(super) fn is_close(&self) -> bool {
        matches!(self.pace, Pace::Streaming) && self.durable >= self.commit_then
    }

    /// Remembers what is committed, to judge the next acknowledgement by.
    pub(super) fn note_commit(&mut self, commit: Index) {
        self.commit_then = commit;
    }

    /// It has thrown everything away; only answers to `round` and later ones count.
    pub(super) fn begin_anew(&mut self, round: Nonce, now: Time) {
        self.next = Index(1);
        self.durable = Index::ZERO;
        self.matched = Index::ZERO;
        self.fence = round;
        self.pace = Pace::Probing(now);
        self.moved_at = now;
    }

    /// Whether an answer to `round` tells of what it holds now.
    pub(super) fn is_current(&self, round: Nonce) -> bool {
        round >= self.fence
    }

    /// A snapshot goes over first.
    pub(super) fn begin_transfer(&mut self, now: Time) {
        if !self.transferring {
            self.transferring = true;
            self.progressed_at = now;
        }
        self.pace = Pace::Snapshot(Sending::new(now));
    }

    /// How far this storage's copy is durable; nothing is known of another.
    pub(super) fn durable_in(&self, store: StoreId) -> Index {
        if self.store == store {
            self.durable
        } else {
            Index::ZERO
        }
    }

    /// Whether this storage has answered `round`.
    pub(super) fn has_answered(&self, store: StoreId, round: Nonce) -> bool {
        self.store == store && self.round >= round
    }

    /// It answered: the logs meet up to `matched`, durable up to `durable`.
    pub(super) fn on_appended(&mut self, durable: Index, matched: Index, round: Nonce, now: Time) {
        #[cfg(feature = "sim")]
        {
            self.answered_at = now;
        }
        if matched > self.matched || matched.next() >= self.next {
            self.moved_at = now;
        }
        if durable > self.durable || matched > self.matched {
            self.progressed_at = now;
        }
        self.durable = self.durable.max(durable);
        self.matched = self.matched.max(matched);
        self.round = self.round.max(round);
        if matches!(self.pace, Pace::Probing(_)) {
            self.next = self.matched.next();
            self.pace = Pace::Streaming;
        }
    }

    /// The logs do not meet: go back. This primary's log is what lies behind `base`, up to `end`.
    pub(super) fn on_mismatch(
        &mut self,
        hint: Index,
        (base, end): (Index, Index),
        round: Nonce,
        now: Time,
    ) {
        self.round = self.round.max(round);
        match self.pace {
            // It has more than the snapshot that is being sent: go on from there, or with a newer one.
            Pace::Snapshot(_) if hint < base => {
                self.begin_transfer(now);
                return;
            }
            Pace::Snapshot(_) => self.next = hint.min(end).next(),
            Pace::Probing(_) if hint.next() == self.next => return,
            // It cannot compare so far back any more.
            Pace::Probing(_) if hint >= self.next => self.next = hint.next().min(end.next()),
            Pace::Probing(_) | Pace::Streaming => self.next = self.next.min(hint.next()),
        }
        self.matched = self.matched.min(hint);
        self.durable = self.durable.min(hint);
        self.pace = Pace::Probing(now);
        self.moved_at = now;
    }
}
