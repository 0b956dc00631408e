//! Bugs planted on purpose, to prove that the simulator can catch them. Nothing else uses this.

/// One planted bug of the active scheme.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(
    not(feature = "sim"),
    allow(dead_code, unreachable_pub, reason = "planted by the simulator only")
)]
#[non_exhaustive]
pub enum Mutation {
    /// A newcomer owns its slots from its announcement on.
    SwitchAtAnnounce,
    /// The state that is sent is a later one than it says.
    SnapshotUntied,
    /// A substitute answers only what was asked lately.
    ReplayRecentOnly,
    /// What a replica has received counts as answered.
    ReceivedForAnswered,
    /// A newcomer serves when it says that it is ready, not where the stream delivers it.
    ReadyOutOfBand,
    /// Every genesis counts for its author, not only the first.
    GenesisNotFirst,
    /// Each replica decides by itself which history counts.
    DecidedAlone,
    /// The last one serving stops when it is declared dead.
    LastFencedAtOnce,
    /// Answers are not held after a pause or a doubt.
    AnswersNotHeld,
    /// A substitute's inherited debts are forgotten when it dies.
    DebtsNotInherited,
    /// A decision counts whatever mark it is about.
    DecisionOnOldMark,
    /// A replica that delivers its own failure goes on.
    OwnFailureIgnored,
    /// A replica whose beginning is void goes on with it.
    ObjectionIgnored,
    /// Debts are no part of the state that a newcomer gets.
    DebtsNotHandedOver,
    /// What the unlisted in a decision claim to have answered counts.
    UnlistedBelieved,
    /// A confirmation counts whatever its history is.
    ConfirmedByAnything,
    /// A newcomer is ready without having compared.
    NotVerified,
    /// One that does not hear the stream declares others dead.
    AccusesUnheard,
    /// A state is given to newcomers without the word of as many as it takes.
    GivenUnasked,
    /// One that starts announces itself without listening whether another process lives under its number.
    StartsUnheard,
    /// One whose number has a later life ends at once, with the last state or not.
    EndsWithTheState,
    /// Of two histories side by side none yields.
    RivalIgnored,
    /// What is lost of a history that began apart is counted from its own last agreement on.
    LossSinceAgreement,
    /// A newcomer that may have missed something goes on with its announcement, and with the beginning that it has published.
    JoinsOverGap,
    /// One that has missed something gives its state to a newcomer that announced itself before.
    GivenOverGap,
}

impl Mutation {
    /// All of them.
    #[cfg(feature = "sim")]
    pub const ALL: [Self; 25] = [
        Self::SwitchAtAnnounce,
        Self::SnapshotUntied,
        Self::ReplayRecentOnly,
        Self::ReceivedForAnswered,
        Self::ReadyOutOfBand,
        Self::GenesisNotFirst,
        Self::DecidedAlone,
        Self::LastFencedAtOnce,
        Self::AnswersNotHeld,
        Self::DebtsNotInherited,
        Self::DecisionOnOldMark,
        Self::OwnFailureIgnored,
        Self::ObjectionIgnored,
        Self::DebtsNotHandedOver,
        Self::UnlistedBelieved,
        Self::ConfirmedByAnything,
        Self::NotVerified,
        Self::AccusesUnheard,
        Self::GivenUnasked,
        Self::StartsUnheard,
        Self::EndsWithTheState,
        Self::RivalIgnored,
        Self::LossSinceAgreement,
        Self::JoinsOverGap,
        Self::GivenOverGap,
    ];
}
