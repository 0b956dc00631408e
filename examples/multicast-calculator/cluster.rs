//! [`Cluster`]: who is there, as far as this server knows. No sockets and no clock.
//!
//! The counting is the library's [`Responder`]; here are this wire's ids, the lines that tell of changes, and the suspicion that an id is used
//! twice.
//!
//! Invariants: own signs of life count like anybody's, so they must come back through the socket; an id that is not told on the console (0,
//! which some existing servers use) is still waited for, because it answers.

use super::words::{Language, whose_heartbeat};
use kvrep_core::detector::Verdict;
use kvrep_core::detector::ticks::{TickConfig, TickConfigError};
use kvrep_core::protocol::lowest::{Responder, Turn};
use kvrep_core::{ReplicaId, Time};
use std::collections::BTreeMap;

/// What became of a datagram of the servers' group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heard {
    /// A server's sign of life.
    Alive,
    /// It came when nothing is believed: right after this server slept.
    Late,
    /// It is no sign of life, or no server's of this cluster.
    Invalid,
}

/// The servers, each with its state.
#[derive(Debug)]
pub struct Cluster {
    me: ReplicaId,
    responder: Responder,
    told: BTreeMap<ReplicaId, Verdict>,
    own: OwnId,
    invalid: u64,
}

/// Own signs of life that were sent and heard, over some ticks.
#[derive(Debug, Default)]
struct OwnId {
    sent: u32,
    heard: u32,
    ticks: u32,
    quiet_ticks: u32,
}

impl Cluster {
    /// One of servers 1 to `servers_max`, all of them disconnected.
    ///
    /// # Errors
    /// When the thresholds make no sense.
    pub fn new(
        me: ReplicaId,
        servers_max: u32,
        config: TickConfig,
    ) -> Result<Self, TickConfigError> {
        let told = (1..=servers_max).map(|id| (ReplicaId(id), Verdict::Disconnected));
        Ok(Self {
            me,
            responder: Responder::new(me, (0..=servers_max).map(ReplicaId), config)?,
            told: told.collect(),
            own: OwnId::default(),
            invalid: 0,
        })
    }

    /// Begins to listen.
    pub fn start(&mut self, now: Time) {
        self.responder.start(now);
    }

    /// When the next tick is.
    #[must_use]
    pub fn next_tick(&self, now: Time) -> Time {
        self.responder.next_tick(now)
    }

    /// Whether to send a sign of life with this tick: not while this server listens, for others would stand back for it.
    pub fn speaks(&mut self, now: Time) -> bool {
        self.responder.speaks(now)
    }

    /// A tick: the own sign of life was sent or was not, and every counter falls. Returns whether the own id seems to be another server's, too.
    pub fn tick(&mut self, now: Time, sent: Sent) -> OwnIdIs {
        self.responder.tick(now);
        self.own.tick(sent)
    }

    /// A datagram came to the servers' group.
    pub fn heard(&mut self, now: Time, datagram: &[u8]) -> Heard {
        let Some(from) = whose_heartbeat(datagram).filter(|id| self.belongs(*id)) else {
            self.invalid += 1;
            return Heard::Invalid;
        };
        if !self.responder.heard(now, from) {
            return Heard::Late;
        }
        if from == self.me {
            self.own.heard += 1;
        }
        Heard::Alive
    }

    /// Who answers what is asked now.
    #[must_use]
    pub fn turn(&self, now: Time) -> Turn {
        self.responder.turn(now)
    }

    /// Those whose state has changed since the last call, in the steps that are told: active, unresponsive, disconnected.
    pub fn updates(&mut self, now: Time) -> Vec<(ReplicaId, Verdict)> {
        let mut changed = Vec::new();
        for (server, verdict) in self.responder.verdicts(now) {
            let Some(told) = self.told.get_mut(&server) else {
                continue; // Id 0.
            };
            let told_already = verdict == *told || (verdict.is_live() && told.is_live());
            if !told_already {
                changed.push((server, verdict));
            }
            *told = verdict;
        }
        changed
    }

    /// Every server with its state.
    #[must_use]
    pub fn states(&self, now: Time) -> Vec<(ReplicaId, Verdict)> {
        let all = self.responder.verdicts(now);
        all.filter(|(server, _)| self.told.contains_key(server))
            .collect()
    }

    /// The periodic block.
    #[must_use]
    pub fn block(&self, now: Time, language: Language) -> String {
        language.block(&self.states(now))
    }

    /// Datagrams that said nothing.
    #[must_use]
    pub fn invalid(&self) -> u64 {
        self.invalid
    }

    fn belongs(&self, id: ReplicaId) -> bool {
        id.0 == 0 || self.told.contains_key(&id)
    }
}

/// Whether a sign of life went out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sent {
    /// It did.
    Yes,
    /// This server listens, or the system refused.
    No,
}

/// What the number of own signs of life says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OwnIdIs {
    /// Nothing remarkable.
    Mine,
    /// More come than are sent: another server has the same id. Said once in [`SAID_AGAIN_AFTER_TICKS`] ticks.
    SharedWithAnother,
}

impl OwnId {
    fn tick(&mut self, sent: Sent) -> OwnIdIs {
        self.sent += u32::from(sent == Sent::Yes);
        self.ticks += 1;
        self.quiet_ticks = self.quiet_ticks.saturating_sub(1);
        if self.ticks < COUNTED_TICKS {
            return OwnIdIs::Mine;
        }
        // A network may double a datagram now and then; a second server doubles all of them.
        let shared = self.heard > self.sent + COUNTED_TICKS / 2;
        (self.sent, self.heard, self.ticks) = (0, 0, 0);
        if shared && self.quiet_ticks == 0 {
            self.quiet_ticks = SAID_AGAIN_AFTER_TICKS;
            return OwnIdIs::SharedWithAnother;
        }
        OwnIdIs::Mine
    }
}

/// Over so many ticks own signs of life are counted.
const COUNTED_TICKS: u32 = 5;

/// See [`OwnIdIs::SharedWithAnother`].
pub const SAID_AGAIN_AFTER_TICKS: u32 = 60;

#[cfg(test)]
#[path = "cluster_tests.rs"]
mod tests;
