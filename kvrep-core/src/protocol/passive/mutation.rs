//! Bugs planted on purpose, to prove that the simulator can catch them. Nothing else uses this.

/// One planted bug of the passive scheme.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Mutation {
    /// A backup acknowledges entries before they are durable.
    AckBeforeDurable,
    /// A backup does not compare terms: it takes appends of a deposed primary.
    TermCheckForgotten,
    /// The primary acknowledges without the dropped backup before the drop is decided.
    DropRecordedLate,
    /// While an addition is pending, writes are acknowledged with the old set only.
    JoinerNotAwaited,
    /// A joiner is proposed when it has merely the snapshot, not everything committed.
    JoinerProposedEarly,
    /// A restarted primary goes on in its old term.
    TermResumed,
    /// A read is confirmed by one backup instead of every in-sync member.
    ReadConfirmedByOne,
    /// Every read round uses the same nonce.
    NonceReused,
    /// A snapshot claims an index one higher than its state.
    SnapshotOffByOne,
    /// Snapshots are written without the sessions.
    SessionsNotInSnapshot,
    /// A backup lets itself be truncated below its commit point without a word.
    TruncateBelowCommit,
    /// A node outside the last in-sync set promotes itself.
    LastManIgnored,
    /// The first of the members always starts as primary.
    RoleFromArguments,
    /// A new primary serves reads before an entry of its own term is committed.
    ServeBeforeOwnTerm,
    /// The promised term is not made durable.
    TermNotDurable,
    /// An old value of the register is taken for the failure of one's own change.
    OldRegisterTaken,
    /// `Alone`: the intent of a change is not made durable first.
    IntentNotDurable,
    /// A primary hands over before everything is committed.
    HandoverNotCommitted,
    /// The chosen successor reigns without asking the authority.
    SuccessorAsksNobody,
    /// A primary that has handed over goes on answering reads.
    ReadsAfterHandover,
    /// A regent takes writes and answers reads instead of the fixed primary.
    RegentServes,
    /// A fixed primary that lost its log takes office with what it has.
    HomeInsists,
    /// `Ack::All`: a member that is down is not waited for.
    DownMemberForgotten,
    /// `Ack::Primary`: the loss window is not kept.
    LossUnbounded,
    /// `Ack::Primary`: a replica whose history was refuted counts as before.
    RefutedCounts,
    /// `Alone`: a live member that shall not count any more need not agree.
    LeaverNotAsked,
    /// The primary does not compare digests of the state.
    DigestNotCompared,
    /// A primary whose state differs from that of all others goes on.
    FaultyPrimaryStays,
    /// A replica throws its state and log away while it still counts.
    RepairedBeforeDropped,
    /// What a replica acknowledged before it threw its log away counts afterwards.
    RepairNotFenced,
    /// A candidate does not wait out the lease that it granted.
    LeaseNotWaitedOut,
    /// A lease counts that all but one of the members granted.
    LeaseByAllButOne,
    /// A replica that restarts does not wait out what it may have granted before.
    GrantForgotten,
    /// A lease counts from when its grants arrived, not from when they were asked for.
    LeaseFromAnswer,
    /// `Visibility::OnAppend`: a write is answered when it is applied, not when it is decided.
    ReleasedEarly,
    /// A learner is added to the in-sync set.
    LearnerCounted,
    /// A replica that was removed goes on as if it belonged.
    RemovedPromotes,
    /// Who belongs is taken from the arguments, not from the configuration.
    MembersFromArguments,
    /// A replica that wakes from a long stop looks at its timers before it listens.
    SleepNotNoticed,
    /// A replica whose history was refuted counts what is lost from where that showed.
    PartingNotSought,
    /// A backup whose storage hangs in the middle of a change says nothing until it is done.
    SilentWhileItHangs,
    /// Who is of another group of this name is not told from those of one's own.
    OriginIgnored,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 42] = [
        Self::AckBeforeDurable,
        Self::TermCheckForgotten,
        Self::DropRecordedLate,
        Self::JoinerNotAwaited,
        Self::JoinerProposedEarly,
        Self::TermResumed,
        Self::ReadConfirmedByOne,
        Self::NonceReused,
        Self::SnapshotOffByOne,
        Self::SessionsNotInSnapshot,
        Self::TruncateBelowCommit,
        Self::LastManIgnored,
        Self::RoleFromArguments,
        Self::ServeBeforeOwnTerm,
        Self::TermNotDurable,
        Self::OldRegisterTaken,
        Self::IntentNotDurable,
        Self::HandoverNotCommitted,
        Self::SuccessorAsksNobody,
        Self::ReadsAfterHandover,
        Self::RegentServes,
        Self::HomeInsists,
        Self::DownMemberForgotten,
        Self::LossUnbounded,
        Self::RefutedCounts,
        Self::LeaverNotAsked,
        Self::DigestNotCompared,
        Self::FaultyPrimaryStays,
        Self::RepairedBeforeDropped,
        Self::RepairNotFenced,
        Self::LeaseNotWaitedOut,
        Self::LeaseByAllButOne,
        Self::GrantForgotten,
        Self::LeaseFromAnswer,
        Self::ReleasedEarly,
        Self::LearnerCounted,
        Self::RemovedPromotes,
        Self::MembersFromArguments,
        Self::SleepNotNoticed,
        Self::PartingNotSought,
        Self::SilentWhileItHangs,
        Self::OriginIgnored,
    ];
}
