//! Which of a sender's last frames were taken, so that a copy is told. (RFC 4303, 3.4.3, does it in the same way.)

/// Numbers that were taken.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// One more than the highest that was taken.
    next: u64,
    /// Bit n mod [`WINDOW`] for frame n, of the last ones.
    taken: Vec<u64>,
}

impl Seen {
    pub(crate) fn is_new(&self, number: u64) -> bool {
        if number >= self.next {
            return true;
        }
        let (word, bit) = Self::place(number);
        self.next - number <= WINDOW && self.taken.get(word).is_none_or(|word| word & bit == 0)
    }

    pub(crate) fn take(&mut self, number: u64) {
        if self.taken.is_empty() {
            self.taken = vec![0; (WINDOW / 64) as usize];
        }
        if number >= self.next {
            if number - self.next >= WINDOW {
                self.taken.fill(0);
            } else {
                for between in self.next..number {
                    let (word, bit) = Self::place(between);
                    self.taken[word] &= !bit;
                }
            }
            self.next = number.saturating_add(1);
        }
        let (word, bit) = Self::place(number);
        self.taken[word] |= bit;
    }

    fn place(number: u64) -> (usize, u64) {
        let at = number % WINDOW;
        ((at / 64) as usize, 1 << (at % 64))
    }
}

/// A frame that comes later than so many after it is taken for a copy.
const WINDOW: u64 = 4_096;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn each_frame_is_taken_once(numbers in proptest::collection::vec(0_u64..20_000, 1..400), near in any::<bool>()) {
            let (mut seen, mut taken) = (Seen::default(), BTreeSet::new());
            for number in numbers {
                let number = if near { number % 500 } else { number };
                let new = seen.is_new(number);
                let late = taken.last().is_some_and(|last| number + WINDOW <= *last);
                prop_assert_eq!(new, !taken.contains(&number) && !late);
                if new {
                    seen.take(number);
                    taken.insert(number);
                }
            }
        }
    }
}
