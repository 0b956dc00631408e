//! Replicas start, die, stop and go on.

use super::super::clock::Clock;
use super::node::{Echo, Heard, Seen};
use super::world::{DRIFT_PPM_MAX, Happening, World};
use crate::config::Limits;
use crate::engine::{Engine, Identity};
use crate::id::{GroupId, Incarnation, LogPoint, StoreId};
use crate::protocol::lowest::LowestId;
use crate::session::Machine;
use crate::state_machine::Typed;
use std::time::Duration;

impl World {
    pub(super) fn start(&mut self, n: usize) {
        if self.nodes[n].engine.is_some() {
            return;
        }
        self.stats.starts += 1;
        let members: Vec<_> = self.nodes.iter().map(|node| node.id).collect();
        let clock = Clock::draw(&mut self.rng, self.now, DRIFT_PPM_MAX);
        let node = &mut self.nodes[n];
        node.life += 1;
        node.clock = clock;
        let local = clock.shows(self.now);
        node.seen = Seen {
            runs_since: Some(self.now),
            started: local,
            ticked: local,
            heard: vec![Heard::default(); members.len()],
            ..Seen::default()
        };
        let identity = Identity {
            group: GroupId::named("simulated"),
            replica: node.id,
            incarnation: Incarnation(u64::from(node.life)),
        };
        let mut protocol =
            LowestId::new(node.id, members, self.ticks, StoreId(1)).expect("legal ticks");
        if let Some(mutation) = self.mutation {
            protocol.plant(mutation);
        }
        let limits = Limits::default();
        let machine =
            Machine::new(Box::new(Typed(Echo(node.id.0))), &limits).expect("it has no state");
        let protocol = Box::new(protocol);
        let engine = Engine::new(identity, protocol, machine, LogPoint::ZERO, limits);
        node.engine = Some(engine);
        self.say_of(n, "starts");
        self.drive(n, |engine, now, host| engine.start(now, host));
    }

    pub(super) fn kill(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        if node.engine.take().is_some() {
            node.stalled.clear();
            node.paused = false;
            node.tick_at = None;
            node.seen.runs_since = None;
            self.say_of(n, "dies");
        }
    }

    pub(super) fn pause(&mut self, n: usize, length: Duration) {
        if !self.nodes[n].is_running() {
            return;
        }
        self.nodes[n].paused = true;
        self.nodes[n].tick_at = None;
        self.nodes[n].seen.runs_since = None;
        self.say_of(n, format!("stops for {length:?}"));
        self.schedule(length, Happening::Resume { node: n });
    }

    pub(super) fn resume(&mut self, n: usize) {
        if !self.nodes[n].paused {
            return;
        }
        let node = &mut self.nodes[n];
        node.paused = false;
        let local = node.clock.shows(self.now);
        node.seen.runs_since = Some(self.now);
        node.seen.resumed = Some(local);
        if local - node.seen.ticked > self.ticks.period * 2 {
            self.note_woke(n, local);
        }
        self.say_of(n, "goes on");
        // What waited in its sockets and its timer: either may be looked at first.
        let timer_first = self.rng.one_in(2);
        if timer_first {
            self.drive(n, |engine, now, host| engine.tick(now, host));
        }
        for what in std::mem::take(&mut self.nodes[n].stalled) {
            self.happen(what);
        }
        if !timer_first {
            self.drive(n, |engine, now, host| engine.tick(now, host));
        }
    }
}
