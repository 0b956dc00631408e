//! The determinism guard: carries commands out twice, to catch a state machine that does not do the same each time.
//!
//! A machine that looks at a clock, or walks through a `HashMap`, works in every test with one replica, and in most with
//! three; one day two replicas differ. The guard finds it at the first command that shows it: it freezes the state, carries
//! the command out, puts the frozen state back, carries the command out again, and compares responses and states. So it
//! also finds a snapshot that leaves something out.
//!
//! What it costs is bounded by a rule that needs no clock: each command earns a few bytes, and a check is made when what
//! was earned since the last one covers the size of the state. A small state is checked with every command, a large one now
//! and then, and on average a command pays for the same number of bytes.
//!
//! Caveat: `apply` and `restore` run more often than without it. That must not matter to a state machine; a machine that
//! counts its own calls will see it.

use crate::id::Index;
use crate::state_machine::{ApplyContext, FrozenState, Malformed, RawStateMachine};
use bytes::Bytes;
use std::any::Any;
use std::io::{self, Read, Write};
use std::sync::{Arc, OnceLock};

/// Whether commands are carried out twice to check that the state machine is deterministic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// They are not.
    Off,
    /// Some are: a check of a state of *n* bytes is made once in *n* / `bytes_per_command` commands. A state larger than
    /// 16 MiB is not checked.
    Sampled {
        /// How many bytes of state a command pays for; more finds faults sooner.
        bytes_per_command: u64,
    },
}

impl Default for Guard {
    /// In debug builds 64 bytes a command; off in release builds.
    fn default() -> Self {
        if cfg!(debug_assertions) {
            Self::Sampled {
                bytes_per_command: 64,
            }
        } else {
            Self::Off
        }
    }
}

/// What was found wrong, told once.
pub(super) type Fault = Arc<OnceLock<String>>;

/// A state machine that is watched.
pub(super) struct Guarded {
    inner: Box<dyn RawStateMachine>,
    bytes_per_command: u64,
    earned: u64,
    /// What the next check costs: the size of the state when it was last seen.
    price: u64,
    fault: Fault,
}

impl Guarded {
    pub(super) fn new(
        inner: Box<dyn RawStateMachine>,
        bytes_per_command: u64,
        fault: Fault,
    ) -> Self {
        Self {
            inner,
            bytes_per_command,
            earned: 0,
            price: 0,
            fault,
        }
    }

    fn apply_twice(
        &mut self,
        context: &mut ApplyContext,
        command: &[u8],
    ) -> Result<Bytes, Malformed> {
        let mut again = context.clone();
        let Some(before) = written(&*self.inner) else {
            self.price = STATE_BYTES_MAX as u64;
            return self.inner.apply(context, command);
        };
        self.price = before.len() as u64;
        let first = self.inner.apply(context, command);
        let after_first = Mark::of(&*self.inner);
        if let Err(error) = self.inner.restore(&mut before.as_slice()) {
            self.found(
                context.index,
                &format!("its own snapshot cannot be restored: {error}"),
            );
            return first;
        }
        let second = self.inner.apply(&mut again, command);
        if first != second {
            self.found(context.index, "the responses differ");
        } else if after_first != Mark::of(&*self.inner) {
            self.found(context.index, "the states differ");
        }
        second
    }

    fn found(&self, index: Index, what: &str) {
        // The first fault is the one to tell.
        let _ = self.fault.set(format!(
            "the state machine is not deterministic: entry {index} was carried out twice on the same state, and {what}. \
             `apply` may depend on nothing but the state, the command and the context. Usual causes: a clock (use \
             context.timestamp), a random source (use context.random()), the order of a HashMap or HashSet in `apply` or in \
             the snapshot (use a BTreeMap), a global or thread-local variable, a field that `snapshot` leaves out"
        ));
    }
}

impl RawStateMachine for Guarded {
    fn apply(&mut self, context: &mut ApplyContext, command: &[u8]) -> Result<Bytes, Malformed> {
        self.earned = self.earned.saturating_add(self.bytes_per_command);
        if self.earned < self.price || self.fault.get().is_some() {
            return self.inner.apply(context, command);
        }
        self.earned = 0;
        self.apply_twice(context, command)
    }

    fn query(&self, query: &[u8]) -> Result<Bytes, Malformed> {
        self.inner.query(query)
    }

    fn freeze(&self) -> FrozenState {
        self.inner.freeze()
    }

