//! The world: nodes, links, disks, clients and faults under one virtual clock.
//!
//! One loop takes the first event off the queue, carries it out, and looks at everything that it changed. Nothing else
//! drives anything, so a run is a function of its seed.

use super::cell::{Cell, Promise};
use super::client::{Client, Histories, Manners, Wish};
use super::disk::{Death, Disk};
use super::faults::Weather;
use super::invariants::{self, Agreed, Invariant, Life, Sight};
use super::ledger::{CommandId, Ledger, Window};
use super::network::{Network, Route};
use super::node::{Asked, Asker, Job, Node};
use super::plan::Plan;
use super::queue::{DiskStep, Happening, Queue};
use super::report::{Failure, Stats};
use super::script::Script;
use super::trace::{Fate, Line, Trace};
use super::workload::Workload;
use crate::client_wire::{Op, Outcome};
use crate::config::Token;
use crate::engine::{Engine, Identity};
use crate::id::{Configuration, GroupId, Index, LogPoint, PersistToken, ReplicaId};
use crate::protocol::passive::{Mutation, Options, Passive};
use crate::protocol::witness::Witness;
use crate::protocol::{Event, Protocol};
use crate::random::Rng;
use crate::session::Machine;
use crate::storage::{Recovered, StorageError};
use crate::time::Time;
use crate::transport::Hint;
use crate::wire;
use bytes::Bytes;
use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
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
    pub(super) queue: Queue,
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
    pub(super) script: Option<Script>,
    group: GroupId,
    rng: Rng,
    rules: Vec<Box<dyn Invariant>>,
    pub(super) agreed: Agreed,
    /// Every acknowledged command, with where it was.
    pub(super) acknowledged: Vec<(CommandId, Token)>,
    /// Ranges of entries that were reported as truncated or lost.
    pub(super) reported_lost: Vec<(Index, Index)>,
    /// The newest configuration known to count, and since when.
    pub(super) newest: Option<Configuration>,
    pub(super) newest_since: Time,
    /// What the witness's register holds durably, and what is on its way there.
    pub(super) register: Option<Configuration>,
    register_coming: VecDeque<(PersistToken, Option<Configuration>)>,
    wishes: Vec<Wish>,
}

