//! What the monitor knows of the servers, without a clock or a connection: who was heard when, who is late.
//!
//! A server that was declared dead is not watched until a later life of it is heard (a restart, or another join of the same start): one
//! `falhaserv` a failure, also while a suspected server goes on sending signs of its old life. What says nothing of lives counts as a later one.
//!
//! A server that was never heard is perhaps only about to start: it has longer, the *grace*. Once somebody serves, the group has begun without it, and it
//! has no more than the others.

use super::monitor::{CountFrom, Settings};
use kvrep_core::protocol::active::Life;
use kvrep_core::{ReplicaId, Timestamp};
use std::time::Duration;
use tokio::time::Instant;

/// A server is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which.
    pub server: ReplicaId,
    /// Which life of it, where it was heard of.
    pub life: Option<Life>,
    /// When it was heard last.
    pub seen_at: Timestamp,
}

/// Who was heard when.
#[derive(Clone, Debug)]
pub struct Timers {
    timeout: Duration,
    grace: Duration,
    /// When somebody was first heard to serve.
    served_since: Option<Instant>,
    servers: Vec<Watched>,
}

#[derive(Clone, Debug)]
struct Watched {
    /// `None`: is not waited for.
    since: Option<Instant>,
    /// When it gave a sign of life.
    heard: Option<Instant>,
    seen_at: Timestamp,
    life: Option<Life>,
    /// It was declared dead, in this life.
    reported: Option<Option<Life>>,
}

/// What a server says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It serves; so does one that says nothing of it.
    Serves,
    /// It waits for a state, or for others.
    Waits,
}

/// What a sign of life was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Nothing new.
    Alive,
    /// The first one, or the first after a failure.
    Returned,
    /// Of the life that was declared dead.
    Late,
    /// No such server.
    OutOfRange,
}

impl Timers {
    /// Nobody was heard yet.
    #[must_use]
    pub fn new(settings: &Settings, now: Instant, wall: Timestamp) -> Self {
        let since = match settings.count_from {
            CountFrom::Inicio => Some(now),
            CountFrom::PrimeiroSinal => None,
        };
        let watched = Watched {
            since,
            heard: None,
            seen_at: wall,
            life: None,
            reported: None,
        };
        Self {
            timeout: settings.timeout,
            grace: settings.grace.max(settings.timeout),
            served_since: None,
            servers: vec![watched; settings.servers as usize],
        }
    }

    /// A server was heard.
    pub fn heard(
        &mut self,
        now: Instant,
        wall: Timestamp,
        server: u32,
        (life, standing): (Option<Life>, Standing),
    ) -> News {
        let Some(watched) = self.servers.get_mut(server as usize) else {
            return News::OutOfRange;
        };
        if let (Some(known), Some(life)) = (watched.life, life)
            && life < known
        {
            return News::Late;
        }
        if let (Some(Some(dead)), Some(life)) = (watched.reported, life)
            && life <= dead
        {
            return News::Late;
        }
        if standing == Standing::Serves {
            self.served_since.get_or_insert(now);
        }
        let is_new = watched.heard.is_none();
        let news = if watched.reported.take().is_some() || is_new {
            News::Returned
        } else {
            News::Alive
        };
        (watched.since, watched.heard, watched.seen_at) = (Some(now), Some(now), wall);
        watched.life = life.or(watched.life);
        news
    }

    /// Who is late now. Each is told of once.
    pub fn late(&mut self, now: Instant) -> Vec<Failure> {
        let mut late = Vec::new();
        let due: Vec<_> = self.servers.iter().map(|one| self.due(one)).collect();
        for ((server, watched), due) in (0..).zip(&mut self.servers).zip(due) {
            if due.is_some_and(|due| now >= due) {
                watched.reported = Some(watched.life);
                late.push(Failure {
                    server: ReplicaId(server),
                    life: watched.life,
                    seen_at: watched.seen_at,
                });
            }
        }
        late
    }

    /// Whether somebody gave a sign of life so lately that he is not about to be late: he can give the state to one that is started again.
    #[must_use]
    pub fn somebody_lives(&self, now: Instant) -> bool {
        let lately = |watched: &Watched| {
            let heard = watched.heard.filter(|_| watched.reported.is_none());
            heard.is_some_and(|heard| now - heard < self.timeout / 2)
        };
        self.servers.iter().any(lately)
    }

