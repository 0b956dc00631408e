//! What the passive scheme replicates under a stream: records in an order, and for a while the answers among them.

use crate::id::ReplicaId;
use crate::protocol::active::Message;
use crate::state_machine::{ApplyContext, StateMachine};
use crate::stream::StreamMember;
use crate::transport::Destination;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// One record of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Record {
    /// An encoded [`Published`](crate::protocol::active::Published).
    Item(Bytes),
    /// What a member tells others.
    Message {
        from: ReplicaId,
        config_hash: u64,
        /// `None`: all.
        to: Option<ReplicaId>,
        message: Message,
    },
    /// Somebody opened the stream: what comes behind this is for it.
    Opened { opening: u64 },
    /// The answer to a client's call.
    Answer { call: CallId, outcome: Bytes },
}

impl Record {
    /// What `me` tells others.
    pub(crate) fn said(me: &StreamMember, to: Destination, message: &Message) -> Self {
        Self::Message {
            from: me.replica,
            config_hash: me.config_hash,
            to: match to {
                Destination::One(one) => Some(one),
                Destination::Group => None,
            },
            message: message.clone(),
        }
    }

    /// Two records that say the same, if it is a piece of a state.
    pub(crate) fn halves(self) -> Option<[Self; 2]> {
        let Self::Message {
            from,
            config_hash,
            to,
            message,
        } = self
        else {
            return None;
        };
        let half = |message| Self::Message {
            from,
            config_hash,
            to,
            message,
        };
        Some(message.halves()?.map(half))
    }

    /// About so many bytes.
    pub(crate) fn size(&self) -> usize {
        let body = match self {
            Self::Item(bytes) | Self::Answer { outcome: bytes, .. } => bytes.len(),
            Self::Message { message, .. } => match message {
                Message::Piece { data, .. } => data.len() + 64,
                Message::Heartbeat(beat) => 128 + 64 * (beat.claims.len() + beat.failed.len()),
                Message::Got { .. } => 64,
            },
            Self::Opened { .. } => 0,
        };
        body + 32
    }
}

/// Drawn by the client; tells its calls apart from everybody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct CallId {
    pub(crate) client: u64,
    pub(crate) number: u64,
}

/// The state machine of the log. What was said is heard by its subscribers; only answers are kept, until newer ones take their place.
#[derive(Debug, Default)]
pub(crate) struct Sequencer {
    answers: BTreeMap<CallId, Bytes>,
    order: VecDeque<CallId>,
    bytes: usize,
}

impl Sequencer {
    fn keep(&mut self, call: CallId, outcome: Bytes) {
        self.bytes += outcome.len();
        match self.answers.insert(call, outcome) {
            // Answered again, by another member.
            Some(before) => self.bytes -= before.len(),
            None => self.order.push_back(call),
        }
        while self.order.len() > ANSWERS_MAX || self.bytes > ANSWER_BYTES_MAX {
            let oldest = self.order.pop_front();
            let Some(outcome) = oldest.and_then(|call| self.answers.remove(&call)) else {
                break;
            };
            self.bytes -= outcome.len();
        }
    }
}

impl StateMachine for Sequencer {
    type Command = Vec<Record>;
    type Query = CallId;
    /// To a query: the answer, if it is there.
    type Response = Option<Bytes>;
    type Snapshot = Vec<(CallId, Bytes)>;

    fn apply(&mut self, _: &mut ApplyContext, records: Vec<Record>) -> Option<Bytes> {
        for record in records {
            match record {
                Record::Answer { call, outcome } => self.keep(call, outcome),
                Record::Item(_) | Record::Message { .. } | Record::Opened { .. } => {}
            }
        }
        None
    }

    fn query(&self, call: CallId) -> Option<Bytes> {
        self.answers.get(&call).cloned()
    }

    fn snapshot(&self) -> Self::Snapshot {
        let outcome = |call: &CallId| Some((*call, self.answers.get(call)?.clone()));
        self.order.iter().filter_map(outcome).collect()
    }

    fn restore(&mut self, answers: Self::Snapshot) {
        *self = Self::default();
        for (call, outcome) in answers {
            self.keep(call, outcome);
        }
    }
}

/// So many answers are kept, for clients that have not asked for theirs yet.
const ANSWERS_MAX: usize = 16_384;
/// And at most so many bytes of them.
const ANSWER_BYTES_MAX: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(number: u64, length: usize) -> Vec<Record> {
        let call = CallId { client: 1, number };
        let outcome = vec![7; length].into();
        vec![Record::Answer { call, outcome }]
    }

    #[test]
    fn answers_are_kept_up_to_a_bound_and_the_oldest_go_first() {
        let mut machine = Sequencer::default();
        let mut context =
            ApplyContext::new(crate::id::Index(1), crate::time::Timestamp::default(), 0);
        for number in 0..20_000 {
            machine.apply(&mut context, answer(number, 8));
        }
        let held = |machine: &Sequencer, number| machine.query(CallId { client: 1, number });
        assert_eq!(machine.order.len(), ANSWERS_MAX);
        assert!(held(&machine, 19_999).is_some() && held(&machine, 0).is_none());
        for number in 20_000..20_010 {
            machine.apply(&mut context, answer(number, 3 << 20));
        }
        assert!(machine.bytes <= ANSWER_BYTES_MAX);
        assert!(held(&machine, 20_009).is_some() && held(&machine, 20_000).is_none());
        let mut other = Sequencer::default();
        other.restore(machine.snapshot());
        assert_eq!(other.snapshot(), machine.snapshot());
    }
}
