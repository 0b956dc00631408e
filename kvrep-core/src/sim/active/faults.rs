//! What goes wrong, and when.

use super::cell::Confirmed;
use super::happening::Happening;
use super::world::{Node, World};
use crate::protocol::active::Active;
use crate::random::Rng;
use std::time::Duration;

#[derive(Debug)]
pub(super) struct Weather {
    rng: Rng,
    every: Duration,
    pub(super) faults: u64,
    /// Messages beside the stream get lost.
    pub(super) lossy: bool,
}

impl Weather {
    pub(super) fn new(mut rng: Rng, duration: Duration) -> Self {
        let faults = 3 + u32::try_from(rng.below(25)).unwrap_or(0);
        Self {
            every: duration / faults,
            faults: 0,
            lossy: false,
            rng,
        }
    }

    pub(super) fn next_after(&mut self) -> Duration {
        let mean = u64::try_from(self.every.as_nanos()).unwrap_or(1);
        Duration::from_nanos(self.rng.below(2 * mean + 1))
    }

    /// Added to messages beside the stream.
    pub(super) fn delay(&mut self) -> Duration {
        if self.lossy && self.rng.one_in(20) {
            Duration::from_millis(self.rng.below(300))
        } else {
            Duration::ZERO
        }
    }
}

impl World {
    pub(super) fn on_fault(&mut self) {
        if self.healed {
            return;
        }
        self.weather.faults += 1;
        let mut menu: Vec<fn(&mut Self)> = Vec::new();
        if self.cell.crashes() {
            menu.extend([Self::crash as fn(&mut Self), Self::crash]);
        }
        if self.cell.pauses() {
            menu.extend([Self::pause as fn(&mut Self), Self::pause]);
            if self.log.is_none() {
                menu.push(Self::change_weather);
            }
        }
        if self.cell.lies() {
            menu.extend([
                Self::drop_session as fn(&mut Self),
                Self::restart_broker,
                Self::deafen,
                Self::change_weather,
            ]);
        }
        if self.is_extinguishing() {
            menu.push(Self::extinguish);
            if self.log.is_none() {
                menu.push(Self::strand);
            }
        }
        if self.log.is_some() {
            menu.extend([Self::disturb_log as fn(&mut Self), Self::disturb_log]);
            if self.cell.pauses() {
                menu.push(Self::lag);
            }
        }
        let pick = self.rng.below(menu.len() as u64);
        menu[usize::try_from(pick).unwrap_or(0)](self);
        let after = self.weather.next_after();
        self.schedule(after, Happening::Fault);
    }

    fn some_node(&mut self) -> usize {
        usize::try_from(self.rng.below(self.nodes.len() as u64)).unwrap_or(0)
    }

    /// A replica dies, where the promise allows it, and comes back later or at once.
    fn crash(&mut self) {
        let n = self.some_node();
        let serving = |n: usize| {
            let node = &self.nodes[n];
            !node.paused
                && node.deaf_since.is_none()
                && node
                    .active
                    .as_ref()
                    .is_some_and(|active| active.status().serving)
        };
        let others = (0..self.nodes.len())
            .filter(|other| *other != n && serving(*other))
            .count();
        let holding = |n: usize| {
            let active = self.nodes[n].active.as_ref();
            active.is_some_and(|active| active.status().holding)
        };
        let has_state = |n: usize| {
            let active = self.nodes[n].active.as_ref();
            active.is_some_and(|active| active.status().at.is_some())
        };
        let without = (0..self.nodes.len())
            .filter(|other| *other != n && !has_state(*other))
            .count();
        let allowed = match self.cell.confirmed {
            _ if self.is_extinguishing() => true,
            Confirmed::ByOne => others >= 1,
            // Whoever else has it may be stopped, deaf or taken for dead.
            Confirmed::ByMost => without + 1 < self.group.confirmations,
        };
        let spared = match &self.log {
            None => true,
            Some(log) if self.is_extinguishing() => log.may_kill(n),
            Some(log) => log.spares(n, |other| serving(other) && !holding(other)),
        };
        if !allowed || !spared || self.nodes[n].active.is_none() {
            return;
        }
        let after = if self.rng.one_in(3) {
            Duration::from_millis(self.rng.below(30))
        } else {
            Duration::from_millis(self.rng.below(6_000))
        };
        self.fall(n, after);
    }

    /// All die, and come back nearly at the same moment.
    fn extinguish(&mut self) {
        let first = Duration::from_millis(self.rng.below(500));
        for node in 0..self.nodes.len() {
            // The later members wait a little longer before they begin anew: that must not be all that keeps them apart.
            let earlier = self.group.timing.heartbeat_every * (self.nodes.len() - node) as u32;
            let after = first + earlier + Duration::from_micros(self.rng.below(4_000));
            self.fall(node, after);
        }
    }

