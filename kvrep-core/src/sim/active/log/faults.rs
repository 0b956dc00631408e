//! What goes wrong: with a member's process, with the log's group by itself; and what kind of log it is.

use super::Log;
use crate::random::Rng;
use crate::sim::active::cell::{Cell, Faults};
use crate::sim::cell::{AuthorityKind, Cell as LogCell, Medium};
use crate::sim::disk::Death;
use crate::sim::faults::Kind;
use std::time::Duration;

impl Log {
    /// Whether this member may die, and everything promised still hold: somebody else has the whole log (where that matters).
    pub(in super::super) fn spares(&self, n: usize, others: impl Fn(usize) -> bool) -> bool {
        let Some(newest) = &self.world.newest else {
            return false;
        };
        let mut holders = self.world.holders(newest);
        self.world.may_kill(n) && holders.any(|other| other != n && others(other))
    }

    pub(in super::super) fn may_kill(&self, n: usize) -> bool {
        self.world.may_kill(n)
    }

    /// A member's process dies, and starts again after this time.
    pub(in super::super) fn kill(&mut self, n: usize, after: Duration) {
        let how = match self.world.cell.medium {
            Medium::Wal => self.world.death(),
            Medium::Memory => Death::Killed,
        };
        self.world.kill_for(n, how, after);
    }

    pub(in super::super) fn pause(&mut self, n: usize, length: Duration) {
        self.world.pause(n, length);
    }

    /// A member does not keep up: of what comes next it misses so many commands.
    pub(in super::super) fn lag(&mut self, n: usize, commands: u64) {
        self.members[n].misses += commands;
    }

    /// Something happens to the log's group by itself.
    pub(in super::super) fn disturb(&mut self, rng: &mut Rng) {
        let mut menu = vec![Kind::ClockJump, Kind::Handover];
        if self.world.cell.medium == Medium::Wal {
            menu.push(Kind::DiskSlow);
        }
        if self.world.plan.witness {
            menu.push(Kind::CrashWitness);
        }
        if matches!(self.faults, Faults::Partitions | Faults::Divided) {
            menu.extend([
                Kind::Split,
                Kind::Split,
                Kind::CutPrimary,
                Kind::OneWay,
                Kind::Flap,
                Kind::CutAll,
                Kind::Storm,
            ]);
            if self.world.plan.witness {
                menu.push(Kind::CutWitness);
            }
        }
        let pick = rng.below(menu.len() as u64);
        let kind = menu[usize::try_from(pick).unwrap_or(0)];
        self.world.say(format!("{kind:?}"));
        self.world.cause(kind);
    }

    pub(in super::super) fn heal(&mut self) {
        self.world.healed = true;
        self.world.requests_get_lost = false;
        self.world.end_faults();
        for node in 0..self.world.nodes.len() {
            self.world.resume(node);
        }
        self.world.start_all();
        for member in &mut self.members {
            member.misses = member.misses.min(1);
        }
    }
}

/// What is under this cell: a log that keeps its promise, if the cell's is everything.
pub(super) fn under(cell: Cell, rng: &mut Rng) -> LogCell {
    use crate::sim::cell::Faults as LogFaults;
    let (witness, alone) = (AuthorityKind::Witness, AuthorityKind::Alone);
    let (wal, memory) = (Medium::Wal, Medium::Memory);
    let (authority, medium, faults) = match cell.faults {
        Faults::Crashes => (
            [witness, alone][rng.below(2) as usize],
            [wal, memory][rng.below(2) as usize],
            LogFaults::Crashes,
        ),
        Faults::Extinction => (
            [witness, alone][rng.below(2) as usize],
            wal,
            LogFaults::Crashes,
        ),
        Faults::Divided => (alone, wal, LogFaults::Partitions),
        Faults::Partitions => (
            witness,
            [wal, memory][rng.below(2) as usize],
            LogFaults::Partitions,
        ),
        Faults::Pauses | Faults::SlowSubscriber | Faults::Broker | Faults::All => (
            witness,
            [wal, memory][rng.below(2) as usize],
            LogFaults::Pauses,
        ),
    };
    let mut standard = LogCell::STANDARD.into_iter();
    let is_it = |of: &LogCell| (of.authority, of.medium, of.faults) == (authority, medium, faults);
    standard.find(is_it).expect("a cell of the table")
}
