//! What goes wrong, and when it ends.
//!
//! Every fault is drawn when it is due, so that it can aim (at the primary, say). Faults are bound by what their cell
//! allows: where nothing is promised once the last holder of the state is gone, the last holder is spared.

use super::cell::Medium;
use super::disk::Death;
use super::disturbance::Disturbances;
use super::node::Told;
use super::queue::{DiskStep, Happening};
use super::world::World;
use crate::id::Configuration;
use crate::protocol::passive::Start;
use crate::random::Rng;
use crate::time::Time;
use std::io::ErrorKind;
use std::time::Duration;

/// What can go wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A node is killed.
    Crash,
    /// The primary is killed.
    CrashPrimary,
    /// A node dies between two steps of its disk.
    CrashInWrite,
    /// One machine loses its power.
    PowerOfOne,
    /// All do.
    PowerOfAll,
    /// One after the other is killed and starts again.
    Rolling,
    /// A node is killed while it starts, more than once.
    CrashLoop,
    /// The witness is killed.
    CrashWitness,
    /// A wall clock jumps.
    ClockJump,
    /// The nodes fall into two halves.
    Split,
    /// The primary is cut off, but not from the witness or not from anybody else.
    CutPrimary,
    /// The primary is cut off from the other members, whose connections to it end at once as if it had died; and one of
    /// them may restart at that moment. Clients and the witness reach it.
    ResetPrimary,
    /// Links are cut in one direction.
    OneWay,
    /// A cut comes and goes.
    Flap,
    /// Nobody hears anybody.
    CutAll,
    /// Nobody hears the witness.
    CutWitness,
    /// Links lose much and are slow.
    Storm,
    /// A node stops.
    Pause,
    /// The primary stops.
    PausePrimary,
    /// Several stop at once.
    PauseSome,
    /// A disk call fails.
    DiskError,
    /// A disk is full.
    DiskFull,
    /// A disk is slow.
    DiskSlow,
    /// A bit flips on the disk of a dead replica.
    Decay,
    /// The primary is asked to hand over.
    Handover,
    /// A spare joins, perhaps in the place of a member.
    Join,
    /// A member leaves.
    Leave,
    /// A member is removed, dead or alive.
    Remove,
    /// A member is made a learner.
    MakeLearner,
    /// A member is made a full one.
    MakeFull,
    /// A member is started again with an empty directory.
    BeginAnew,
    /// All die, and the first that is started again has an empty directory.
    BeginAnewFirst,
}

const CRASHES: [Kind; 9] = [
    Kind::Crash,
    Kind::CrashPrimary,
    Kind::CrashPrimary,
    Kind::CrashInWrite,
    Kind::PowerOfOne,
    Kind::PowerOfAll,
    Kind::Rolling,
    Kind::CrashLoop,
    Kind::ClockJump,
];
const MEMBERS: [Kind; 6] = [
    Kind::Handover,
    Kind::Join,
    Kind::Leave,
    Kind::Remove,
    Kind::MakeLearner,
    Kind::MakeFull,
];
const CUTS: [Kind; 8] = [
    Kind::Split,
    Kind::Split,
    Kind::CutPrimary,
    Kind::ResetPrimary,
    Kind::OneWay,
    Kind::Flap,
    Kind::CutAll,
    Kind::Storm,
];
const WITNESS: [Kind; 1] = [Kind::CrashWitness];
const WITNESS_CUTS: [Kind; 1] = [Kind::CutWitness];
const PAUSES: [Kind; 3] = [Kind::Pause, Kind::PausePrimary, Kind::PauseSome];
const DISKS: [Kind; 3] = [Kind::DiskError, Kind::DiskFull, Kind::DiskSlow];
const DECAY: [Kind; 1] = [Kind::Decay];
const ANEW: [Kind; 2] = [Kind::BeginAnew, Kind::BeginAnewFirst];

/// What happens to the others when a member begins anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Others {
    Live,
    Die,
}

/// A fault that lasts.
#[derive(Debug)]
pub(super) enum Lasting {
    Cut(Vec<(usize, usize)>),
    Flap {
        links: Vec<(usize, usize)>,
        cut: bool,
        every: Duration,
        until: Time,
    },
    Storm(Vec<(usize, usize)>),
    Disk(usize),
    /// A replica is dead, and soon its disk will decay.
    Decay(usize),
    /// Kills what is up of it, again and again.
    Loop {
        node: usize,
        again: u32,
    },
}