impl World {
    pub(super) fn new(
        (cell, seed): (Cell, u64),
        length: Length,
        mutation: Option<Mutation>,
        make_workload: impl FnOnce(&Plan) -> Box<dyn Workload>,
        own_rules: Vec<Box<dyn Invariant>>,
        (script, every_line): (Option<Script>, Option<Box<dyn FnMut(&str)>>),
    ) -> Self {
        // A stream for each concern: one more draw in one place leaves the others as they were.
        let stream =
            |n: u64| Rng::new(Rng::new(seed ^ n.wrapping_mul(0xa076_1d64_78bd_642f)).next());
        let mut plan = Plan::draw(cell, &mut stream(1));
        let duration = match &script {
            None => length.duration,
            Some(script) => {
                plan.resize(script.members);
                script.duration()
            }
        };
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
                Node::new(id, Disk::new(medium, group, id, stream(100 + n as u64)))
            })
            .collect();
        let heal_at = Time::ZERO + duration;
        let manners = Manners {
            members: plan.members,
            timeout: plan.client_timeout,
            patience: plan.client_patience,
            until: heal_at,
            histories: match cell.promise() {
                Promise::Everything => Histories::One,
                Promise::DivergenceReported => Histories::Many,
            },
        };
        let clients = (0..plan.clients)
            .map(|id| {
                let share = length.operations / plan.clients
                    + u32::from(id < length.operations % plan.clients);
                Client::new(id, share, manners, stream(1_000 + u64::from(id)))
            })
            .collect();
        let mut rules = invariants::always();
        if cell.promise() == Promise::Everything {
            rules.extend(invariants::promised());
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
            script,
            group,
            rng: stream(4),
            rules,
            agreed: Agreed::default(),
            acknowledged: Vec::new(),
            reported_lost: Vec::new(),
            newest: None,
            newest_since: Time::ZERO,
            register: None,
            register_coming: VecDeque::new(),
            wishes: Vec::new(),
            plan,
        }
    }

    /// Runs to the end, or to the first broken rule.
    pub(super) fn run(&mut self) {
        self.describe_plan();
        for node in 0..self.nodes.len() {
            self.nodes[node].starting = true;
            let after = Duration::from_millis(self.rng.below(50));
            self.queue.push(self.now + after, Happening::Start { node });
        }
        for client in 0..self.clients.len() {
            self.clients[client].start(&mut self.wishes);
            self.grant(client as u32);
        }
        self.schedule_fault();
        self.queue.push(self.now, Happening::Script { step: 0 });
        self.queue.push(self.heal_at, Happening::Heal);
        while self.failure.is_none()
            && !self.over
            && let Some((at, what)) = self.queue.pop()
        {
            self.now = at;
            self.happen(what);
        }
    }

    /// The numbers of the run so far.
    pub(super) fn stats(&self) -> Stats {
        Stats {
            events: self.trace.events(),
            millis: self.now.as_nanos() / 1_000_000,
            entries: self.agreed.end().0,
            given_up: self.clients.iter().map(Client::given_up).sum(),
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

    fn happen(&mut self, what: Happening) {
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

    // ---- what reaches a node ----

    fn on_frame(&mut self, from: usize, to: usize, frame: Bytes) {
        let node = &mut self.nodes[to];
        let fate = match (&node.engine, node.paused) {
            (None, _) => Fate::Unheard,
            (Some(_), true) => Fate::Waits,
            (Some(_), false) => Fate::Arrived,
        };
        let line = Line::Frame {
            from,
            to,
            fate,
            frame: frame.clone(),
        };
        self.trace.line(self.now, line);
        match fate {
            Fate::Unheard | Fate::Lost => {}
            Fate::Waits => node.backlog.push_back(Happening::Frame { from, to, frame }),
            Fate::Arrived => match wire::decode_datagram(&frame, usize::MAX) {
                Ok((_, body)) => self.drive(to, |engine, now, host| {
                    engine.on_frame(now, body, host);
                }),
                Err(e) => self.fail("frames are well-formed", format!("{e}")),
            },
        }
    }

    fn on_hint(&mut self, to: usize, about: usize, hint: Hint) {
        // What a machine says about a port is true when it says it; that it arrives late is another matter, and one
        // that only those may meet who are promised nothing about false suspicions.
        let stale = hint == Hint::Gone && self.nodes[about].is_up();
        if stale
            && (self.cell.authority == super::cell::AuthorityKind::Alone || self.rng.below(4) > 0)
        {
            return;
        }
        if self.nodes[to].paused {
            let waits = Happening::Hint { to, about, hint };
            self.nodes[to].backlog.push_back(waits);
            return;
        }
        let peer = self.nodes[about].id;
        self.note(to, format!("hint: {peer} {hint:?}"));
        self.drive(to, |engine, now, host| {
            engine.on_hint(now, peer, hint, host)
        });
    }

    fn on_tick(&mut self, n: usize, life: u32) {
        let node = &mut self.nodes[n];
        if node.life != life || node.tick_at.is_none_or(|at| at > self.now) {
            return;
        }
        if node.paused {
            node.backlog.push_back(Happening::Tick { node: n, life });
            return;
        }
        node.tick_at = None;
        // What was due is what the node said last: asked now, it may name only what lies ahead.
        if node.due.is_some_and(|due| due <= self.now) {
            node.ticks_at_once += 1;
            if node.ticks_at_once > 1_000 {
                let id = node.id;
                self.fail("deadlines pass", format!("{id} wants to tick forever"));
                return;
            }
            self.drive(n, |engine, now, host| engine.tick(now, host));
        } else {
            self.schedule_tick(n);
        }
    }

    fn on_request(&mut self, client: u32, n: usize, attempt: u64, op: Op) {
        let node = &mut self.nodes[n];
        if !node.is_up() {
            if self.rng.one_in(2) {
                // Nobody listens there, and the machine says so.
                self.answer_later(client, n, attempt, Outcome::Unknown);
            }
            return;
        }
        if node.paused {
            node.backlog.push_back(Happening::Request {
                client,
                node: n,
                attempt,
                op,
            });
            return;
        }
        self.take_in(n, vec![(client, attempt, op)]);
    }

    /// Hands requests to a node, all at once.
    fn take_in(&mut self, n: usize, requests: Vec<(u32, u64, Op)>) {
        let node = &mut self.nodes[n];
        let wall = node.wall(self.now);
        let requests: Vec<_> = requests
            .into_iter()
            .map(|(client, attempt, op)| {
                let asked = match op {
                    Op::Command { .. } | Op::Plain(_) => Asked::Write,
                    Op::OpenSession | Op::CloseSession(_) | Op::Query { .. } | Op::Status => {
                        Asked::Read
                    }
                };
                let asker = Asker {
                    client,
                    attempt,
                    asked,
                };
                (node.ticket(asker), op)
            })
            .collect();
        self.drive(n, |engine, now, host| {
            engine.on_requests(now, wall, requests, host);
        });
    }

    fn on_disk(&mut self, n: usize, life: u32, step: DiskStep) {
        let node = &mut self.nodes[n];
        if node.life != life || !node.is_up() {
            return;
        }
        // A stopped process asks for nothing and hears nothing; what it asked for goes on.
        if node.paused && step != DiskStep::Sync {
            node.backlog.push_back(Happening::Disk {
                node: n,
                life,
                step,
            });
            return;
        }
        if let Some((at, how)) = node.trap
            && at == step
        {
            self.note(n, format!("dies before {step:?} ({how:?})"));
            self.kill(n, how);
            return;
        }
        let done = match step {
            DiskStep::Write => node.disk.write(),
            DiskStep::Sync => node.disk.sync(),
            DiskStep::Tell => {
                let (token, more) = node.disk.told();
                if more {
                    self.schedule_disk(n, DiskStep::Write);
                }
                while n == self.plan.members
                    && let Some((of, _)) = self.register_coming.front()
                    && *of <= token
                    && let Some((_, configuration)) = self.register_coming.pop_front()
                {
                    self.registered(configuration);
                }
                self.drive(n, |engine, now, host| engine.on_persisted(now, token, host));
                return;
            }
        };
        match done {
            Ok(()) => {
                let next = match step {
                    DiskStep::Write => DiskStep::Sync,
                    DiskStep::Sync | DiskStep::Tell => DiskStep::Tell,
                };
                self.schedule_disk(n, next);
            }
            Err(e) => self.on_disk_error(n, &e),
        }
    }

    fn on_disk_error(&mut self, n: usize, error: &StorageError) {
        if self.cell.breaks_disks() && !matches!(error, StorageError::Misuse(_)) {
            self.note(n, format!("ends: {error}"));
            self.kill(n, Death::Killed);
        } else {
            self.fail("the storage works", format!("node {n}: {error}"));
        }
    }

    fn on_snapshot(&mut self, n: usize, life: u32) {
        let node = &mut self.nodes[n];
        if node.life != life || !node.is_up() {
            return;
        }
        if node.paused {
            node.backlog
                .push_back(Happening::Snapshot { node: n, life });
            return;
        }
        if let Some(job) = node.jobs.pop_front() {
            self.work(n, job);
        }
    }

    // ---- starting and ending ----

    fn start(&mut self, n: usize) {
        if self.nodes[n].is_up() || !self.nodes[n].starting {
            return;
        }
        match self.boot(n) {
            Ok(()) => {
                self.stats.starts += 1;
                self.nodes[n].starting = false;
            }
            Err(e @ StorageError::Io { .. }) if self.cell.breaks_disks() => {
                self.note(n, format!("cannot start: {e}"));
                self.nodes[n].disk.die(Death::Killed);
                let after = Duration::from_millis(50 + self.rng.below(500));
                self.queue
                    .push(self.now + after, Happening::Start { node: n });
            }
            Err(e) => self.fail("the storage opens", format!("node {n}: {e}")),
        }
    }

    fn boot(&mut self, n: usize) -> Result<(), StorageError> {
        let window = Arc::new(Window::default());
        let ledger = Ledger::new(self.workload.machine(), window.clone());
        let limits = self.plan.group.limits;
        let node = &mut self.nodes[n];
        let opened = node.disk.open()?;
        let mut machine =
            Machine::new(Box::new(ledger), &limits).map_err(|e| broken("freeze", e))?;
        let mut applied = LogPoint::ZERO;
        if let Some(snapshot) = &opened.recovered.snapshot
            && let Some(store) = node.disk.snapshots()
        {
            let bytes = super::snapshots::read_all(store.as_ref(), snapshot)?;
            if let Err(e) = machine.restore(&mut bytes.as_slice()) {
                self.fail("a snapshot fits", format!("node {n}: {e}"));
                return Ok(());
            }
            applied = snapshot.last;
        }
        node.life += 1;
        node.incarnation = opened.recovered.incarnation;
        node.born = self.now;
        node.origin = Duration::from_nanos(self.rng.below(1 << 50));
        node.effects.window = window;
        let text = format!(
            "starts: {} {}{}, snapshot {applied:?}, log {:?}..{}",
            node.incarnation,
            opened.recovered.store,
            if opened.renewed { " (new)" } else { "" },
            opened.recovered.base,
            opened.recovered.entries.len(),
        );
        let identity = Identity {
            group: self.group,
            replica: node.id,
            incarnation: node.incarnation,
        };
        let protocol = self.protocol(n, opened.recovered);
        let mut engine = Engine::new(identity, protocol, machine, applied, limits);
        if let Some(mutation) = self.mutation {
            engine.plant(mutation);
        }
        if n == self.plan.members {
            self.register_coming.clear();
            self.registered(engine.status().configuration);
        }
        self.nodes[n].engine = Some(engine);
        self.note(n, text);
        if let Some(lost) = opened.lost {
            self.fail("what was synced is recovered", format!("node {n}: {lost}"));
        }
        if n < self.plan.members {
            self.show(&Sight::Started(self.life(n)));
            if applied != LogPoint::ZERO {
                let life = self.life(n);
                self.show(&Sight::Restored {
                    life,
                    point: applied,
                });
            }
        }
        self.drive(n, |engine, now, host| engine.start(now, host));
        for peer in 0..self.nodes.len() {
            if peer != n && self.nodes[peer].is_up() {
                for (to, about) in [(n, peer), (peer, n)] {
                    let at = self.now + self.network.delay();
                    let hint = Hint::Connected;
                    self.queue.push(at, Happening::Hint { to, about, hint });
                }
            }
        }
        Ok(())
    }

    fn protocol(&mut self, n: usize, recovered: Recovered) -> Box<dyn Protocol> {
        if n == self.plan.members {
            return Box::new(Witness::new(&recovered).expect("the witness wrote its register"));
        }
        let id = self.nodes[n].id;
        let mut options = Options::new(id, self.plan.group.clone(), self.rng.next());
        options.mutation = self.mutation;
        Box::new(Passive::new(options, recovered).expect("the replica wrote its hard state"))
    }

    /// Ends a node, and has it start again later.
    pub(super) fn kill(&mut self, n: usize, how: Death) {
        let after = match self.rng.below(4) {
            0 => Duration::from_millis(1 + self.rng.below(60)),
            1 => Duration::from_millis(100 + self.rng.below(600)),
            _ => Duration::from_millis(500 + self.rng.below(4_000)),
        };
        self.kill_for(n, how, after);
    }

    pub(super) fn kill_for(&mut self, n: usize, how: Death, after: Duration) {
        if !self.nodes[n].is_up() {
            return;
        }
        let after = if self.healed {
            Duration::from_millis(20)
        } else {
            after
        };
        self.note(n, format!("is dead ({how:?})"));
        self.weather.unrest(self.now);
        let askers: Vec<Asker> = self.nodes[n].tickets.values().copied().collect();
        self.nodes[n].disk.die(how);
        self.nodes[n].forget();
        self.nodes[n].life += 1;
        self.nodes[n].starting = true;
        self.queue
            .push(self.now + after, Happening::Start { node: n });
        if how == Death::PowerLost {
            // A machine without power tells nobody.
            return;
        }
        for asker in askers {
            if self.rng.one_in(2) {
                self.answer_later(asker.client, n, asker.attempt, Outcome::Unknown);
            }
        }
        for to in 0..self.plan.members {
            if to != n && self.rng.below(4) > 0 {
                let at = self.now + self.network.delay() + Duration::from_millis(1);
                let gone = Happening::Hint {
                    to,
                    about: n,
                    hint: Hint::Gone,
                };
                self.queue.push(at, gone);
            }
        }
    }

    pub(super) fn pause(&mut self, n: usize, length: Duration) {
        if self.nodes[n].is_up() && !self.nodes[n].paused {
            self.note(n, format!("stops for {length:?}"));
            self.nodes[n].paused = true;
            self.weather.unrest(self.now);
            self.queue
                .push(self.now + length, Happening::Resume { node: n });
        }
    }

    /// A stopped node goes on: everything that came meanwhile comes at once.
    pub(super) fn resume(&mut self, n: usize) {
        if !self.nodes[n].paused {
            return;
        }
        self.nodes[n].paused = false;
        self.weather.unrest(self.now);
        self.note(n, "goes on");
        let life = self.nodes[n].life;
        let mut backlog = std::mem::take(&mut self.nodes[n].backlog);
        if self.rng.one_in(2) {
            // The timer or the queue first: both are ready.
            let tick = |h: &Happening| matches!(h, Happening::Tick { .. });
            if let Some(at) = backlog.iter().position(tick)
                && let Some(tick) = backlog.remove(at)
            {
                backlog.push_back(tick);
            }
        }
        let mut requests = Vec::new();
        for what in backlog {
            if self.nodes[n].life != life || self.failure.is_some() {
                return;
            }
            match what {
                Happening::Request {
                    client,
                    attempt,
                    op,
                    ..
                } => requests.push((client, attempt, op)),
                other => self.happen(other),
            }
        }
        if self.nodes[n].life == life && !requests.is_empty() {
            self.take_in(n, requests);
        }
    }

    // ---- what a node does ----

    /// Calls an engine and carries out what it wants.
    pub(super) fn drive(
        &mut self,
        n: usize,
        call: impl FnOnce(&mut Engine, Time, &mut super::node::Effects),
    ) {
        let node = &mut self.nodes[n];
        let local = node.clock(self.now);
        if let Some(engine) = &mut node.engine {
            call(engine, local, &mut node.effects);
            self.settle(n);
        }
    }

    fn settle(&mut self, n: usize) {
        if !self.settle_disk(n) {
            return;
        }
        if let Some(reason) = self.nodes[n].effects.fatal.take() {
            self.fail("a node can go on", format!("node {n}: {reason}"));
            return;
        }
        let mut sends = std::mem::take(&mut self.nodes[n].effects.sends);
        for (to, frame) in sends.drain(..) {
            self.send(n, to, frame);
        }
        self.nodes[n].effects.sends = sends;
        for job in std::mem::take(&mut self.nodes[n].effects.jobs) {
            self.schedule_job(n, job);
        }
        self.watch(n);
        self.schedule_tick(n);
    }

    /// Hands operations to the disk. False if the node died of it.
    fn settle_disk(&mut self, n: usize) -> bool {
        while let Some((token, ops)) = self.nodes[n].effects.persists.pop_front() {
            if n < self.plan.members {
                for op in &ops {
                    let removed: Vec<_> = self.nodes[n]
                        .disk
                        .shadow()
                        .removed_by(op)
                        .copied()
                        .collect();
                    let life = self.life(n);
                    for point in removed {
                        self.show(&Sight::Removed { life, point });
                    }
                }
            }
            let node = &mut self.nodes[n];
            if n == self.plan.members
                && let Some(engine) = &node.engine
            {
                let configuration = engine.status().configuration;
                self.register_coming.push_back((token, configuration));
            }
            let idle = node.disk.ask(token, ops);
            if !node.disk.is_instant() {
                if idle {
                    self.schedule_disk(n, DiskStep::Write);
                }
                continue;
            }
            let done = node.disk.write().and_then(|()| node.disk.sync());
            if let Err(e) = done {
                self.on_disk_error(n, &e);
                return false;
            }
            let (token, _) = node.disk.told();
            let local = node.clock(self.now);
            if let Some(engine) = &mut node.engine {
                engine.on_persisted(local, token, &mut node.effects);
            }
        }
        true
    }

    fn send(&mut self, from: usize, to: ReplicaId, frame: Bytes) {
        let max = self.plan.group.limits.frame_bytes_max + wire::HEADER_BYTES;
        if frame.len() > max {
            self.fail(
                "frames fit",
                format!("node {from} sends {} bytes to {to}", frame.len()),
            );
        }
        let Some(to) = self.nodes.iter().position(|node| node.id == to) else {
            return;
        };
        match self.network.route(self.now, from, to) {
            Route::Lost => {
                let line = Line::Frame {
                    from,
                    to,
                    fate: Fate::Lost,
                    frame,
                };
                self.trace.line(self.now, line);
            }
            Route::Once(at) => self.queue.push(at, Happening::Frame { from, to, frame }),
            Route::Twice(at, again) => {
                let copy = frame.clone();
                self.queue.push(at, Happening::Frame { from, to, frame });
                let frame = copy;
                self.queue.push(again, Happening::Frame { from, to, frame });
            }
        }
    }

    /// Looks at everything that a call has changed.
    fn watch(&mut self, n: usize) {
        let Some(engine) = &self.nodes[n].engine else {
            return;
        };
        engine.check_invariants();
        let status = engine.status();
        if n == self.plan.members {
            return;
        }
        let life = self.life(n);
        self.watch_applied(n, life);
        for event in std::mem::take(&mut self.nodes[n].effects.events) {
            self.on_event(n, life, &event);
        }
        let replies = std::mem::take(&mut self.nodes[n].effects.replies);
        for (ticket, outcome) in replies {
            let Some(asker) = self.nodes[n].tickets.remove(&ticket) else {
                self.fail(
                    "a request is answered once",
                    format!("{life} answers {ticket} again"),
                );
                return;
            };
            if let (Asked::Write, Outcome::Done { token, .. }) = (asker.asked, &outcome) {
                let configuration = status.configuration.as_ref();
                let token = *token;
                self.show(&Sight::Acknowledged {
                    life,
                    token,
                    configuration,
                });
            }
            self.answer_later(asker.client, n, asker.attempt, outcome);
        }
        if status.serving
            && let Some(configuration) = &status.configuration
        {
            self.learn(configuration);
        }
        let settled = self.nodes[n].disk.is_settled();
        self.show(&Sight::Status {
            life,
            settled,
            status: &status,
        });
    }

    fn watch_applied(&mut self, n: usize, life: Life) {
        let mut applied = std::mem::take(&mut self.nodes[n].effects.applied);
        let whole = applied.iter().any(|(p, _)| p.index.0 % 64 == 0);
        for (point, digest) in applied.drain(..) {
            self.show(&Sight::Applied {
                life,
                point,
                digest,
            });
            self.agreed.note(point);
        }
        self.nodes[n].effects.applied = applied;
        if let Some(double) = self.nodes[n].effects.window.double() {
            self.fail(
                "a command is carried out once",
                format!("{life} carries out {double:?} twice"),
            );
        }
        if whole && let Some(engine) = &self.nodes[n].engine {
            let (point, digest) = (engine.applied(), engine.machine().full_digest());
            self.show(&Sight::Digested {
                life,
                point,
                digest,
            });
        }
    }

    fn on_event(&mut self, n: usize, life: Life, event: &Event) {
        self.note(n, format!("{event:?}"));
        match event {
            Event::TailTruncated { from, entries } => {
                self.stats.truncations += 1;
                let last = Index((from.0 + entries).saturating_sub(1));
                self.reported_lost.push((*from, last));
            }
            Event::AcknowledgedWritesLost { .. } => {
                self.stats.losses += 1;
                // From where, a replica can only tell roughly.
                let last = self.nodes[n].disk.shadow().end().index;
                self.reported_lost.push((Index(1), last));
            }
            Event::RoleChanged { .. }
            | Event::Configured(_)
            | Event::Dropped(_)
            | Event::Joined(_)
            | Event::Refused(_) => {}
        }
        self.show(&Sight::Reported { life, event });
    }

    /// The witness's register durably holds this.
    fn registered(&mut self, configuration: Option<Configuration>) {
        if self.register != configuration {
            if let Some(new) = &configuration {
                self.learn(new);
            }
            self.register = configuration;
        }
    }

    /// Remembers the newest configuration known to count.
    fn learn(&mut self, new: &Configuration) {
        if self
            .newest
            .as_ref()
            .is_none_or(|old| old.rank() < new.rank())
        {
            if self.newest.as_ref().is_none_or(|old| old.term < new.term) {
                self.stats.reigns += 1;
            }
            self.newest = Some(new.clone());
            self.newest_since = self.now;
        }
    }

    /// Shows something to every rule.
    pub(super) fn show(&mut self, sight: &Sight<'_>) {
        let Self {
            rules,
            nodes,
            agreed,
            register,
            now,
            ..
        } = self;
        let world = invariants::World {
            at: *now,
            agreed,
            register: register.as_ref(),
            holds: &|replica, index, term| {
                let node = nodes.iter().find(|node| node.id == replica)?;
                Some((node.disk.store(), node.disk.shadow().holds(index, term)))
            },
        };
        let broken = rules
            .iter_mut()
            .find_map(|rule| Some((rule.rule(), rule.see(sight, &world).err()?)));
        if let Some((rule, detail)) = broken {
            self.fail(rule, detail);
        }
    }

    // ---- clients ----

    fn on_reply(&mut self, client: u32, node: usize, attempt: u64, outcome: Outcome) {
        let text = || {
            let from = self.nodes[node].id;
            format!("#{attempt} ← {from} {}", brief(&outcome))
        };
        let line = Line::Client {
            client,
            text: text(),
        };
        self.trace.line(self.now, line);
        let Self {
            clients,
            workload,
            wishes,
            now,
            ..
        } = self;
        let answer =
            clients[client as usize].on_reply(*now, attempt, outcome, workload.as_mut(), wishes);
        match answer {
            Ok(None) => {}
            Ok(Some(answer)) => {
                self.stats.answered += 1;
                if let Some(command) = answer.command {
                    self.acknowledged.push((command, answer.token));
                }
                self.show(&Sight::Answered {
                    client: answer.client,
                    command: answer.command,
                    freshness: answer.freshness,
                    before: answer.before,
                    token: answer.token,
                });
            }
            Err(why) => self.fail("answers make sense", why),
        }
        self.grant(client);
    }

    /// Carries out what a client wants.
    fn grant(&mut self, client: u32) {
        for wish in std::mem::take(&mut self.wishes) {
            match wish {
                Wish::Send { node, attempt, op } => {
                    let text = format!(
                        "#{attempt} → {} {}",
                        self.nodes[node].id,
                        self.clients[client as usize].describe()
                    );
                    self.trace.line(self.now, Line::Client { client, text });
                    if self.rng.one_in(200) {
                        continue;
                    }
                    let at = self.now + self.network.delay();
                    let request = Happening::Request {
                        client,
                        node,
                        attempt,
                        op,
                    };
                    self.queue.push(at, request);
                }
                Wish::Wake { after, timer, verb } => {
                    let wake = Happening::Client {
                        client,
                        timer,
                        verb,
                    };
                    self.queue.push(self.now + after, wake);
                }
            }
        }
    }

    fn answer_later(&mut self, client: u32, node: usize, attempt: u64, outcome: Outcome) {
        if self.rng.one_in(200) {
            return;
        }
        let at = self.now + self.network.delay();
        let reply = Happening::Reply {
            client,
            node,
            attempt,
            outcome: Box::new(outcome),
        };
        self.queue.push(at, reply);
    }

    // ---- schedules ----

    fn schedule_tick(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        let local = node.clock(self.now);
        let due = node.engine.as_ref().and_then(|e| e.next_deadline(local));
        node.due = due.map(|due| node.when(due).max(self.now));
        let Some(at) = node.due else {
            return;
        };
        if at > self.now {
            node.ticks_at_once = 0;
        }
        if node.tick_at.is_none_or(|scheduled| at < scheduled) {
            node.tick_at = Some(at);
            let life = node.life;
            self.queue.push(at, Happening::Tick { node: n, life });
        }
    }

    fn schedule_disk(&mut self, n: usize, step: DiskStep) {
        let pace = &self.plan.disk;
        let usual = match step {
            DiskStep::Write => pace.write,
            DiskStep::Sync => pace.sync,
            DiskStep::Tell => Duration::from_micros(20),
        };
        let node = &self.nodes[n];
        let life = node.life;
        let jitter = 50 + u32::try_from(self.rng.below(100)).unwrap_or(0);
        let after = usual * node.disk_slowness * jitter / 100;
        let what = Happening::Disk {
            node: n,
            life,
            step,
        };
        self.queue.push(self.now + after, what);
    }

    fn schedule_job(&mut self, n: usize, job: Job) {
        let usual = match job {
            Job::Write(..) | Job::Fill(..) | Job::Load(_) => self.plan.disk.snapshot,
            Job::Read { .. } => self.plan.disk.write,
        };
        let node = &mut self.nodes[n];
        let job = match (job, node.disk.snapshots()) {
            (Job::Write(last, state), Some(store)) => Job::Fill(store.create(last), state),
            (job, _) => job,
        };
        node.jobs.push_back(job);
        let life = node.life;
        let after = usual * node.disk_slowness;
        self.queue
            .push(self.now + after, Happening::Snapshot { node: n, life });
    }

    // ---- words ----

    pub(super) fn note(&mut self, node: usize, text: impl Into<Cow<'static, str>>) {
        let text = text.into();
        self.trace.line(self.now, Line::Node { node, text });
    }

    pub(super) fn say(&mut self, text: impl Into<Cow<'static, str>>) {
        self.trace.line(self.now, Line::World(text.into()));
    }

    pub(super) fn life(&self, n: usize) -> Life {
        let node = &self.nodes[n];
        Life {
            replica: node.id,
            store: node.disk.store(),
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
            text.push_str(&format!("{} {}: {words}\n", node.id, node.disk.store()));
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

    /// For each client, where each of its commands was carried out (0: nowhere).
    pub(super) fn final_log(&self) -> BTreeMap<u32, Vec<u64>> {
        let engine = self.nodes[0].engine.as_ref().expect("everybody is up");
        let answer = engine.machine().query(&Ledger::ASK);
        let answer = answer.expect("the ledger answers");
        Ledger::page(&answer).expect("the ledger's own answer")
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

fn brief(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done { token, .. } => format!("done at {}{}", token.term, token.index),
        Outcome::Opened { session, .. } => format!("opened {session}"),
        other @ (Outcome::Closed
        | Outcome::SessionExpired
        | Outcome::OutOfWindow
        | Outcome::Malformed(_)
        | Outcome::TooLarge { .. }
        | Outcome::ResponseTooLarge { .. }
        | Outcome::NotPrimary { .. }
        | Outcome::Busy
        | Outcome::Behind
        | Outcome::Unknown
        | Outcome::Status(_)) => format!("{other:?}"),
    }
}
