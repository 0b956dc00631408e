//! The lives of a replica: it starts, dies, stops, goes on.

use super::super::ledger::Ledger;
use super::happening::Happening;
use super::world::World;
use crate::id::Incarnation;
use crate::protocol::active::{Active, Options};
use std::sync::Arc;
use std::time::Duration;

impl World {
    pub(super) fn start(&mut self, n: usize) {
        // (A log's node starts its member.)
        if self.nodes[n].active.is_some() || self.log.is_some() {
            return;
        }
        self.begin(n);
    }

    /// A life begins: what is published from now on is delivered to it.
    pub(super) fn begin(&mut self, n: usize) {
        self.stats.starts += 1;
        let node = &mut self.nodes[n];
        node.life += 1;
        node.epoch += 1;
        node.deaf_since = None;
        node.window = Arc::default();
        let machine = Ledger::new(self.workload.machine(), Arc::clone(&node.window));
        let mut options = Options::new(
            node.id,
            Incarnation(u64::from(node.life)),
            self.group.clone(),
        );
        options.mutation = self.mutation;
        node.active = Some(Active::new(options, Box::new(machine)).expect("a legal group"));
        self.say(format!("n{n} starts"));
        self.drive(n, |active, now, wall, out| active.start(now, wall, out));
    }

    /// It dies, and starts again after this time.
    pub(super) fn fall(&mut self, n: usize, after: Duration) {
        match &mut self.log {
            Some(log) => log.kill(n, after),
            None => {
                self.kill(n);
                self.schedule(after, Happening::Start { node: n });
            }
        }
        self.attend_log();
    }

    pub(super) fn kill(&mut self, n: usize) {
        if self.nodes[n].active.take().is_some() {
            self.nodes[n].stalled.clear();
            self.nodes[n].paused = false;
            self.say(format!("n{n} dies"));
        }
    }

    pub(super) fn resume(&mut self, n: usize) {
        if !self.nodes[n].paused {
            return;
        }
        self.nodes[n].paused = false;
        self.say(format!("n{n} goes on"));
        for what in std::mem::take(&mut self.nodes[n].stalled) {
            self.happen(what);
        }
        self.drive(n, |active, now, wall, out| active.on_tick(now, wall, out));
    }
}
