//! A node: an engine, its disk, and the host that collects what the engine wants done.

use super::clock::Clock;
use super::disk::Disk;
use super::ledger::Window;
use super::queue::Happening;
use crate::client_wire::Outcome;
use crate::engine::{Engine, Host};
use crate::entry::Entry;
use crate::id::{Incarnation, LogPoint, PersistToken, ReplicaId, StoreId, Ticket};
use crate::protocol::Event;
use crate::protocol::passive::Start;
use crate::state_machine::FrozenState;
use crate::storage::{
    SnapshotMeta, SnapshotReader, SnapshotStore, SnapshotWriter, StorageError, StorageOp,
};
use crate::time::{Time, Timestamp};
use crate::transport::Destination;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// A piece of work with snapshots.
pub(super) enum Job {
    /// Created when it was asked for; now to be written.
    Write(Result<Box<dyn SnapshotWriter>, StorageError>, FrozenState),
    Read {
        peer: ReplicaId,
        offset: u64,
        bytes_max: usize,
    },
    Load(SnapshotMeta),
}

/// Who asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    pub(super) client: u32,
    pub(super) attempt: u64,
    pub(super) asked: Asked,
}

/// What was asked, as far as an answer is to be judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Asked {
    Write,
    Read,
}

/// Whom a replica is told of when it starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Told {
    OfAll,
    OfNobody,
}

pub(super) struct Node {
    pub(super) id: ReplicaId,
    pub(super) engine: Option<Engine>,
    pub(super) disk: Disk,
    /// The identity under which what it holds counts, as far as it last said.
    pub(super) known_as: StoreId,
    pub(super) effects: Effects,
    /// Counts the starts.
    pub(super) life: u32,
    pub(super) incarnation: Incarnation,
    /// Its own monotonic clock.
    pub(super) clock: Clock,
    /// Wall clock minus true time, in microseconds.
    pub(super) wall_offset: i64,
    pub(super) paused: bool,
    pub(super) backlog: VecDeque<Happening>,
    /// When it said last that it must be told the time.
    pub(super) due: Option<Time>,
    /// When it is told next.
    pub(super) tick_at: Option<Time>,
    pub(super) ticks_at_once: u32,
    pub(super) tickets: BTreeMap<Ticket, Asker>,
    pub(super) next_ticket: Ticket,
    pub(super) jobs: VecDeque<Job>,
    pub(super) readers: BTreeMap<ReplicaId, Box<dyn SnapshotReader>>,
    /// Dies at the disk's next step of this kind.
    pub(super) trap: Option<(super::queue::DiskStep, super::disk::Death)>,
    /// How many times slower than usual its disk is.
    pub(super) disk_slowness: u32,
    /// A start is scheduled.
    pub(super) starting: bool,
    /// A spare that has never run.
    pub(super) absent: bool,
    /// How it starts.
    pub(super) start: Start,
    pub(super) told: Told,
}

impl Node {
    pub(super) fn new(id: ReplicaId, disk: Disk) -> Self {
        Self {
            id,
            engine: None,
            disk,
            known_as: StoreId::default(),
            effects: Effects::default(),
            life: 0,
            incarnation: Incarnation::UNKNOWN,
            clock: Clock::default(),
            wall_offset: 0,
            paused: false,
            backlog: VecDeque::new(),
            due: None,
            tick_at: None,
            ticks_at_once: 0,
            tickets: BTreeMap::new(),
            next_ticket: Ticket(1),
            jobs: VecDeque::new(),
            readers: BTreeMap::new(),
            trap: None,
            disk_slowness: 1,
            starting: false,
            absent: false,
            start: Start::Normal,
            told: Told::OfAll,
        }
    }

    /// The identity under which what it holds counts; none while it lies in a memory that is gone.
    pub(super) fn store(&self) -> StoreId {
        if self.disk.is_gone() {
            StoreId::default()
        } else {
            self.known_as
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.engine.is_some()
    }

    /// What its own clock shows.
    pub(super) fn clock(&self, now: Time) -> Time {
        self.clock.shows(now)
    }

    /// When its clock shows `local`.
    pub(super) fn when(&self, local: Time) -> Time {
        self.clock.when(local)
    }

    /// Its wall clock.
    pub(super) fn wall(&self, now: Time) -> Timestamp {
        // Far enough from zero for every jump backwards.
        let micros = 1_700_000_000_000_000 + now.as_nanos() / 1_000;
        Timestamp(micros.saturating_add_signed(self.wall_offset))
    }

    /// Takes a request in.
    pub(super) fn ticket(&mut self, asker: Asker) -> Ticket {
        let ticket = self.next_ticket;
        self.next_ticket = ticket.next();
        self.tickets.insert(ticket, asker);
        ticket
    }

    /// Forgets everything but the disk.
    pub(super) fn forget(&mut self) {
        self.engine = None;
        self.effects.clear();
        self.paused = false;
        self.backlog.clear();
        self.due = None;
        self.tick_at = None;
        self.tickets.clear();
        self.jobs.clear();
        self.readers.clear();
        self.trap = None;
    }
}

/// The engine's host: collects.
#[derive(Default)]
pub(super) struct Effects {
    pub(super) sends: Vec<(Destination, Bytes)>,
    pub(super) persists: VecDeque<(PersistToken, Vec<StorageOp>)>,
    pub(super) replies: Vec<(Ticket, Outcome)>,
    pub(super) jobs: Vec<Job>,
    pub(super) events: Vec<Event>,
    pub(super) fatal: Option<String>,
    /// Entries applied, and the ledger's digest after each.
    pub(super) applied: Vec<(LogPoint, u64)>,
    pub(super) window: Arc<Window>,
    pub(super) snapshots: Option<Arc<dyn SnapshotStore>>,
}

impl Effects {
    fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Host for Effects {
    fn send(&mut self, to: Destination, frame: Bytes) {
        self.sends.push((to, frame));
    }

    fn persist(&mut self, token: PersistToken, ops: Vec<StorageOp>) {
        self.persists.push_back((token, ops));
    }

    fn reply(&mut self, ticket: Ticket, outcome: Outcome) {
        self.replies.push((ticket, outcome));
    }

    fn write_snapshot(&mut self, last: LogPoint, state: FrozenState) {
        if let Some(store) = &self.snapshots {
            self.jobs.push(Job::Write(store.create(last), state));
        }
    }

    fn read_snapshot(&mut self, peer: ReplicaId, offset: u64, bytes_max: usize) {
        self.jobs.push(Job::Read {
            peer,
            offset,
            bytes_max,
        });
    }

    fn load_snapshot(&mut self, meta: SnapshotMeta) {
        self.jobs.push(Job::Load(meta));
    }

    fn event(&mut self, event: Event) {
        self.events.push(event);
    }

    fn fatal(&mut self, reason: String) {
        self.fatal.get_or_insert(reason);
    }

    fn applied(&mut self, entry: &Entry, _: Option<&Bytes>) {
        self.applied.push((entry.point(), self.window.digest()));
    }
}
