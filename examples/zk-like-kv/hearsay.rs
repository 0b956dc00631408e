//! Timestamps that clients show and no server here has given.
//!
//! A leader shows nothing before it has it itself, so a client that serves nobody but these three cannot have seen more than the leader
//! has. One that has, remembers another table: all three servers were started in another directory, or with an older copy of the leader's
//! note. Nothing is said to it that is older than what it has seen, but a leader that went on counting from below would give its timestamps a
//! second time, and the client would be told for long that every server is behind. So the next timestamp is given above everything that was
//! shown, and the leader's operator hears why.
//!
//! A follower may merely be behind. It passes on what it was shown, over the connection on which it has registered, and the leader knows.
//!
//! # Invariants
//!
//! * A timestamp that is given after a client has shown one to the leader is above that one.
//! * Nothing above [`BELIEVED_MAX`] is believed. Whoever lies can make the numbers large, once, and nothing else: they are never used up,
//!   nor repeated, and stay exact where a client keeps them as fractions.
//!
//! Caveat: what nobody shows is not known. Until a client of the former table comes, timestamps of the new one may be equal to its; the
//! former table's values themselves are nowhere any more.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// What was shown to one server. See the [module](self).
#[derive(Debug)]
pub struct Hearsay {
    /// The highest believable timestamp that was shown.
    shown: watch::Sender<u64>,
    /// Up to here every timestamp was given, or is left out.
    settled: AtomicU64,
    /// At the leader: who it is, and from where it counts.
    leader: Option<(SocketAddr, String)>,
    told: Mutex<Option<Instant>>,
}

impl Hearsay {
    /// A follower's: nobody is told but the leader.
    #[must_use]
    pub fn at_follower() -> Self {
        Self {
            shown: watch::Sender::new(0),
            settled: AtomicU64::new(0),
            leader: None,
            told: Mutex::new(None),
        }
    }

    /// The leader's; `origin` says from where it counts.
    #[must_use]
    pub fn at_leader(me: SocketAddr, origin: String) -> Self {
        Self {
            leader: Some((me, origin)),
            ..Self::at_follower()
        }
    }

    /// Whether it is not known yet that this was given.
    #[must_use]
    pub fn is_news(&self, timestamp: u64) -> bool {
        timestamp > self.settled.load(Ordering::Relaxed)
    }

    /// Everything up to this timestamp was given, or is left out.
    pub fn settle(&self, up_to: u64) {
        self.settled.fetch_max(up_to, Ordering::Relaxed);
    }

    /// Somebody shows a timestamp; `clock` is the highest here, where that is known.
    pub fn heard(&self, timestamp: u64, clock: Option<u64>) {
        if let Some(clock) = clock {
            self.settle(clock);
        }
        if !self.is_news(timestamp) {
            return;
        }
        if let (Some(clock), Some((me, origin))) = (clock, &self.leader)
            && self.is_to_be_told()
        {
            eprintln!("{me}: {}", sentence(timestamp, clock, origin));
        }
        if timestamp <= BELIEVED_MAX {
            self.shown.send_if_modified(|shown| {
                let more = timestamp > *shown;
                *shown = timestamp.max(*shown);
                more
            });
        }
    }

    /// Up to where timestamps must be left out before the next one is given.
    #[must_use]
    pub fn to_leave_out(&self) -> Option<u64> {
        let shown = *self.shown.borrow();
        self.is_news(shown).then_some(shown)
    }

    /// The highest that was shown, and whenever that grows.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        let mut watched = self.shown.subscribe();
        watched.mark_changed();
        watched
    }

    /// Whoever shows one after another does not fill the operator's screen.
    fn is_to_be_told(&self) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let over = told.is_none_or(|at| now - at >= TOLD_AGAIN_AFTER);
        if over {
            *told = Some(now);
        }
        over
    }
}

fn sentence(timestamp: u64, clock: u64, origin: &str) -> String {
    let then = if timestamp <= BELIEVED_MAX {
        format!("os próximos timestamps vêm acima de {timestamp}")
    } else {
        "tão alto não é levado em conta".into()
    };
    format!(
        "um cliente já viu o timestamp {timestamp}, mas este líder só deu até {clock}: {origin}. {then}"
    )
}

/// What anybody may say that was given: more than a leader gives in a human life, and little of what there is.
pub const BELIEVED_MAX: u64 = 1 << 48;
const TOLD_AGAIN_AFTER: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn leader() -> Hearsay {
        Hearsay::at_leader("127.0.0.1:1".parse().unwrap(), "x".into())
    }

    #[test]
    fn what_is_shown_and_was_not_given_is_left_out_once() {
        let hearsay = leader();
        hearsay.heard(5, Some(7));
        assert_eq!(hearsay.to_leave_out(), None, "it was given");
        hearsay.heard(9, Some(7));
        hearsay.heard(8, Some(7));
        assert_eq!(hearsay.to_leave_out(), Some(9));
        hearsay.settle(9);
        assert_eq!(hearsay.to_leave_out(), None);
        // Before there is a replica nobody knows what was given.
        hearsay.heard(12, None);
        assert_eq!(hearsay.to_leave_out(), Some(12));
        assert_eq!(*hearsay.watch().borrow_and_update(), 12);
    }

    #[test]
    fn who_lies_cannot_use_the_timestamps_up() {
        let hearsay = leader();
        for lie in [u64::MAX, BELIEVED_MAX + 1] {
            hearsay.heard(lie, Some(1));
            assert_eq!(hearsay.to_leave_out(), None);
            assert!(sentence(lie, 1, "x").contains("não é levado em conta"));
        }
        hearsay.heard(BELIEVED_MAX, Some(1));
        assert_eq!(hearsay.to_leave_out(), Some(BELIEVED_MAX));
        assert!(sentence(9, 1, "x").contains("acima de 9"));
        // Exact as a fraction, with room for all that is given from there on.
        const { assert!(BELIEVED_MAX * 16 <= 1 << 53) };
    }
}