/// The state of the faults.
pub(super) struct Weather {
    pub(super) rng: Rng,
    pub(super) lasting: Vec<Option<Lasting>>,
    /// When last something changed that may set a change of the configuration in motion.
    unrest_at: Time,
}

impl Weather {
    pub(super) fn new(rng: Rng) -> Self {
        Self {
            rng,
            lasting: Vec::new(),
            unrest_at: Time::ZERO,
        }
    }

    pub(super) fn unrest(&mut self, now: Time) {
        self.unrest_at = now;
    }

    pub(super) fn between(&mut self, min: u64, max: u64) -> Duration {
        Duration::from_millis(min + self.rng.below(max - min + 1))
    }

    fn is_anything_cut(&self) -> bool {
        let cuts = |l: &Lasting| {
            matches!(
                l,
                Lasting::Cut(_) | Lasting::Flap { .. } | Lasting::Storm(_)
            )
        };
        self.lasting.iter().flatten().any(cuts)
    }
}

impl World {
    pub(super) fn schedule_fault(&mut self) {
        if self.script.is_some() {
            return;
        }
        let mean = u64::try_from(self.plan.fault_every.as_millis()).unwrap_or(1_000);
        let after = self.weather.between(mean / 4, mean * 7 / 4);
        let at = self.now + after;
        if at < self.heal_at {
            self.queue.push(at, Happening::Fault);
        }
    }

    pub(super) fn on_fault(&mut self) {
        if self.healed {
            return;
        }
        if self.disturbances == Disturbances::NowAndThen {
            self.disturb();
            self.schedule_fault();
            return;
        }
        let kind = self.draw_fault();
        self.stats.faults += 1;
        self.say(format!("{kind:?}"));
        self.cause(kind);
        self.schedule_fault();
    }

    fn draw_fault(&mut self) -> Kind {
        let mut menu = CRASHES.to_vec();
        menu.extend(MEMBERS);
        if self.plan.witness {
            menu.extend(WITNESS);
        }
        if self.cell.cuts_links() {
            menu.extend(CUTS);
            if self.plan.witness {
                menu.extend(WITNESS_CUTS);
            }
            if self.plan.drift_ppm > 0 {
                // Leases live from how soon a silent primary is replaced.
                menu.extend([Kind::ResetPrimary; 6]);
            }
        }
        if self.cell.pauses() {
            menu.extend(PAUSES);
            menu.extend(PAUSES);
        }
        if self.cell.breaks_disks() {
            menu.extend(DISKS);
            if self.plan.witness {
                menu.extend(DECAY);
            }
        }
        if self.cell.begins_anew() {
            menu.extend(ANEW);
        }
        let chosen: Vec<Kind> = menu
            .iter()
            .copied()
            .filter(|kind| self.plan.menu >> (*kind as u32) & 1 == 1)
            .collect();
        let from = if chosen.is_empty() { &menu } else { &chosen };
        from[self.weather.rng.below(from.len() as u64) as usize]
    }

    pub(super) fn cause(&mut self, kind: Kind) {
        let members = self.plan.members as u64;
        let some = self.weather.rng.below(members) as usize;
        let primary = self.primary().unwrap_or(some);
        match kind {
            Kind::Crash => self.crash(some, Death::Killed),
            Kind::CrashPrimary => self.crash(primary, Death::Killed),
            Kind::CrashInWrite => self.trap(some),
            Kind::PowerOfOne => self.crash(some, Death::PowerLost),
            Kind::PowerOfAll => self.black_out(),
            Kind::Rolling => {
                for node in 0..self.plan.members {
                    let fault = self.lasts(Lasting::Loop { node, again: 0 });
                    let at = self.now + Duration::from_millis(1_300) * node as u32;
                    self.queue.push(at, Happening::FaultEnds { fault });
                }
            }
            Kind::CrashLoop => {
                let again = 1 + self.weather.rng.below(4) as u32;
                let fault = self.lasts(Lasting::Loop { node: some, again });
                self.queue.push(self.now, Happening::FaultEnds { fault });
            }
            Kind::CrashWitness => {
                let how = self.death();
                self.kill(self.plan.members, how);
            }
            Kind::ClockJump => self.jump_clock(some),
            Kind::Handover
            | Kind::Join
            | Kind::Leave
            | Kind::Remove
            | Kind::MakeLearner
            | Kind::MakeFull => self.change_members(kind, some, primary),
            Kind::Split
            | Kind::CutPrimary
            | Kind::ResetPrimary
            | Kind::OneWay
            | Kind::Flap
            | Kind::CutAll
            | Kind::CutWitness
            | Kind::Storm => self.disturb_links(kind, primary),
            Kind::Pause => {
                let length = self.weather.between(20, 3_000);
                self.pause(some, length);
            }
            Kind::PausePrimary => {
                let length = self.weather.between(100, 4_000);
                self.pause(primary, length);
            }
            Kind::PauseSome => {
                for node in 0..self.nodes.len() {
                    if self.weather.rng.one_in(2) {
                        let length = self.weather.between(100, 3_000);
                        self.pause(node, length);
                    }
                }
            }
            Kind::DiskError => {
                let node = self.weather.rng.below(self.nodes.len() as u64) as usize;
                let kind = [ErrorKind::Other, ErrorKind::StorageFull][some % 2];
                self.nodes[node].disk.fail_soon(30, kind);
            }
            Kind::DiskFull => {
                let room = self.weather.rng.below(4_096);
                self.nodes[some].disk.fill(Some(room));
                self.disk_ends_later(some);
            }
            Kind::DiskSlow => {
                let slowness = 2 + self.weather.rng.below(60) as u32;
                self.nodes[some].disk_slowness = slowness;
                self.disk_ends_later(some);
            }
            Kind::Decay => self.decay(some),
            Kind::BeginAnew => self.begin_anew(some, Others::Live),
            Kind::BeginAnewFirst => self.begin_anew(some, Others::Die),
        }
    }

