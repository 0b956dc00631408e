//! Any sequence of writes, reads, crashes, starts, cuts and waits against a model of one copy: a list of numbers.
//!
//! The group runs in memory with a witness, so a replica that crashes comes back with nothing. The model knows which
//! writes were answered, in order, and which have an unknown outcome. A failing sequence is shrunk to a short one.

use super::*;
use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

/// One operation.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// Append this number, at this replica.
    Write(ReplicaId, u64),
    /// Read, linearizably, at this replica.
    Read(ReplicaId),
    /// Unless it is the last that holds the state.
    Crash(ReplicaId),
    /// With an empty storage.
    Start(ReplicaId),
    /// Everything that the first sends to the second is lost.
    Cut(ReplicaId, ReplicaId),
    Mend,
    Wait(Duration),
}

/// What decides which operations make sense: the numbers are used once, and who is down can be started.
#[derive(Clone, Debug, Default)]
struct Reference {
    written: u64,
    down: BTreeSet<ReplicaId>,
}

impl ReferenceStateMachine for Reference {
    type State = Self;
    type Transition = Act;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self::default()).boxed()
    }

    fn transitions(state: &Self) -> BoxedStrategy<Act> {
        let replica = || (1..=3_u32).prop_map(ReplicaId);
        let anybody = || prop_oneof![4 => replica(), 1 => Just(ReplicaId::WITNESS)];
        let next = state.written + 1;
        prop_oneof![
            6 => replica().prop_map(move |at| Act::Write(at, next)),
            4 => replica().prop_map(Act::Read),
            2 => replica().prop_map(Act::Crash),
            3 => replica().prop_map(Act::Start),
            3 => (anybody(), anybody()).prop_map(|(from, to)| Act::Cut(from, to)),
            2 => Just(Act::Mend),
            6 => (5..600_u64).prop_map(|ms| Act::Wait(Duration::from_millis(ms))),
        ]
        .boxed()
    }

    fn preconditions(state: &Self, act: &Act) -> bool {
        match act {
            Act::Write(at, n) => *n == state.written + 1 && !state.down.contains(at),
            Act::Read(at) | Act::Crash(at) => !state.down.contains(at),
            Act::Start(at) => state.down.contains(at),
            Act::Cut(from, to) => from != to,
            Act::Mend | Act::Wait(_) => true,
        }
    }

    fn apply(mut state: Self, act: &Act) -> Self {
        match act {
            Act::Write(..) => state.written += 1,
            Act::Crash(at) => drop(state.down.insert(*at)),
            Act::Start(at) => drop(state.down.remove(at)),
            Act::Read(_) | Act::Cut(..) | Act::Mend | Act::Wait(_) => {}
        }
        state
    }
}

struct Story {
    group: Group,
    stores: BTreeMap<ReplicaId, StoreId>,
    /// Of the model: answered, or seen by a read, in this order.
    list: Vec<u64>,
    /// So much of it was shown by a read: nothing can come in between any more.
    shown: usize,
    /// Perhaps in the list some day.
    unknown: BTreeSet<u64>,
}

impl StateMachineTest for Story {
    type SystemUnderTest = Self;
    type Reference = Reference;

    fn init_test(_: &Reference) -> Self {
        let mut group = Group::new(3, Authority::Witness, crate::Limits::default());
        group.pass(SECOND);
        let stores = (1..=3).map(|n| {
            // As `Group::start` makes them: the witness is the first life.
            (
                ReplicaId(n),
                StoreId((u64::from(n) + 1) * 100 + u64::from(n)),
            )
        });
        Self {
            stores: stores.collect(),
            group,
            list: Vec::new(),
            shown: 0,
            unknown: BTreeSet::new(),
        }
    }

    fn apply(mut story: Self, _: &Reference, act: Act) -> Self {
        match act {
            Act::Write(at, n) => story.write(at, n),
            Act::Read(at) => drop(story.read(at)),
            Act::Crash(at) if story.is_held_elsewhere(at) => story.group.crash(at),
            Act::Crash(_) => {}
            Act::Start(at) => story.start(at),
            Act::Cut(from, to) => drop(story.group.cut.insert((from, to))),
            Act::Mend => story.group.cut.clear(),
            Act::Wait(time) => story.group.pass(time),
        }
        story
    }

    fn teardown(mut story: Self, _: Reference) {
        story.group.cut.clear();
        for n in 1..=3 {
            story.start(ReplicaId(n));
        }
        story.group.pass(SECOND * 10);
        let primary = story.group.primary();
        assert_eq!(story.group.in_sync(), 3, "{:?}", story.group.statuses());
        assert!(story.read(primary), "a healed group answers");
        story.group.pass(SECOND);
        for n in 1..=3 {
            let copy = story.group.read(ReplicaId(n), Read::Local);
            assert_eq!(copy.as_ref(), Some(&story.list), "the copy of n{n}");
        }
    }
}

impl Story {
    fn write(&mut self, at: ReplicaId, n: u64) {
        match self.group.write(at, n) {
            Some(Outcome::Done { .. }) => self.list.push(n),
            Some(Outcome::NotPrimary { .. } | Outcome::Busy) => {}
            Some(_) | None => drop(self.unknown.insert(n)),
        }
    }

    /// Whether it was answered; an answer must be what one copy would have said.
    fn read(&mut self, at: ReplicaId) -> bool {
        let Some(seen) = self.group.read(at, Read::Linearizable) else {
            return false;
        };
        // Writes of unknown outcome may have come anywhere behind what was shown before; the others keep their order.
        let mut rest = self.list.iter().copied().peekable();
        for (place, n) in seen.iter().enumerate() {
            if rest.peek() == Some(n) {
                rest.next();
            } else {
                assert!(
                    place >= self.shown,
                    "{n} came in before what was read: {seen:?}"
                );
                assert!(
                    self.unknown.remove(n),
                    "{n} was not to be done, or is there twice: {seen:?}"
                );
            }
        }
        assert_eq!(
            rest.next(),
            None,
            "lost or out of order: {:?} seen as {seen:?}",
            self.list
        );
        self.shown = seen.len();
        self.list = seen;
        true
    }

    fn start(&mut self, at: ReplicaId) {
        if !self.group.nodes[&at].up {
            self.group.start(at);
            let life = self.group.lives;
            let store = StoreId(life * 100 + u64::from(at.0));
            self.stores.insert(at, store);
            self.group.settle();
        }
    }

    /// Whether the register knows another member of the in-sync set that lives.
    fn is_held_elsewhere(&self, at: ReplicaId) -> bool {
        let witness = &self.group.nodes[&ReplicaId::WITNESS];
        let register = witness.engine.status().configuration;
        register.is_some_and(|known| {
            let lives = |(id, store): (&ReplicaId, &StoreId)| {
                *id != at && self.group.nodes[id].up && self.stores[id] == *store
            };
            known.in_sync.iter().any(lives)
        })
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 2_000, ..ProptestConfig::default() })]
    #[test]
    fn any_sequence_of_operations_is_explained_by_one_copy(sequential 1..40 => Story);
}
