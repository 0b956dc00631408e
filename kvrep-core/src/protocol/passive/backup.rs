//! The backup: follows one primary in one term.
//!
//! Invariants:
//! * a backup acknowledges what is durable here *and* known to equal the primary's log in this term;
//! * it answers nothing before the term it answers in is durable here;
//! * what it cuts off was never committed here; if it was, that is a divergence, saved aside and reported: [`Parting`] says from where on.

use super::OnDivergence;
use super::local::{Local, stopped_words};
use super::message::Message;
#[cfg(feature = "sim")]
use super::mutation::Mutation;
use super::parting::{Parting, Search};
use super::transfer::{Receiving, Taken};
use crate::entry::Run;
use crate::id::{Configuration, Index, LogPoint, Nonce, ReplicaId, Term};
use crate::protocol::{Action, Event, Outbox};
use crate::storage::{SnapshotMeta, StorageOp, Tail};
use crate::time::Time;
use bytes::Bytes;

#[derive(Debug)]
pub(super) struct Backup {
    pub(super) term: Term,
    pub(super) primary: ReplicaId,
    /// Up to here the log is known to equal the primary's in this term.
    matched: Index,
    round: Nonce,
    /// What the primary has been told.
    told: Option<(Index, Nonce)>,
    receiving: Receiving,
    /// Whether the primary was asked for its commit point since it last told.
    asked: bool,
    /// The last place that the primary was told this state's digest at.
    pub(super) told_digest: Option<LogPoint>,
    /// The round of the last order to throw everything away.
    cleared: Option<Nonce>,
    /// When it was last asked whether it lives, because a client asked here.
    probed_at: Option<Time>,
    /// What is committed here was refuted, and it is being found out where the histories part.
    parting: Option<Parting>,
}

/// An append, opened.
#[derive(Debug)]
pub(super) struct Append {
    pub(super) term: Term,
    pub(super) prev: LogPoint,
    /// The end of the primary's log.
    pub(super) last: Index,
    pub(super) commit: Index,
    pub(super) round: Nonce,
    pub(super) entries: Run,
}

impl Backup {
    /// Follows the primary of `term`; the term is promised already.
    pub(super) fn begin(term: Term) -> Self {
        Self {
            term,
            primary: term.replica,
            matched: Index::ZERO,
            round: Nonce(0),
            told: None,
            receiving: Receiving::default(),
            asked: false,
            told_digest: None,
            cleared: None,
            probed_at: None,
            parting: None,
        }
    }

    /// Whether the primary may be probed now; not too often.
    pub(super) fn may_probe(&mut self, local: &Local, now: Time) -> bool {
        let every = local.group.timing.resend_every;
        let due = self.probed_at.is_none_or(|at| now - at >= every);
        if due {
            self.probed_at = Some(now);
        }
        due
    }

    pub(super) fn on_append(
        &mut self,
        local: &mut Local,
        now: Time,
        append: Append,
        out: &mut Outbox,
    ) {
        if local.restoring {
            return;
        }
        self.asked = false;
        local.asked = false;
        let heartbeat = append.entries.is_empty();
        let fresh_round = append.round > self.round;
        self.round = self.round.max(append.round);
        let meeting = follow(local, &append);
        if let (None, Meeting::Refuted(at)) = (self.parting, &meeting) {
            self.parting = Some(Parting::new(&local.log, *at));
        }
        if let Some(parting) = &mut self.parting {
            let search = parting.compare(&local.log, &append);
            #[cfg(feature = "sim")]
            let search = if local.mutated(Mutation::PartingNotSought) {
                Search::Found(parting.differs())
            } else {
                search
            };
            self.part(local, search, out);
            return;
        }
        match meeting {
            Meeting::Elsewhere(hint) => self.mismatch(local, hint, out),
            Meeting::Refuted(_) => {}
            Meeting::Here { conflict, from } => {
                let end = append.entries.last().map_or(append.prev.index, |e| e.index);
                let ops = splice(local, conflict, append.entries, from, out);
                self.matched = self.matched.max(end);
                if !ops.is_empty() {
                    local.persist(ops, out);
                }
                local.commit_to(append.commit.min(self.matched), now, out);
                if heartbeat {
                    self.tell_digest(local, out);
                }
                if heartbeat || fresh_round || self.acknowledged(local) == end {
                    self.acknowledge(local, Again::Yes, now, out);
                }
            }
        }
    }