    pub(super) fn death(&mut self) -> Death {
        if self.weather.rng.one_in(3) {
            Death::PowerLost
        } else {
            Death::Killed
        }
    }

    pub(super) fn lasts(&mut self, fault: Lasting) -> usize {
        self.weather.lasting.push(Some(fault));
        self.weather.lasting.len() - 1
    }

    pub(super) fn on_fault_ends(&mut self, fault: usize) {
        let Some(lasting) = self.weather.lasting.get_mut(fault).and_then(Option::take) else {
            return;
        };
        if !matches!(lasting, Lasting::Decay(_)) {
            self.weather.unrest(self.now);
        }
        match lasting {
            Lasting::Cut(links) => {
                self.say("a cut is mended");
                for (from, to) in links {
                    self.network.mend(from, to);
                }
            }
            Lasting::Flap {
                links,
                cut,
                every,
                until,
            } => self.flap(fault, links, (cut, every, until)),
            Lasting::Storm(links) => {
                self.say("a storm ends");
                for (from, to) in links {
                    self.network.worsen(from, to, 0, Duration::ZERO);
                }
            }
            Lasting::Disk(node) => {
                self.note(node, "its disk is well again");
                self.nodes[node].disk.fill(None);
                self.nodes[node].disk_slowness = 1;
            }
            Lasting::Decay(node) => {
                if !self.healed && !self.nodes[node].is_up() {
                    self.decay(node);
                }
            }
            Lasting::Loop { node, again } => {
                if self.healed {
                    return;
                }
                if self.may_kill(node) {
                    let after = self.weather.between(1, 40);
                    let how = self.death();
                    self.kill_for(node, how, after);
                }
                if again > 0 {
                    let fault = self.lasts(Lasting::Loop {
                        node,
                        again: again - 1,
                    });
                    let at = self.now + self.weather.between(10, 200);
                    self.queue.push(at, Happening::FaultEnds { fault });
                }
            }
        }
    }

    // ---- crashes ----

    fn crash(&mut self, node: usize, how: Death) {
        if self.may_kill(node) {
            self.kill(node, how);
        }
    }

    fn trap(&mut self, node: usize) {
        let step = match self.weather.rng.below(3) {
            0 => DiskStep::Write,
            1 => DiskStep::Sync,
            _ => DiskStep::Tell,
        };
        let how = self.death();
        self.nodes[node].trap = Some((step, how));
    }

    fn black_out(&mut self) {
        if self.cell.medium == Medium::Memory {
            return;
        }
        let how = self.death();
        for node in 0..self.nodes.len() {
            self.kill(node, how);
        }
    }

    /// Whether killing this member leaves what is promised possible.
    ///
    /// With logs in memory somebody else who is up must hold the state, whatever change of the configuration is under way:
    /// so it must have been quiet for long enough that none is.
    pub(super) fn may_kill(&self, node: usize) -> bool {
        if self.cell.medium == Medium::Wal || node >= self.plan.members {
            return true;
        }
        let Some(newest) = &self.newest else {
            return false;
        };
        if !newest.has(self.nodes[node].id, self.nodes[node].store()) {
            return true;
        }
        self.is_calm() && self.holders(newest).any(|n| n != node)
    }