    /// Some stop, and what the stream has for them is lost. The others die together and come back at once, perhaps before those go on, perhaps after.
    fn strand(&mut self) {
        let members = self.nodes.len() as u64;
        let (first, away) = (self.rng.below(members), 1 + self.rng.below(members - 1));
        let suspect = u64::try_from(self.group.timing.suspect_after.as_nanos()).unwrap_or(1);
        let back = Duration::from_nanos(self.rng.below(40 * suspect));
        for node in 0..self.nodes.len() {
            let strands = (node as u64 + members - first) % members < away;
            if !strands {
                self.kill(node);
                let after = Duration::from_millis(self.rng.below(500));
                self.schedule(after, Happening::Start { node });
            } else if self.nodes[node].active.is_some() && !self.nodes[node].paused {
                self.nodes[node].paused = true;
                self.say(format!("n{node} stops, and its session will be gone"));
                let after = back + Duration::from_millis(self.rng.below(500));
                self.schedule(after, Happening::Return { node });
            }
        }
    }

    pub(super) fn return_with_nothing(&mut self, n: usize) {
        if self.nodes[n].paused {
            // What was sent beside the stream went the same way.
            let is_lost = |what: &Happening| matches!(what, Happening::Message { .. });
            self.nodes[n].stalled.retain(|what| !is_lost(what));
            self.lose_connection(n);
            self.resume(n);
        }
    }

    fn pause(&mut self) {
        let n = self.some_node();
        // Where the broker drops what a stopped one does not take, two of them would leave nobody who has it all.
        let another = self
            .nodes
            .iter()
            .any(|node| node.paused || node.active.is_none());
        let out = self.nodes[n].active.is_none() || self.nodes[n].paused;
        if out || (self.cell.drops() && (another || self.is_another_behind(n))) {
            return;
        }
        let suspect = u64::try_from(self.group.timing.suspect_after.as_nanos()).unwrap_or(1);
        let after = if self.is_extinguishing() && self.rng.one_in(2) {
            // So long that others may begin anew.
            Duration::from_nanos(self.rng.below(25 * suspect))
        } else if self.cell.drops() {
            // So long that it must notice.
            Duration::from_nanos(suspect + self.rng.below(5 * suspect))
        } else {
            Duration::from_nanos(self.rng.below(6 * suspect))
        };
        match &mut self.log {
            Some(log) => {
                log.pause(n, after);
                self.attend_log();
            }
            None => {
                self.nodes[n].paused = true;
                self.say(format!("n{n} stops"));
                self.schedule(after, Happening::Resume { node: n });
            }
        }
    }

    /// Something happens to the log's group, apart from what happens to its members' processes.
    fn disturb_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.disturb(&mut self.rng);
        }
        self.attend_log();
    }

    /// Whether somebody else than this one is stopped, or may have missed something that it has not made good.
    fn is_another_behind(&self, n: usize) -> bool {
        let is_behind = |node: &Node| {
            let status = node.active.as_ref().map(Active::status);
            node.paused || status.is_none_or(|status| status.holding || !status.serving)
        };
        let mut others = self.nodes.iter().filter(|node| node.id != self.nodes[n].id);
        self.log.is_some() && others.any(is_behind)
    }

    /// A member does not keep up with what its node of the log applies.
    fn lag(&mut self) {
        let n = self.some_node();
        // Two that miss the same would leave nobody who has it all.
        if self.cell.drops() && self.is_another_behind(n) {
            return;
        }
        let commands = 1 + self.rng.below(60);
        if let Some(log) = &mut self.log {
            log.lag(n, commands);
            self.say(format!("n{n} does not keep up, by {commands} commands"));
        }
    }

    fn change_weather(&mut self) {
        self.weather.lossy = !self.weather.lossy;
        let lossy = self.weather.lossy;
        self.say(format!("messages get lost: {lossy}"));
    }

    /// The broker forgets a session: what was on its way to that replica is gone, and it is told.
    fn drop_session(&mut self) {
        let n = self.some_node();
        self.lose_connection(n);
    }

    fn restart_broker(&mut self) {
        self.say("the broker restarts without its queues".into());
        for n in 0..self.nodes.len() {
            self.lose_connection(n);
        }
    }

    /// The broker takes what a replica publishes and delivers nothing to it, until it connects anew.
    fn deafen(&mut self) {
        let n = self.some_node();
        let another = self.nodes.iter().any(|node| node.deaf_since.is_some());
        if self.nodes[n].active.is_none() || another {
            return;
        }
        self.nodes[n].deaf_since = Some(self.now);
        self.say(format!("n{n} gets nothing any more"));
    }

    pub(super) fn lose_connection(&mut self, n: usize) {
        if self.nodes[n].active.is_none() {
            return;
        }
        self.nodes[n].epoch += 1;
        self.nodes[n].deaf_since = None;
        let life = self.nodes[n].life;
        self.say(format!("n{n} loses its session"));
        let after = Duration::from_millis(self.rng.below(50));
        self.schedule(after, Happening::Reset { node: n, life });
    }
}
