//! How large a payload a broker takes that does not say so.
//!
//! Brokers tell who connects how large a packet may be; but mosquitto's `message_size_limit` is told only when it is exceeded, and then only that it is. So a refusal
//! halves what is sent from then on, or takes it down to what is known to have passed. What was learnt holds until the link ends: to try again would cost a
//! connection each time.

#[derive(Debug)]
pub(super) struct Learnt {
    /// The largest payload that the broker took.
    passed: usize,
    max: usize,
}

impl Default for Learnt {
    fn default() -> Self {
        Self {
            passed: 0,
            max: usize::MAX,
        }
    }
}

impl Learnt {
    /// Largest payload that is sent.
    pub(super) fn bytes_max(&self) -> usize {
        self.max
    }

    /// The broker took one of this size.
    pub(super) fn took(&mut self, bytes: usize) {
        self.passed = self.passed.max(bytes);
    }

    /// The broker refused one of this size, as too large; returns what it gets from now on.
    pub(super) fn refused(&mut self, bytes: usize) -> usize {
        if self.passed >= bytes {
            // It takes less than it did.
            self.passed = 0;
        }
        let less = (bytes / 2).max(self.passed).max(BYTES_MIN);
        self.max = self.max.min(less);
        self.max
    }
}

/// Less is of no use to anybody.
const BYTES_MIN: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_halves_what_is_sent_down_to_what_is_known_to_pass_and_to_a_floor() {
        let mut learnt = Learnt::default();
        assert_eq!(learnt.bytes_max(), usize::MAX);
        assert_eq!(learnt.refused(64_000), 32_000);
        learnt.took(19_000);
        assert_eq!(learnt.refused(30_000), 19_000);
        assert_eq!(learnt.bytes_max(), 19_000);
        // The broker was started again with another limit.
        assert_eq!(learnt.refused(18_000), 9_000);
        for bytes in [9_000, 4_500, 2_250, 1_125, 1_024, 10] {
            learnt.refused(bytes);
        }
        assert_eq!(learnt.bytes_max(), BYTES_MIN);
    }
}