    /// Goes on looking for where the histories part, or throws its own away.
    fn part(&mut self, local: &mut Local, search: Search, out: &mut Outbox) {
        let (from, writes) = match search {
            Search::Ask(behind) => {
                self.mismatch(local, behind, out);
                return;
            }
            Search::Found(from) => (from, local.log.writes(from, local.commit)),
            Search::Unknown(from) => (from, None),
        };
        self.parting = None;
        #[cfg(feature = "sim")]
        if local.mutated(Mutation::TruncateBelowCommit) {
            local.log.truncate(from);
            local.durable.truncated(from);
            let tail = Tail::Drop;
            local.persist(vec![StorageOp::TruncateSuffix { from, tail }], out);
            local.commit = local.commit.min(local.log.last().index);
            let last = local.log.last().index;
            self.mismatch(local, last, out);
            return;
        }
        if local.on_divergence == OnDivergence::Stop {
            local.stop(from, writes, stopped_words(from), out);
            return;
        }
        local.reset(from, writes, out);
        local.report_to(self.primary, out);
        self.matched = Index::ZERO;
        self.mismatch(local, Index::ZERO, out);
    }

    fn mismatch(&self, local: &mut Local, hint: Index, out: &mut Outbox) {
        let message = Message::Mismatch {
            term: self.term,
            hint,
            round: self.round,
        };
        local.answer(self.primary, &message, out);
    }

    /// What may be acknowledged.
    fn acknowledged(&self, local: &Local) -> Index {
        #[cfg(feature = "sim")]
        if local.mutated(Mutation::AckBeforeDurable) {
            return self.matched;
        }
        self.matched.min(local.durable.index())
    }

    /// Tells the primary what is durable, if it has not heard so yet.
    pub(super) fn acknowledge(
        &mut self,
        local: &mut Local,
        again: Again,
        now: Time,
        out: &mut Outbox,
    ) {
        if local.restoring {
            return;
        }
        // First shown, where that is before it is decided, then acknowledged.
        local.show(self.matched.min(local.durable.index()), now, out);
        let durable = self.acknowledged(local);
        let news = Some((durable, self.round));
        if again == Again::No && self.told == news {
            return;
        }
        self.told = news;
        #[cfg(feature = "sim")]
        let silent = local.mutated(Mutation::SilentWhileItHangs);
        #[cfg(not(feature = "sim"))]
        let silent = false;
        if again == Again::Yes && !local.hard_is_durable() && !silent {
            // What follows leaves when the storage is done. One that hangs makes this replica look dead to nobody.
            local.report_to(self.primary, out);
        }
        let message = Message::Appended {
            term: self.term,
            durable,
            matched: self.matched,
            round: self.round,
        };
        local.answer(self.primary, &message, out);
    }

    pub(super) fn on_chunk(
        &mut self,
        local: &mut Local,
        (meta, offset, data): (SnapshotMeta, u64, Bytes),
        out: &mut Outbox,
    ) {
        if local.restoring {
            return;
        }
        if let Some(parting) = self.parting {
            // The primary has no entries any more that reach back so far.
            self.part(local, parting.given_up(), out);
            return;
        }
        if meta.last.index <= local.settled() {
            // Not needed: this much is here, and committed.
            self.mismatch(local, local.settled(), out);
            return;
        }
        match self.receiving.on_chunk(local, meta, offset, data, out) {
            Taken::Upto(upto) => {
                let message = Message::ChunkTaken {
                    term: self.term,
                    index: meta.last.index,
                    upto,
                };
                local.answer(self.primary, &message, out);
            }
            Taken::Complete => {}
        }
    }

    /// The snapshot is in the state machine.
    pub(super) fn on_restored(
        &mut self,
        local: &mut Local,
        now: Time,
        meta: SnapshotMeta,
        out: &mut Outbox,
    ) {
        self.matched = self.matched.max(meta.last.index);
        let message = Message::ChunkTaken {
            term: self.term,
            index: meta.last.index,
            upto: meta.bytes,
        };
        local.send(self.primary, &message, out);
        self.acknowledge(local, Again::Yes, now, out);
    }

    /// The newest read round seen.
    pub(super) fn round(&self) -> Nonce {
        self.round
    }

    /// Whether an order of this round was obeyed already.
    pub(super) fn has_discarded(&self, round: Nonce) -> bool {
        self.cleared.is_some_and(|cleared| round <= cleared)
    }

