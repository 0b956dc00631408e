//! When deadlines, disks and snapshot work are due.

use super::node::Job;
use super::queue::{DiskStep, Happening};
use super::world::World;
use std::time::Duration;

impl World {
    pub(super) fn schedule_tick(&mut self, n: usize) {
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

    pub(super) fn schedule_disk(&mut self, n: usize, step: DiskStep) {
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

    pub(super) fn schedule_job(&mut self, n: usize, job: Job) {
        let usual = match job {
            Job::Write(..) | Job::Load(_) => self.plan.disk.snapshot,
            Job::Read { .. } => self.plan.disk.write,
        };
        let node = &mut self.nodes[n];
        node.jobs.push_back(job);
        let life = node.life;
        let after = usual * node.disk_slowness;
        self.queue
            .push(self.now + after, Happening::Snapshot { node: n, life });
    }
}
