//! What the search has been through: sets of placed operations, and the states that they led to.

use std::collections::BTreeMap;

/// A set of small numbers of which nearly all below some number are in it and nearly none above.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    words: Vec<u64>,
    /// No number below `64 × full` is missing.
    full: usize,
    count: usize,
}

impl Placed {
    pub(super) fn none_of(size: usize) -> Self {
        Self {
            words: vec![0; size.div_ceil(64)],
            full: 0,
            count: 0,
        }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn has(&self, n: usize) -> bool {
        self.words[n / 64] & (1 << (n % 64)) != 0
    }

    pub(super) fn insert(&mut self, n: usize) {
        debug_assert!(!self.has(n), "an operation is placed once");
        self.words[n / 64] |= 1 << (n % 64);
        self.count += 1;
        while self.words.get(self.full) == Some(&u64::MAX) {
            self.full += 1;
        }
    }

    pub(super) fn remove(&mut self, n: usize) {
        debug_assert!(self.has(n), "only what was placed is taken back");
        self.words[n / 64] &= !(1 << (n % 64));
        self.count -= 1;
        self.full = self.full.min(n / 64);
    }

    /// The numbers below `size` that are missing, from the least.
    pub(super) fn missing(&self, size: usize) -> impl Iterator<Item = usize> + '_ {
        self.words[self.full..]
            .iter()
            .zip(self.full..)
            .flat_map(|(&word, at)| {
                let mut left = !word;
                std::iter::from_fn(move || {
                    let bit = left.trailing_zeros();
                    left &= left.wrapping_sub(1);
                    (bit < 64).then(|| at * 64 + bit as usize)
                })
            })
            .take_while(move |&n| n < size)
    }

    fn is_subset_of(&self, other: &Self) -> bool {
        self.words
            .iter()
            .zip(&other.words)
            .all(|(mine, theirs)| mine & !theirs == 0)
    }

    /// The same set has the same fingerprint and no other has: where the words that are neither full nor empty
    /// begin, and these words. As long as the set is ragged, not as long as the history.
    fn fingerprint(&self) -> (usize, Box<[u64]>) {
        let ragged = &self.words[self.full..];
        let end = ragged
            .iter()
            .rposition(|&word| word != 0)
            .map_or(0, |last| last + 1);
        (self.full, ragged[..end].into())
    }
}

type Fingerprint = (usize, Box<[u64]>);

/// The configurations that were explored, in vain. A configuration is what was placed and the state it led to.
///
/// One with the same completed operations and the same state, but with *fewer* pending ones used up, can do
/// whatever the other can: so for each pair of the former two only the least sets of the latter are kept.
pub(super) struct Memo<S> {
    seen: BTreeMap<(Fingerprint, S), Vec<Placed>>,
    left: usize,
}

impl<S: Ord + Clone> Memo<S> {
    /// Remembers at most `entries_max` configurations, then no more: the search gets slower, not wrong.
    pub(super) fn new(entries_max: usize) -> Self {
        Self {
            seen: BTreeMap::new(),
            left: entries_max,
        }
    }

    /// Whether this or a better configuration was seen before; if not, it has been now.
    pub(super) fn is_new(&mut self, completed: &Placed, pending: &Placed, state: &S) -> bool {
        let key = (completed.fingerprint(), state.clone());
        if self.left == 0 {
            return self
                .seen
                .get(&key)
                .is_none_or(|least| !least.iter().any(|set| set.is_subset_of(pending)));
        }
        let least = self.seen.entry(key).or_default();
        if least.iter().any(|set| set.is_subset_of(pending)) {
            return false;
        }
        let before = least.len();
        least.retain(|set| !pending.is_subset_of(set));
        least.push(pending.clone());
        self.left = (self.left + before).saturating_sub(least.len());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(size: usize, members: impl IntoIterator<Item = usize>) -> Placed {
        let mut placed = Placed::none_of(size);
        for n in members {
            placed.insert(n);
        }
        placed
    }

    #[test]
    fn missing_numbers_come_in_order_across_words() {
        let placed = set(200, (0..70).chain([100, 130]));
        let missing: Vec<_> = placed.missing(140).collect();
        let expected: Vec<_> = (70..140).filter(|n| ![100, 130].contains(n)).collect();
        assert_eq!(missing, expected);
        assert_eq!(set(128, 0..128).missing(128).count(), 0);
    }

    #[test]
    fn equal_sets_have_equal_fingerprints_however_they_came_about() {
        let mut detour = set(300, 0..200);
        for n in (64..200).rev() {
            detour.remove(n);
        }
        assert_eq!(detour.fingerprint(), set(300, 0..64).fingerprint());
        assert_ne!(detour.fingerprint(), set(300, 0..65).fingerprint());
        assert_ne!(set(300, [64]).fingerprint(), set(300, [0]).fingerprint());
    }

    #[test]
    fn fewer_pending_operations_used_up_are_better() {
        let mut memo = Memo::new(10);
        let done = set(5, [0]);
        assert!(memo.is_new(&done, &set(3, [1]), &'s'));
        assert!(!memo.is_new(&done, &set(3, [1, 2]), &'s'), "worse");
        assert!(memo.is_new(&done, &set(3, [2]), &'s'), "incomparable");
        assert!(memo.is_new(&done, &set(3, []), &'s'), "better");
        assert!(!memo.is_new(&done, &set(3, [2]), &'s'), "now worse");
        assert!(memo.is_new(&done, &set(3, [2]), &'t'), "another state");
    }

    #[test]
    fn a_full_memo_still_answers_from_what_it_has() {
        let mut memo = Memo::new(1);
        assert!(memo.is_new(&set(5, [0]), &set(1, []), &'s'));
        for _ in 0..2 {
            assert!(memo.is_new(&set(5, [1]), &set(1, []), &'s'));
        }
        assert!(!memo.is_new(&set(5, [0]), &set(1, []), &'s'));
    }
}
