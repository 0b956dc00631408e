//! Who writes into the log: a process of each member's, for as long as it lives, and each client.

use super::hearing::{Hearing, Overheard};
use crate::protocol::active::AnswerNumber;
use crate::random::Rng;
use crate::sim::ledger::CommandId;
use crate::sim::workload::{Ending, Seen, Step, Workload};
use crate::state_machine::{RawStateMachine, encode};
use crate::stream::log::{Mutation, Put, Puts, Record};
use crate::time::Time;
use bytes::Bytes;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

#[derive(Debug)]
struct Writer {
    puts: Puts,
    /// The command that is on its way, or has to be sent again.
    command: Vec<Record>,
    /// The simulated client was asked to send it.
    asked: bool,
}

/// By their numbers among the log's clients.
#[derive(Debug)]
pub(super) struct Writers {
    writers: BTreeMap<u32, Writer>,
    given: Vec<(u32, AnswerNumber)>,
    /// What was put into the log again, for it was not known whether it is there.
    again: BTreeSet<Bytes>,
    mutation: Option<Mutation>,
}

impl Writers {
    pub(super) fn new(mutation: Option<Mutation>) -> Self {
        Self {
            writers: BTreeMap::new(),
            given: Vec::new(),
            again: BTreeSet::new(),
            mutation,
        }
    }

    pub(super) fn open(&mut self, number: u32) {
        let writer = Writer {
            puts: Puts::new(COMMAND_BYTES),
            command: Vec::new(),
            asked: false,
        };
        self.writers.insert(number, writer);
    }

    pub(super) fn close(&mut self, number: u32) {
        self.writers.remove(&number);
        self.given.retain(|(writer, _)| *writer != number);
    }

    pub(super) fn put(&mut self, number: u32, put: Put) {
        if let Some(writer) = self.writers.get_mut(&number) {
            writer.puts.push(put);
        }
    }

    /// Who has something to be sent, and has not asked for it yet.
    pub(super) fn ask(&mut self) -> Vec<u32> {
        let mut asking = Vec::new();
        for (number, writer) in &mut self.writers {
            let idle = writer.command.is_empty() && writer.puts.waiting() == 0;
            if !idle && !std::mem::replace(&mut writer.asked, true) {
                asking.push(*number);
            }
        }
        asking
    }

    /// Answers that stand in the log by now.
    pub(super) fn given(&mut self) -> Vec<(u32, AnswerNumber)> {
        std::mem::take(&mut self.given)
    }

    /// Whether this may stand in the log more than once.
    pub(super) fn may_repeat(&self, item: &Bytes) -> bool {
        self.again.contains(item)
    }

    fn next(&mut self, number: u32) -> Vec<Record> {
        let Some(writer) = self.writers.get_mut(&number) else {
            return Vec::new();
        };
        if writer.command.is_empty() {
            writer.command = writer.puts.take();
            if self.mutation == Some(Mutation::Shuffled) {
                writer.command.reverse();
            }
        }
        writer.command.clone()
    }

    fn is_over(&mut self, number: u32, stored: bool) {
        let Some(writer) = self.writers.get_mut(&number) else {
            return;
        };
        writer.asked = false;
        if stored || self.mutation == Some(Mutation::LeftOut) {
            writer.command.clear();
            let given = writer.puts.stored().into_iter();
            self.given.extend(given.map(|answer| (number, answer)));
        }
        let items = writer.command.iter().filter_map(|record| match record {
            Record::Item(item) => Some(item.clone()),
            Record::Message { .. } | Record::Opened { .. } | Record::Answer { .. } => None,
        });
        self.again.extend(items);
    }
}

/// What the log's simulated clients do: what the writers want.
pub(super) struct Writing {
    pub(super) writers: Rc<RefCell<Writers>>,
    pub(super) hearing: Hearing,
}

impl Workload for Writing {
    fn machine(&self) -> Box<dyn RawStateMachine> {
        Box::new(Overheard::new(&self.hearing))
    }

    fn next(&mut self, _: Time, _: &mut Rng, id: CommandId) -> Step<Bytes, Bytes> {
        Step::Command(encode(&self.writers.borrow_mut().next(id.client)))
    }

    fn answered(&mut self, _: Time, client: u32, _: Seen, _: &[u8]) -> Result<(), String> {
        self.writers.borrow_mut().is_over(client, true);
        Ok(())
    }

    fn given_up(&mut self, client: u32) {
        self.writers.borrow_mut().is_over(client, false);
    }

    fn finish(&mut self, _: &Ending<'_>) -> Result<(), String> {
        Ok(())
    }
}

/// About so large a command gets: more than any record, and so little that there is often more to be put.
const COMMAND_BYTES: usize = 4 << 10;
