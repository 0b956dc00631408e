//! Finding somebody who answers: which target next, and after how long.
//!
//! One attempt at a time. A redirect is followed at once; a target that did not answer is *suspect* for a moment: it is
//! passed over, also when redirects lead to it, because those who give them may not have noticed yet. Each target is
//! tried once without a pause, then pauses grow to [`PAUSE_MAX`]. What is known of the targets is shared by all
//! operations of a client. When every target is hopeless, the operation ends at once. Who is
//! [silent](ClientLink::is_silent) while others are heard is not asked at all: a group that has replaced many members would else cost a
//! wait for each of them.
//!
//! What any replica may answer is asked of another one soon (after [`ANYWHERE_PART`] of an attempt): most often nothing must be
//! waited for there, so silence means a replica that is stopped, not one that is busy deciding.

use crate::client_wire::{Op, Outcome};
use crate::node::link::{ClientLink, LinkError};
use crate::random::splitmix;
use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// What a client knows of its targets.
pub(super) struct Routes {
    primary: AtomicUsize,
    next: AtomicUsize,
    /// Every target said last that it never will be.
    hopeless: AtomicBool,
    any_suspect: AtomicBool,
    suspects: Mutex<Vec<(usize, Instant)>>,
    random: AtomicU64,
}

impl Routes {
    pub(super) fn new() -> Self {
        let seed = RandomState::new().hash_one(0_u8);
        Self {
            primary: AtomicUsize::new(0),
            // Different clients start to read at different replicas.
            next: AtomicUsize::new((seed >> 40) as usize),
            hopeless: AtomicBool::new(false),
            any_suspect: AtomicBool::new(false),
            suspects: Mutex::new(Vec::new()),
            random: AtomicU64::new(seed),
        }
    }

    pub(super) fn is_hopeless(&self) -> bool {
        self.hopeless.load(Ordering::Relaxed)
    }

    fn suspects(&self) -> MutexGuard<'_, Vec<(usize, Instant)>> {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn suspect(&self, target: usize, now: Instant, time: Duration) {
        let mut suspects = self.suspects();
        suspects.retain(|(t, until)| *t != target && *until > now);
        suspects.push((target, now + time));
        self.any_suspect.store(true, Ordering::Release);
    }

    fn is_suspect(&self, target: usize, now: Instant) -> bool {
        self.any_suspect.load(Ordering::Acquire)
            && self
                .suspects()
                .iter()
                .any(|(t, until)| *t == target && *until > now)
    }

    fn trust(&self, target: usize) {
        if self.any_suspect.load(Ordering::Acquire) {
            let mut suspects = self.suspects();
            suspects.retain(|(t, _)| *t != target);
            self.any_suspect
                .store(!suspects.is_empty(), Ordering::Release);
        }
    }

    /// Half to all of `pause`, so that clients that failed together do not come back together.
    fn jittered(&self, pause: Duration) -> Duration {
        let mut state = self
            .random
            .fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let part = (splitmix(&mut state) % 512) as u32;
        pause * (512 + part) / 1_024
    }
}

/// Where an operation begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// At the target that was primary last.
    Primary,
    /// At each in turn.
    Anywhere,
}

/// How often an operation may be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sends {
    /// Once more does no harm: it is asked again until there is an answer.
    Repeatedly,
    /// Not asked again once an attempt may have been carried out; so that attempt has all the time there is.
    UntilTaken,
}

/// No answer before the deadline.
#[derive(Debug)]
pub(super) struct GaveUp {
    /// Whether some attempt may have been carried out.
    pub(super) maybe_done: bool,
    /// What the last attempt met.
    pub(super) last: String,
}

