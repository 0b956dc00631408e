//! [`Kept`]: requests that another server is to answer, in case that it does not.
//!
//! An option (`--keep-unanswered`), because duplicates are possible: whoever dies may have answered what is answered here again. Our client
//! discards them.

use kvrep_core::Time;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

/// An expression and who asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// The text.
    pub expression: String,
    /// Where the answer goes.
    pub from: SocketAddr,
}

/// The last requests that somebody else was expected to answer. At most [`KEPT_MAX`], the oldest gives way; none longer than its time.
#[derive(Debug)]
pub struct Kept {
    requests: VecDeque<(Time, Request)>,
    kept_for: Duration,
}

impl Kept {
    /// None yet.
    #[must_use]
    pub fn new(kept_for: Duration) -> Self {
        Self {
            requests: VecDeque::new(),
            kept_for,
        }
    }

    /// Keeps a request; one that is sent again counts once.
    pub fn keep(&mut self, now: Time, request: Request) {
        self.requests.retain(|(_, kept)| *kept != request);
        if self.requests.len() == KEPT_MAX {
            self.requests.pop_front();
        }
        self.requests.push_back((now, request));
    }

    /// Those that are not too old, which are kept no longer.
    pub fn take(&mut self, now: Time) -> Vec<Request> {
        let all = std::mem::take(&mut self.requests);
        let young = all
            .into_iter()
            .filter(|(since, _)| now - *since <= self.kept_for);
        young.map(|(_, request)| request).collect()
    }
}

/// How many requests are kept.
pub const KEPT_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a4_8_requests_of_the_last_seconds_are_kept_once_and_within_a_bound() {
        let at = |seconds| Time::ZERO + Duration::from_secs(seconds);
        let request = |n: u16| Request {
            expression: "1+1".into(),
            from: SocketAddr::from(([127, 0, 0, 1], n)),
        };
        let mut kept = Kept::new(Duration::from_secs(4));
        kept.keep(at(0), request(1));
        kept.keep(at(3), request(2));
        kept.keep(at(4), request(2));
        assert_eq!(kept.take(at(5)), [request(2)], "the first is too old");
        assert_eq!(kept.take(at(5)), []);
        for n in 0..1_000 {
            kept.keep(at(6), request(n));
        }
        assert_eq!(kept.take(at(6)).len(), KEPT_MAX);
    }
}
