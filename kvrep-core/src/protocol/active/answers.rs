//! The answers that this replica owes, from the moment at which it knows them to the transport's word that they went out.
//!
//! An answer leaves when the replica does not doubt its history, and as many replicas as the group asks for are known to
//! have that history up to where the answer was made. Its place in the queue is that of its debt, so what is answered is a prefix.

use super::effect::{AnswerNumber, Effect};
use crate::client_wire::Outcome;
use crate::id::Index;
use bytes::Bytes;
use std::collections::VecDeque;

#[derive(Debug)]
struct Due {
    /// The request's.
    at: Index,
    since: Index,
    /// Where the outcome was made.
    made_at: Index,
    reply_to: Bytes,
    outcome: Outcome,
    fate: Fate,
}

#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Waits,
    Sent(AnswerNumber),
    Acknowledged,
}

#[derive(Debug, Default)]
pub(super) struct Answers {
    due: VecDeque<Due>,
    /// How many of the first have been sent.
    sent: usize,
    next: u64,
}

impl Answers {
    pub(super) fn push(
        &mut self,
        (at, since): (Index, Index),
        made_at: Index,
        reply_to: Bytes,
        outcome: Outcome,
    ) {
        self.due.push_back(Due {
            at,
            since,
            made_at,
            reply_to,
            outcome,
            fate: Fate::Waits,
        });
    }

    /// Sends what may be sent: what was made at `confirmed` or earlier.
    pub(super) fn flush(&mut self, confirmed: Index, out: &mut Vec<Effect>) {
        while let Some(due) = self.due.get_mut(self.sent)
            && due.made_at <= confirmed
            && self.sent < WINDOW
        {
            self.next += 1;
            let number = AnswerNumber(self.next);
            due.fate = Fate::Sent(number);
            self.sent += 1;
            out.push(Effect::Answer {
                number,
                reply_to: due.reply_to.clone(),
                at: due.made_at,
                outcome: due.outcome.clone(),
            });
        }
    }

    /// It went out.
    pub(super) fn acknowledged(&mut self, number: AnswerNumber) {
        let sent = self.due.iter_mut().take(self.sent);
        if let Some(due) = sent.into_iter().find(|due| due.fate == Fate::Sent(number)) {
            due.fate = Fate::Acknowledged;
        }
        while self
            .due
            .front()
            .is_some_and(|due| due.fate == Fate::Acknowledged)
        {
            self.due.pop_front();
            self.sent -= 1;
        }
    }

    /// Up to where everything owed has gone out, for one who has come to `at`.
    pub(super) fn answered(&self, at: Index) -> Index {
        self.due.front().map_or(at, |due| due.since.prev())
    }

    /// Requests up to this one are not kept any more: what could not be answered so long is given up.
    pub(super) fn expire(&mut self, upto: Index) {
        self.due.retain(|due| due.at > upto);
        let sent = self.due.iter().filter(|due| due.fate != Fate::Waits);
        self.sent = sent.count();
    }

    /// They are others' now.
    pub(super) fn clear(&mut self) {
        self.due.clear();
        self.sent = 0;
    }

    pub(super) fn waiting(&self) -> usize {
        self.due.len()
    }
}

/// Answers on their way, at most.
const WINDOW: usize = 1_024;
