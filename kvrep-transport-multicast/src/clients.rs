//! Who has asked what, so that a request that is sent again is not carried out again: the answer is sent again instead.
//!
//! (Birrell and Nelson: *Implementing Remote Procedure Calls*, ACM TOCS 1984: the last answers are kept, and a call sent again is recognised by its number.)
//! Invariants: at most [`CLIENTS_MAX`] clients, of each at most [`ANSWERS_MAX`] answers and [`ANSWER_BYTES_MAX`] bytes of them; who was not
//! heard for longest gives way. Nobody is remembered for what was not a request.

use crate::seen::Seen;
use bytes::Bytes;
use kvrep_core::Incarnation;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

/// One client: the number that it drew, and where it reads.
pub(crate) type Asker = (Incarnation, SocketAddr);

#[derive(Debug, Default)]
pub(crate) struct Clients {
    known: BTreeMap<Asker, Client>,
}

#[derive(Debug)]
struct Client {
    heard: Instant,
    seen: Seen,
    answers: VecDeque<(u64, Bytes)>,
    answer_bytes: usize,
}

/// What a request is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Asked {
    New,
    /// It is being carried out, or its answer is forgotten.
    Before,
    /// It was answered with this frame.
    Answered(Bytes),
}

impl Clients {
    /// Whether this request of it is new.
    pub(crate) fn ask(&mut self, now: Instant, asker: Asker, number: u64) -> Asked {
        let Some(client) = self.known.get_mut(&asker) else {
            return Asked::New;
        };
        client.heard = now;
        if client.seen.is_new(number) {
            return Asked::New;
        }
        let answer = client.answers.iter().find(|(of, _)| *of == number);
        answer.map_or(Asked::Before, |(_, answer)| Asked::Answered(answer.clone()))
    }

    /// The whole request is here, and is one.
    pub(crate) fn take(&mut self, now: Instant, asker: Asker, number: u64) {
        if !self.known.contains_key(&asker) && self.known.len() >= CLIENTS_MAX {
            let oldest = self.known.iter().min_by_key(|(_, client)| client.heard);
            if let Some(oldest) = oldest.map(|(asker, _)| *asker) {
                self.known.remove(&oldest);
            }
        }
        let client = self.known.entry(asker).or_insert_with(|| Client {
            heard: now,
            seen: Seen::default(),
            answers: VecDeque::new(),
            answer_bytes: 0,
        });
        client.heard = now;
        client.seen.take(number);
    }

    pub(crate) fn answered(&mut self, asker: Asker, number: u64, answer: &Bytes) {
        let Some(client) = self.known.get_mut(&asker) else {
            return;
        };
        client.answer_bytes += answer.len();
        client.answers.push_back((number, answer.clone()));
        while client.answers.len() > ANSWERS_MAX || client.answer_bytes > ANSWER_BYTES_MAX {
            let Some((_, oldest)) = client.answers.pop_front() else {
                return;
            };
            client.answer_bytes -= oldest.len();
        }
    }
}

const CLIENTS_MAX: usize = 1_024;
const ANSWERS_MAX: usize = 64;
const ANSWER_BYTES_MAX: usize = 128 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_new_once_and_its_answer_is_kept_for_a_while() {
        let (mut clients, now) = (Clients::default(), Instant::now());
        let asker = |n: u64| (Incarnation(n), SocketAddr::from(([127, 0, 0, 1], 1)));
        assert_eq!(clients.ask(now, asker(1), 7), Asked::New);
        clients.take(now, asker(1), 7);
        assert_eq!(clients.ask(now, asker(1), 7), Asked::Before);
        clients.answered(asker(1), 7, &"seven".into());
        assert_eq!(
            clients.ask(now, asker(1), 7),
            Asked::Answered("seven".into())
        );
        assert_eq!(clients.ask(now, asker(2), 7), Asked::New);
        let large = Bytes::from(vec![0; 60 << 10]);
        for number in 8..20 {
            clients.answered(asker(1), number, &large);
        }
        assert_eq!(clients.ask(now, asker(1), 7), Asked::Before);
        assert_eq!(clients.known[&asker(1)].answers.len(), 2);
        for other in 10..5_000 {
            // What is not taken is not remembered either.
            assert_eq!(clients.ask(now, asker(other), 1), Asked::New);
        }
        assert_eq!(clients.known.len(), 1);
        for other in 10..5_000 {
            clients.take(now, asker(other), 1);
        }
        assert_eq!(clients.known.len(), CLIENTS_MAX);
    }
}
