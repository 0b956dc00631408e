//! The world: nodes, links, disks, clients and faults under one virtual clock.
//!
//! One loop takes the first event off the queue, carries it out, and looks at everything that it changed. Nothing else
//! drives anything, so a run is a function of its seed.

use super::cell::Cell;
use super::client::{Client, Histories, Manners, Wish};
use super::disk::Disk;
use super::disturbance::Disturbances;
use super::faults::Weather;
use super::invariants::{self, Agreed, Invariant, Life};
use super::ledger::{CommandId, Ledger};
use super::members::Wanted;
use super::network::Network;
use super::node::Node;
use super::plan::Plan;
use super::queue::{Happening, Queue};
use super::report::{Failure, Stats};
use super::script::Script;
use super::trace::{Line, Trace, Watcher};
use super::workload::Workload;
use crate::config::Token;
use crate::engine::Engine;
use crate::id::{Configuration, GroupId, Index, PersistToken, ReplicaId, Term};
use crate::protocol::passive::Mutation;
use crate::random::Rng;
use crate::storage::StorageError;
use crate::time::Time;
use crate::transport::Hint;
use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// How long a run is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Length {
    pub(super) duration: Duration,
    pub(super) operations: u32,
}

pub(super) struct World {
    pub(super) cell: Cell,
    pub(super) plan: Plan,
    pub(super) mutation: Option<Mutation>,
    pub(super) now: Time,
    pub(super) queue: Queue<Happening>,
    pub(super) nodes: Vec<Node>,
    pub(super) network: Network,
    pub(super) clients: Vec<Client>,
    pub(super) workload: Box<dyn Workload>,
    pub(super) weather: Weather,
    pub(super) trace: Trace,
    pub(super) stats: Stats,
    pub(super) failure: Option<Failure>,
    pub(super) over: bool,
    pub(super) heal_at: Time,
    pub(super) healed: bool,
    /// Now and then, between a client and a node.
    pub(super) requests_get_lost: bool,
    pub(super) script: Option<Script>,
    pub(super) disturbances: Disturbances,
    /// Whose state was disturbed, until it throws that away.
    pub(super) disturbed: Option<usize>,
    pub(super) group: GroupId,
    pub(super) rng: Rng,
    pub(super) rules: Vec<Box<dyn Invariant>>,
    pub(super) agreed: Agreed,
    /// Every acknowledged command, with where it was.
    pub(super) acknowledged: Vec<(CommandId, Token)>,
    /// Ranges of entries that were reported as truncated or lost.
    pub(super) reported_lost: Vec<(Index, Index)>,
    /// Who took office, in which term, with which first entry.
    pub(super) reigns: Vec<(Term, Index)>,
    /// The newest configuration known to count, and since when.
    pub(super) newest: Option<Configuration>,
    pub(super) newest_since: Time,
    /// What the witness's register holds durably, and what is on its way there.
    pub(super) register: Option<Configuration>,
    pub(super) register_coming: VecDeque<(PersistToken, Option<Configuration>)>,
    pub(super) wishes: Vec<Wish>,
    pub(super) wanted: Wanted,
}

impl World {
    pub(super) fn new(
        (cell, seed): (Cell, u64),
        length: Length,
        mutation: Option<Mutation>,
        make_workload: impl FnOnce(&Plan) -> Box<dyn Workload>,
        own_rules: Vec<Box<dyn Invariant>>,
        (script, disturbances, every_line): (Option<Script>, Disturbances, Option<Watcher>),
    ) -> Self {
        let mut plan = Plan::draw(cell, &mut Rng::of_concern(seed, 1));
        if let Some(script) = &script {
            plan.resize(script.members);
        }
        if disturbances == Disturbances::NowAndThen {
            plan.resize(plan.members.max(3));
        }
        let rest = (script, disturbances, every_line);
        Self::planned(
            (cell, seed),
            length,
            mutation,
            plan,
            make_workload,
            own_rules,
            rest,
        )
    }

