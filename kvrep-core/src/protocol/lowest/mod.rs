//! Lowest live id: every replica can answer, and the lowest that lives does. Nothing is replicated.
//!
//! (The bully rule without an election; Garcia-Molina: *Elections in a Distributed Computing System*, IEEE TC 1982.) For services without a state, or with
//! one that never changes: each replica says with every tick that it is there, counts the ticks since it heard the others, and answers if it counts on
//! nobody lower.
//!
//! Promise: one replica answers once the detector is stable. Under a partition, also a one-way one, there is one on each side; that is why the state
//! machine must take no commands ([`StateMachine::TAKES_COMMANDS`](crate::StateMachine::TAKES_COMMANDS)). A client is redirected to the
//! one that answers, and sees one answer.
//!
//! A replica that starts, or goes on after a sleep, listens first, and answers from when it says that it lives: others stand back for it then. What is on its
//! way at that moment may be answered twice.
//!
//! Caveat: a crash of the lowest is noticed after two to three ticks; until then nobody answers.

mod mutation;
mod responder;

#[cfg(feature = "sim")]
pub use mutation::Mutation;
pub use responder::{Responder, Turn};

use crate::config::{Read, Token};
use crate::detector::ticks::{TickConfig, TickConfigError};
use crate::error::{ProposeError, ReadError};
use crate::id::{Incarnation, Index, ReplicaId, StoreId, Ticket};
use crate::protocol::{Action, Outbox, Protocol, ProtocolStatus, Role};
use crate::time::{Time, Timestamp};
use crate::wire::Envelope;
use bytes::{BufMut, Bytes};
#[cfg(not(feature = "sim"))]
use mutation::Mutation;
use std::collections::BTreeMap;

/// The scheme at one replica. See the [module](self); a node uses it by
/// `NodeBuilder::lowest_id`.
#[derive(Debug)]
pub struct LowestId {
    me: ReplicaId,
    store: StoreId,
    responder: Responder,
    lives: BTreeMap<ReplicaId, Incarnation>,
    next_tick: Time,
    now: Time,
    dropped: u64,
}

impl LowestId {
    /// One for `me` among these members.
    ///
    /// # Errors
    /// When the configuration makes no sense.
    pub fn new(
        me: ReplicaId,
        members: impl IntoIterator<Item = ReplicaId>,
        config: TickConfig,
        store: StoreId,
    ) -> Result<Self, TickConfigError> {
        Ok(Self {
            me,
            store,
            responder: Responder::new(me, members, config)?,
            lives: BTreeMap::new(),
            next_tick: Time::ZERO,
            now: Time::ZERO,
            dropped: 0,
        })
    }

    /// Plants a bug, to see it caught.
    #[cfg(feature = "sim")]
    #[doc(hidden)]
    pub fn plant(&mut self, mutation: Mutation) {
        self.responder.mutation = Some(mutation);
    }

    /// Who decides whose turn it is.
    #[must_use]
    pub fn responder(&self) -> &Responder {
        &self.responder
    }

    fn primary(&self, now: Time) -> Option<ReplicaId> {
        match self.responder.turn(now) {
            Turn::Mine => Some(self.me),
            Turn::Theirs(lowest) => Some(lowest),
            Turn::Listening => None,
        }
    }
}

impl Protocol for LowestId {
    fn start(&mut self, now: Time, out: &mut Outbox) {
        self.now = now;
        self.responder.start(now);
        self.next_tick = now;
        self.on_tick(now, out);
    }

    fn on_message(&mut self, now: Time, envelope: &Envelope, body: Bytes, _: &mut Outbox) {
        self.now = now;
        let (from, life) = (envelope.from, envelope.incarnation);
        let known = self.lives.get(&from).copied();
        let stale = known.is_some_and(|known| life < known)
            && !self.responder.has(Mutation::OldLifeBelieved);
        if stale || body.as_ref() != ALIVE || from == self.me || !self.responder.heard(now, from) {
            self.dropped += 1;
            return;
        }
        self.lives.insert(from, life);
    }

    fn on_tick(&mut self, now: Time, out: &mut Outbox) {
        self.now = now;
        if now >= self.next_tick {
            let silent = self.responder.has(Mutation::OnlyTheAnsweringSpeaks)
                && matches!(self.responder.turn(now), Turn::Theirs(_));
            if self.responder.speaks(now) && !silent {
                out.send_to_group(|body| body.put_slice(ALIVE));
            }
            self.responder.tick(now);
            self.next_tick = self.responder.next_tick(now);
        }
    }

    fn propose(
        &mut self,
        now: Time,
        _: Timestamp,
        _: Vec<Bytes>,
        _: &mut Outbox,
    ) -> Result<Index, ProposeError> {
        // (A node with a state machine that takes commands does not start with this scheme.)
        let primary = self.primary(now).filter(|primary| *primary != self.me);
        Err(ProposeError::NotPrimary { primary })
    }

    fn read(&mut self, now: Time, ticket: Ticket, read: Read, out: &mut Outbox) {
        self.now = now;
        let mine = self.responder.turn(now) == Turn::Mine;
        // Nothing ever changes: who asks for any replica's answer gets it.
        out.push(if mine || read == Read::Local {
            let token = Token::default();
            Action::ReadReady { ticket, token }
        } else {
            let primary = self.primary(now);
            let error = ReadError::NotPrimary { primary };
            Action::ReadFailed { ticket, error }
        });
    }

    fn next_deadline(&self, _: Time) -> Option<Time> {
        Some(self.next_tick)
    }

    fn status(&self) -> ProtocolStatus {
        let turn = self.responder.turn(self.now);
        ProtocolStatus {
            role: match turn {
                Turn::Mine => Role::Primary,
                Turn::Theirs(_) => Role::Backup,
                Turn::Listening => Role::Seeking,
            },
            primary: self.primary(self.now),
            serving: turn == Turn::Mine,
            dropped: self.dropped,
            ..ProtocolStatus::of_nothing(self.store)
        }
    }
}

/// A sign of life.
const ALIVE: &[u8] = b"alive";
