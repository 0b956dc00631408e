//! What the state machines of the log's nodes are told, as a feed tells its subscriber.

use crate::id::Index;
use crate::state_machine::{ApplyContext, FrozenState, Malformed, RawStateMachine, Typed};
use crate::stream::log::Sequencer;
use bytes::Bytes;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Debug)]
pub(super) enum What {
    /// The command at this place was carried out.
    Command(Index, Bytes),
    /// The state was replaced.
    Replaced,
}

#[derive(Debug, Default)]
struct Heard {
    /// Machines made so far.
    machines: u64,
    what: Vec<(u64, What)>,
}

/// Shared by all machines, which are told apart by the order in which they were made.
#[derive(Clone, Debug, Default)]
pub(super) struct Hearing(Arc<Mutex<Heard>>);

impl Hearing {
    /// The number of the machine that was made last.
    pub(super) fn last_machine(&self) -> u64 {
        self.with(|heard| heard.machines)
    }

    /// What was heard since, and by which machine.
    pub(super) fn take(&self) -> Vec<(u64, What)> {
        self.with(|heard| std::mem::take(&mut heard.what))
    }

    fn with<R>(&self, call: impl FnOnce(&mut Heard) -> R) -> R {
        call(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

pub(super) struct Overheard {
    inner: Typed<Sequencer>,
    number: u64,
    hearing: Hearing,
}

impl Overheard {
    pub(super) fn new(hearing: &Hearing) -> Self {
        let number = hearing.with(|heard| {
            heard.machines += 1;
            heard.machines
        });
        Self {
            inner: Typed(Sequencer::default()),
            number,
            hearing: hearing.clone(),
        }
    }

    fn tell(&self, what: What) {
        self.hearing
            .with(|heard| heard.what.push((self.number, what)));
    }
}

impl RawStateMachine for Overheard {
    fn apply(&mut self, context: &mut ApplyContext, command: &[u8]) -> Result<Bytes, Malformed> {
        let response = self.inner.apply(context, command)?;
        let command = Bytes::copy_from_slice(command);
        self.tell(What::Command(context.index, command));
        Ok(response)
    }

    fn query(&self, query: &[u8]) -> Result<Bytes, Malformed> {
        self.inner.query(query)
    }

    fn freeze(&self) -> FrozenState {
        self.inner.freeze()
    }

    fn restore(&mut self, state: &mut dyn Read) -> io::Result<()> {
        self.inner.restore(state)?;
        self.tell(What::Replaced);
        Ok(())
    }

    fn digest(&self) -> Option<u64> {
        None
    }
}
