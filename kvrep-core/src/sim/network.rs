//! Links between nodes: how long a frame takes, and whether it arrives.

use super::plan::Links;
use crate::random::Rng;
use crate::time::Time;
use std::time::Duration;

/// What happens to one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Lost,
    Once(Time),
    Twice(Time, Time),
}

#[derive(Clone, Copy, Debug, Default)]
struct Link {
    /// How many faults cut it now.
    cuts: u32,
    /// Added loss, in thousandths.
    loss: u32,
    /// Added delay.
    delay: Duration,
    /// When the last frame arrives, for links that keep the order.
    last: Time,
}

/// All links, one for each direction.
#[derive(Debug)]
pub(super) struct Network {
    nodes: usize,
    links: Vec<Link>,
    plan: Links,
    rng: Rng,
}

impl Network {
    pub(super) fn new(nodes: usize, plan: Links, rng: Rng) -> Self {
        Self {
            nodes,
            links: vec![Link::default(); nodes * nodes],
            plan,
            rng,
        }
    }

    /// Sends a frame at `now`.
    pub(super) fn route(&mut self, now: Time, from: usize, to: usize) -> Route {
        let first = self.delay();
        let Self {
            links, plan, rng, ..
        } = self;
        let link = &mut links[from * self.nodes + to];
        if link.cuts > 0 || rng.below(100_000) < u64::from(plan.loss) + 100 * u64::from(link.loss) {
            return Route::Lost;
        }
        let mut at = now + first + link.delay;
        if plan.keeps_order {
            at = at.max(link.last);
            link.last = at;
        }
        if rng.below(100_000) < u64::from(plan.duplicates) {
            let again = at + self.delay() * 4;
            return Route::Twice(at, again);
        }
        Route::Once(at)
    }

    /// How long a message to or from a client takes.
    pub(super) fn delay(&mut self) -> Duration {
        let Links {
            delay_min,
            delay_spread,
            spike_one_in,
            spike,
            ..
        } = self.plan;
        let spread = u64::try_from(delay_spread.as_nanos()).unwrap_or(0);
        let mut delay = delay_min + Duration::from_nanos(self.rng.below(spread + 1));
        if spike_one_in > 0 && self.rng.one_in(spike_one_in) {
            let spike = u64::try_from(spike.as_nanos()).unwrap_or(0);
            delay += Duration::from_nanos(self.rng.below(spike + 1));
        }
        delay
    }

    pub(super) fn cut(&mut self, from: usize, to: usize) {
        self.links[from * self.nodes + to].cuts += 1;
    }

    pub(super) fn mend(&mut self, from: usize, to: usize) {
        let link = &mut self.links[from * self.nodes + to];
        link.cuts = link.cuts.saturating_sub(1);
    }

    /// Sets added loss and delay of a link.
    pub(super) fn worsen(&mut self, from: usize, to: usize, loss: u32, delay: Duration) {
        let link = &mut self.links[from * self.nodes + to];
        link.loss = loss;
        link.delay = delay;
    }

    /// Whether no fault is on a link.
    pub(super) fn is_clear(&self, from: usize, to: usize) -> bool {
        let link = &self.links[from * self.nodes + to];
        link.cuts == 0 && link.loss == 0 && link.delay.is_zero()
    }

    /// Everything is well again.
    pub(super) fn heal(&mut self) {
        for link in &mut self.links {
            *link = Link {
                last: link.last,
                ..Link::default()
            };
        }
    }
}
