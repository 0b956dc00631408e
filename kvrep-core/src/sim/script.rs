//! Scripts: faults at exact moments instead of random ones, for tests that tell a story and for searches that shrink.
//!
//! Clients, links and disks are drawn from the seed as ever; only what goes wrong is told.

use super::disk::Death;
use super::faults::Kind;
use super::node::Told;
use super::queue::Happening;
use super::world::World;
use crate::id::ReplicaId;
use crate::manage::Manage;
use std::time::Duration;

/// One step. Replicas are numbered from 1, as their ids; the witness is the number after the last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// Let this much time pass before the next step.
    Wait(Duration),
    /// Kill a process; it stays dead until it is started.
    Kill(u32),
    /// Cut the power of a machine; it stays dead until it is started.
    PowerOff(u32),
    /// Start a dead one.
    Start(u32),
    /// Give a dead one another, empty directory, and tell it of nobody when it starts: as if for the first time.
    BeginAnew(u32),
    /// Stop a process where it is.
    Pause(u32),
    /// Let it go on.
    Resume(u32),
    /// Lose everything that the first sends to the second.
    Cut(u32, u32),
    /// Mend all links.
    Mend,
    /// Ask the first, which should be primary, to hand over to the second.
    Handover(u32, u32),
    /// Let a member ask to leave, where the cell's promise holds without it.
    Leave(u32),
    /// Make the disk of the first so many times slower than usual, until the end.
    SlowDisk(u32, u32),
}

/// A group of a given size and what happens to it. In the end everything is healed, and every promise of the cell is
/// checked.
///
/// ```
/// use kvrep_core::sim::{Act, Cell, Script, Simulation};
/// use std::time::Duration;
/// let script = Script::new(3)
///     .act(Act::Wait(Duration::from_secs(2)))
///     .act(Act::Kill(1))
///     .act(Act::Wait(Duration::from_secs(2)))
///     .act(Act::Start(1));
/// let cell = Cell::named("witness/wal/crashes").unwrap();
/// Simulation::new(cell, 1).script(script).operations(50).run().expect_ok();
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Script {
    pub(super) members: usize,
    pub(super) acts: Vec<Act>,
}

impl Script {
    /// A group of this many replicas (1 to 5) to which nothing happens.
    #[must_use]
    pub fn new(members: u32) -> Self {
        Self {
            members: members.clamp(1, 5) as usize,
            acts: Vec::new(),
        }
    }

    /// Then this.
    #[must_use]
    pub fn act(mut self, act: Act) -> Self {
        self.acts.push(act);
        self
    }

    /// How long it takes.
    pub(super) fn duration(&self) -> Duration {
        let wait = |act: &Act| match act {
            Act::Wait(length) => *length,
            Act::Kill(_)
            | Act::PowerOff(_)
            | Act::Start(_)
            | Act::BeginAnew(_)
            | Act::Pause(_)
            | Act::Resume(_)
            | Act::Cut(..)
            | Act::Handover(..)
            | Act::Leave(_)
            | Act::SlowDisk(..)
            | Act::Mend => Duration::ZERO,
        };
        self.acts.iter().map(wait).sum::<Duration>() + Duration::from_millis(200)
    }
}

/// Longer than any script: until somebody says otherwise.
const UNTIL_TOLD: Duration = Duration::from_secs(1 << 20);

impl World {
    /// Schedules everything that happens up to the next wait.
    pub(super) fn on_script(&mut self, from: usize) {
        let Some(script) = self.script.clone() else {
            return;
        };
        for (step, act) in script.acts.iter().enumerate().skip(from) {
            if let Act::Wait(length) = act {
                let next = Happening::Script { step: step + 1 };
                self.queue.push(self.now + *length, next);
                return;
            }
            self.act(*act);
        }
    }

    fn act(&mut self, act: Act) {
        self.say(format!("{act:?}"));
        match act {
            Act::Wait(_) => {}
            Act::Kill(n) => self.end(n, Death::Killed),
            Act::PowerOff(n) => self.end(n, Death::PowerLost),
            Act::Start(n) => {
                if let Some(node) = self.numbered(n) {
                    self.queue.push(self.now, Happening::Start { node });
                }
            }
            Act::BeginAnew(n) => {
                if let Some(node) = self.numbered(n)
                    && !self.nodes[node].is_up()
                {
                    self.empty(node, Told::OfNobody);
                }
            }
            Act::Pause(n) => {
                if let Some(node) = self.numbered(n) {
                    self.pause(node, UNTIL_TOLD);
                }
            }
            Act::Resume(n) => {
                if let Some(node) = self.numbered(n) {
                    self.resume(node);
                }
            }
            Act::Cut(from, to) => {
                if let (Some(from), Some(to)) = (self.numbered(from), self.numbered(to)) {
                    self.network.cut(from, to);
                }
            }
            Act::Mend => self.network.heal(),
            Act::Leave(n) => {
                if let Some(node) = self.numbered(n) {
                    self.change_members(Kind::Leave, node, node);
                }
            }
            Act::SlowDisk(n, times) => {
                if let Some(node) = self.numbered(n) {
                    self.nodes[node].disk_slowness = times.max(1);
                }
            }
            Act::Handover(from, to) => {
                if let Some(node) = self.numbered(from) {
                    let to = Some(ReplicaId(to));
                    self.manage(node, Manage::Handover { to });
                }
            }
        }
    }

    fn end(&mut self, n: u32, how: Death) {
        if let Some(node) = self.numbered(n)
            && self.may_kill(node)
        {
            self.kill_for(node, how, UNTIL_TOLD);
        }
    }

    fn numbered(&self, n: u32) -> Option<usize> {
        let node = (n as usize).checked_sub(1)?;
        (node < self.nodes.len()).then_some(node)
    }
}