    /// The same for a plan that was made elsewhere.
    pub(super) fn planned(
        (cell, seed): (Cell, u64),
        length: Length,
        mutation: Option<Mutation>,
        plan: Plan,
        make_workload: impl FnOnce(&Plan) -> Box<dyn Workload>,
        own_rules: Vec<Box<dyn Invariant>>,
        (script, disturbances, every_line): (Option<Script>, Disturbances, Option<Watcher>),
    ) -> Self {
        let duration = script.as_ref().map_or(length.duration, Script::duration);
        let stream = |concern| Rng::of_concern(seed, concern);
        let group = GroupId::named("simulated");
        let count = plan.members + usize::from(plan.witness);
        let nodes = (0..count)
            .map(|n| {
                let id = node_id(n, plan.members);
                let medium = if n < plan.members {
                    cell.medium
                } else {
                    super::cell::Medium::Wal
                };
                let mut node = Node::new(id, Disk::new(medium, group, id, stream(100 + n as u64)));
                node.absent = n < plan.members && !plan.group.members.contains(&id);
                node
            })
            .collect();
        let heal_at = Time::ZERO + duration;
        let manners = manners(cell, &plan, Some(heal_at));
        let clients = (0..plan.clients)
            .map(|id| {
                let share = length.operations / plan.clients
                    + u32::from(id < length.operations % plan.clients);
                Client::new(id, share, manners, stream(1_000 + u64::from(id)))
            })
            .collect();
        let mut rules = invariants::always();
        if !cell.loses() {
            rules.extend(match disturbances {
                Disturbances::None => invariants::promised(),
                Disturbances::NowAndThen => invariants::promised_under_repair(),
            });
        }
        if let Some(home) = plan.home {
            rules.push(invariants::only_home_serves(home));
        }
        rules.extend(own_rules);
        Self {
            cell,
            mutation,
            now: Time::ZERO,
            queue: Queue::default(),
            nodes,
            network: Network::new(count, plan.links, stream(2)),
            clients,
            workload: make_workload(&plan),
            weather: Weather::new(stream(3)),
            trace: Trace::new(plan.members, 120, every_line),
            stats: Stats::default(),
            failure: None,
            over: false,
            heal_at,
            healed: false,
            requests_get_lost: true,
            script,
            disturbances,
            disturbed: None,
            group,
            rng: stream(4),
            rules,
            agreed: Agreed::default(),
            acknowledged: Vec::new(),
            reported_lost: Vec::new(),
            reigns: Vec::new(),
            newest: None,
            newest_since: Time::ZERO,
            register: None,
            register_coming: VecDeque::new(),
            wishes: Vec::new(),
            wanted: Wanted::default(),
            plan,
        }
    }

    /// Runs to the end, or to the first broken rule.
    pub(super) fn run(&mut self) {
        self.begin();
        self.schedule_fault();
        self.queue.push(self.now, Happening::Script { step: 0 });
        self.queue.push(self.heal_at, Happening::Heal);
        while self.failure.is_none() && !self.over && self.step() {}
    }

    /// Everybody starts.
    pub(super) fn begin(&mut self) {
        self.describe_plan();
        for node in 0..self.nodes.len() {
            if self.nodes[node].absent {
                continue;
            }
            self.nodes[node].starting = true;
            let after = Duration::from_millis(self.rng.below(50));
            self.queue.push(self.now + after, Happening::Start { node });
        }
        for client in 0..self.clients.len() {
            self.clients[client].start(&mut self.wishes);
            self.grant(client as u32);
        }
    }

    /// The next thing happens, if there is one.
    pub(super) fn step(&mut self) -> bool {
        let Some((at, what)) = self.queue.pop() else {
            return false;
        };
        self.now = at;
        self.happen(what);
        true
    }

    /// One more client, which does something whenever it is [wanted](Self::want). Returns its number.
    pub(super) fn admit(&mut self) -> u32 {
        let id = u32::try_from(self.clients.len()).unwrap_or(u32::MAX);
        let rng = Rng::new(self.rng.next());
        let manners = manners(self.cell, &self.plan, None);
        self.clients.push(Client::new(id, 0, manners, rng));
        id
    }

    /// This client shall do one more operation, now.
    pub(super) fn want(&mut self, client: u32) {
        self.clients[client as usize].want(&mut self.wishes);
        self.grant(client);
    }

    /// The numbers of the run so far.
    pub(super) fn stats(&self) -> Stats {
        Stats {
            events: self.trace.events(),
            millis: self.now.as_nanos() / 1_000_000,
            entries: self.agreed.end().0,
            given_up: self.clients.iter().map(Client::given_up).sum(),
            undecided: self.workload.undecided(),
            ..self.stats
        }
    }

    /// A rule is broken.
    pub(super) fn fail(&mut self, rule: impl Into<String>, detail: impl Into<String>) {
        let at = self.now;
        self.failure.get_or_insert_with(|| Failure {
            at,
            rule: rule.into(),
            detail: detail.into(),
        });
    }

    pub(super) fn happen(&mut self, what: Happening) {
        self.count(&what);
        match what {
            Happening::Frame { from, to, frame } => self.on_frame(from, to, frame),
            Happening::Hint { to, about, hint } => self.on_hint(to, about, hint),
            Happening::Tick { node, life } => self.on_tick(node, life),
            Happening::Disk { node, life, step } => self.on_disk(node, life, step),
            Happening::Snapshot { node, life } => self.on_snapshot(node, life),
            Happening::Request {
                client,
                node,
                attempt,
                op,
            } => self.on_request(client, node, attempt, op),
            Happening::Reply {
                client,
                node,
                attempt,
                outcome,
            } => self.on_reply(client, node, attempt, *outcome),
            Happening::Client {
                client,
                timer,
                verb,
            } => {
                let Self {
                    clients,
                    workload,
                    wishes,
                    now,
                    ..
                } = self;
                clients[client as usize].on_timer(*now, (timer, verb), workload.as_mut(), wishes);
                self.grant(client);
            }
            Happening::Fault => self.on_fault(),
            Happening::FaultEnds { fault } => self.on_fault_ends(fault),
            Happening::Script { step } => self.on_script(step),
            Happening::Start { node } => self.start(node),
            Happening::Resume { node } => self.resume(node),
            Happening::Heal => self.heal(),
            Happening::Look => self.look(),
        }
    }

