//! Bugs planted on purpose, to prove that the simulator can catch them. Nothing else uses this.

/// One planted bug of the lowest-id scheme.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(
    not(feature = "sim"),
    allow(dead_code, unreachable_pub, reason = "planted by the simulator only")
)]
#[non_exhaustive]
pub enum Mutation {
    /// A replica answers from its start on, without having listened.
    AnswersAtOnce,
    /// A replica says from its start on, and after a sleep, that it lives, though it does not answer yet.
    SpeaksWhileItListens,
    /// What waited while a replica slept is believed.
    BacklogBelieved,
    /// A replica does not notice that it slept, and answers what waited.
    SleepUnnoticed,
    /// Hearing others counts as being awake, though no sign of life was sent.
    AwakeByHearing,
    /// What is heard in the two periods after a sleep is not believed, so that a live one may not be heard in time.
    DeafForTwoPeriods,
    /// What an earlier life of a replica said counts as the later one's.
    OldLifeBelieved,
    /// Any other live replica counts, not only lower ones.
    HigherCounts,
    /// A replica is counted on until it is disconnected.
    CountedOnTooLong,
    /// A replica is counted on only while it is active.
    CountedOnTooShort,
    /// Only the one that answers says that it lives.
    OnlyTheAnsweringSpeaks,
    /// Whose turn it is changes with the ticks only.
    DecidedAtTicks,
}

impl Mutation {
    /// All of them.
    #[cfg(feature = "sim")]
    pub const ALL: [Self; 12] = [
        Self::AnswersAtOnce,
        Self::SpeaksWhileItListens,
        Self::BacklogBelieved,
        Self::SleepUnnoticed,
        Self::AwakeByHearing,
        Self::DeafForTwoPeriods,
        Self::OldLifeBelieved,
        Self::HigherCounts,
        Self::CountedOnTooLong,
        Self::CountedOnTooShort,
        Self::OnlyTheAnsweringSpeaks,
        Self::DecidedAtTicks,
    ];
}
