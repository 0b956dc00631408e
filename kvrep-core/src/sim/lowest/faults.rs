//! What goes wrong, and when.

use super::world::{DRIFT_PPM_MAX, Happening, World};
use crate::random::Rng;
use std::time::Duration;

#[derive(Debug)]
pub(super) struct Weather {
    rng: Rng,
    /// Between two faults, on average.
    every: Duration,
    pub(super) faults: u64,
}

impl Weather {
    pub(super) fn new(mut rng: Rng, period: Duration) -> Self {
        // From one fault chasing the other to times in which all is known.
        let periods = [1, 3, 8, 20][rng.below(4) as usize];
        Self {
            every: period * periods,
            faults: 0,
            rng,
        }
    }

    pub(super) fn next_after(&mut self) -> Duration {
        let mean = u64::try_from(self.every.as_nanos()).unwrap_or(1);
        Duration::from_nanos(self.rng.below(2 * mean + 1))
    }
}

impl World {
    pub(super) fn on_fault(&mut self) {
        if self.healed {
            return;
        }
        self.weather.faults += 1;
        let mut menu: Vec<fn(&mut Self)> = vec![Self::crash, Self::crash_twice];
        if self.cell.pauses() {
            menu.extend([Self::stop as fn(&mut Self), Self::stop, Self::stop]);
        }
        if self.cell.loses() {
            menu.extend([Self::storm as fn(&mut Self), Self::storm]);
        }
        if self.cell.cuts() {
            menu.extend([Self::cut as fn(&mut Self), Self::cut]);
        }
        let pick = self.rng.below(menu.len() as u64);
        menu[usize::try_from(pick).unwrap_or(0)](self);
        let after = self.weather.next_after();
        self.schedule(after, Happening::Fault);
    }

    /// The lowest that runs as often as any.
    fn some_node(&mut self) -> usize {
        let lowest = self.nodes.iter().position(|node| node.is_running());
        match lowest {
            Some(lowest) if self.rng.one_in(2) => lowest,
            _ => usize::try_from(self.rng.below(self.nodes.len() as u64)).unwrap_or(0),
        }
    }

    fn crash(&mut self) {
        let node = self.some_node();
        self.kill(node);
        let after = match self.rng.below(3) {
            0 => self.between(0, 1),
            1 => self.between(0, 5),
            _ => self.between(0, 20),
        };
        self.schedule(after, Happening::Start { node });
    }

    /// It starts again and does not live for long.
    fn crash_twice(&mut self) {
        let node = self.some_node();
        self.kill(node);
        self.start(node);
        let lives = self.between(0, 2);
        self.schedule(lives, Happening::Kill { node });
        let after = lives + self.between(0, 3);
        self.schedule(after, Happening::Start { node });
    }

    fn stop(&mut self) {
        let node = self.some_node();
        let length = match self.rng.below(4) {
            0 => self.between(0, 2),
            1 => self.between(1, 4),
            2 => self.between(2, 6),
            _ => self.between(4, 15),
        };
        self.pause(node, length);
    }

    /// On some links messages are lost, and what is not comes late, in part after what is said later.
    fn storm(&mut self) {
        let links = self.some_links();
        let loss = u32::try_from(self.rng.below(900)).unwrap_or(0);
        let delay = match self.rng.below(2) {
            0 => Duration::ZERO,
            _ => self.between(0, STORM_PERIODS_MAX),
        };
        self.say(format!(
            "storm: {loss}‰ lost, {delay:?} more: {}",
            shown(&links)
        ));
        for (from, to) in &links {
            self.network.worsen(*from, *to, loss, delay);
            self.disturb(*from, *to);
        }
        let after = self.between(0, 10);
        self.schedule(after, Happening::Calm(links));
    }

    fn cut(&mut self) {
        let links = self.some_links();
        self.say(format!("cut: {}", shown(&links)));
        for (from, to) in &links {
            self.network.cut(*from, *to);
            self.disturb(*from, *to);
        }
        let after = match self.rng.below(2) {
            0 => self.between(0, 4),
            _ => self.between(2, 25),
        };
        self.schedule(after, Happening::Mend(links));
    }

    /// Between two sides, in one direction or both, or those of one replica, or all.
    fn some_links(&mut self) -> Vec<(usize, usize)> {
        let count = self.nodes.len();
        let side: Vec<bool> = (0..count).map(|_| self.rng.one_in(2)).collect();
        let one = self.some_node();
        let kind = self.rng.below(5);
        let hit = |a: usize, b: usize| match kind {
            0 => side[a] != side[b],
            1 => side[a] && !side[b],
            2 => a == one,
            3 => b == one,
            _ => true,
        };
        let all = (0..count).flat_map(|a| (0..count).map(move |b| (a, b)));
        all.filter(|&(a, b)| a != b && hit(a, b)).collect()
    }

    fn disturb(&mut self, from: usize, to: usize) {
        let members = self.nodes.len();
        self.clear_since[from * members + to] = None;
    }

    pub(super) fn mend(&mut self, links: &[(usize, usize)]) {
        if self.healed {
            return;
        }
        self.say(format!("mended: {}", shown(links)));
        for (from, to) in links {
            self.network.mend(*from, *to);
            self.look_at(*from, *to);
        }
    }

    pub(super) fn calm(&mut self, links: &[(usize, usize)]) {
        if self.healed {
            return;
        }
        self.say(format!("calm: {}", shown(links)));
        for (from, to) in links {
            self.network.worsen(*from, *to, 0, Duration::ZERO);
            self.look_at(*from, *to);
        }
    }

    /// Another fault may still be on it.
    fn look_at(&mut self, from: usize, to: usize) {
        let clear = self.network.is_clear(from, to);
        let since = &mut self.clear_since[from * self.nodes.len() + to];
        if clear && since.is_none() {
            *since = Some(self.now);
        }
    }

    /// All faults end. Those that are dead stay so, but for some; one lives at least.
    pub(super) fn heal(&mut self) {
        self.say("heals".into());
        self.healed = true;
        self.network.heal();
        for since in &mut self.clear_since {
            since.get_or_insert(self.now);
        }
        let lives = self.some_node();
        for node in 0..self.nodes.len() {
            self.resume(node);
            if node == lives || self.rng.one_in(2) {
                self.start(node);
            }
        }
        // What is on its way in a storm may still revive somebody, who is then counted on as long as anybody.
        let periods = STORM_PERIODS_MAX + self.counted_for + 1 + 3;
        let slow = u64::from(DRIFT_PPM_MAX) * u64::from(periods);
        let known = self.ticks.period * periods
            + self.ticks.period * u32::try_from(slow / 500_000 + 1).unwrap_or(1)
            + self.delay_max;
        self.schedule(known, Happening::Quiet);
        self.schedule(known, Happening::Ask);
    }
}

fn shown(links: &[(usize, usize)]) -> String {
    let shown = links.iter().map(|(a, b)| format!("r{}⇥r{}", a + 1, b + 1));
    shown.collect::<Vec<_>>().join(" ")
}

/// By how many periods messages are late in a storm, at most.
const STORM_PERIODS_MAX: u32 = 6;
