//! What a member has published and the broker does not acknowledge yet: kept, to be sent again in its order.

use crate::link::PublicationId;
use bytes::Bytes;
use kvrep_core::protocol::active::AnswerNumber;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// One publication.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Outgoing {
    pub(super) topic: Arc<str>,
    pub(super) payload: Bytes,
    /// The answers in it, in their order.
    pub(super) answers: Vec<Carried>,
}

/// An answer in a publication.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Carried {
    pub(super) number: AnswerNumber,
    pub(super) reply_to: Bytes,
    /// Where it ends there.
    pub(super) end: usize,
}

#[derive(Debug, Default)]
pub(super) struct Unacknowledged {
    sent: BTreeMap<PublicationId, Outgoing>,
    /// Of a session that was lost.
    again: VecDeque<Outgoing>,
    /// Never sent yet.
    waiting: VecDeque<Outgoing>,
}

impl Unacknowledged {
    pub(super) fn push(&mut self, outgoing: Outgoing) {
        self.waiting.push_back(outgoing);
    }

    pub(super) fn first_waiting(&self) -> Option<&Outgoing> {
        self.again.front().or_else(|| self.waiting.front())
    }

    /// The first that waited was sent.
    pub(super) fn sent(&mut self, id: PublicationId) {
        if let Some(outgoing) = self.give_up() {
            self.sent.insert(id, outgoing);
        }
    }

    /// The first that waited is not to be sent.
    pub(super) fn give_up(&mut self) -> Option<Outgoing> {
        self.again.pop_front().or_else(|| self.waiting.pop_front())
    }

    pub(super) fn acknowledged(&mut self, id: PublicationId) -> Option<Outgoing> {
        self.sent.remove(&id)
    }

    pub(super) fn abandoned(&mut self, id: PublicationId) {
        self.again.extend(self.sent.remove(&id));
    }

    /// All that was sent and not acknowledged is sent again, in its order.
    pub(super) fn all_again(&mut self) {
        self.again
            .extend(std::mem::take(&mut self.sent).into_values());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outgoing(n: u64) -> Outgoing {
        Outgoing {
            topic: "t".into(),
            payload: Bytes::from(vec![n as u8]),
            answers: vec![Carried {
                number: AnswerNumber(n),
                reply_to: Bytes::new(),
                end: 1,
            }],
        }
    }

    fn drain(all: &mut Unacknowledged) -> Vec<u64> {
        let mut order = Vec::new();
        while let Some(first) = all.give_up() {
            order.push(first.answers[0].number.0);
        }
        order
    }

    #[test]
    fn what_a_lost_session_took_along_is_sent_again_in_its_order_and_before_the_rest() {
        let mut all = Unacknowledged::default();
        for n in 1..=5 {
            all.push(outgoing(n));
        }
        for n in 1..=4 {
            all.sent(PublicationId(n));
        }
        assert_eq!(all.acknowledged(PublicationId(2)), Some(outgoing(2)));
        assert_eq!(all.acknowledged(PublicationId(2)), None);
        all.abandoned(PublicationId(1));
        all.all_again();
        assert_eq!(drain(&mut all), [1, 3, 4, 5]);
    }
}
