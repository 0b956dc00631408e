//! Which publication it is that a connection dies of, again and again.
//!
//! A broker that cannot stomach a publication ends the connection, and gets the same publication again on the next one, for ever: nothing of ours leaves any
//! more. So breaks are counted that come within moments of our sending, while the same publication is the first unacknowledged one and nothing was acknowledged in
//! between. After a few of them publications are sent one at a time, so that innocent ones get through; the one that is alone under way when the connection breaks
//! again and again is given up.
//!
//! A broker that is killed and started again is no such case: for a while nobody answers, which [absolves](Suspects::absolve), and is found out by connecting again without delay. Nor is one that says why it
//! ends, if that is something else. Where the broker says that it cannot read what it got, two breaks are enough.
//!
//! Bounds: one publication is remembered, and a number.

use bytes::Bytes;
use std::sync::Arc;

/// What the end of a connection says about the publications that were under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Blame {
    /// One of them is larger than the broker takes.
    TooLarge,
    /// Something that came is no sound packet, or not allowed.
    Content,
    /// Nothing: the connection just ended, within moments of our sending.
    Unsaid,
    /// Something else was the cause.
    Else,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Judgement {
    /// Go on.
    GoOn,
    /// What was under way is to be sent one at a time, in a new session: a resumed one would bring all of it at once.
    OneAtATime,
    /// The only one under way is given up, after so many breaks.
    GiveUp { breaks: u32 },
}

/// Where a publication goes, and what it says: what it is known by, also in another session.
type Known = (Arc<str>, Bytes);

#[derive(Debug, Default)]
pub(super) struct Suspects {
    first: Option<Known>,
    /// In a row, with that one as the first.
    breaks: u32,
    /// How many are still to be sent one at a time.
    alone: usize,
}

impl Suspects {
    /// How many publications may be under way.
    pub(super) fn in_flight_max(&self) -> usize {
        if self.alone > 0 { 1 } else { usize::MAX }
    }

    /// The broker has one, or refused it and went on.
    pub(super) fn answered(&mut self) {
        self.alone = self.alone.saturating_sub(1);
        self.absolve();
    }

    /// Whether to connect again at once: to see whether the broker is still there, which one that was killed is not.
    pub(super) fn are_there(&self) -> bool {
        self.breaks >= 2
    }

    /// There was another cause, or may have been.
    pub(super) fn absolve(&mut self) {
        (self.first, self.breaks) = (None, 0);
    }

    /// A connection broke with so many under way, this one the first.
    pub(super) fn broke(
        &mut self,
        blame: Blame,
        first: Option<(&Arc<str>, &Bytes)>,
        in_flight: usize,
    ) -> Judgement {
        let (few, many) = match blame {
            Blame::Content => (SAID_MIN, SAID_MIN),
            Blame::Unsaid => (UNSAID_MIN, UNSAID_ALONE_MIN),
            Blame::TooLarge | Blame::Else => {
                self.absolve();
                return Judgement::GoOn;
            }
        };
        let Some((topic, payload)) = first else {
            self.absolve();
            return Judgement::GoOn;
        };
        let same = self
            .first
            .as_ref()
            .is_some_and(|(at, said)| at == topic && said == payload);
        self.breaks = if same { self.breaks + 1 } else { 1 };
        self.first = Some((Arc::clone(topic), payload.clone()));
        let breaks = self.breaks;
        if in_flight == 1 && breaks >= many {
            self.absolve();
            self.alone = self.alone.saturating_sub(1);
            return Judgement::GiveUp { breaks };
        }
        if in_flight > 1 && breaks >= few {
            self.alone = in_flight;
            return Judgement::OneAtATime;
        }
        Judgement::GoOn
    }
}