    /// Counts an event into the trace's hash.
    fn count(&mut self, what: &Happening) {
        let n = |x: usize| x as u64;
        let (kind, words) = match what {
            Happening::Frame { from, to, frame } => {
                let crc = frame.get(12..16).map_or(0, |b| {
                    u64::from(u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
                });
                (1, [n(*from), n(*to), crc << 32 | frame.len() as u64])
            }
            Happening::Hint { to, about, hint } => {
                (2, [n(*to), n(*about), u64::from(*hint == Hint::Gone)])
            }
            Happening::Tick { node, life } => (3, [n(*node), u64::from(*life), 0]),
            Happening::Disk { node, life, step } => (4, [n(*node), u64::from(*life), *step as u64]),
            Happening::Snapshot { node, life } => (5, [n(*node), u64::from(*life), 0]),
            Happening::Request {
                client,
                node,
                attempt,
                ..
            } => (6, [u64::from(*client), n(*node), *attempt]),
            Happening::Reply {
                client,
                node,
                attempt,
                ..
            } => (7, [u64::from(*client), n(*node), *attempt]),
            Happening::Client {
                client,
                timer,
                verb,
            } => (8, [u64::from(*client), *timer, *verb as u64]),
            Happening::Fault => (9, [0; 3]),
            Happening::FaultEnds { fault } => (10, [n(*fault), 0, 0]),
            Happening::Start { node } => (11, [n(*node), 0, 0]),
            Happening::Resume { node } => (12, [n(*node), 0, 0]),
            Happening::Heal => (13, [0; 3]),
            Happening::Look => (14, [0; 3]),
            Happening::Script { step } => (15, [n(*step), 0, 0]),
        };
        self.trace.event(self.now, kind, words);
    }

    pub(super) fn note(&mut self, node: usize, text: impl Into<Cow<'static, str>>) {
        let text = text.into();
        let node = self.nodes[node].id;
        self.trace.line(self.now, Line::Node { node, text });
    }

    pub(super) fn say(&mut self, text: impl Into<Cow<'static, str>>) {
        self.trace.line(self.now, Line::World(text.into()));
    }

    pub(super) fn life(&self, n: usize) -> Life {
        let node = &self.nodes[n];
        Life {
            replica: node.id,
            store: node.store(),
            incarnation: node.incarnation,
        }
    }

    /// What every node says of itself.
    pub(super) fn statuses(&self) -> String {
        let mut text = String::new();
        for node in &self.nodes {
            let words = match &node.engine {
                None => "down".into(),
                Some(engine) => {
                    let s = engine.status();
                    format!(
                        "{:?} term {} primary {:?} serving {} knows {:?} last {:?} durable {} commit {} applied {} waits for: {:?}",
                        s.role,
                        s.term,
                        s.primary,
                        s.serving,
                        s.configuration,
                        s.last,
                        s.durable,
                        s.commit,
                        s.applied,
                        s.waiting_for
                    )
                }
            };
            text.push_str(&format!("{} {}: {words}\n", node.id, node.store()));
        }
        text
    }

    fn describe_plan(&mut self) {
        let Plan {
            members,
            clients,
            links,
            disk,
            group,
            fault_every,
            ..
        } = &self.plan;
        let text = format!(
            "{}: {members} replicas, {clients} clients, {links:?}, {disk:?}, a fault every {fault_every:?}, {:?}, {:?}",
            self.cell, group.timing, group.limits
        );
        self.say(text);
    }

    /// The engine of whoever serves.
    pub(super) fn server(&self) -> Option<&Engine> {
        let members = &self.nodes[..self.plan.members];
        let mut engines = members.iter().filter_map(|node| node.engine.as_ref());
        engines.find(|engine| engine.status().serving)
    }

    /// For each client, where each of its commands was carried out (0: nowhere).
    pub(super) fn final_log(&self) -> BTreeMap<u32, Vec<u64>> {
        let engine = self.server().expect("somebody serves");
        let answer = engine.machine().query(&Ledger::ASK);
        let answer = answer.expect("the ledger answers");
        Ledger::page(&answer).expect("the ledger's own answer")
    }
}

fn manners(cell: Cell, plan: &Plan, until: Option<Time>) -> Manners {
    Manners {
        members: plan.members,
        timeout: plan.client_timeout,
        patience: plan.client_patience,
        until,
        histories: if cell.loses() {
            Histories::Many
        } else {
            Histories::One
        },
    }
}

/// The id of node `n` of a group of `members`.
pub(super) fn node_id(n: usize, members: usize) -> ReplicaId {
    if n < members {
        ReplicaId(n as u32 + 1)
    } else {
        ReplicaId::WITNESS
    }
}

pub(super) fn broken(action: &'static str, source: std::io::Error) -> StorageError {
    StorageError::Io {
        action,
        path: "simulated".into(),
        source,
    }
}
