//! The one random source of the sans-IO part: SplitMix64 (Steele, Lea, Flood 2014), seeded from outside.

/// The next number; advances the state.
pub(crate) fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A seeded random source. Not for secrets.
///
/// ```
/// use kvrep_core::random::Rng;
/// let (mut a, mut b) = (Rng::new(7), Rng::new(7));
/// assert_eq!(a.next(), b.next());
/// assert!(a.below(10) < 10);
/// ```
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A source that gives the same numbers for the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A source of its own for each concern of a run: one more draw in one place leaves the others as they were.
    #[cfg(feature = "sim")]
    pub(crate) fn of_concern(seed: u64, concern: u64) -> Self {
        Self::new(Self::new(seed ^ concern.wrapping_mul(0xa076_1d64_78bd_642f)).next())
    }

    /// The next number.
    #[allow(
        clippy::should_implement_trait,
        reason = "an endless source, not an iterator"
    )]
    pub fn next(&mut self) -> u64 {
        splitmix(&mut self.0)
    }

    /// A number below `bound` (0 for a bound of 0). Bias below 2⁻³² for bounds below 2³².
    pub fn below(&mut self, bound: u64) -> u64 {
        u64::try_from((u128::from(self.next()) * u128::from(bound)) >> 64).unwrap_or(0)
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}
