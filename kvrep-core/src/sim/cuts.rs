//! Faults of links: cuts of every shape, flapping, storms.

use super::disk::Death;
use super::faults::{Kind, Lasting};
use super::queue::Happening;
use super::world::World;
use crate::time::Time;
use crate::transport::Hint;
use std::time::Duration;

impl World {
    pub(super) fn disturb_links(&mut self, kind: Kind, primary: usize) {
        let count = self.nodes.len();
        let all = |keep: &dyn Fn(usize, usize) -> bool| -> Vec<(usize, usize)> {
            (0..count)
                .flat_map(|a| (0..count).map(move |b| (a, b)))
                .filter(|&(a, b)| a != b && keep(a, b))
                .collect()
        };
        let rng = &mut self.weather.rng;
        let side: Vec<bool> = (0..count).map(|_| rng.one_in(2)).collect();
        let split = |a: usize, b: usize| side[a] != side[b];
        let witness = self.plan.members;
        let links = match kind {
            Kind::Split | Kind::Flap if rng.one_in(2) => all(&split),
            Kind::OneWay => match rng.below(3) {
                0 => all(&|a, b| side[a] && !side[b]),
                1 => all(&|a, _| a == primary),
                _ => all(&|_, b| b == primary),
            },
            Kind::CutPrimary => match rng.below(3) {
                0 => all(&|a, b| (a == primary) != (b == primary)),
                1 => all(&|a, b| (a == primary && b == witness) || (a == witness && b == primary)),
                _ => all(&|a, b| (a == primary && b != witness) || (b == primary && a != witness)),
            },
            Kind::ResetPrimary if rng.one_in(2) => all(&|a, b| a == primary && b != witness),
            Kind::ResetPrimary => {
                all(&|a, b| (a == primary && b != witness) || (b == primary && a != witness))
            }
            Kind::CutWitness => all(&|a, b| a == witness || b == witness),
            Kind::CutAll => all(&|_, _| true),
            _ => {
                let victim = rng.below(count as u64) as usize;
                all(&|a, b| (a == victim) != (b == victim))
            }
        };
        if self.plan.members == 2 && links.is_empty() {
            return;
        }
        self.weather.unrest(self.now);
        let length = self.weather.between(50, 4_000);
        let until = self.now + length;
        match kind {
            Kind::Storm => {
                let loss = 50 + self.weather.rng.below(500) as u32;
                let delay = self.weather.between(0, 100);
                self.say(format!(
                    "storm for {length:?}: {loss}‰ lost, {delay:?} more"
                ));
                for (from, to) in &links {
                    self.network.worsen(*from, *to, loss, delay);
                }
                let fault = self.lasts(Lasting::Storm(links));
                self.queue.push(until, Happening::FaultEnds { fault });
            }
            Kind::Flap => {
                let every = self.weather.between(20, 500);
                let fault = self.lasts(Lasting::Flap {
                    links,
                    cut: false,
                    every,
                    until,
                });
                self.queue.push(self.now, Happening::FaultEnds { fault });
            }
            _ => {
                let shown: Vec<String> = links
                    .iter()
                    .map(|(a, b)| format!("{}⇥{}", self.nodes[*a].id, self.nodes[*b].id))
                    .collect();
                self.say(format!("cut for {length:?}: {}", shown.join(" ")));
                for (from, to) in &links {
                    self.network.cut(*from, *to);
                }
                let fault = self.lasts(Lasting::Cut(links));
                self.queue.push(until, Happening::FaultEnds { fault });
                if kind == Kind::ResetPrimary {
                    self.reset_connections(primary);
                }
            }
        }
    }

    /// The other members see their connections to `about` end, though it lives; one of them may restart just then.
    fn reset_connections(&mut self, about: usize) {
        for to in (0..self.plan.members).filter(|to| *to != about) {
            let at = self.now + self.network.delay();
            let hint = Hint::Gone;
            self.queue.push(at, Happening::Hint { to, about, hint });
        }
        let one = self.weather.rng.below(self.plan.members as u64) as usize;
        if one != about && self.weather.rng.one_in(2) && self.may_kill(one) {
            let after = self.weather.between(1, 30);
            self.kill_for(one, Death::Killed, after);
        }
    }

    pub(super) fn flap(
        &mut self,
        fault: usize,
        links: Vec<(usize, usize)>,
        (cut, every, until): (bool, Duration, Time),
    ) {
        for (from, to) in &links {
            if cut {
                self.network.mend(*from, *to);
            } else if self.now < until {
                self.network.cut(*from, *to);
            }
        }
        if self.now < until && !self.healed {
            self.weather.lasting[fault] = Some(Lasting::Flap {
                links,
                cut: !cut,
                every,
                until,
            });
            let at = self.now + every;
            self.queue.push(at, Happening::FaultEnds { fault });
        }
    }
}
