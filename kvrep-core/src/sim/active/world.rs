//! Replicas, broker and clients under one virtual clock.

use super::super::ledger::{CommandId, Window};
use super::super::queue::Queue;
use super::super::report::Failure;
use super::super::trace::{Line, Trace, Watcher, shared};
use super::super::workload::Workload;
use super::Stats;
use super::broker::Broker;
use super::bug::Bug;
use super::cell::{Cell, Confirmed, Faults, Order};
use super::client::{Client, Wish};
use super::faults::Weather;
use super::happening::{Happening, Publisher};
use super::log::Log;
use crate::id::{GroupId, Index, ReplicaId};
use crate::protocol::active::{Active, Config, Item, Life, Mutation, Published, Timing};
use crate::random::Rng;
use crate::time::{Time, Timestamp};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

pub(super) struct Node {
    pub(super) id: ReplicaId,
    pub(super) active: Option<Active>,
    /// Counts its starts.
    pub(super) life: u32,
    /// Of its connection to the broker: what was on its way on an earlier one is gone.
    pub(super) epoch: u32,
    pub(super) paused: bool,
    /// Since when the broker delivers nothing to it.
    pub(super) deaf_since: Option<Time>,
    /// What came while it was stopped.
    pub(super) stalled: VecDeque<Happening>,
    pub(super) window: Arc<Window>,
    pub(super) tick: u64,
    pub(super) ticks_at: Time,
}

impl Node {
    pub(super) fn runs(&self) -> bool {
        self.active.is_some() && !self.paused
    }
}

/// Who has answered, and whom it took for alive.
pub(super) type Answerer = ((ReplicaId, Life), Vec<(ReplicaId, Life)>);

pub(super) struct World {
    pub(super) cell: Cell,
    pub(super) now: Time,
    queue: Queue<Happening>,
    pub(super) nodes: Vec<Node>,
    pub(super) broker: Broker,
    /// Keeps the order in the broker's place.
    pub(super) log: Option<Log>,
    pub(super) clients: Vec<Client>,
    pub(super) workload: Box<dyn Workload>,
    pub(super) group: Config,
    pub(super) name: GroupId,
    pub(super) weather: Weather,
    pub(super) mutation: Option<Mutation>,
    pub(super) rng: Rng,
    pub(super) trace: Trace,
    pub(super) stats: Stats,
    pub(super) failure: Option<Failure>,
    pub(super) over: bool,
    pub(super) heal_at: Time,
    pub(super) healed: bool,
    pub(super) quiet_since: Option<Time>,
    /// Chains by position, of replicas that serve: where the stream is whole they never differ.
    pub(super) chains: BTreeMap<Index, u64>,
    pub(super) acknowledged: Vec<CommandId>,
    pub(super) reported_lost: u64,
    /// Requests that replicas gave up.
    pub(super) expired: u64,
    /// How often a replica was told that it may have missed something.
    pub(super) gaps: u64,
    /// Somebody who runs was taken for failed.
    pub(super) accused: bool,
    /// What there was of that, and of suspicions, before the quiet time.
    pub(super) unrest_before: u64,
    /// When somebody served for the first time.
    pub(super) opened: Option<Time>,
    /// Who has answered which publication, in which join.
    pub(super) answered_by: BTreeMap<Bytes, Vec<Answerer>>,
}