/// One operation's way.
pub(super) struct Route<'a> {
    link: &'a dyn ClientLink,
    routes: &'a Routes,
    start: Start,
    sends: Sends,
    deadline: Instant,
    attempt: Duration,
    /// For how long a target that did not answer is passed over, at least.
    passed_over: Duration,
    /// Targets that said last that asking them again is of no use.
    hopeless: BTreeSet<usize>,
    target: usize,
    moves: usize,
    redirects: usize,
    busy: usize,
    pause: Duration,
    maybe_done: bool,
}

impl<'a> Route<'a> {
    pub(super) fn new(
        link: &'a dyn ClientLink,
        routes: &'a Routes,
        start: Start,
        deadline: Instant,
        attempt: Duration,
    ) -> Self {
        let (target, first) = match start {
            Start::Primary => (routes.primary.load(Ordering::Relaxed), attempt),
            Start::Anywhere => {
                let next = routes.next.fetch_add(1, Ordering::Relaxed);
                (next, attempt / ANYWHERE_PART)
            }
        };
        Self {
            link,
            routes,
            start,
            sends: Sends::Repeatedly,
            deadline,
            attempt: first,
            passed_over: attempt,
            hopeless: BTreeSet::new(),
            target,
            moves: 0,
            redirects: 0,
            busy: 0,
            pause: PAUSE_MIN,
            maybe_done: false,
        }
    }

