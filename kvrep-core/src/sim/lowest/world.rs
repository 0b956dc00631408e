//! Replicas, the network and what is asked, under one virtual clock.

use super::super::network::{Network, Route};
use super::super::plan::Links;
use super::super::queue::Queue;
use super::super::report::Failure;
use super::super::trace::{Line, Trace, Watcher};
use super::Stats;
use super::cell::Cell;
use super::faults::Weather;
use super::node::Node;
use crate::client_wire::{Op, Outcome};
use crate::config::Read;
use crate::detector::ticks::TickConfig;
use crate::engine::{Engine, Host};
use crate::id::{ReplicaId, Ticket};
use crate::protocol::lowest::Mutation;
use crate::random::Rng;
use crate::state_machine::{decode, encode};
use crate::time::{Time, Timestamp};
use crate::wire;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;

/// One thing that happens. Replicas are numbered from 0.
#[derive(Debug)]
pub(super) enum Happening {
    /// A sign of life arrives.
    Beat {
        from: usize,
        to: usize,
        life: u32,
        frame: Bytes,
    },
    /// A replica's deadline, if it is still that.
    Tick { node: usize },
    /// The next request is made.
    Ask,
    /// It arrives.
    Asked { node: usize, request: u64 },
    /// The next fault is due.
    Fault,
    /// A fault that lasts is over.
    Mend(Vec<(usize, usize)>),
    /// A storm on these links is over.
    Calm(Vec<(usize, usize)>),
    /// A replica dies.
    Kill { node: usize },
    /// A dead replica starts.
    Start { node: usize },
    /// A stopped one goes on.
    Resume { node: usize },
    /// The faults are over.
    Heal,
    /// Everything must be known by now: from here on one answers.
    Quiet,
    /// The end.
    Judge,
}

/// Who answered a request, in which life.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    pub(super) answers: Vec<(usize, u32)>,
    pub(super) at: Time,
    /// It was on its way when one of them began to say that it lives.
    pub(super) met_a_returner: bool,
}

pub(super) struct World {
    pub(super) cell: Cell,
    pub(super) now: Time,
    queue: Queue<Happening>,
    pub(super) nodes: Vec<Node>,
    pub(super) network: Network,
    /// Since when each link (from, to) has had no fault; `None` while it has.
    pub(super) clear_since: Vec<Option<Time>>,
    pub(super) ticks: TickConfig,
    /// Periods after which a silent one is not counted on.
    pub(super) counted_for: u32,
    /// The longest that a message takes where no fault delays it.
    pub(super) delay_max: Duration,
    pub(super) weather: Weather,
    pub(super) requests: BTreeMap<u64, Asked>,
    last_answerer: Option<usize>,
    pub(super) mutation: Option<Mutation>,
    pub(super) rng: Rng,
    pub(super) trace: Trace,
    pub(super) stats: Stats,
    pub(super) failure: Option<Failure>,
    over: bool,
    heal_at: Time,
    pub(super) healed: bool,
    /// Since when everything must be known.
    pub(super) quiet_since: Option<Time>,
}

impl World {
    pub(super) fn new(
        cell: Cell,
        seed: u64,
        periods: u32,
        mutation: Option<Mutation>,
        every_line: Option<Watcher>,
    ) -> Self {
        let stream = |concern| Rng::of_concern(seed, concern);
        let mut rng = stream(1);
        let members = 2 + usize::try_from(rng.below(5)).unwrap_or(0);
        let period = Duration::from_millis([50, 200, 1_000][rng.below(3) as usize]);
        let counted_for = [2, 2, 2, 3, 4][rng.below(5) as usize];
        let ticks = TickConfig {
            period,
            counter_on_heard: counted_for + 2,
            ..TickConfig::default()
        };
        let duplicates = [0, 2_000, 20_000][rng.below(3) as usize];
        // A copy takes four times as long again.
        let copies = if duplicates > 0 { 5 } else { 1 };
        let delay_max = period * 2 / 5;
        let micros = u64::try_from(delay_max.as_micros()).unwrap_or(1) / copies;
        let least = rng.below(micros / 4);
        let spread = rng.below(micros / 2);
        let links = Links {
            delay_min: Duration::from_micros(least),
            delay_spread: Duration::from_micros(spread),
            spike_one_in: 20,
            spike: Duration::from_micros(micros / 4),
            loss: 0,
            duplicates,
            keeps_order: false,
        };
        Self {
            cell,
            now: Time::ZERO,
            queue: Queue::default(),
            nodes: (1..=members)
                .map(|n| Node::new(ReplicaId(n as u32)))
                .collect(),
            network: Network::new(members, links, stream(2)),
            clear_since: vec![Some(Time::ZERO); members * members],
            ticks,
            counted_for,
            delay_max,
            weather: Weather::new(stream(3), period),
            requests: BTreeMap::new(),
            last_answerer: None,
            mutation,
            rng: stream(4),
            trace: Trace::new(members, 120, every_line),
            stats: Stats::default(),
            failure: None,
            over: false,
            heal_at: Time::ZERO + period * periods,
            healed: false,
            quiet_since: None,
        }
    }

