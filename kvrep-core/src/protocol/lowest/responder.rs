//! [`Responder`]: who answers, by what was heard. No messages, no timers: for the scheme, and for systems with a wire of their own.

use super::mutation::Mutation;
use crate::detector::ticks::{TickConfig, TickConfigError, TickDetector};
use crate::detector::{FailureDetector, Verdict};
use crate::id::ReplicaId;
use crate::time::Time;
use std::collections::BTreeSet;

/// Whose turn it is to answer, as far as this replica knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// This one's: it hears nobody lower.
    Mine,
    /// A lower one's.
    Theirs(ReplicaId),
    /// This replica has not listened for long enough since its start, or since it slept. It answers nothing, and does not say that it lives.
    Listening,
}

/// Decides who answers: the lowest that lives.
///
/// Invariants: a replica answers only what is asked while it hears nobody lower; it never answers in its first two periods, nor when it has
/// not ticked for two (others may have given it up), nor in the two after it did not run for so long. What is heard in the first half of a period
/// after such a sleep is not believed: it may have waited as long. (Not longer: a live one must be heard once in what is left of the two, however late one
/// of its signs of life is.) A replica that listens [does not say](Self::speaks) that it lives, and one answers from its first sign of life on: others stand
/// back for it no sooner, so that somebody answers all the time.
///
/// Caveat: a sleep of at most two periods is not noticed. What was asked meanwhile may be answered although somebody else did.
///
/// ```
/// use kvrep_core::detector::ticks::TickConfig;
/// use kvrep_core::protocol::lowest::{Responder, Turn};
/// use kvrep_core::{ReplicaId, Time};
/// use std::time::Duration;
///
/// let at = |seconds| Time::ZERO + Duration::from_secs(seconds);
/// let me = ReplicaId(2);
/// let mut responder = Responder::new(me, (1..=5).map(ReplicaId), TickConfig::default()).unwrap();
/// responder.start(at(0));
/// assert_eq!(responder.turn(at(1)), Turn::Listening);
/// responder.heard(at(1), ReplicaId(1));
/// for second in 1..4 {
///     if responder.speaks(at(second)) {
///         // Tells the others that it lives, from the second tick on.
///     }
///     responder.tick(at(second)); // and nothing is heard
/// }
/// assert_eq!(responder.turn(at(3)), Turn::Theirs(ReplicaId(1)));
/// assert_eq!(responder.turn(at(4)), Turn::Mine);
/// ```
#[derive(Debug)]
pub struct Responder {
    me: ReplicaId,
    ticks: TickDetector,
    config: TickConfig,
    members: BTreeSet<ReplicaId>,
    /// The last tick: when others last heard that this one lives, if it speaks. Hearing others is no such proof.
    awake: Time,
    /// What is heard before is not believed.
    deaf_until: Time,
    /// Nothing is said or answered before.
    listens_until: Time,
    /// It has said since then that it lives. Nothing is answered before either.
    has_spoken: bool,
    /// Whose turn it was at the last tick, for the bug that is decided then.
    at_tick: Option<Turn>,
    pub(super) mutation: Option<Mutation>,
}

impl Responder {
    /// One for `me`, of whom nobody is heard yet.
    ///
    /// # Errors
    /// When the configuration makes no sense.
    pub fn new(
        me: ReplicaId,
        members: impl IntoIterator<Item = ReplicaId>,
        config: TickConfig,
    ) -> Result<Self, TickConfigError> {
        Ok(Self {
            me,
            ticks: TickDetector::new(config)?,
            config,
            members: members.into_iter().collect(),
            awake: Time::ZERO,
            deaf_until: Time::ZERO,
            listens_until: Time::ZERO,
            has_spoken: false,
            at_tick: None,
            mutation: None,
        })
    }

    /// Begins to listen.
    pub fn start(&mut self, now: Time) {
        self.awake = now;
        self.deaf_until = now;
        self.has_spoken = false;
        self.listens_until = if self.has(Mutation::AnswersAtOnce) {
            now
        } else {
            now + self.config.period * LISTENS_FOR
        };
        for member in self.members.clone() {
            self.ticks.expect(now, member);
        }
    }

