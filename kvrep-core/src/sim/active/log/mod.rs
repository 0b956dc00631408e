//! The stream, as the passive scheme's log keeps it: a simulated group of that scheme, with disks, links and clients of its own, one node of it in every
//! member's process. Both live and die together.

mod faults;
mod hearing;
mod news;
mod writers;

pub(super) use news::News;

use super::super::disturbance::Disturbances;
use super::super::plan::Plan;
use super::super::report::Failure;
use super::super::trace::Watcher;
use super::super::world::{Length, World};
use super::cell::{Cell, Faults};
use super::client::{client_of, publication_of};
use crate::client_wire::Outcome;
use crate::id::GroupId;
use crate::protocol::active::{AnswerNumber, Message, Published};
use crate::random::Rng;
use crate::state_machine::encode;
use crate::stream::log::{CallId, Ear, Mutation, Put, Record};
use crate::time::Time;
use crate::transport::Destination;
use bytes::Bytes;
use hearing::Hearing;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;
use writers::{Writers, Writing};

struct Member {
    /// The life of its node of which the others here are.
    life: u32,
    paused: bool,
    ear: Option<Ear>,
    writer: u32,
    /// The number of its state machine of the log.
    machine: u64,
    /// How many more commands it misses, for its queue is full.
    misses: u64,
    /// Answers that stand in the log, of which it hears when it goes on.
    given: VecDeque<AnswerNumber>,
    /// When its opening is put into the log again, unless it is heard.
    opens_again: Time,
}

pub(super) struct Log {
    world: World,
    group: GroupId,
    writers: Rc<RefCell<Writers>>,
    hearing: Hearing,
    members: Vec<Member>,
    callers: Vec<u32>,
    /// Where clients want which of their publications answered, and those.
    calls: BTreeMap<CallId, (Bytes, Bytes)>,
    /// Commands whose answers are on their way.
    seen: BTreeSet<(u64, u64)>,
    starts: u64,
    mutation: Option<Mutation>,
    faults: Faults,
}

impl Log {
    pub(super) fn new(
        cell: Cell,
        (seed, group): (u64, GroupId),
        (members, callers): (usize, usize),
        length: Duration,
        mutation: Option<Mutation>,
        watcher: Option<Watcher>,
    ) -> Self {
        let mut rng = Rng::new(Rng::new(seed ^ 0x10_6001).next());
        let under = faults::under(cell, &mut rng);
        let mut plan = Plan::draw(under, &mut rng);
        plan.resize(members);
        plan.clients = 0;
        let limits = &mut plan.group.limits;
        // The largest record fits; and no session of a writer's goes, but by chance.
        (limits.command_bytes_max, limits.frame_bytes_max) = (16 << 10, 40 << 10);
        limits.sessions_max = 1_000;
        // Each writer has one command on its way.
        limits.uncommitted_entries_max = limits.uncommitted_entries_max.max(WRITERS);
        let (writers, hearing) = (
            Rc::new(RefCell::new(Writers::new(mutation))),
            Hearing::default(),
        );
        let writing = Writing {
            writers: Rc::clone(&writers),
            hearing: hearing.clone(),
        };
        let length = Length {
            duration: length,
            operations: 0,
        };
        let rest = (None, Disturbances::None, watcher);
        let seed = rng.next();
        let mut world = World::planned(
            (under, seed),
            length,
            None,
            plan,
            |_| Box::new(writing),
            Vec::new(),
            rest,
        );
        world.begin();
        let callers = (0..callers).map(|_| world.admit()).collect::<Vec<_>>();
        for caller in &callers {
            writers.borrow_mut().open(*caller);
        }
        let member = |_| Member {
            life: 0,
            paused: false,
            ear: None,
            writer: 0,
            machine: 0,
            misses: 0,
            given: VecDeque::new(),
            opens_again: Time::ZERO,
        };
        Self {
            world,
            group,
            writers,
            hearing,
            members: (0..members).map(member).collect(),
            callers,
            calls: BTreeMap::new(),
            seen: BTreeSet::new(),
            starts: 0,
            mutation,
            faults: cell.faults,
        }
    }