    fn restore(&mut self, state: &mut dyn Read) -> io::Result<()> {
        self.inner.restore(state)
    }

    fn digest(&self) -> Option<u64> {
        self.inner.digest()
    }

    fn as_any(&self) -> Option<&dyn Any> {
        self.inner.as_any()
    }
}

/// What two equal states have in common.
#[derive(PartialEq, Eq)]
enum Mark {
    Digest(u64),
    Bytes(Option<Vec<u8>>),
}

impl Mark {
    fn of(machine: &dyn RawStateMachine) -> Self {
        match machine.digest() {
            Some(digest) => Self::Digest(digest),
            None => Self::Bytes(written(machine)),
        }
    }
}

/// The state's bytes; `None` when they are too many, or cannot be written.
fn written(machine: &dyn RawStateMachine) -> Option<Vec<u8>> {
    let mut bytes = Bounded(Vec::new());
    machine.freeze()(&mut bytes).ok()?;
    Some(bytes.0)
}

/// Refuses more than [`STATE_BYTES_MAX`].
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > STATE_BYTES_MAX - self.0.len() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A larger state is not checked: writing it would stop the node for too long.
const STATE_BYTES_MAX: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state_machine::{Typed, encode};
    use crate::time::Timestamp;
    use crate::{Fold, StateMachine};

    fn guarded<S: StateMachine>(machine: S) -> Guarded {
        Guarded::new(Box::new(Typed(machine)), 64, Fault::default())
    }

    fn apply(machine: &mut Guarded, index: u64, command: &[u8]) -> Result<Bytes, Malformed> {
        let mut context = ApplyContext::new(Index(index), Timestamp(index), index);
        machine.apply(&mut context, command)
    }

    /// Grows by a word, and uses what it may use.
    struct Sound(Vec<u64>, usize);

    impl StateMachine for Sound {
        type Command = u64;
        type Query = ();
        type Response = u64;
        type Snapshot = Vec<u64>;

        fn apply(&mut self, context: &mut ApplyContext, number: u64) -> u64 {
            self.1 += 1;
            let drawn = context.random() ^ context.timestamp.0;
            self.0.push(drawn ^ number);
            drawn
        }
        fn query(&self, (): ()) -> u64 {
            self.1 as u64
        }
        fn snapshot(&self) -> Vec<u64> {
            self.0.clone()
        }
        fn restore(&mut self, state: Vec<u64>) {
            self.0 = state;
        }
    }

    #[test]
    fn a_sound_machine_passes_and_pays_the_same_for_each_command_however_large_its_state() {
        let mut machine = guarded(Sound(Vec::new(), 0));
        for index in 1..=10_000 {
            apply(&mut machine, index, &encode(&index)).unwrap();
        }
        assert_eq!(machine.fault.get(), None);
        let calls = machine.query(&encode(&())).unwrap();
        let calls: u64 = crate::state_machine::decode(&calls).unwrap();
        // 10,000 of its own; a check is made in ever longer intervals.
        assert!((10_020..10_100).contains(&calls), "{calls}");
    }

    #[test]
    fn a_command_that_cannot_be_read_is_no_fault() {
        let mut machine = guarded(Fold::new(0_u8, |sum, by: u8| *sum ^= by));
        assert!(apply(&mut machine, 1, b"much too long").is_err());
        assert_eq!(machine.fault.get(), None);
    }

    /// Answers with a number that its snapshot leaves out.
    #[derive(Default)]
    struct Forgetful(u64);

    impl StateMachine for Forgetful {
        type Command = ();
        type Query = ();
        type Response = u64;
        type Snapshot = ();

        fn apply(&mut self, _: &mut ApplyContext, (): ()) -> u64 {
            self.0 += 1;
            self.0
        }
        fn query(&self, (): ()) -> u64 {
            self.0
        }
        fn snapshot(&self) {}
        fn restore(&mut self, (): ()) {
            self.0 = 0;
        }
    }

    #[test]
    fn what_the_snapshot_leaves_out_is_found_as_soon_as_an_answer_depends_on_it() {
        let mut machine = guarded(Forgetful(5));
        apply(&mut machine, 9, &encode(&())).unwrap();
        let fault = machine.fault.get().unwrap();
        assert!(fault.contains("entry @9"), "{fault}");
        assert!(fault.contains("the responses differ"), "{fault}");
    }
}