    /// A sign of life came. Returns whether it is believed: it is a member's, and this replica has not just slept.
    pub fn heard(&mut self, now: Time, from: ReplicaId) -> bool {
        self.wake(now);
        if self.has(Mutation::AwakeByHearing) {
            self.awake = self.awake.max(now);
        }
        let believed = now >= self.deaf_until && self.members.contains(&from);
        if believed {
            self.ticks.on_heard(now, from);
        }
        believed
    }

    /// Whether to say now that this replica lives. Call at every [`next_tick`](Self::next_tick), before [`tick`](Self::tick), and say it if so: from now on
    /// the others rely on this one, and so it answers.
    pub fn speaks(&mut self, now: Time) -> bool {
        self.wake(now);
        if now < self.listens_until {
            return self.has(Mutation::SpeaksWhileItListens);
        }
        self.has_spoken = true;
        true
    }

    /// Time has passed. Call at every [`next_tick`](Self::next_tick), or it will look as if this replica had slept.
    pub fn tick(&mut self, now: Time) {
        self.wake(now);
        self.awake = self.awake.max(now);
        self.ticks.tick(now);
        if self.has(Mutation::DecidedAtTicks) {
            self.at_tick = Some(self.decide(now));
        }
    }

    /// The next tick after `now`: when to send a sign of life, and to [`tick`](Self::tick).
    #[must_use]
    pub fn next_tick(&self, now: Time) -> Time {
        self.ticks.next_tick(now)
    }

    /// Who answers what is asked now.
    #[must_use]
    pub fn turn(&self, now: Time) -> Turn {
        if now < self.listens_until || !self.has_spoken || self.slept(now) {
            return Turn::Listening;
        }
        self.at_tick.unwrap_or_else(|| self.decide(now))
    }

    fn decide(&self, now: Time) -> Turn {
        let mut counts = self.members.iter().copied().filter(|member| {
            *member < self.me || (self.has(Mutation::HigherCounts) && *member > self.me)
        });
        counts
            .find(|member| self.counts_on(self.ticks.verdict(now, *member)))
            .map_or(Turn::Mine, Turn::Theirs)
    }

    fn counts_on(&self, verdict: Verdict) -> bool {
        match self.mutation {
            Some(Mutation::CountedOnTooLong) => verdict < Verdict::Disconnected,
            Some(Mutation::CountedOnTooShort) => verdict == Verdict::Active,
            _ => verdict.is_live(),
        }
    }

    /// Every member, by id, with its level.
    pub fn verdicts(&self, now: Time) -> impl Iterator<Item = (ReplicaId, Verdict)> + '_ {
        self.ticks.verdicts(now)
    }

    fn slept(&self, now: Time) -> bool {
        now - self.awake > self.config.period * SLEPT_FROM && !self.has(Mutation::SleepUnnoticed)
    }

    fn wake(&mut self, now: Time) {
        if !self.slept(now) {
            return;
        }
        self.awake = now;
        self.deaf_until = match self.mutation {
            Some(Mutation::BacklogBelieved) => now,
            Some(Mutation::DeafForTwoPeriods) => now + self.config.period * 2,
            _ => now + self.config.period / 2,
        };
        self.listens_until = now + self.config.period * LISTENS_FOR;
        self.has_spoken = false;
        for member in self.members.clone() {
            self.ticks.forget(member);
            self.ticks.expect(now, member);
        }
    }

    pub(super) fn has(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }
}

/// Periods without an answer after the start, or a sleep: each live member is heard in them.
const LISTENS_FOR: u32 = 2;

