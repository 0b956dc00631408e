//! The lives of a node: it starts, dies, stops, goes on.

use super::cell::DetectorKind;
use super::clock::Clock;
use super::disk::Death;
use super::invariants::Sight;
use super::ledger::{Ledger, Window};
use super::node::{Asker, Told};
use super::queue::Happening;
use super::world::{World, broken};
use crate::client_wire::Outcome;
use crate::detector::phi::{PhiConfig, PhiDetector};
use crate::engine::{Engine, Identity};
use crate::id::LogPoint;
use crate::protocol::Protocol;
use crate::protocol::passive::{Options, Passive};
use crate::protocol::witness::Witness;
use crate::session::Machine;
use crate::storage::{Recovered, StorageError};
use crate::transport::Hint;
use std::sync::Arc;
use std::time::Duration;

impl World {
    pub(super) fn start(&mut self, n: usize) {
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

    pub(super) fn boot(&mut self, n: usize) -> Result<(), StorageError> {
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
        node.clock = Clock::draw(&mut self.rng, self.now, self.plan.drift_ppm);
        node.effects.window = window;
        node.effects.snapshots = node.disk.snapshots();
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
        self.nodes[n].known_as = engine.status().store;
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

    pub(super) fn protocol(&mut self, n: usize, recovered: Recovered) -> Box<dyn Protocol> {
        if n == self.plan.members {
            return Box::new(Witness::new(&recovered).expect("the witness wrote its register"));
        }
        let id = self.nodes[n].id;
        let mut group = self.plan.group.clone();
        if self.nodes[n].told == Told::OfNobody {
            group.members = [id].into();
        }
        let mut options = Options::new(id, group, self.rng.next());
        options.mutation = self.mutation;
        options.start = self.nodes[n].start;
        let passive = match self.cell.detector {
            DetectorKind::Fixed => Passive::new(options, recovered),
            DetectorKind::Phi => {
                let config = PhiConfig::for_timing(&self.plan.group.timing);
                let detector = PhiDetector::new(config).expect("it fits any legal timing");
                Passive::with_detector(options, recovered, Box::new(detector))
            }
        };
        Box::new(passive.expect("the replica wrote its hard state"))
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
}
