//! The stream, as a broker keeps it: one order of what arrives, and a queue for each subscriber, of which it may lose.

use crate::random::Rng;
use crate::time::Time;
use std::time::Duration;

/// What the broker does with one message for one subscriber.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Passage {
    Lost,
    Once(Time),
    Twice(Time, Time),
}

#[derive(Debug)]
pub(super) struct Broker {
    rng: Rng,
    delay_spread: Duration,
    /// When the last message of each publisher arrives, and the last one to each subscriber.
    from: Vec<Time>,
    to: Vec<Time>,
    /// How often it lies, once in so many; 0: never.
    pub(super) lies_one_in: u64,
}

impl Broker {
    pub(super) fn new(publishers: usize, subscribers: usize, mut rng: Rng) -> Self {
        Self {
            delay_spread: Duration::from_micros(200 + rng.below(3_000)),
            rng,
            from: vec![Time::ZERO; publishers],
            to: vec![Time::ZERO; subscribers],
            lies_one_in: 0,
        }
    }

    pub(super) fn delay(&mut self) -> Duration {
        let spread = u64::try_from(self.delay_spread.as_nanos()).unwrap_or(1);
        let mut delay = Duration::from_nanos(40_000 + self.rng.below(spread));
        if self.rng.one_in(300) {
            delay += Duration::from_millis(self.rng.below(40));
        }
        delay
    }

    /// When a publication arrives: each publisher's in its order.
    pub(super) fn arrival(&mut self, now: Time, publisher: usize) -> Time {
        let at = (now + self.delay()).max(self.from[publisher]);
        self.from[publisher] = at;
        at
    }

    /// How a message gets to a subscriber.
    pub(super) fn passage(&mut self, now: Time, subscriber: usize) -> Passage {
        let before = self.to[subscriber];
        let at = (now + self.delay()).max(before);
        if self.lies_one_in > 0 && self.rng.one_in(self.lies_one_in) {
            match self.rng.below(4) {
                0 | 1 => return Passage::Lost,
                2 => {
                    self.to[subscriber] = at;
                    return Passage::Twice(at, at + Duration::from_micros(self.rng.below(900)));
                }
                // It comes behind what is sent after it.
                _ => return Passage::Once(at + Duration::from_millis(2 + self.rng.below(5))),
            }
        }
        self.to[subscriber] = at;
        Passage::Once(at)
    }
}