    /// Whether it has been quiet for so long that no change of the configuration is under way.
    pub(super) fn is_calm(&self) -> bool {
        let quiet = Duration::from_millis(1_500) + 2 * self.plan.group.timing.suspect_after;
        let long_ago = |then: Time| then + quiet < self.now;
        long_ago(self.newest_since)
            && long_ago(self.weather.unrest_at)
            && !self.weather.is_anything_cut()
            && self
                .nodes
                .iter()
                .all(|n| n.absent || (n.is_up() && !n.paused))
    }

    /// Who is up and has the storage that the configuration counts.
    pub(super) fn holders<'a>(
        &'a self,
        configuration: &'a Configuration,
    ) -> impl Iterator<Item = usize> + 'a {
        (0..self.plan.members).filter(|&n| {
            let node = &self.nodes[n];
            node.is_up() && configuration.has(node.id, node.store())
        })
    }

    pub(super) fn primary(&self) -> Option<usize> {
        let newest = self.newest.as_ref()?;
        (0..self.plan.members).find(|&n| self.nodes[n].id == newest.term.replica)
    }

    fn jump_clock(&mut self, node: usize) {
        let hours = 3_600_000_000;
        let jump = i64::try_from(self.weather.rng.below(2 * hours)).unwrap_or(0);
        self.nodes[node].wall_offset = jump - i64::try_from(hours).unwrap_or(0);
        let offset = self.nodes[node].wall_offset;
        self.note(node, format!("its wall clock is off by {offset} µs"));
    }

    // ---- disks ----

    fn disk_ends_later(&mut self, node: usize) {
        let after = self.weather.between(100, 5_000);
        let fault = self.lasts(Lasting::Disk(node));
        self.queue
            .push(self.now + after, Happening::FaultEnds { fault });
    }

    /// Damages the disk of a replica that has been dead for a while, if the group can spare what is on it.
    fn decay(&mut self, node: usize) {
        let quiet = self.weather.unrest_at + Duration::from_secs(1) < self.now;
        let others_up = (0..self.nodes.len())
            .all(|n| n == node || self.nodes[n].absent || self.nodes[n].is_up());
        let Some(newest) = &self.newest else {
            return;
        };
        let spared = self.holders(newest).any(|n| n != node);
        if self.nodes[node].is_up() {
            // First it must have been dead for long enough that nothing of it is on its way.
            if others_up && spared {
                self.kill_for(node, Death::Killed, Duration::from_secs(6));
                let fault = self.lasts(Lasting::Decay(node));
                let at = self.now + Duration::from_secs(4);
                self.queue.push(at, Happening::FaultEnds { fault });
            }
            return;
        }
        if quiet
            && others_up
            && spared
            && let Some(what) = self.nodes[node].disk.decay()
        {
            self.note(node, format!("its disk decays: {what}"));
        }
    }

    /// A member is killed, and started again with an empty directory: as if for the first time, told of nobody, or with its list of members. Some other
    /// member has everything.
    fn begin_anew(&mut self, node: usize, others: Others) {
        let Some(newest) = &self.newest else {
            return;
        };
        let spared = self.holders(newest).any(|n| n != node);
        if !spared || !self.is_calm() || !self.belongs(node) || self.acknowledged.is_empty() {
            return;
        }
        if others == Others::Die {
            let how = self.death();
            for other in (0..self.nodes.len()).filter(|n| *n != node) {
                let after = self.weather.between(300, 4_000);
                self.kill_for(other, how, after);
            }
        }
        let after = self.weather.between(1, 200);
        self.kill_for(node, Death::Killed, after);
        let told = match self.weather.rng.below(3) {
            0 => Told::OfAll,
            _ => Told::OfNobody,
        };
        self.empty(node, told);
    }

    /// The directory of a dead replica is another one from now on.
    pub(super) fn empty(&mut self, node: usize, told: Told) {
        self.note(
            node,
            format!("has an empty directory, and is told {told:?}"),
        );
        let replica = &mut self.nodes[node];
        replica.disk.replace();
        replica.told = told;
        replica.start = Start::Normal;
    }

    /// Everything ends.
    pub(super) fn end_faults(&mut self) {
        for fault in 0..self.weather.lasting.len() {
            self.on_fault_ends(fault);
        }
        self.network.heal();
        for node in &mut self.nodes {
            node.trap = None;
            node.disk_slowness = 1;
            node.disk.fill(None);
        }
    }
}