/// Breaks in a row where the broker says that it could not read what it got.
const SAID_MIN: u32 = 2;
/// Where it says nothing, until publications are sent one at a time.
const UNSAID_MIN: u32 = 3;
/// And until the only one under way is given up.
const UNSAID_ALONE_MIN: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    /// A broker that ends the connection whenever it gets `poison`, and acknowledges what came before it. What it did not acknowledge is sent again.
    struct World {
        suspects: Suspects,
        waiting: Vec<&'static str>,
        acknowledged: Vec<&'static str>,
        given_up: Vec<&'static str>,
        breaks: u32,
    }

    impl World {
        fn new(waiting: &[&'static str]) -> Self {
            Self {
                suspects: Suspects::default(),
                waiting: waiting.to_vec(),
                acknowledged: Vec::new(),
                given_up: Vec::new(),
                breaks: 0,
            }
        }

        /// One connection; of what the broker takes, so many acknowledgements are lost with it.
        fn connection(&mut self, blame: Blame, poison: &str, lost: usize) {
            let mut taken = 0;
            let broken = loop {
                let in_flight = self.waiting.len().min(self.suspects.in_flight_max());
                if in_flight == 0 {
                    return;
                }
                let before = self.waiting[..in_flight].iter().position(|p| *p == poison);
                let passes = match before {
                    Some(at) => at.saturating_sub(lost),
                    None => in_flight,
                };
                for _ in 0..passes {
                    self.acknowledged.push(self.waiting.remove(0));
                    self.suspects.answered();
                    taken += 1;
                }
                if before.is_some() {
                    break in_flight - passes;
                }
            };
            self.breaks += 1;
            let first = (
                Arc::from("t"),
                Bytes::from_static(self.waiting[0].as_bytes()),
            );
            let judged = self
                .suspects
                .broke(blame, Some((&first.0, &first.1)), broken);
            if let Judgement::GiveUp { .. } = judged {
                self.given_up.push(self.waiting.remove(0));
            }
            assert!(taken <= 4, "there are no more");
        }
    }

    #[test]
    fn what_the_broker_cannot_read_is_found_among_others_and_those_get_through() {
        for (blame, breaks_max) in [(Blame::Content, 5), (Blame::Unsaid, 10)] {
            for lost in [0, 9] {
                let mut world = World::new(&["a", "b", "poison", "c"]);
                for _ in 0..20 {
                    world.connection(blame, "poison", lost);
                }
                assert_eq!(world.given_up, ["poison"], "{blame:?}");
                assert_eq!(world.acknowledged, ["a", "b", "c"], "{blame:?}");
                assert!(world.breaks <= breaks_max, "{blame:?}: {}", world.breaks);
                assert_eq!(
                    world.suspects.in_flight_max(),
                    usize::MAX,
                    "all is well again"
                );
            }
        }
    }

    #[test]
    fn a_broker_that_is_away_between_the_breaks_costs_nothing() {
        let mut suspects = Suspects::default();
        let one = (Arc::from("t"), Bytes::from_static(b"x"));
        for _ in 0..100 {
            let judged = suspects.broke(Blame::Unsaid, Some((&one.0, &one.1)), 1);
            assert_eq!(judged, Judgement::GoOn);
            suspects.absolve(); // nobody listens
        }
        for _ in 0..100 {
            let judged = suspects.broke(Blame::Else, Some((&one.0, &one.1)), 1);
            assert_eq!(judged, Judgement::GoOn);
        }
    }

    #[test]
    fn breaks_with_something_acknowledged_in_between_are_not_in_a_row() {
        let mut suspects = Suspects::default();
        let one = (Arc::from("t"), Bytes::from_static(b"x"));
        for _ in 0..100 {
            for _ in 0..4 {
                let judged = suspects.broke(Blame::Unsaid, Some((&one.0, &one.1)), 1);
                assert_eq!(judged, Judgement::GoOn);
            }
            suspects.answered();
        }
        // Another one is the first each time.
        for n in 0..100_u8 {
            let other = (Arc::from("t"), Bytes::from(vec![n]));
            let judged = suspects.broke(Blame::Content, Some((&other.0, &other.1)), 1);
            assert_eq!(judged, Judgement::GoOn);
        }
    }
}