    /// Everything was thrown away, by an order of this round.
    pub(super) fn discarded(&mut self, round: Nonce) {
        self.cleared = Some(round);
        self.matched = Index::ZERO;
        self.told = None;
        self.told_digest = None;
        self.receiving = Receiving::default();
    }

    /// A read waits for a later commit point than is known.
    pub(super) fn ask_commit(&mut self, local: &Local, out: &mut Outbox) {
        if !self.asked {
            self.asked = true;
            local.send(self.primary, &Message::AskCommit { term: self.term }, out);
        }
    }

    pub(super) fn check_invariants(&self, local: &Local) {
        assert!(
            local.restoring || self.matched <= local.log.last().index,
            "a backup cannot have matched what it does not have"
        );
    }
}

/// Whether an unchanged acknowledgement is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    Yes,
    No,
}

/// How an append meets the log.
#[derive(Debug, PartialEq, Eq)]
enum Meeting {
    /// It follows; the first of its entries that is new is number `from`, in conflict with one here or not.
    Here {
        conflict: Option<Index>,
        from: usize,
    },
    /// It does not; try behind this index.
    Elsewhere(Index),
    /// It contradicts what is committed here.
    Refuted(Index),
}

fn follow(local: &Local, append: &Append) -> Meeting {
    let base = local.log.base();
    let last = local.log.last().index;
    let prev = append.prev;
    let settled = local.settled();
    // A primary begins its term behind everything that was ever committed. (In its own term it only grows, but an old
    // append of it may come late.)
    let committed_before = local.log.term_at(settled) < Some(append.term);
    if append.last < settled && committed_before {
        return Meeting::Refuted(append.last.next());
    }
    if prev.index > last {
        return Meeting::Elsewhere(last);
    }
    if prev.index < base.index {
        // The beginning cannot be compared any more; the entry at the base can.
        let at_base = append.entries.iter().find(|e| e.index == base.index);
        match at_base {
            Some(entry) if entry.point() == base => {}
            Some(_) => return Meeting::Refuted(base.index),
            None => return Meeting::Elsewhere(settled),
        }
    } else if local.log.point(prev.index) != Some(prev) {
        return if prev.index <= settled {
            Meeting::Refuted(prev.index)
        } else {
            let first = local.log.first_of_term_at(prev.index);
            Meeting::Elsewhere(first.prev().max(settled))
        };
    }
    for (at, entry) in append.entries.iter().enumerate() {
        if entry.index <= base.index {
            continue;
        }
        match local.log.point(entry.index) {
            Some(ours) if ours == entry.point() => {}
            Some(_) if entry.index <= settled => return Meeting::Refuted(entry.index),
            Some(_) => {
                return Meeting::Here {
                    conflict: Some(entry.index),
                    from: at,
                };
            }
            None => {
                return Meeting::Here {
                    conflict: None,
                    from: at,
                };
            }
        }
    }
    Meeting::Here {
        conflict: None,
        from: append.entries.len(),
    }
}

/// Cuts off what is in conflict and adds what is new; returns the storage's part of it.
fn splice(
    local: &mut Local,
    conflict: Option<Index>,
    mut entries: Run,
    from: usize,
    out: &mut Outbox,
) -> Vec<StorageOp> {
    let mut ops = Vec::new();
    if let Some(at) = conflict {
        let writes = local.log.writes(at, local.log.last().index);
        let cut = local.log.truncate(at);
        local.durable.truncated(at);
        ops.push(StorageOp::TruncateSuffix {
            from: at,
            tail: Tail::SaveAside,
        });
        out.push(Action::Event(Event::TailTruncated {
            from: at,
            entries: cut,
            writes,
            acknowledged: local.acknowledged(),
        }));
    }
    entries.advance(from);
    if !entries.is_empty() {
        local.log.append(entries.clone());
        ops.push(StorageOp::Append(entries));
    }
    ops
}

/// Takes over the term and the configuration of an append, durably. Returns whether anything was new.
pub(super) fn adopt(
    local: &mut Local,
    term: Term,
    configuration: &Configuration,
    out: &mut Outbox,
) -> bool {
    let mut news = false;
    if term > local.hard.promised {
        local.hard.promised = term;
        news = true;
    }
    if local.hard.learn(configuration) {
        news = true;
    }
    local.restarting = false;
    if news {
        #[cfg(feature = "sim")]
        if local.mutated(Mutation::TermNotDurable) {
            return news;
        }
        local.persist_hard(out);
    }
    news
}
