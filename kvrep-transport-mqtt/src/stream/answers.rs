//! Answers to clients: one by one or together, as the dialect has it, and what is said in place of one that is larger than the broker takes.

use super::Open;
use super::dialect::{Addressed, Dialect};
use super::trouble::Trouble;
use super::unacknowledged::{Carried, Outgoing};
use crate::link::PublishError;
use crate::names::check_topic;
use bytes::Bytes;
use kvrep_core::client_wire::Outcome;
use kvrep_core::protocol::active::AnswerNumber;
use kvrep_core::stream::StreamEvent;
use std::sync::Arc;
use tracing::debug;

impl Open {
    /// Publishes an answer, by itself or with others.
    pub(super) fn put(
        &mut self,
        addressed: Option<Addressed>,
        (number, reply_to): (AnswerNumber, &Bytes),
        dialect: &dyn Dialect,
    ) {
        let Some((topic, payload)) = addressed.filter(|(topic, _)| check_topic(topic).is_ok())
        else {
            debug!("a request whose answer can go nowhere");
            self.tell(StreamEvent::Answered(number));
            return;
        };
        let answer = |end| Carried {
            number,
            reply_to: reply_to.clone(),
            end,
        };
        if dialect.joins_answers() {
            self.join(topic, &payload, answer);
        } else {
            let answers = vec![answer(payload.len())];
            self.publish(Outgoing {
                topic,
                payload,
                answers,
            });
        }
    }

    /// In place of an answer of so many bytes, which the broker does not take, its client is told so; if that is no smaller, the operator.
    pub(super) fn say_too_large(
        &mut self,
        topic: &Arc<str>,
        bytes: usize,
        answer: (AnswerNumber, &Bytes),
        dialect: &mut dyn Dialect,
    ) {
        let outcome = Outcome::ResponseTooLarge {
            bytes: bytes as u64,
        };
        let said = dialect.answer(answer.1, &outcome);
        let said = said.filter(|(_, said)| said.len() < bytes);
        if said.is_none() {
            let bytes_max = self.link.payload_bytes_max(topic);
            let why = PublishError::TooLarge { bytes, bytes_max };
            let topic = Arc::clone(topic);
            self.trouble(Trouble::GivenUp { topic, why });
        }
        self.put(said, answer, dialect);
    }

    pub(super) fn answer_oversized(&mut self, dialect: &mut dyn Dialect) {
        for Outgoing {
            topic,
            payload,
            answers,
        } in std::mem::take(&mut self.oversized)
        {
            let bytes_max = self.link.payload_bytes_max(&topic);
            let mut from = 0;
            for Carried {
                number,
                reply_to,
                end,
            } in answers
            {
                let part = payload.slice(from..end);
                from = end;
                // What was too large may have been several answers.
                if part.len() <= bytes_max {
                    let addressed = Some((Arc::clone(&topic), part));
                    self.put(addressed, (number, &reply_to), dialect);
                } else {
                    self.say_too_large(&topic, part.len(), (number, &reply_to), dialect);
                }
            }
        }
    }
}