    pub(super) fn sending(self, sends: Sends) -> Self {
        Self { sends, ..self }
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether some attempt so far may have been carried out, now or later.
    pub(super) fn maybe_done(&self) -> bool {
        self.maybe_done
    }

    /// Attempts until there is an outcome that another attempt would not change.
    pub(super) async fn call(&mut self, op: impl Fn() -> Op) -> Result<Outcome, GaveUp> {
        loop {
            let now = Instant::now();
            self.target %= self.link.targets().max(1);
            if self.moves == 0 && self.is_passed_over(self.target, now) {
                self.turn();
            }
            let until = match self.sends {
                Sends::Repeatedly => self.deadline.min(now + self.attempt),
                Sends::UntilTaken => self.deadline,
            };
            let met = self.link.call(self.target, op(), until).await;
            if !matches!(met, Err(LinkError::Hopeless(_))) {
                self.hopeless.remove(&self.target);
                if self.routes.is_hopeless() {
                    self.routes.hopeless.store(false, Ordering::Relaxed);
                }
            }
            let met = match met {
                Ok(Outcome::NotPrimary { primary, address }) => {
                    let hinted =
                        primary.and_then(|primary| self.link.resolve(primary, address.as_deref()));
                    if self.follow(hinted, now) {
                        continue;
                    }
                    primary.map_or_else(
                        || "no primary is known".into(),
                        |primary| format!("{primary} is the primary, and cannot be reached"),
                    )
                }
                Ok(Outcome::Busy) => {
                    // Whoever is busy is there, and most likely the right one to ask again; unless its disk hangs
                    // and others have gone on without it.
                    self.busy += 1;
                    if self.busy.is_multiple_of(BUSY_BEFORE_TURN) {
                        self.turn();
                    }
                    self.pause("busy".into()).await?;
                    continue;
                }
                Ok(Outcome::Unknown) => {
                    self.unanswered(now);
                    "the primary changed, or did not decide in time".into()
                }
                Ok(Outcome::Behind) => "the replica is behind".into(),
                Ok(
                    outcome @ (Outcome::Done { .. }
                    | Outcome::Opened { .. }
                    | Outcome::Closed
                    | Outcome::SessionExpired
                    | Outcome::OutOfWindow
                    | Outcome::Malformed(_)
                    | Outcome::TooLarge { .. }
                    | Outcome::ResponseTooLarge { .. }
                    | Outcome::Status(_)
                    | Outcome::Managed(_)
                    | Outcome::Refused(_)),
                ) => {
                    self.arrived();
                    return Ok(outcome);
                }
                Err(error @ LinkError::NotSent(_)) => {
                    self.routes.suspect(self.target, now, SUSPECT_FOR);
                    error.to_string()
                }
                Err(error @ LinkError::Hopeless(_)) => {
                    self.hopeless.insert(self.target);
                    if self.hopeless.len() >= self.awake() {
                        self.routes.hopeless.store(true, Ordering::Relaxed);
                        return Err(GaveUp {
                            maybe_done: self.maybe_done,
                            last: error.to_string(),
                        });
                    }
                    error.to_string()
                }
                Err(error @ LinkError::Lost(_)) => {
                    self.routes.suspect(self.target, now, SUSPECT_FOR);
                    self.unanswered(now);
                    error.to_string()
                }
            };
            if self.maybe_done && self.sends == Sends::UntilTaken {
                return Err(GaveUp {
                    maybe_done: true,
                    last: met,
                });
            }
            self.turn();
            if self.moves >= self.awake() {
                self.pause(met).await?;
            }
        }
    }

    fn arrived(&mut self) {
        self.routes.trust(self.target);
        if self.start == Start::Primary {
            self.routes.primary.store(self.target, Ordering::Relaxed);
        }
        (self.moves, self.redirects, self.pause) = (0, 0, PAUSE_MIN);
    }

    /// Follows a redirect, unless it leads nowhere new.
    fn follow(&mut self, hinted: Option<usize>, now: Instant) -> bool {
        match hinted {
            Some(target)
                if target != self.target
                    && self.redirects <= REDIRECTS_MAX
                    && !self.is_passed_over(target, now) =>
            {
                self.redirects += 1;
                self.moves += 1;
                self.target = target;
                true
            }
            Some(_) | None => false,
        }
    }

    fn unanswered(&mut self, begun: Instant) {
        self.maybe_done = true;
        let now = Instant::now();
        if now - begun >= self.attempt {
            // Others are asked for as long as this one has kept us waiting, then it gets more time.
            let time = self.attempt.max(self.passed_over);
            self.routes.suspect(self.target, now, time);
            self.attempt *= 2;
        }
    }

    fn is_passed_over(&self, target: usize, now: Instant) -> bool {
        self.routes.is_suspect(target, now) || self.link.is_silent(target)
    }

    /// How many targets are not silent.
    fn awake(&self) -> usize {
        let targets = 0..self.link.targets();
        let awake = targets.filter(|target| !self.link.is_silent(*target));
        awake.count().max(1)
    }

    /// On to the next target, past one that is suspect or silent if there is another.
    fn turn(&mut self) {
        let targets = self.link.targets().max(1);
        let now = Instant::now();
        self.moves += 1;
        let (from, mut suspect) = (self.target, None);
        for target in (1..=targets).map(|n| (from + n) % targets) {
            if self.link.is_silent(target) {
                continue;
            }
            if !self.routes.is_suspect(target, now) {
                self.target = target;
                return;
            }
            suspect = Some(target);
        }
        // All are suspect: this one again, unless it is silent.
        self.target = suspect.unwrap_or(from);
    }

    async fn pause(&mut self, met: String) -> Result<(), GaveUp> {
        let until = Instant::now() + self.routes.jittered(self.pause);
        if until >= self.deadline {
            return Err(GaveUp {
                maybe_done: self.maybe_done,
                last: met,
            });
        }
        tokio::time::sleep_until(until).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        self.redirects = 0;
        Ok(())
    }
}

/// What anybody may answer is asked of another after this part of an attempt.
const ANYWHERE_PART: u32 = 8;
const PAUSE_MIN: Duration = Duration::from_millis(2);
/// How often, at the least, a client looks for a new primary.
const PAUSE_MAX: Duration = Duration::from_millis(25);
/// For how long a target is passed over whose connection failed.
const SUSPECT_FOR: Duration = Duration::from_millis(150);
/// Asked so often in a row, a busy target is left for another.
const BUSY_BEFORE_TURN: usize = 4;
/// Redirects followed one after the other without a pause.
const REDIRECTS_MAX: usize = 3;