impl World {
    pub(super) fn new(
        cell: Cell,
        seed: u64,
        (duration, operations): (Duration, u32),
        bug: Option<Bug>,
        workload: Box<dyn Workload>,
        every_line: Option<Watcher>,
    ) -> Self {
        let stream = |concern| Rng::of_concern(seed, concern);
        let mut rng = stream(1);
        // A decision without a majority needs three; two are worth a look where nothing lies.
        let least = if cell.lies() || cell.drops() { 3 } else { 2 };
        let members = least + usize::try_from(rng.below(4)).unwrap_or(0);
        let mut group = Config::new((0..members).map(|n| ReplicaId(n as u32)));
        group.confirmations = match cell.confirmed {
            Confirmed::ByOne => 1,
            Confirmed::ByMost => members / 2 + 1,
        };
        let heartbeat = Duration::from_millis(20 + rng.below(80));
        let suspect_after = heartbeat * (3 + u32::try_from(rng.below(5)).unwrap_or(0));
        group.timing = Timing {
            heartbeat_every: heartbeat,
            suspect_after,
            mark_every: Duration::from_millis(100 + rng.below(900)),
            mark_items: 10 + rng.below(1_000),
            resend_every: Duration::from_millis(60 + rng.below(200)),
            genesis_after: suspect_after * 4 + Duration::from_millis(500),
            keep_requests: suspect_after * 10 + Duration::from_secs(2),
        };
        group.piece_bytes = 64 + usize::try_from(rng.below(4_096)).unwrap_or(0);
        let nodes: Vec<_> = (0..members)
            .map(|n| Node {
                id: ReplicaId(n as u32),
                active: None,
                life: 0,
                epoch: 0,
                paused: false,
                deaf_since: None,
                stalled: VecDeque::new(),
                window: Arc::default(),
                tick: 0,
                ticks_at: Time::ZERO,
            })
            .collect();
        let clients = 1 + u32::try_from(rng.below(6)).unwrap_or(0);
        // (Through a log everything takes several times as long.)
        let operations = match cell.order {
            Order::Broker => operations,
            Order::Log => operations / 4,
        };
        let timeout = Duration::from_millis(150 + rng.below(700));
        let mean_pause = duration / (operations / clients).max(1);
        let clients: Vec<_> = (0..clients)
            .map(|id| {
                Client::new(
                    id,
                    operations / clients,
                    timeout,
                    mean_pause,
                    stream(1_000 + u64::from(id)),
                )
            })
            .collect();
        let mut broker = Broker::new(members + clients.len(), members, stream(2));
        if cell.lies() {
            broker.lies_one_in = 200 + rng.below(3_000);
        }
        let name = GroupId::named("simulated");
        let (every_line, log_lines) = shared(every_line);
        let log = (cell.order == Order::Log).then(|| {
            let counts = (members, clients.len());
            Log::new(
                cell,
                (seed, name),
                counts,
                duration,
                bug.and_then(Bug::in_stream),
                log_lines,
            )
        });
        if let Some(log) = &log {
            // Nobody is taken for dead because that is how long a log takes; in half of the runs not either because it was without a primary for a while.
            let longer = if rng.one_in(2) {
                log.silence()
            } else {
                log.latency()
            };
            group.timing.suspect_after += longer;
            group.timing.resend_every += log.latency();
            group.timing.genesis_after += longer * 2;
            group.timing.keep_requests += longer * 10;
        }
        Self {
            cell,
            now: Time::ZERO,
            queue: Queue::default(),
            nodes,
            broker,
            log,
            clients,
            workload,
            group,
            name,
            weather: Weather::new(stream(3), duration),
            mutation: bug.and_then(Bug::in_scheme),
            rng: stream(4),
            stats: Stats::default(),
            failure: None,
            over: false,
            heal_at: Time::ZERO + duration,
            healed: false,
            quiet_since: None,
            trace: Trace::new(members, 120, every_line),
            chains: BTreeMap::new(),
            acknowledged: Vec::new(),
            reported_lost: 0,
            expired: 0,
            gaps: 0,
            accused: false,
            unrest_before: 0,
            opened: None,
            answered_by: BTreeMap::new(),
        }
    }

    pub(super) fn run(&mut self) {
        let text = format!(
            "{}: {} replicas, {} clients, {:?}, confirmations {}",
            self.cell,
            self.nodes.len(),
            self.clients.len(),
            self.group.timing,
            self.group.confirmations
        );
        self.say(text);
        match &self.log {
            Some(log) => self.say(log.describe()),
            None => {
                for node in 0..self.nodes.len() {
                    let after = Duration::from_millis(self.rng.below(300));
                    self.schedule(after, Happening::Start { node });
                }
            }
        }
        for client in 0..self.clients.len() {
            let mut wishes = Vec::new();
            self.clients[client].pause(&mut wishes);
            self.grant(client, wishes);
        }
        let first = self.weather.next_after();
        self.schedule(first, Happening::Fault);
        let after = self.heal_at - Time::ZERO;
        self.schedule(after, Happening::Heal);
        while self.failure.is_none() && !self.over && self.step() {}
    }

    /// The next thing happens, here or in the log.
    fn step(&mut self) -> bool {
        let log_at = self.log.as_ref().and_then(Log::next_at);
        if let Some(at) = log_at
            && self.queue.next_at().is_none_or(|here| at < here)
        {
            self.now = at;
            self.step_log();
            return true;
        }
        let Some((at, what)) = self.queue.pop() else {
            return false;
        };
        self.now = at;
        if let Some(log) = &mut self.log {
            log.is_now(at);
        }
        self.happen(what);
        self.attend_log();
        true
    }

    pub(super) fn stats(&self) -> Stats {
        Stats {
            answered: self.clients.iter().map(|client| client.answered).sum(),
            given_up: self.clients.iter().map(|client| client.given_up).sum(),
            undecided: self.workload.undecided(),
            faults: self.weather.faults,
            events: self.trace.events(),
            ..self.stats
        }
    }

    pub(super) fn fail(&mut self, rule: impl Into<String>, detail: impl Into<String>) {
        let at = self.now;
        self.failure.get_or_insert_with(|| Failure {
            at,
            rule: rule.into(),
            detail: detail.into(),
        });
    }

    pub(super) fn say(&mut self, text: String) {
        self.trace.line(self.now, Line::World(text.into()));
    }

    pub(super) fn say_of(&mut self, n: usize, text: String) {
        let node = self.nodes[n].id;
        let text = text.into();
        self.trace.line(self.now, Line::Node { node, text });
    }

    pub(super) fn schedule(&mut self, after: Duration, what: Happening) {
        self.schedule_at(self.now + after, what);
    }

    pub(super) fn schedule_at(&mut self, at: Time, what: Happening) {
        self.queue.push(at, what);
    }

    pub(super) fn wall(&self) -> Timestamp {
        Timestamp(self.now.as_nanos() / 1_000)
    }