    pub(super) fn run(&mut self) {
        let text = format!(
            "{}: {} replicas, a tick every {:?}, {} until one is given up, {:?} at most on the way",
            self.cell,
            self.nodes.len(),
            self.ticks.period,
            self.counted_for,
            self.delay_max
        );
        self.say(text);
        for node in 0..self.nodes.len() {
            let after = self.between(0, 4);
            self.schedule(after, Happening::Start { node });
        }
        self.schedule(Duration::ZERO, Happening::Ask);
        let first = self.weather.next_after();
        self.schedule(first, Happening::Fault);
        self.queue.push(self.heal_at, Happening::Heal);
        while self.failure.is_none()
            && !self.over
            && let Some((at, what)) = self.queue.pop()
        {
            self.now = at;
            self.happen(what);
            if self.trace.events() > EVENTS_MAX {
                self.fail("a run ends", format!("{EVENTS_MAX} events"));
            }
        }
    }

    pub(super) fn stats(&self) -> Stats {
        let requests = || self.requests.values();
        let answered = |least: usize| {
            let enough = requests().filter(|asked| asked.answers.len() >= least);
            enough.count() as u64
        };
        Stats {
            events: self.trace.events(),
            asked: self.requests.len() as u64,
            answered: answered(1),
            doubled: answered(2),
            faults: self.weather.faults,
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

    pub(super) fn say_of(&mut self, n: usize, text: impl Into<std::borrow::Cow<'static, str>>) {
        let (node, text) = (self.nodes[n].id, text.into());
        self.trace.line(self.now, Line::Node { node, text });
    }

    pub(super) fn schedule(&mut self, after: Duration, what: Happening) {
        self.queue.push(self.now + after, what);
    }

    /// So many periods, in true time.
    pub(super) fn between(&mut self, least: u32, most: u32) -> Duration {
        let spread = self.ticks.period * (most - least);
        let nanos = u64::try_from(spread.as_nanos()).unwrap_or(u64::MAX);
        self.ticks.period * least + Duration::from_nanos(self.rng.below(nanos))
    }

    pub(super) fn happen(&mut self, what: Happening) {
        let (kind, word) = match &what {
            Happening::Beat { from, to, .. } => (1, from * 100 + to),
            Happening::Tick { node } => (2, *node),
            Happening::Asked { node, .. } => (3, *node),
            Happening::Start { node } | Happening::Kill { node } => (4, *node),
            Happening::Resume { node } => (5, *node),
            Happening::Mend(links) | Happening::Calm(links) => (6, links.len()),
            Happening::Ask => (7, 0),
            Happening::Fault => (8, 0),
            Happening::Heal | Happening::Quiet | Happening::Judge => (9, 0),
        };
        self.trace.event(self.now, kind, [word as u64, 0, 0]);
        match what {
            Happening::Beat {
                from,
                to,
                life,
                frame,
            } => self.on_beat((from, life), to, frame),
            Happening::Tick { node } => {
                if self.nodes[node].tick_at == Some(self.now) && self.nodes[node].is_running() {
                    self.nodes[node].tick_at = None;
                    self.drive(node, |engine, now, host| engine.tick(now, host));
                }
            }
            Happening::Ask => self.ask(),
            Happening::Asked { node, request } => self.on_asked(node, request),
            Happening::Fault => self.on_fault(),
            Happening::Mend(links) => self.mend(&links),
            Happening::Calm(links) => self.calm(&links),
            // (In the end nobody comes or goes.)
            Happening::Kill { .. } | Happening::Start { .. } if self.healed => {}
            Happening::Kill { node } => self.kill(node),
            Happening::Start { node } => self.start(node),
            Happening::Resume { node } => self.resume(node),
            Happening::Heal => self.heal(),
            Happening::Quiet => {
                self.say("quiet".into());
                self.quiet_since = Some(self.now);
                self.schedule(self.ticks.period * QUIET_PERIODS, Happening::Judge);
            }
            Happening::Judge => {
                self.over = true;
                self.judge_the_end();
            }
        }
    }

    fn on_beat(&mut self, (from, life): (usize, u32), to: usize, frame: Bytes) {
        if self.nodes[to].engine.is_none() {
            return;
        }
        if self.nodes[to].paused {
            let again = Happening::Beat {
                from,
                to,
                life,
                frame,
            };
            self.nodes[to].stalled.push_back(again);
            return;
        }
        self.note_heard((from, life), to);
        match wire::decode_datagram(&frame, usize::MAX) {
            Ok((_, body)) => {
                self.drive(to, |engine, now, host| engine.on_frame(now, body, host));
            }
            Err(e) => self.fail("frames are well-formed", e.to_string()),
        }
    }

    /// Asks all, as a datagram to a group does; where messages are lost, not all hear it.
    fn ask(&mut self) {
        let request = self.requests.len() as u64;
        let asked = Asked {
            at: self.now,
            ..Asked::default()
        };
        self.requests.insert(request, asked);
        for node in 0..self.nodes.len() {
            let lost = self.cell.loses() && !self.healed && self.rng.one_in(10);
            if !lost {
                let after = self.network.delay();
                self.schedule(after, Happening::Asked { node, request });
            }
        }
        if self.quiet_since.is_some() || self.now <= self.heal_at {
            let after = self.between(0, 1);
            self.schedule(after, Happening::Ask);
        }
    }

    fn on_asked(&mut self, node: usize, request: u64) {
        if self.nodes[node].engine.is_none() {
            return;
        }
        if self.nodes[node].paused {
            let again = Happening::Asked { node, request };
            self.nodes[node].stalled.push_back(again);
            return;
        }
        let op = Op::Query {
            read: Read::Linearizable,
            query: encode(&request),
        };
        self.drive(node, |engine, now, host| {
            engine.on_requests(now, Timestamp(0), [(Ticket(request), op)], host);
        });
    }

    /// Calls into a replica and does what it wants done.
    pub(super) fn drive(&mut self, n: usize, call: impl FnOnce(&mut Engine, Time, &mut dyn Host)) {
        let node = &mut self.nodes[n];
        let local = node.clock.shows(self.now);
        let Some(engine) = node.engine.as_mut() else {
            return;
        };
        call(engine, local, &mut node.effects);
        engine.check_invariants();
        let deadline = engine.next_deadline(local);
        let due = deadline.map(|at| node.clock.when(at).max(self.now));
        if deadline != node.seen.next_tick {
            (node.seen.next_tick, node.seen.ticked) = (deadline, local);
        }
        let sends = std::mem::take(&mut node.effects.sends);
        let replies = std::mem::take(&mut node.effects.replies);
        if due != node.tick_at {
            node.tick_at = due;
            if let Some(at) = due {
                self.queue.push(at, Happening::Tick { node: n });
            }
        }
        for (_, frame) in sends {
            self.nodes[n].seen.speaks_since.get_or_insert(self.now);
            self.send(n, &frame);
        }
        for (ticket, outcome) in replies {
            self.on_reply(n, ticket.0, outcome);
        }
    }

    fn send(&mut self, from: usize, frame: &Bytes) {
        let life = self.nodes[from].life;
        self.say_of(from, "says that it lives");
        for to in (0..self.nodes.len()).filter(|to| *to != from) {
            let beat = || Happening::Beat {
                from,
                to,
                life,
                frame: frame.clone(),
            };
            match self.network.route(self.now, from, to) {
                Route::Lost => {}
                Route::Once(at) => self.queue.push(at, beat()),
                Route::Twice(at, again) => {
                    self.queue.push(at, beat());
                    self.queue.push(again, beat());
                }
            }
        }
    }

    fn on_reply(&mut self, n: usize, request: u64, outcome: Outcome) {
        match outcome {
            Outcome::Done { response, .. } => {
                let id = self.nodes[n].id.0;
                if decode::<(u32, u64)>(&response).ok() != Some((id, request)) {
                    self.fail("the answer is to what was asked", format!("{response:x?}"));
                }
                self.say_of(n, format!("answers request {request}"));
                self.stats.takeovers += u64::from(self.last_answerer.replace(n) != Some(n));
                self.judge_answer(n, request);
            }
            Outcome::NotPrimary { primary, .. } => {
                self.say_of(
                    n,
                    format!("expects {primary:?} to answer request {request}"),
                );
                self.judge_silence(n, request, primary);
            }
            other => self.fail("a request is answered or redirected", format!("{other:?}")),
        }
    }
}

/// By how many millionths a clock may run wrong.
pub(super) const DRIFT_PPM_MAX: u32 = 20_000;

/// How long requests are made in the end, all of which must be answered once.
const QUIET_PERIODS: u32 = 12;

const EVENTS_MAX: u64 = 5_000_000;