    pub(super) fn describe(&self) -> String {
        format!("the log: {}", self.world.cell)
    }

    /// When something happens there.
    pub(super) fn next_at(&self) -> Option<Time> {
        self.world.queue.next_at()
    }

    pub(super) fn step(&mut self) {
        self.world.step();
    }

    /// Nothing happens there before this time any more.
    pub(super) fn is_now(&mut self, now: Time) {
        self.world.now = now;
    }

    pub(super) fn hash(&self) -> u64 {
        self.world.trace.hash()
    }

    pub(super) fn failure(&mut self) -> Option<Failure> {
        self.world.failure.take()
    }

    /// How long a writer may wait while all is well, but for a lost message now and then.
    pub(super) fn latency(&self) -> Duration {
        let Plan {
            links, disk, group, ..
        } = &self.world.plan;
        let message = links.delay_min + links.delay_spread + links.spike;
        let write = disk.write + disk.sync + disk.snapshot;
        // Two commands: one that is on its way, and the next.
        (message * 4 + write * 3 + group.timing.resend_every * 2) * 2
    }

    /// How long the log may be without a primary, and a writer without an answer.
    pub(super) fn silence(&self) -> Duration {
        let Plan {
            group,
            client_timeout,
            ..
        } = &self.world.plan;
        self.latency() + group.timing.suspect_after * 2 + *client_timeout * 2
    }

    pub(super) fn publish(&mut self, n: usize, published: &Published) {
        self.put(n, Record::Item(published.encode(self.group)), None);
    }

    pub(super) fn send(&mut self, n: usize, to: Destination, message: &Message) {
        if let Some(ear) = &self.members[n].ear {
            let record = Record::said(ear.me(), to, message);
            self.put(n, record, None);
        }
    }

    pub(super) fn answer(
        &mut self,
        n: usize,
        number: AnswerNumber,
        reply_to: &[u8],
        outcome: &Outcome,
    ) {
        let outcome = encode(outcome);
        let call = call_of(reply_to);
        self.put(n, Record::Answer { call, outcome }, Some(number));
    }

    pub(super) fn put(&mut self, n: usize, record: Record, answer: Option<AnswerNumber>) {
        let writer = self.members[n].writer;
        self.writers
            .borrow_mut()
            .put(writer, Put { record, answer });
        self.ask();
    }

    /// A client wants this done.
    pub(super) fn call(&mut self, client: usize, reply_to: &Bytes, published: &Published) {
        let item = published.encode(self.group);
        let call = (reply_to.clone(), item.clone());
        self.calls.insert(call_of(reply_to), call);
        let put = Put {
            record: Record::Item(item),
            answer: None,
        };
        self.writers.borrow_mut().put(self.callers[client], put);
        self.ask();
    }

    /// Whether what is to be answered there may stand in the log more than once.
    pub(super) fn may_repeat(&self, reply_to: &[u8]) -> bool {
        let item = self.calls.get(&call_of(reply_to)).map(|(_, item)| item);
        item.is_some_and(|item| self.writers.borrow().may_repeat(item))
    }

    pub(super) fn ask(&mut self) {
        for writer in self.writers.borrow_mut().ask() {
            self.world.want(writer);
        }
    }

    /// Whether a node of the log has said that what was put into it is gone.
    pub(super) fn reports_losses(&self) -> bool {
        !self.world.reported_lost.is_empty()
    }

    pub(super) fn statuses(&self) -> String {
        self.world.statuses()
    }
}

/// Members and clients, at most.
const WRITERS: usize = 16;

fn call_of(reply_to: &[u8]) -> CallId {
    CallId {
        client: client_of(reply_to) as u64,
        number: publication_of(reply_to),
    }
}
