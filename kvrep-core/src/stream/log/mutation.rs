//! Bugs planted on purpose between the log and a member, to prove that the simulator can catch them. Nothing else uses this.

/// One planted bug of an ordered stream over a log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Mutation {
    /// What the log's node skipped, for a snapshot stood in for it, is not told.
    GapUnsaid,
    /// What is put into the log in one command comes out of it in another order.
    Shuffled,
    /// What could not be put into the log in one attempt is left out without a word.
    LeftOut,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::GapUnsaid, Self::Shuffled, Self::LeftOut];
}
