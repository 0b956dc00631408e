//! A replica: its engine and clock, and what it was told, as the judge sees it.

use super::super::clock::Clock;
use super::super::node::Effects;
use super::world::Happening;
use crate::engine::Engine;
use crate::id::ReplicaId;
use crate::state_machine::{ApplyContext, StateMachine};
use crate::time::Time;
use std::collections::VecDeque;

pub(super) struct Node {
    pub(super) id: ReplicaId,
    pub(super) engine: Option<Engine>,
    pub(super) effects: Effects,
    pub(super) clock: Clock,
    /// Counts its starts.
    pub(super) life: u32,
    pub(super) paused: bool,
    /// What came while it was stopped.
    pub(super) stalled: VecDeque<Happening>,
    pub(super) tick_at: Option<Time>,
    pub(super) seen: Seen,
}

/// What a replica was told in this life, and when, beside the replica's own books.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    // In true time:
    /// Since when it runs without a stop.
    pub(super) runs_since: Option<Time>,
    /// Since when it says that it lives; `None` until it does, after its start or a sleep.
    pub(super) speaks_since: Option<Time>,
    // By its own clock:
    pub(super) started: Time,
    /// When it went on the last time, whether it had slept or not.
    pub(super) resumed: Option<Time>,
    /// When it went on after it had not ticked for two periods.
    pub(super) woke: Option<Time>,
    /// When it ticked last, and when it wants to tick next.
    pub(super) ticked: Time,
    pub(super) next_tick: Option<Time>,
    /// What it heard of each.
    pub(super) heard: Vec<Heard>,
}

/// When somebody was heard, by the clock of who heard it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Heard {
    /// The last time that whoever heard it must believe.
    pub(super) surely: Option<Time>,
    /// The last time that he may believe.
    pub(super) perhaps: Option<Time>,
    /// The latest life that he must know of, and that he may know of.
    pub(super) life_surely: u32,
    pub(super) life_perhaps: u32,
}

impl Node {
    pub(super) fn new(id: ReplicaId) -> Self {
        Self {
            id,
            engine: None,
            effects: Effects::default(),
            clock: Clock::default(),
            life: 0,
            paused: false,
            stalled: VecDeque::new(),
            tick_at: None,
            seen: Seen::default(),
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.engine.is_some() && !self.paused
    }
}

/// Says who it is, and what it was asked.
#[derive(Debug)]
pub(super) struct Echo(pub(super) u32);

impl StateMachine for Echo {
    type Command = ();
    type Query = u64;
    type Response = (u32, u64);
    type Snapshot = ();

    const TAKES_COMMANDS: bool = false;

    fn apply(&mut self, _: &mut ApplyContext, (): ()) -> Self::Response {
        (self.0, 0)
    }

    fn query(&self, asked: u64) -> Self::Response {
        (self.0, asked)
    }

    fn snapshot(&self) {}

    fn restore(&mut self, (): ()) {}
}
