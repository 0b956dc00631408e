//! Whether this replica hears the stream: what it publishes comes back to it.
//!
//! A broker may stop delivering to one subscriber and take everything from it all the same. Such a replica hears nobody, and would declare everybody
//! dead. So nobody is accused by one who has not heard itself lately; and one who does not hear itself for long asks for
//! another connection.

use crate::time::Time;
use std::collections::VecDeque;
use std::time::Duration;

#[derive(Debug, Default)]
pub(super) struct Echo {
    /// What was published and did not come back, by number, with when that was.
    sent: VecDeque<(u64, Time)>,
    /// When the last of those that came back was published.
    heard: Option<Time>,
    /// When anything came, of whomever.
    anything: Time,
    /// Another connection was asked for, and nothing has come since.
    deaf: bool,
}

impl Echo {
    pub(super) fn published(&mut self, seq: u64, now: Time) {
        if self.sent.len() == SENT_MAX {
            // The first says since when, the last what was asked last.
            self.sent.pop_back();
        }
        self.sent.push_back((seq, now));
    }

    /// Something came.
    pub(super) fn came(&mut self, now: Time) {
        self.anything = now;
        self.deaf = false;
    }

    /// Nothing comes back: another connection is asked for.
    pub(super) fn gives_up(&mut self, now: Time) {
        self.restart(now);
        self.deaf = true;
    }

    /// Whether another connection was asked for, and nothing has come since.
    pub(super) fn is_deaf(&self) -> bool {
        self.deaf
    }

    /// For how long nothing has come.
    pub(super) fn silent_for(&self, now: Time) -> Duration {
        now - self.anything
    }

    /// This one came back. (What came before it was lost, or comes no more.)
    pub(super) fn delivered(&mut self, seq: u64) {
        while let Some((first, at)) = self.sent.front().copied()
            && first <= seq
        {
            self.sent.pop_front();
            self.heard = Some(at);
        }
    }

    /// Whether something came back that was published no longer ago than that.
    pub(super) fn heard_within(&self, now: Time, wait: Duration) -> bool {
        self.heard.is_some_and(|at| now - at <= wait)
    }

    /// Whether something is on its way that was published no longer ago than that.
    pub(super) fn asked_within(&self, now: Time, wait: Duration) -> bool {
        self.sent.back().is_some_and(|(_, at)| now - *at <= wait)
    }

    /// For how long something has not come back.
    pub(super) fn missing_for(&self, now: Time) -> Duration {
        let first = self.sent.front();
        first.map_or(Duration::ZERO, |(_, at)| now - *at)
    }

    /// What is on its way counts from now on: this replica slept, or its connection is a new one.
    pub(super) fn restart(&mut self, now: Time) {
        self.anything = now;
        for (_, at) in &mut self.sent {
            *at = now;
        }
    }
}

/// Publications that are remembered.
const SENT_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_back_is_told_from_what_does_not() {
        let millis = Duration::from_millis;
        let at = |n| Time::ZERO + millis(n);
        let mut echo = Echo::default();
        assert!(!echo.heard_within(at(0), millis(9)) && echo.missing_for(at(9)).is_zero());
        echo.published(1, at(1));
        echo.published(2, at(5));
        assert!(echo.asked_within(at(9), millis(4)) && !echo.asked_within(at(9), millis(3)));
        assert_eq!(echo.missing_for(at(9)), millis(8));
        echo.delivered(1);
        assert!(echo.heard_within(at(9), millis(8)) && !echo.heard_within(at(9), millis(7)));
        assert_eq!(echo.missing_for(at(9)), millis(4));
        echo.restart(at(9));
        assert!(echo.missing_for(at(9)).is_zero());
        echo.delivered(2);
        assert!(echo.heard_within(at(9), millis(0)));
        for seq in 3..1_000 {
            echo.published(seq, at(seq));
        }
        assert_eq!(echo.sent.len(), SENT_MAX);
        assert_eq!(echo.missing_for(at(10)), millis(7));
    }
}