    pub(super) fn count(&mut self, kind: u64, word: u64) {
        self.trace.event(self.now, kind, [word, 0, 0]);
    }

    pub(super) fn happen(&mut self, what: Happening) {
        match what {
            Happening::Arrive { publisher, bytes } => {
                self.count(1, bytes.len() as u64);
                self.on_arrive(publisher, &bytes);
            }
            Happening::Deliver {
                node,
                life,
                epoch,
                bytes,
            } => {
                self.count(2, node as u64);
                let of = &self.nodes[node];
                if of.life != life || of.epoch != epoch || of.deaf_since.is_some() {
                    return;
                }
                if self.nodes[node].paused {
                    let full = self.cell.drops()
                        && !self.healed
                        && self.nodes[node].stalled.len() >= STALLED_MAX;
                    if full {
                        self.drop_for(node, &bytes);
                    } else {
                        let again = Happening::Deliver {
                            node,
                            life,
                            epoch,
                            bytes,
                        };
                        self.nodes[node].stalled.push_back(again);
                    }
                    return;
                }
                let published = Published::decode(self.name, &bytes);
                let hash = xxhash_rust::xxh3::xxh3_64(&bytes);
                self.drive(node, |active, now, wall, out| {
                    active.on_delivered(now, wall, published, hash, out);
                });
            }
            Happening::Message {
                node,
                life,
                message,
            } => {
                self.count(3, node as u64);
                if self.nodes[node].life != life || self.nodes[node].deaf_since.is_some() {
                    return;
                }
                if self.nodes[node].paused {
                    let again = Happening::Message {
                        node,
                        life,
                        message,
                    };
                    self.nodes[node].stalled.push_back(again);
                    return;
                }
                self.drive(node, |active, now, wall, out| {
                    active.on_message(now, wall, *message, out);
                });
            }
            Happening::Answer {
                node,
                life,
                number,
                reply_to,
                outcome,
            } => {
                self.count(4, node as u64);
                let dead = self.nodes[node].life != life || self.nodes[node].active.is_none();
                if dead && self.rng.one_in(2) {
                    return;
                }
                self.on_answer(&reply_to, *outcome);
                let after = self.broker.delay();
                self.schedule(after, Happening::Answered { node, life, number });
            }
            Happening::Found { reply_to, outcome } => {
                self.count(10, reply_to.len() as u64);
                self.on_answer(&reply_to, *outcome);
            }
            Happening::Answered { node, life, number } => {
                self.count(5, node as u64);
                if self.nodes[node].life != life {
                    return;
                }
                if self.nodes[node].paused {
                    self.nodes[node]
                        .stalled
                        .push_back(Happening::Answered { node, life, number });
                    return;
                }
                self.drive(node, |active, _, _, out| active.on_answered(number, out));
            }
            Happening::Tick { node, life, number } => {
                self.count(6, node as u64);
                let of = &self.nodes[node];
                if of.life == life && of.tick == number && !of.paused {
                    self.drive(node, |active, now, wall, out| {
                        active.on_tick(now, wall, out);
                    });
                }
            }
            Happening::Reset { node, life } => {
                self.count(7, node as u64);
                if self.nodes[node].life != life {
                    return;
                }
                if self.nodes[node].paused {
                    self.nodes[node]
                        .stalled
                        .push_back(Happening::Reset { node, life });
                    return;
                }
                self.drive(node, |active, now, wall, out| {
                    active.on_stream_reset(now, wall, out);
                });
            }
            Happening::Client { client, timer } => {
                self.count(8, client as u64);
                let mut wishes = Vec::new();
                let Self {
                    clients,
                    workload,
                    now,
                    ..
                } = self;
                clients[client].on_timer(*now, timer, workload.as_mut(), &mut wishes);
                self.grant(client, wishes);
            }
            Happening::Fault => self.on_fault(),
            Happening::Start { node } => self.start(node),
            Happening::Resume { node } => self.resume(node),
            Happening::Return { node } => self.return_with_nothing(node),
            Happening::Heal => self.heal(),
            Happening::Look => self.look(),
        }
    }

    pub(super) fn grant(&mut self, client: usize, wishes: Vec<Wish>) {
        for wish in wishes {
            match wish {
                Wish::Wake { after, timer } => {
                    self.schedule(after, Happening::Client { client, timer });
                }
                Wish::Publish(published) if self.log.is_some() => {
                    if let (Some(log), Item::Request(request)) = (&mut self.log, &published.item) {
                        log.call(client, &request.reply_to, &published);
                    }
                }
                Wish::Publish(published) => {
                    let bytes = published.encode(self.name);
                    let at = self.broker.arrival(self.now, self.nodes.len() + client);
                    let publisher = Publisher::Client(client);
                    self.schedule_at(at, Happening::Arrive { publisher, bytes });
                }
            }
        }
    }
}

/// What the broker keeps for a stopped subscriber where it drops the rest.
const STALLED_MAX: usize = 6;

impl World {
    pub(super) fn is_extinguishing(&self) -> bool {
        self.cell.faults == Faults::Extinction
    }
}
