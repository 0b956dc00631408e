//! Whether the monitor hears: what it says itself comes back to it.
//!
//! A broker may stop delivering to one subscriber and take everything from it all the same. A monitor in that place would declare all servers dead,
//! though they live. So nobody is declared dead by a monitor that has heard nothing lately, of anybody: in silence it says a word of its own on the topic
//! of the signs of life, and waits until that comes back. The broker keeps the order of the topic, so what came back says that every sign of life
//! from before it was heard, too. One whose words do not come back for long is given another connection.
//!
//! Where some server is heard nothing is said: a group in good order has no such words on its topic.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// What a monitor last heard, of others and of itself.
#[derive(Debug)]
pub struct Ears {
    me: u64,
    timeout: Duration,
    /// When what was heard last was said, as far as that is known.
    heard: Instant,
    said: u64,
    /// What was said in this silence and did not come back, by number, with when that was.
    under_way: VecDeque<(u64, Instant)>,
}

/// A monitor's word to itself.
#[derive(Debug, Serialize, Deserialize)]
struct Echo {
    tipomsg: String,
    monitor: u64,
    numero: u64,
}

impl Ears {
    /// A monitor that hears from now on. `me` is told from other monitors by it.
    #[must_use]
    pub fn new(me: u64, timeout: Duration, now: Instant) -> Self {
        Self {
            me,
            timeout,
            heard: now,
            said: 0,
            under_way: VecDeque::new(),
        }
    }

    /// Somebody was heard.
    pub fn heard(&mut self, now: Instant) {
        self.heard = self.heard.max(now);
        self.under_way.clear();
    }

    /// Whether this is a monitor's word to itself, and no sign of life; this one's own is heard.
    pub fn take_echo(&mut self, payload: &[u8]) -> bool {
        let Some(echo) = read(payload) else {
            return false;
        };
        while echo.monitor == self.me
            && let Some((first, at)) = self.under_way.front().copied()
            && first <= echo.numero
        {
            self.under_way.pop_front();
            self.heard = self.heard.max(at);
        }
        true
    }

    /// What to say now, to hear whether this monitor hears.
    pub fn say(&mut self, now: Instant) -> Option<String> {
        let last = self.under_way.back().map_or(self.heard, |(_, at)| *at);
        if now < last.max(self.heard) + self.timeout / SAID_PER_TIMEOUT {
            return None;
        }
        self.said += 1;
        if self.under_way.len() == UNDER_WAY_MAX {
            // The first says since when, the last what was asked last.
            self.under_way.pop_back();
        }
        self.under_way.push_back((self.said, now));
        let echo = Echo {
            tipomsg: WORD.into(),
            monitor: self.me,
            numero: self.said,
        };
        serde_json::to_string(&echo).ok()
    }

    /// Whether it hears: only then is silence somebody's.
    #[must_use]
    pub fn hears(&self, now: Instant) -> bool {
        now <= self.heard + self.timeout / 2
    }

    /// It has not heard itself for so long that its connection is worth nothing.
    #[must_use]
    pub fn is_deaf(&self, now: Instant) -> bool {
        let deaf_after = self.timeout * DEAF_AFTER;
        let since = self.under_way.front();
        since.is_some_and(|(_, since)| now >= *since + deaf_after)
    }

    /// Its connection is a new one, or it slept.
    pub fn afresh(&mut self, now: Instant) {
        self.heard = now;
        self.under_way.clear();
    }
}

fn read(payload: &[u8]) -> Option<Echo> {
    let echo: Echo = serde_json::from_slice(payload).ok()?;
    (echo.tipomsg == WORD).then_some(echo)
}

const WORD: &str = "eco";
/// So often it says something in silence, and so it has said something lately when somebody is late.
const SAID_PER_TIMEOUT: u32 = 4;
/// So many timeouts without hearing itself make a monitor deaf. Many: a broker that is behind is not broken.
const DEAF_AFTER: u32 = 10;

/// Words that are remembered.
const UNDER_WAY_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(400);

    fn ears() -> (Ears, impl Fn(u64) -> Instant) {
        let start = Instant::now();
        let at = move |ms| start + Duration::from_millis(ms);
        (Ears::new(7, TIMEOUT, start), at)
    }

    #[test]
    fn r0_22_where_servers_are_heard_nothing_is_said_and_in_silence_it_hears_by_its_own_words() {
        let (mut ears, at) = ears();
        for ms in (0..1_000).step_by(90) {
            ears.heard(at(ms));
            assert_eq!(ears.say(at(ms + 80)), None);
            assert!(ears.hears(at(ms + 80)));
        }
        // All servers are dead: at 990 ms they were heard last, at 1,390 they are late.
        for ms in [1_090, 1_190, 1_290] {
            let said = ears.say(at(ms)).expect("in silence it asks");
            assert_eq!(ears.say(at(ms + 9)), None, "once");
            assert!(ears.take_echo(said.as_bytes()));
        }
        assert!(ears.hears(at(1_390)) && !ears.is_deaf(at(9_999)));
    }

    #[test]
    fn one_whose_words_do_not_come_back_does_not_hear_and_is_deaf_in_the_end() {
        let (mut ears, at) = ears();
        let first = ears.say(at(100)).expect("it asks");
        assert!(ears.hears(at(200)) && !ears.hears(at(201)));
        for ms in (200..4_000).step_by(100) {
            assert!(ears.say(at(ms)).is_some(), "it goes on asking");
        }
        assert!(ears.is_deaf(at(4_100)) && !ears.is_deaf(at(4_099)));
        // What comes so late says nothing about now, but that it is not lost.
        assert!(ears.take_echo(first.as_bytes()));
        assert!(!ears.hears(at(4_100)) && !ears.is_deaf(at(4_199)) && ears.is_deaf(at(4_200)));
        ears.afresh(at(5_000));
        assert!(ears.hears(at(5_100)) && !ears.is_deaf(at(9_000)));
    }

    #[test]
    fn words_of_other_monitors_are_no_signs_and_signs_are_no_words() {
        let (mut ears, at) = ears();
        let (mut other, _) = ears_of(8);
        let said = other.say(at(300)).expect("it asks");
        ears.say(at(300));
        assert!(ears.take_echo(said.as_bytes()));
        assert!(!ears.hears(at(301)));
        for sign in [
            &br#"{"idServ":1}"#[..],
            b"nada",
            b"",
            br#"{"tipomsg":"eco"}"#,
        ] {
            assert!(!ears.take_echo(sign));
        }
    }

    fn ears_of(me: u64) -> (Ears, Instant) {
        let start = Instant::now();
        (Ears::new(me, TIMEOUT, start), start)
    }
}