/// Periods after which a replica that said nothing has slept.
const SLEPT_FROM: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_millis(millis)
    }

    fn responder(me: u32) -> Responder {
        let members = (1..=5).map(ReplicaId);
        let mut responder = Responder::new(ReplicaId(me), members, TickConfig::default()).unwrap();
        responder.start(at(0));
        responder
    }

    /// Returns whether it says that it lives.
    fn tick(responder: &mut Responder, now: Time) -> bool {
        let says = responder.speaks(now);
        responder.tick(now);
        says
    }

    /// Ticks each second, hearing these.
    fn live(responder: &mut Responder, seconds: std::ops::Range<u64>, heard: &[u32]) {
        for second in seconds {
            tick(responder, at(second * 1_000));
            for member in heard {
                responder.heard(at(second * 1_000 + 10), ReplicaId(*member));
            }
        }
    }

    #[test]
    fn the_next_one_takes_over_when_the_counter_of_the_lowest_is_below_two() {
        let mut two = responder(2);
        live(&mut two, 1..5, &[1]);
        // Heard at 4.01: 3 after the tick at 5, 2 after the one at 6, 1 after the one at 7.
        tick(&mut two, at(5_000));
        tick(&mut two, at(6_000));
        assert_eq!(two.turn(at(6_999)), Turn::Theirs(ReplicaId(1)));
        tick(&mut two, at(7_000));
        assert_eq!(two.turn(at(7_000)), Turn::Mine);
        two.heard(at(7_500), ReplicaId(1));
        assert_eq!(two.turn(at(7_500)), Turn::Theirs(ReplicaId(1)));
    }

    #[test]
    fn the_lowest_of_those_that_are_heard_answers_and_higher_ones_do_not_count() {
        let mut three = responder(3);
        live(&mut three, 1..4, &[2, 4, 5]);
        assert_eq!(three.turn(at(3_500)), Turn::Theirs(ReplicaId(2)));
        let mut one = responder(1);
        live(&mut one, 1..4, &[2, 3]);
        assert_eq!(one.turn(at(3_500)), Turn::Mine);
        assert!(!one.heard(at(3_500), ReplicaId(9)), "no member");
    }

    #[test]
    fn what_waited_while_a_replica_slept_revives_nobody_and_it_listens_first() {
        let mut two = responder(2);
        live(&mut two, 1..5, &[1]);
        assert_eq!(two.turn(at(4_500)), Turn::Theirs(ReplicaId(1)));
        // It is stopped; the lowest dies; what it had sent is still in the socket.
        assert_eq!(two.turn(at(60_000)), Turn::Listening);
        for _ in 0..50 {
            assert!(!two.heard(at(60_000), ReplicaId(1)));
        }
        assert!(!tick(&mut two, at(60_500)));
        assert_eq!(two.turn(at(61_000)), Turn::Listening);
        assert!(!tick(&mut two, at(61_500)));
        // It answers from when it says that it lives, and not before.
        assert_eq!(two.turn(at(62_400)), Turn::Listening);
        assert!(tick(&mut two, at(62_500)));
        assert_eq!(two.turn(at(62_500)), Turn::Mine);
    }

    #[test]
    fn who_has_said_nothing_for_two_periods_answers_nothing_though_it_hears_others() {
        let mut one = responder(1);
        live(&mut one, 1..5, &[2]);
        assert_eq!(one.turn(at(4_500)), Turn::Mine);
        // It is stopped just after it has heard somebody, and goes on: others may have given it up by now.
        one.heard(at(5_900), ReplicaId(2));
        assert_eq!(one.turn(at(6_001)), Turn::Listening);
        assert!(!tick(&mut one, at(6_001)));
        assert_eq!(one.turn(at(8_000)), Turn::Listening);
    }

    #[test]
    fn a_live_one_is_heard_after_a_sleep_before_anything_is_answered_though_its_next_sign_is_late()
    {
        let mut two = responder(2);
        live(&mut two, 1..5, &[1]);
        tick(&mut two, at(60_000));
        // The one that is not believed is the last for more than a period.
        assert!(!two.heard(at(60_490), ReplicaId(1)));
        tick(&mut two, at(61_000));
        assert!(two.heard(at(61_990), ReplicaId(1)));
        tick(&mut two, at(62_000));
        assert_eq!(two.turn(at(62_000)), Turn::Theirs(ReplicaId(1)));
    }

    #[test]
    fn who_starts_says_that_it_lives_when_it_answers_and_not_sooner() {
        let mut one = responder(1);
        assert!(!tick(&mut one, at(1_000)));
        assert_eq!(one.turn(at(1_999)), Turn::Listening);
        assert!(tick(&mut one, at(2_000)));
        assert_eq!(one.turn(at(2_000)), Turn::Mine);
    }
}