    /// When somebody is late next, if nobody is heard.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.servers.iter().filter_map(|one| self.due(one)).min()
    }

    /// When this one is late; `None` when it is not waited for, or was said to be dead.
    fn due(&self, watched: &Watched) -> Option<Instant> {
        let since = watched.since.filter(|_| watched.reported.is_none())?;
        Some(match (watched.heard, self.served_since) {
            (Some(_), _) => since + self.timeout,
            (None, Some(served)) => since.max(served) + self.timeout,
            (None, None) => since + self.grace,
        })
    }

    /// Whether this one was said to be dead, and was not heard again.
    #[must_use]
    pub fn is_dead(&self, server: ReplicaId) -> bool {
        let watched = self.servers.get(server.0 as usize);
        watched.is_some_and(|watched| watched.reported.is_some())
    }

    /// Nothing could be heard for a while: nobody is late yet.
    pub fn afresh(&mut self, now: Instant) {
        for watched in &mut self.servers {
            watched.since = watched.since.map(|_| now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::connection::Attempts;
    use super::super::topics::Topics;
    use super::*;
    use kvrep_core::Incarnation;
    use kvrep_transport_mqtt::MqttConfig;

    const TIMEOUT: Duration = Duration::from_millis(500);

    fn settings(count_from: CountFrom) -> Settings {
        Settings {
            config: MqttConfig::new("127.0.0.1:1"),
            attempts: Attempts::Once,
            topics: Topics::default(),
            servers: 2,
            timeout: TIMEOUT,
            grace: 4 * TIMEOUT,
            count_from,
            relaunch: None,
        }
    }

    fn life(attempt: u32) -> Option<Life> {
        Some(Life {
            incarnation: Incarnation(1),
            attempt,
        })
    }

    fn serves(life: Option<Life>) -> (Option<Life>, Standing) {
        (life, Standing::Serves)
    }

    fn who(late: &[Failure]) -> Vec<u32> {
        late.iter().map(|failure| failure.server.0).collect()
    }

    #[test]
    fn r0_22_r0_31_a_silent_server_is_dead_once_and_again_when_a_later_life_of_it_falls_silent() {
        let start = Instant::now();
        let mut timers = Timers::new(&settings(CountFrom::Inicio), start, Timestamp(0));
        let at = |ms| start + Duration::from_millis(ms);
        for ms in [100, 400, 800, 1_200] {
            timers.heard(at(ms), Timestamp(ms * 1_000), 1, serves(life(1)));
        }
        timers.heard(at(200), Timestamp(200_000), 0, serves(life(1)));
        assert_eq!(timers.next(), Some(at(700)));
        assert!(timers.late(at(699)).is_empty());
        let late = timers.late(at(700));
        let wanted = Failure {
            server: ReplicaId(0),
            life: life(1),
            seen_at: Timestamp(200_000),
        };
        assert_eq!(late, [wanted]);
        assert!(timers.late(at(1_500)).is_empty(), "no second time");
        // Signs of the life that is dead change nothing; those of a later one do.
        assert_eq!(
            timers.heard(at(1_500), Timestamp(1), 0, serves(life(1))),
            News::Late
        );
        assert!(who(&timers.late(at(1_600))).is_empty());
        assert_eq!(
            timers.heard(at(1_650), Timestamp(1), 0, serves(life(2))),
            News::Returned
        );
        timers.heard(at(2_100), Timestamp(1), 1, serves(life(1)));
        assert_eq!(who(&timers.late(at(2_150))), [0]);
        // A program that says nothing of lives is believed.
        assert_eq!(
            timers.heard(at(2_200), Timestamp(1), 0, serves(None)),
            News::Returned
        );
        assert_eq!(
            timers.heard(at(2_200), Timestamp(1), 2, serves(None)),
            News::OutOfRange
        );
    }

    #[test]
    fn a0_16_one_that_was_never_heard_is_late_from_the_start_or_only_from_its_first_sign_on() {
        let start = Instant::now();
        let later = start + 10 * TIMEOUT;
        let mut timers = Timers::new(&settings(CountFrom::Inicio), start, Timestamp(0));
        assert_eq!(who(&timers.late(later)), [0, 1]);
        let mut timers = Timers::new(&settings(CountFrom::PrimeiroSinal), start, Timestamp(0));
        assert_eq!(timers.next(), None);
        assert!(timers.late(later).is_empty());
        assert_eq!(
            timers.heard(later, Timestamp(0), 1, serves(None)),
            News::Returned
        );
        assert_eq!(who(&timers.late(later + TIMEOUT)), [1]);
    }

    #[test]
    fn c0_11_after_a_time_without_hearing_all_timers_begin_anew() {
        let start = Instant::now();
        let mut timers = Timers::new(&settings(CountFrom::Inicio), start, Timestamp(0));
        timers.heard(start, Timestamp(0), 0, serves(life(1)));
        let later = start + 10 * TIMEOUT;
        timers.afresh(later);
        assert!(timers.late(later).is_empty());
        assert_eq!(who(&timers.late(later + TIMEOUT)), [0, 1]);
    }

    #[test]
    fn a0_16_c0_11_one_that_was_never_heard_has_longer_until_somebody_serves() {
        let start = Instant::now();
        let at = |timeouts: f64| start + TIMEOUT.mul_f64(timeouts);
        let settings = settings(CountFrom::Inicio);
        let begun = || Timers::new(&settings, start, Timestamp(0));
        // All start together: nobody is late before the grace is over.
        let mut timers = begun();
        assert_eq!(timers.next(), Some(at(4.0)));
        assert_eq!(who(&timers.late(at(3.9))), [0; 0]);
        let waits = (life(1), Standing::Waits);
        timers.heard(at(3.9), Timestamp(0), 0, waits);
        assert_eq!(who(&timers.late(at(4.0))), [1]);
        assert!(timers.is_dead(ReplicaId(1)) && !timers.is_dead(ReplicaId(0)));
        // A group that serves: who is not there now is dead.
        let mut timers = begun();
        timers.heard(at(0.1), Timestamp(0), 0, serves(life(1)));
        timers.heard(at(1.0), Timestamp(0), 0, serves(life(1)));
        assert_eq!(who(&timers.late(at(1.0))), [0; 0]);
        assert_eq!(who(&timers.late(at(1.1))), [1]);
    }

    #[test]
    fn a_server_is_started_again_only_while_another_one_lives() {
        let start = Instant::now();
        let settings = settings(CountFrom::PrimeiroSinal);
        let mut timers = Timers::new(&settings, start, Timestamp(0));
        assert!(!timers.somebody_lives(start), "nobody was heard yet");
        for server in 0..settings.servers {
            timers.heard(start, Timestamp(0), server, serves(None));
        }
        let later = start + settings.timeout;
        timers.heard(later, Timestamp(0), 0, serves(None));
        assert!(!timers.late(later).is_empty());
        assert!(timers.somebody_lives(later));
        // All were stopped: none of them is dead because another one is.
        let much_later = later + settings.timeout;
        assert!(!timers.late(much_later).is_empty());
        assert!(!timers.somebody_lives(much_later));
    }
}
