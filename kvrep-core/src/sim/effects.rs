//! What a node wants done, and what can be seen of it afterwards.

use super::cell::Promise;
use super::invariants::{self, Life, Sight};
use super::network::Route;
use super::node::{Asked, Effects};
use super::queue::{DiskStep, Happening};
use super::trace::{Fate, Line};
use super::world::World;
use crate::client_wire::Outcome;
use crate::engine::Engine;
use crate::id::{Configuration, Index, ReplicaId};
use crate::protocol::{Event, Role};
use crate::time::Time;
use crate::transport::Destination;
use crate::wire;
use bytes::Bytes;

impl World {
    /// Calls an engine and carries out what it wants.
    pub(super) fn drive(&mut self, n: usize, call: impl FnOnce(&mut Engine, Time, &mut Effects)) {
        let node = &mut self.nodes[n];
        let local = node.clock(self.now);
        if let Some(engine) = &mut node.engine {
            call(engine, local, &mut node.effects);
            self.settle(n);
        }
    }

    pub(super) fn settle(&mut self, n: usize) {
        if !self.settle_disk(n) {
            return;
        }
        if let Some(reason) = self.nodes[n].effects.fatal.take() {
            self.fail("a node can go on", format!("node {n}: {reason}"));
            return;
        }
        let mut sends = std::mem::take(&mut self.nodes[n].effects.sends);
        for (to, frame) in sends.drain(..) {
            match to {
                Destination::One(to) => self.send(n, to, frame),
                Destination::Group => self.send_to_group(n, &frame),
            }
        }
        self.nodes[n].effects.sends = sends;
        for job in std::mem::take(&mut self.nodes[n].effects.jobs) {
            self.schedule_job(n, job);
        }
        self.watch(n);
        self.schedule_tick(n);
    }

