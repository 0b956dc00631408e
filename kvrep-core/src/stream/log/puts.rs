//! What a member puts into the log, in its order: as much in one command as waits, up to a bound. Sans-IO.

use super::sequencer::Record;
use crate::protocol::active::AnswerNumber;
use std::collections::VecDeque;

/// What waits to be put into the log.
#[derive(Debug)]
pub(crate) struct Put {
    pub(crate) record: Record,
    /// An answer, which is given when it stands in the log.
    pub(crate) answer: Option<AnswerNumber>,
}

/// Waiting puts, and those of the command that is on its way.
#[derive(Debug)]
pub(crate) struct Puts {
    waiting: VecDeque<Put>,
    answers: Vec<AnswerNumber>,
    bytes_max: usize,
}

impl Puts {
    /// A command gets at most about so many bytes, unless a single record is larger.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
            answers: Vec::new(),
            bytes_max,
        }
    }

    pub(crate) fn push(&mut self, put: Put) {
        self.waiting.push_back(put);
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The records of the next command; none if nothing waits.
    pub(crate) fn take(&mut self) -> Vec<Record> {
        let (mut records, mut bytes) = (Vec::new(), 0);
        while let Some(put) = self.waiting.front() {
            bytes += put.record.size();
            let full = records.len() >= BATCH_MAX || bytes > self.bytes_max;
            if full && !records.is_empty() {
                break;
            }
            if let Some(put) = self.waiting.pop_front() {
                self.answers.extend(put.answer);
                records.push(put.record);
            }
        }
        records
    }

    /// The command stands in the log: these answers are given.
    pub(crate) fn stored(&mut self) -> Vec<AnswerNumber> {
        std::mem::take(&mut self.answers)
    }
}

const BATCH_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::log::sequencer::CallId;

    fn answer(number: u64, bytes: usize) -> Put {
        let call = CallId { client: 1, number };
        let outcome = vec![0; bytes].into();
        Put {
            record: Record::Answer { call, outcome },
            answer: Some(AnswerNumber(number)),
        }
    }

    #[test]
    fn commands_are_bounded_and_keep_the_order() {
        let mut puts = Puts::new(1_000);
        for (number, bytes) in [(0, 600), (1, 600), (2, 10), (3, 5_000), (4, 10)] {
            puts.push(answer(number, bytes));
        }
        let mut commands = Vec::new();
        loop {
            let records = puts.take();
            if records.is_empty() {
                break;
            }
            let numbers: Vec<_> = puts.stored().iter().map(|of| of.0).collect();
            assert_eq!(records.len(), numbers.len());
            commands.push(numbers);
        }
        assert_eq!(commands, [vec![0], vec![1, 2], vec![3], vec![4]]);
        for number in 0..2_000 {
            puts.push(answer(number, 0));
        }
        assert!(puts.take().len() <= BATCH_MAX);
    }
}
