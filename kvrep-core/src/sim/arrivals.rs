//! What reaches a node: frames, hints, deadlines, requests, and word from its disk.

use super::client::Client;
use super::disk::Death;
use super::node::{Asked, Asker};
use super::queue::{DiskStep, Happening};
use super::trace::{Fate, Line};
use super::world::World;
use crate::client_wire::{Op, Outcome};
use crate::storage::StorageError;
use crate::transport::Hint;
use crate::wire;
use bytes::Bytes;

impl World {
    pub(super) fn on_frame(&mut self, from: usize, to: usize, frame: Bytes) {
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

    pub(super) fn on_hint(&mut self, to: usize, about: usize, hint: Hint) {
        // What a machine says about a port is true when it says it; that it arrives late is another matter, and one
        // that only those may meet who are promised nothing about false suspicions.
        let stale = hint == Hint::Gone && self.nodes[about].is_up();
        if stale && (self.cell.needs_true_suspicions() || self.rng.below(4) > 0) {
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
            engine.on_hint(now, peer, hint, host);
        });
    }

    pub(super) fn on_tick(&mut self, n: usize, life: u32) {
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

    pub(super) fn on_request(&mut self, client: u32, n: usize, attempt: u64, op: Op) {
        // What a dying process had written may have left it, or not.
        let silent = (self.clients.get(client as usize)).is_some_and(Client::is_silent);
        if silent && self.rng.one_in(2) {
            return;
        }
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
    pub(super) fn take_in(&mut self, n: usize, requests: Vec<(u32, u64, Op)>) {
        let node = &mut self.nodes[n];
        let wall = node.wall(self.now);
        let requests: Vec<_> = requests
            .into_iter()
            .map(|(client, attempt, op)| {
                let asked = match op {
                    Op::Command { .. } | Op::Plain(_) => Asked::Write,
                    Op::OpenSession
                    | Op::CloseSession(_)
                    | Op::Query { .. }
                    | Op::Status
                    | Op::Manage(_) => Asked::Read,
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

    pub(super) fn on_disk(&mut self, n: usize, life: u32, step: DiskStep) {
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

    pub(super) fn on_disk_error(&mut self, n: usize, error: &StorageError) {
        if self.cell.breaks_disks() && !matches!(error, StorageError::Misuse(_)) {
            self.note(n, format!("ends: {error}"));
            self.kill(n, Death::Killed);
        } else {
            self.fail("the storage works", format!("node {n}: {error}"));
        }
    }

    pub(super) fn on_snapshot(&mut self, n: usize, life: u32) {
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
}