    /// Hands operations to the disk. False if the node died of it.
    pub(super) fn settle_disk(&mut self, n: usize) -> bool {
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

    fn send_to_group(&mut self, from: usize, frame: &Bytes) {
        for to in 0..self.nodes.len() {
            if to != from {
                self.send(from, self.nodes[to].id, frame.clone());
            }
        }
    }

    pub(super) fn send(&mut self, from: usize, to: ReplicaId, frame: Bytes) {
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
    pub(super) fn watch(&mut self, n: usize) {
        let Some(engine) = &self.nodes[n].engine else {
            return;
        };
        engine.check_invariants();
        let status = engine.status();
        self.nodes[n].known_as = status.store;
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
        if (status.serving || self.plan.home.is_some() && status.role == Role::Primary)
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

    pub(super) fn watch_applied(&mut self, n: usize, life: Life) {
        let mut applied = std::mem::take(&mut self.nodes[n].effects.applied);
        let whole = applied.iter().any(|(p, _)| p.index.0 % 64 == 0);
        let twice = self.nodes[n].effects.window.double();
        for (point, digest) in applied.drain(..) {
            self.show(&Sight::Applied {
                life,
                point,
                digest,
                twice,
            });
            self.agreed.note(point);
        }
        self.nodes[n].effects.applied = applied;
        if whole
            && self.disturbed.is_none()
            && let Some(engine) = &self.nodes[n].engine
        {
            let (point, digest) = (engine.applied(), engine.machine().full_digest());
            self.show(&Sight::Digested {
                life,
                point,
                digest,
            });
        }
    }

    pub(super) fn on_event(&mut self, n: usize, life: Life, event: &Event) {
        self.note(n, format!("{event:?}"));
        match event {
            Event::TailTruncated { from, entries, .. } => {
                self.stats.truncations += 1;
                let last = Index((from.0 + entries).saturating_sub(1));
                self.reported_lost.push((*from, last));
            }
            Event::AcknowledgedWritesLost { from, writes, .. } => {
                self.stats.losses += 1;
                if writes.is_some()
                    && let Some(why) = self.check_parting(n, *from)
                {
                    self.fail("losses are counted from where the histories part", why);
                }
                // Where they are not counted, a replica can only tell roughly from where on.
                let last = self.nodes[n].disk.shadow().end().index;
                self.reported_lost.push((Index(1), last));
            }
            Event::RoleChanged {
                role: Role::Primary,
                term,
            } => {
                // It has appended the first entry of its term, and nothing else yet.
                if let Some(engine) = &self.nodes[n].engine {
                    let first = engine.status().last.index;
                    self.reigns.push((*term, first));
                }
            }
            Event::RoleChanged { .. }
            | Event::Configured(_)
            | Event::Dropped(_)
            | Event::Joined(_)
            | Event::Refused(_)
            | Event::Forced { .. }
            | Event::Removed(_)
            | Event::HandingOver { .. }
            | Event::HandedOver { .. }
            | Event::RivalRefused { .. }
            | Event::OtherGroup { .. }
            | Event::RegisterLost
            | Event::HandoverFailed { .. }
            | Event::StateDiffers { .. }
            | Event::StatesDiffer { .. } => {}
            Event::StateDiscarded { .. } => self.disturbed = None,
        }
        self.show(&Sight::Reported { life, event });
    }

    /// A replica says that its history parts here from the one of the primary that it follows.
    fn check_parting(&self, n: usize, from: Index) -> Option<String> {
        let followed = self.nodes[n].engine.as_ref()?.status().term;
        let primary = followed.replica;
        // (It may yield to a group in which it reigned itself, with the storage that it had then.)
        let mut others = self.nodes.iter().filter(|node| node.id != self.nodes[n].id);
        let theirs = others.find(|node| node.id == primary)?;
        // What a late message of its reign told may not be what it has now, if another reigns over it.
        let reigns = |engine: &Engine| engine.status().term == followed;
        if !theirs.engine.as_ref().is_none_or(reigns) {
            return None;
        }
        let (theirs, own) = (theirs.disk.shadow(), self.nodes[n].disk.shadow());
        let pair = |at: Index| own.at(at).zip(theirs.at(at));
        let agree = pair(from).filter(|(own, theirs)| own == theirs);
        let differ = pair(from.prev()).filter(|(own, theirs)| own != theirs);
        let (own, theirs) = agree.or(differ)?;
        Some(format!(
            "{} counts from {from}, but has {own:?} where {primary} has {theirs:?}",
            self.nodes[n].id
        ))
    }

    /// The witness's register durably holds this.
    pub(super) fn registered(&mut self, configuration: Option<Configuration>) {
        if self.register != configuration {
            if let Some(new) = &configuration {
                self.learn(new);
            }
            self.register = configuration;
        }
    }

    /// Remembers the newest configuration known to count.
    pub(super) fn learn(&mut self, new: &Configuration) {
        let newest = self.newest.as_ref();
        if newest.is_some_and(|old| old.origin != new.origin) {
            return; // of a group that somebody began anew: it shall not remain
        }
        if newest.is_none_or(|old| old.rank() < new.rank()) {
            // With two primaries, each changes what it knows.
            let one_history = self.cell.promise() == Promise::Everything;
            if let Some(old) = self.newest.as_ref().filter(|_| one_history)
                && let Some(why) = self.check_members(old, new)
            {
                self.fail("members change only as asked", why);
            }
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
            newest,
            now,
            plan,
            ..
        } = self;
        let world = invariants::World {
            at: *now,
            ack: plan.group.ack,
            agreed,
            register: register.as_ref(),
            newest: newest.as_ref(),
            holds: &|replica, index, term| {
                let node = nodes.iter().find(|node| node.id == replica)?;
                Some((node.store(), node.disk.shadow().holds(index, term)))
            },
        };
        let broken = rules
            .iter_mut()
            .find_map(|rule| Some((rule.rule(), rule.see(sight, &world).err()?)));
        if let Some((rule, detail)) = broken {
            self.fail(rule, detail);
        }
    }
}
