//! The stream, as the passive scheme's log keeps it: a simulated group of that scheme, with disks, links and clients of its own, one node of it in every
//! member's process. Both live and die together.

mod hearing;
mod writers;

use super::super::cell::{AuthorityKind, Cell as LogCell, Medium};
use super::super::disk::Death;
use super::super::disturbance::Disturbances;
use super::super::faults::Kind;
use super::super::plan::Plan;
use super::super::report::Failure;
use super::super::trace::Watcher;
use super::super::world::{Length, World};
use super::cell::{Cell, Faults};
use super::client::{client_of, publication_of};
use crate::client_wire::Outcome;
use crate::id::{GroupId, Incarnation, ReplicaId};
use crate::protocol::active::{AnswerNumber, Message, Published};
use crate::random::Rng;
use crate::state_machine::{decode, encode};
use crate::stream::log::{CallId, Ear, Mutation, Put, Record};
use crate::stream::{StreamEvent, StreamMember};
use crate::time::Time;
use crate::transport::Destination;
use bytes::Bytes;
use hearing::{Hearing, What};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;
use writers::{Writers, Writing};
use xxhash_rust::xxh3::xxh3_64;

/// What the log's group tells of itself.
#[derive(Debug)]
pub(super) enum News {
    /// A member's process is there; it hears nothing yet.
    Started(usize),
    /// It is gone.
    Ended(usize),
    Stopped(usize),
    WentOn(usize),
    /// Its stream tells a member this.
    Heard(usize, StreamEvent),
    /// A client is answered.
    Answer {
        reply_to: Bytes,
        outcome: Outcome,
    },
}

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
        let under = under(cell, &mut rng);
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

    // ---- what members and clients say ----

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

    fn put(&mut self, n: usize, record: Record, answer: Option<AnswerNumber>) {
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

    fn ask(&mut self) {
        for writer in self.writers.borrow_mut().ask() {
            self.world.want(writer);
        }
    }

    // ---- what becomes of it ----

    /// What is new since the last time, in an order in which it may have happened.
    pub(super) fn news(&mut self) -> Vec<News> {
        let mut news = Vec::new();
        for n in 0..self.members.len() {
            self.look_at(n, &mut news);
        }
        for (machine, what) in self.hearing.take() {
            if let What::Command(at, command) = &what {
                self.answers(at.0, command, &mut news);
            }
            if let Some(n) = (self.members.iter()).position(|member| member.machine == machine) {
                self.hear(n, &what);
            }
        }
        for (writer, number) in self.writers.borrow_mut().given() {
            let mut members = self.members.iter_mut();
            if let Some(member) = members.find(|member| member.writer == writer) {
                member.given.push_back(number);
            }
        }
        for (n, member) in self.members.iter_mut().enumerate() {
            let Some(ear) = member.ear.as_mut().filter(|_| !member.paused) else {
                continue;
            };
            for number in member.given.drain(..) {
                ear.tell(StreamEvent::Answered(number));
            }
            news.extend(std::iter::from_fn(|| ear.next()).map(|event| News::Heard(n, event)));
        }
        self.ask();
        news
    }

    /// A node may have died, and started, and stopped.
    fn look_at(&mut self, n: usize, news: &mut Vec<News>) {
        let node = &self.world.nodes[n];
        let (up, life, paused) = (node.is_up(), node.life, node.paused);
        let member = &mut self.members[n];
        if member.ear.is_some() && (!up || member.life != life) {
            member.ear = None;
            member.paused = false;
            member.given.clear();
            self.writers.borrow_mut().close(member.writer);
            self.world.clients[member.writer as usize].silence();
            news.push(News::Ended(n));
        }
        if up && self.members[n].ear.is_none() {
            self.open(n, life);
            news.push(News::Started(n));
        }
        let now = self.world.now;
        let member = &mut self.members[n];
        if let Some(ear) = member.ear.as_ref().filter(|ear| !ear.is_open())
            && !paused
            && member.opens_again <= now
        {
            member.opens_again = now + OPEN_AGAIN_AFTER;
            let opening = ear.opening();
            self.put(n, opening, None);
        }
        let member = &mut self.members[n];
        if up && member.paused != paused {
            member.paused = paused;
            news.push(if paused {
                News::Stopped(n)
            } else {
                News::WentOn(n)
            });
        }
    }

    fn open(&mut self, n: usize, life: u32) {
        let writer = self.world.admit();
        self.writers.borrow_mut().open(writer);
        self.starts += 1;
        let me = StreamMember {
            group: self.group,
            replica: ReplicaId(n as u32),
            incarnation: Incarnation(u64::from(life)),
            members: (0..self.members.len() as u32).map(ReplicaId).collect(),
            config_hash: 0,
            request_bytes_max: usize::MAX,
            state_bytes_max: usize::MAX,
        };
        let ear = Ear::new(me, self.starts);
        let opening = ear.opening();
        let member = &mut self.members[n];
        (member.life, member.ear, member.writer) = (life, Some(ear), writer);
        (member.machine, member.misses) = (self.hearing.last_machine(), 0);
        member.opens_again = self.world.now + OPEN_AGAIN_AFTER;
        self.put(n, opening, None);
    }

    fn hear(&mut self, n: usize, what: &What) {
        let member = &mut self.members[n];
        let Some(ear) = &mut member.ear else {
            return;
        };
        let skips = match what {
            What::Command(..) if member.misses > 0 => {
                member.misses -= 1;
                member.misses == 0
            }
            What::Command(_, command) => {
                ear.hear(decode::<Vec<Record>>(command).expect("a writer's own records"));
                false
            }
            What::Replaced => true,
        };
        if skips
            && self.mutation != Some(Mutation::GapUnsaid)
            && let Some(opening) = ear.skip()
        {
            self.put(n, opening, None);
        }
    }

    /// Clients find their answers as soon as one node has them.
    fn answers(&mut self, at: u64, command: &Bytes, news: &mut Vec<News>) {
        if !self.seen.insert((at, xxh3_64(command))) {
            return;
        }
        let records = decode::<Vec<Record>>(command).expect("a writer's own records");
        for record in records {
            if let Record::Answer { call, outcome } = record
                && let Some((reply_to, _)) = self.calls.get(&call)
            {
                let outcome = decode(&outcome).expect("an answer");
                let reply_to = reply_to.clone();
                news.push(News::Answer { reply_to, outcome });
            }
        }
    }

    // ---- what goes wrong ----

    /// Whether this member may die, and everything promised still hold: somebody else has the whole log (where that matters).
    pub(super) fn spares(&self, n: usize, others: impl Fn(usize) -> bool) -> bool {
        let Some(newest) = &self.world.newest else {
            return false;
        };
        let mut holders = self.world.holders(newest);
        self.world.may_kill(n) && holders.any(|other| other != n && others(other))
    }

    pub(super) fn may_kill(&self, n: usize) -> bool {
        self.world.may_kill(n)
    }

    /// A member's process dies, and starts again after this time.
    pub(super) fn kill(&mut self, n: usize, after: Duration) {
        let how = match self.world.cell.medium {
            Medium::Wal => self.world.death(),
            Medium::Memory => Death::Killed,
        };
        self.world.kill_for(n, how, after);
    }

    pub(super) fn pause(&mut self, n: usize, length: Duration) {
        self.world.pause(n, length);
    }

    /// A member does not keep up: of what comes next it misses so many commands.
    pub(super) fn lag(&mut self, n: usize, commands: u64) {
        self.members[n].misses += commands;
    }

    /// Something happens to the log's group by itself.
    pub(super) fn disturb(&mut self, rng: &mut Rng) {
        let mut menu = vec![Kind::ClockJump, Kind::Handover];
        if self.world.cell.medium == Medium::Wal {
            menu.push(Kind::DiskSlow);
        }
        if self.world.plan.witness {
            menu.push(Kind::CrashWitness);
        }
        if matches!(self.faults, Faults::Partitions | Faults::Divided) {
            menu.extend([
                Kind::Split,
                Kind::Split,
                Kind::CutPrimary,
                Kind::OneWay,
                Kind::Flap,
                Kind::CutAll,
                Kind::Storm,
            ]);
            if self.world.plan.witness {
                menu.push(Kind::CutWitness);
            }
        }
        let pick = rng.below(menu.len() as u64);
        let kind = menu[usize::try_from(pick).unwrap_or(0)];
        self.world.say(format!("{kind:?}"));
        self.world.cause(kind);
    }

    pub(super) fn heal(&mut self) {
        self.world.healed = true;
        self.world.requests_get_lost = false;
        self.world.end_faults();
        for node in 0..self.world.nodes.len() {
            self.world.resume(node);
        }
        self.world.start_all();
        for member in &mut self.members {
            member.misses = member.misses.min(1);
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
const OPEN_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// What is under this cell: a log that keeps its promise, if the cell's is everything.
fn under(cell: Cell, rng: &mut Rng) -> LogCell {
    use super::super::cell::Faults as LogFaults;
    let (witness, alone) = (AuthorityKind::Witness, AuthorityKind::Alone);
    let (wal, memory) = (Medium::Wal, Medium::Memory);
    let (authority, medium, faults) = match cell.faults {
        Faults::Crashes => (
            [witness, alone][rng.below(2) as usize],
            [wal, memory][rng.below(2) as usize],
            LogFaults::Crashes,
        ),
        Faults::Extinction => (
            [witness, alone][rng.below(2) as usize],
            wal,
            LogFaults::Crashes,
        ),
        Faults::Divided => (alone, wal, LogFaults::Partitions),
        Faults::Partitions => (
            witness,
            [wal, memory][rng.below(2) as usize],
            LogFaults::Partitions,
        ),
        Faults::Pauses | Faults::SlowSubscriber | Faults::Broker | Faults::All => (
            witness,
            [wal, memory][rng.below(2) as usize],
            LogFaults::Pauses,
        ),
    };
    let mut standard = LogCell::STANDARD.into_iter();
    let is_it = |of: &LogCell| (of.authority, of.medium, of.faults) == (authority, medium, faults);
    standard.find(is_it).expect("a cell of the table")
}

fn call_of(reply_to: &[u8]) -> CallId {
    CallId {
        client: client_of(reply_to) as u64,
        number: publication_of(reply_to),
    }
}
