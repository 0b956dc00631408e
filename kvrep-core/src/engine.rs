//! The engine: runs a [`Protocol`]'s outbox against a state machine and a [`Host`].
//!
//! This is the part of a driver that both drivers share, the tokio one and the simulator: what runs in a test is what
//! runs in production, but for sockets, files and the clock, which are the host's. Still sans-IO: calls come in with
//! the time, effects go to the host, and the host tells about their completion later through another call. A host
//! never calls back from within a call.
//!
//! Invariants:
//! * actions of one outbox run top to bottom; what is sent behind a `Persist` waits for it, later outboxes do not;
//! * every ticket handed in is answered exactly once, by [`Host::reply`], unless the node stops first;
//! * queries see only applied entries.
//!
//! The smallest host, for a group of one in memory:
//!
//! ```
//! use kvrep_core::client_wire::{Op, Outcome};
//! use kvrep_core::engine::{Engine, Host, Identity};
//! use kvrep_core::protocol::{Event, passive::{Options, Passive}};
//! use kvrep_core::session::Machine;
//! use kvrep_core::state_machine::{FrozenState, encode};
//! use kvrep_core::storage::{SnapshotMeta, Storage, StorageOp, memory::MemoryStorage};
//! use kvrep_core::transport::Destination;
//! use kvrep_core::*;
//!
//! #[derive(Default)]
//! struct InMemory {
//!     persisted: Option<PersistToken>,
//!     replies: Vec<Outcome>,
//! }
//!
//! impl Host for InMemory {
//!     fn persist(&mut self, token: PersistToken, _: Vec<StorageOp>) {
//!         self.persisted = Some(token); // in memory it is "durable" at once
//!     }
//!     fn reply(&mut self, _: Ticket, outcome: Outcome) {
//!         self.replies.push(outcome);
//!     }
//!     fn event(&mut self, _: Event) {}
//!     fn fatal(&mut self, reason: String) {
//!         panic!("{reason}");
//!     }
//!     fn send(&mut self, _: Destination, _: bytes::Bytes) {} // there is nobody else
//!     fn write_snapshot(&mut self, _: LogPoint, _: FrozenState) {}
//!     fn read_snapshot(&mut self, _: ReplicaId, _: u64, _: usize) {}
//!     fn load_snapshot(&mut self, _: SnapshotMeta) {}
//! }
//!
//! let me = Identity {
//!     group: GroupId::named("sums"),
//!     replica: ReplicaId(1),
//!     incarnation: Incarnation(1),
//! };
//! let group = GroupConfig::new([me.replica], Authority::Alone);
//! let limits = group.limits;
//! let found = MemoryStorage::new(StoreId(1), me.incarnation).open().unwrap();
//! let protocol = Passive::new(Options::new(me.replica, group, 7), found).unwrap();
//! let sum = Typed(Fold::new(0_i64, |sum, by: i64| *sum += by));
//! let machine = Machine::new(Box::new(sum), &limits).unwrap();
//! let mut engine = Engine::new(me, Box::new(protocol), machine, LogPoint::ZERO, limits);
//!
//! let (mut host, mut now) = (InMemory::default(), Time::ZERO);
//! engine.start(now, &mut host);
//! let mut asked = false;
//! while host.replies.is_empty() {
//!     if engine.status().serving && !asked {
//!         asked = true;
//!         let add = (Ticket(1), Op::Plain(encode(&5_i64)));
//!         engine.on_requests(now, Timestamp(0), [add], &mut host);
//!     } else if let Some(token) = host.persisted.take() {
//!         engine.on_persisted(now, token, &mut host);
//!     } else {
//!         now = engine.next_deadline(now).unwrap();
//!         engine.tick(now, &mut host);
//!     }
//! }
//! assert!(matches!(&host.replies[0], Outcome::Done { response, .. } if *response == encode(&5_i64)));
//! ```

mod outcome;
mod payloads;
#[cfg(feature = "sim")]
mod planted;

use crate::client_wire::{Op, Outcome};
use crate::config::{Limits, Read, Token, Visibility};
use crate::entry::Entry;
use crate::id::{GroupId, Incarnation, Index, LogPoint, PersistToken, ReplicaId, Ticket};
use crate::protocol::{Action, Event, Outbox, Protocol, ProtocolStatus, SnapshotPiece};
#[cfg(feature = "sim")]
use crate::session::Keep;
use crate::session::{Applied, Envelope as Command, Machine};
use crate::state_machine::{FrozenState, Look, Malformed};
use crate::storage::{SnapshotMeta, StorageOp};
use crate::time::{Time, Timestamp};
use crate::transport::{Destination, Hint, Shipment};
use crate::wire::Envelope;
use bytes::Bytes;
pub(crate) use outcome::of_applied as outcome_of;
use outcome::{managed, refusal, unreadable};
use payloads::Payloads;
#[cfg(feature = "sim")]
use planted::Planted;
use std::collections::{BTreeMap, VecDeque};

/// What an engine needs done. Nothing here blocks, and nothing calls back.
pub trait Host {
    /// Send a frame.
    fn send(&mut self, to: Destination, frame: Bytes);
    /// Whether [`ship`](Self::ship) is to be called for entries; else they come as frames like any other. Asked at the start.
    fn takes_shipments(&self) -> bool {
        false
    }
    /// Send entries that are not encoded.
    fn ship(&mut self, to: ReplicaId, shipment: Shipment) {
        self.send(Destination::One(to), shipment.frame());
    }
    /// Carry out storage operations; then, once durable, [`Engine::on_persisted`], in order of the tokens.
    fn persist(&mut self, token: PersistToken, ops: Vec<StorageOp>);
    /// Answer a request.
    fn reply(&mut self, ticket: Ticket, outcome: Outcome);
    /// Write a snapshot of `state`, which ends at `last`; then [`Engine::on_snapshot_written`], or
    /// [`Engine::on_snapshot_dropped`] when it was superseded. It is *created* in this call, before any later operation
    /// reaches the storage, so that the storage knows which history it belongs to; written it may be elsewhere.
    fn write_snapshot(&mut self, last: LogPoint, state: FrozenState);
    /// Read a piece of the current snapshot (offset 0 opens it anew); then [`Engine::on_snapshot_piece`].
    fn read_snapshot(&mut self, peer: ReplicaId, offset: u64, bytes_max: usize);
    /// Load the installed snapshot; then [`Engine::on_snapshot_loaded`].
    fn load_snapshot(&mut self, meta: SnapshotMeta);
    /// Tell the operator.
    fn event(&mut self, event: Event);
    /// The node cannot go on.
    fn fatal(&mut self, reason: String);
    /// Whether [`applied`](Self::applied) is to be called for what is applied now. Where nobody observes, and nobody waits,
    /// no response is made.
    fn observes(&self) -> bool {
        true
    }
    /// An entry was applied (for observers); `response` is there if the state machine carried out a command: not for a
    /// repeated one that got its first answer again, one that could not be read, or the opening of a session.
    fn applied(&mut self, entry: &Entry, response: Option<&Bytes>) {
        let _ = (entry, response);
    }
    /// So many entries were applied, observed or not.
    fn progressed(&mut self, entries: usize) {
        let _ = entries;
    }
    /// The state was replaced by the one at `last`, from a snapshot or the initial one (for observers).
    fn replaced(&mut self, last: LogPoint) {
        let _ = last;
    }
}

/// Who an engine works for.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// The group.
    pub group: GroupId,
    /// This replica.
    pub replica: ReplicaId,
    /// This life.
    pub incarnation: Incarnation,
}

/// What a read that waits wants of the state.
enum Wanted {
    Query(Bytes),
    Look(Look),
}

/// Commands that are proposed together, and who waits for each.
#[derive(Default)]
struct Batch {
    tickets: Vec<Ticket>,
    commands: Vec<Bytes>,
}

impl Batch {
    fn with_capacity(commands: usize) -> Self {
        Self {
            tickets: Vec::with_capacity(commands),
            commands: Vec::with_capacity(commands),
        }
    }
}

/// Runs one protocol object with one state machine. See the [module](self).
pub struct Engine {
    identity: Identity,
    protocol: Box<dyn Protocol>,
    machine: Machine,
    limits: Limits,
    out: Outbox,
    /// Room for the next outbox's actions.
    actions: Vec<Action>,
    held: VecDeque<(PersistToken, Vec<Action>)>,
    /// Proposals of this term at this primary, by index.
    waiting: VecDeque<(Index, Ticket)>,
    /// Whether entries are applied before they are decided: their answers wait for [`Action::Release`].
    withholds: bool,
    /// Answers to what is applied and not decided, in order.
    withheld: VecDeque<(Index, Ticket, Outcome)>,
    reads: BTreeMap<Ticket, Wanted>,
    applied: LogPoint,
    /// Where the state's digest is taken next.
    digest_at: Index,
    dropped: u64,
    #[cfg(feature = "sim")]
    planted: Planted,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Engine({}, applied {:?})",
            self.identity.replica, self.applied
        )
    }
}

impl Engine {
    /// An engine whose machine holds the state at `applied`.
    #[must_use]
    pub fn new(
        identity: Identity,
        protocol: Box<dyn Protocol>,
        machine: Machine,
        applied: LogPoint,
        limits: Limits,
    ) -> Self {
        let withholds = protocol.visibility() == Visibility::OnAppend;
        Self {
            identity,
            protocol,
            machine,
            limits,
            out: Outbox::new(identity.group, identity.replica, identity.incarnation),
            actions: Vec::new(),
            held: VecDeque::new(),
            waiting: VecDeque::new(),
            withholds,
            withheld: VecDeque::new(),
            reads: BTreeMap::new(),
            applied,
            digest_at: next_digest(&limits, applied.index),
            dropped: 0,
            #[cfg(feature = "sim")]
            planted: Planted::default(),
        }
    }

    /// Plants a bug in how snapshots are taken, if `mutation` is one of those.
    #[cfg(feature = "sim")]
    #[doc(hidden)]
    pub fn plant(&mut self, mutation: crate::protocol::passive::Mutation) {
        self.planted.mutation = Some(mutation);
    }

    /// Changes the state behind the log's back, as a damaged memory does.
    #[cfg(feature = "sim")]
    #[doc(hidden)]
    pub fn disturb(&mut self, command: &[u8]) {
        self.machine.disturb(command);
    }

    /// Starts the protocol. Once, first.
    pub fn start(&mut self, now: Time, host: &mut dyn Host) {
        self.out.set_ships(host.takes_shipments());
        self.protocol.start(now, &mut self.out);
        self.run(now, host);
    }

    /// A peer frame's body came.
    pub fn on_frame(&mut self, now: Time, mut body: Bytes, host: &mut dyn Host) {
        match Envelope::decode(&mut body) {
            Ok(envelope) if self.is_for_me(&envelope) => {
                self.protocol
                    .on_message(now, &envelope, body, &mut self.out);
                self.run(now, host);
            }
            Ok(_) | Err(_) => self.dropped += 1,
        }
    }

    /// A peer frame's body came, with the entries as they are in the sender's memory.
    pub fn on_shipment(&mut self, now: Time, shipment: Shipment, host: &mut dyn Host) {
        let (mut body, entries) = shipment.into_parts();
        match Envelope::decode(&mut body) {
            Ok(envelope) if self.is_for_me(&envelope) => {
                let shipment = Shipment::new(body, entries);
                self.protocol
                    .on_shipment(now, &envelope, shipment, &mut self.out);
                self.run(now, host);
            }
            Ok(_) | Err(_) => self.dropped += 1,
        }
    }

    /// The transport saw something of a peer.
    pub fn on_hint(&mut self, now: Time, peer: ReplicaId, hint: Hint, host: &mut dyn Host) {
        self.protocol.on_hint(now, peer, hint, &mut self.out);
        self.run(now, host);
    }

    /// Requests came. Commands that stand together are proposed together.
    pub fn on_requests(
        &mut self,
        now: Time,
        wall: Timestamp,
        requests: impl IntoIterator<Item = (Ticket, Op)>,
        host: &mut dyn Host,
    ) {
        let requests = requests.into_iter();
        let mut batch = Batch::with_capacity(requests.size_hint().0);
        let mut payloads = Payloads::for_about(requests.size_hint().0);
        for (ticket, op) in requests {
            let command = match op {
                Op::Plain(command) => Command::Plain(command),
                Op::OpenSession => Command::Open,
                Op::CloseSession(session) => Command::Close(session),
                Op::Command {
                    session,
                    seq,
                    done_below,
                    command,
                } => Command::Command {
                    session,
                    seq,
                    done_below,
                    command,
                },
                Op::Query { read, query } => {
                    self.propose(now, wall, &mut batch, host);
                    self.read(now, ticket, read, query, host);
                    continue;
                }
                Op::Manage(manage) => {
                    self.propose(now, wall, &mut batch, host);
                    self.protocol.manage(now, ticket, manage, &mut self.out);
                    self.run(now, host);
                    continue;
                }
                Op::Status => {
                    host.reply(ticket, Outcome::Status(Box::new(self.status())));
                    continue;
                }
            };
            let bytes = command.command_bytes();
            if bytes > self.limits.command_bytes_max {
                host.reply(ticket, self.too_large(bytes));
            } else {
                batch.tickets.push(ticket);
                batch.commands.push(payloads.encode(&command));
            }
        }
        self.propose(now, wall, &mut batch, host);
        self.run(now, host);
    }

    /// Somebody in this process wants to look at the state, as fresh as `read` says. Answered like a query, by
    /// [`Host::reply`]: `look` has run when the outcome is [`Outcome::Done`] (with an empty response), and is dropped
    /// otherwise.
    pub fn on_look(
        &mut self,
        now: Time,
        ticket: Ticket,
        read: Read,
        look: Look,
        host: &mut dyn Host,
    ) {
        self.read_when_allowed(now, ticket, read, Wanted::Look(look), host);
    }

    /// Everything up to `token` is durable.
    pub fn on_persisted(&mut self, now: Time, token: PersistToken, host: &mut dyn Host) {
        self.protocol.on_persisted(now, token, &mut self.out);
        let mut said = self.out.take_for(std::mem::take(&mut self.actions));
        while let Some((held, _)) = self.held.front()
            && *held <= token
            && let Some((_, mut rest)) = self.held.pop_front()
        {
            self.carry_out(now, &mut rest, host);
        }
        self.carry_out(now, &mut said, host);
        self.actions = said;
        self.run(now, host);
    }

    /// A snapshot was written.
    pub fn on_snapshot_written(&mut self, now: Time, meta: SnapshotMeta, host: &mut dyn Host) {
        self.protocol.on_snapshot_ready(now, meta, &mut self.out);
        self.run(now, host);
    }

    /// A snapshot was not written because its history was replaced meanwhile.
    pub fn on_snapshot_dropped(&mut self, now: Time, host: &mut dyn Host) {
        self.protocol.on_snapshot_dropped(now, &mut self.out);
        self.run(now, host);
    }

    /// A piece of the current snapshot was read; `None` when there is none or it could not be read.
    pub fn on_snapshot_piece(
        &mut self,
        now: Time,
        peer: ReplicaId,
        piece: Option<SnapshotPiece>,
        host: &mut dyn Host,
    ) {
        self.protocol
            .on_snapshot_piece(now, peer, piece, &mut self.out);
        self.run(now, host);
    }

    /// The installed snapshot's bytes, to be put into the state machine.
    pub fn on_snapshot_loaded(
        &mut self,
        now: Time,
        meta: SnapshotMeta,
        state: &mut dyn std::io::Read,
        host: &mut dyn Host,
    ) {
        if let Err(e) = self.machine.restore(state) {
            host.fatal(format!(
                "the snapshot at {} does not fit this state machine: {e}. Run the same version on all replicas",
                meta.last.index
            ));
            return;
        }
        self.applied = meta.last;
        self.digest_at = next_digest(&self.limits, meta.last.index);
        host.replaced(meta.last);
        self.protocol.on_restored(now, meta, &mut self.out);
        self.run(now, host);
    }

    /// The time of [`next_deadline`](Self::next_deadline) has come.
    pub fn tick(&mut self, now: Time, host: &mut dyn Host) {
        self.protocol.on_tick(now, &mut self.out);
        self.run(now, host);
    }

    /// When [`tick`](Self::tick) is next needed.
    #[must_use]
    pub fn next_deadline(&self, now: Time) -> Option<Time> {
        self.protocol.next_deadline(now)
    }

    /// What an operator wants to know.
    #[must_use]
    pub fn status(&self) -> ProtocolStatus {
        let mut status = self.protocol.status();
        status.dropped += self.dropped;
        status
    }

    /// Where the state machine is.
    #[must_use]
    pub fn applied(&self) -> LogPoint {
        self.applied
    }

    /// The state machine with its sessions.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Who this engine works for.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// What a copy of this replica is made of: where it ends, the hard state that a replica starts with that begins from
    /// it, and the frozen state. `None` when nothing was applied yet.
    #[must_use]
    pub fn copy(&self) -> Option<(LogPoint, Bytes, FrozenState)> {
        let hard_state = self.protocol.hard_state_for_copy()?;
        (self.applied > LogPoint::ZERO).then(|| (self.applied, hard_state, self.machine.freeze()))
    }

    /// Asserts what must hold inside this node.
    ///
    /// # Panics
    /// When it does not.
    pub fn check_invariants(&self) {
        self.protocol.check_invariants();
        let status = self.protocol.status();
        let shown = if self.withholds {
            status.commit.max(status.applied)
        } else {
            status.commit
        };
        assert!(
            self.applied.index <= shown,
            "only decided entries are applied, unless the group shows more"
        );
        let held = self.withheld.iter().map(|(index, _, _)| *index);
        assert!(
            held.is_sorted()
                && self
                    .withheld
                    .back()
                    .is_none_or(|w| w.0 <= self.applied.index),
            "what is withheld was applied, in order"
        );
    }

    fn is_for_me(&self, envelope: &Envelope) -> bool {
        envelope.group == self.identity.group
            && envelope.from != self.identity.replica
            && (envelope.to_incarnation == self.identity.incarnation
                || envelope.to_incarnation == Incarnation::UNKNOWN)
    }

    fn propose(&mut self, now: Time, wall: Timestamp, batch: &mut Batch, host: &mut dyn Host) {
        if batch.tickets.is_empty() {
            return;
        }
        let Batch { tickets, commands } = std::mem::take(batch);
        match self.protocol.propose(now, wall, commands, &mut self.out) {
            Ok(first) => {
                let mut index = first;
                for ticket in tickets {
                    self.waiting.push_back((index, ticket));
                    index = index.next();
                }
            }
            Err(error) => {
                for ticket in tickets {
                    host.reply(ticket, refusal(&error));
                }
            }
        }
    }

    fn read(&mut self, now: Time, ticket: Ticket, read: Read, query: Bytes, host: &mut dyn Host) {
        if query.len() > self.limits.command_bytes_max {
            host.reply(ticket, self.too_large(query.len()));
            return;
        }
        self.read_when_allowed(now, ticket, read, Wanted::Query(query), host);
    }

    fn read_when_allowed(
        &mut self,
        now: Time,
        ticket: Ticket,
        read: Read,
        wanted: Wanted,
        host: &mut dyn Host,
    ) {
        self.reads.insert(ticket, wanted);
        self.protocol.read(now, ticket, read, &mut self.out);
        self.run(now, host);
    }

    fn run(&mut self, now: Time, host: &mut dyn Host) {
        while !self.out.is_empty() {
            let room = std::mem::take(&mut self.actions);
            let mut actions = self.out.take_for(room);
            self.carry_out(now, &mut actions, host);
            self.actions = actions;
        }
    }

    /// Runs actions top to bottom. Storage operations are handed over at once and so reach the storage in the order in
    /// which they were made; what is sent behind one, and a restore, waits until it is durable.
    fn carry_out(&mut self, now: Time, actions: &mut Vec<Action>, host: &mut dyn Host) {
        let mut gate = None;
        for action in actions.drain(..) {
            match (action, gate) {
                (Action::Persist { token, ops }, _) => {
                    host.persist(token, ops);
                    gate = Some(token);
                }
                (
                    action @ (Action::Send { .. } | Action::Ship { .. } | Action::Restore(_)),
                    Some(token),
                ) => match self.held.back_mut() {
                    Some((held, rest)) if *held == token => rest.push(action),
                    Some(_) | None => self.held.push_back((token, vec![action])),
                },
                (action, _) => self.perform(now, action, host),
            }
        }
    }

    fn perform(&mut self, now: Time, action: Action, host: &mut dyn Host) {
        match action {
            Action::Persist { token, ops } => host.persist(token, ops),
            Action::Send { to, frame } => host.send(to, frame),
            Action::Ship { to, shipment } => host.ship(to, shipment),
            Action::Apply(entries) => self.apply(now, &entries, host),
            Action::ReadReady { ticket, token } => self.answer_read(ticket, token, host),
            Action::ReadFailed { ticket, error } => {
                self.reads.remove(&ticket);
                host.reply(ticket, unreadable(&error));
            }
            Action::Release(upto) => self.release(upto, host),
            Action::Managed { ticket, outcome } => host.reply(ticket, managed(outcome)),
            Action::Abandon => {
                let answered = self
                    .withheld
                    .drain(..)
                    .map(|(index, ticket, _)| (index, ticket));
                for (_, ticket) in answered.chain(self.waiting.drain(..)) {
                    host.reply(ticket, Outcome::Unknown);
                }
            }
            Action::TakeSnapshot => host.write_snapshot(self.applied, self.freeze()),
            Action::ReadSnapshot {
                peer,
                offset,
                bytes_max,
            } => host.read_snapshot(peer, offset, bytes_max),
            Action::Restore(meta) => host.load_snapshot(meta),
            Action::ResetMachine => {
                self.applied = LogPoint::ZERO;
                self.digest_at = next_digest(&self.limits, Index::ZERO);
                if let Err(e) = self.machine.reset() {
                    host.fatal(format!("the state machine refuses its initial state: {e}"));
                }
                host.replaced(LogPoint::ZERO);
            }
            Action::Event(event) => host.event(event),
        }
    }

    fn freeze(&mut self) -> FrozenState {
        #[cfg(feature = "sim")]
        if let Some(early) = self.planted.take_early() {
            return early;
        }
        #[cfg(feature = "sim")]
        if self.planted.drops_sessions() {
            return self.machine.freeze_with(Keep::Nothing);
        }
        self.machine.freeze()
    }

    fn apply(&mut self, now: Time, entries: &[Entry], host: &mut dyn Host) {
        let observed = host.observes();
        for entry in entries {
            assert_eq!(
                entry.index,
                self.applied.index.next(),
                "entries are applied one after the other"
            );
            #[cfg(feature = "sim")]
            self.planted.before_apply(&self.machine);
            let waits = (self.waiting.front()).is_some_and(|(index, _)| *index == entry.index);
            let mut applied = None;
            if waits || observed {
                applied = self.apply_observed(entry, host);
            } else {
                self.machine.apply_unanswered(entry);
            }
            self.applied = entry.point();
            if entry.index >= self.digest_at {
                self.take_digest(now);
            }
            if waits && let Some((_, ticket)) = self.waiting.pop_front() {
                self.answer(entry, ticket, applied, host);
            }
        }
        host.progressed(entries.len());
        if let Some(last) = entries.last() {
            self.protocol.on_applied(now, last.index, &mut self.out);
        }
    }

    fn apply_observed(&mut self, entry: &Entry, host: &mut dyn Host) -> Option<Applied> {
        let executed_before = self.machine.executed();
        let applied = self.machine.apply(entry);
        let response = match &applied {
            Some(Applied::Response(response)) if self.machine.executed() > executed_before => {
                Some(response)
            }
            Some(_) | None => None,
        };
        host.applied(entry, response);
        applied
    }

    /// The outcome goes to who waits, now or when it is decided.
    fn answer(
        &mut self,
        entry: &Entry,
        ticket: Ticket,
        applied: Option<Applied>,
        host: &mut dyn Host,
    ) {
        let token = Token {
            term: entry.term,
            index: entry.index,
        };
        let outcome = self.outcome(applied, token);
        #[cfg(feature = "sim")]
        let withholds = self.withholds && !self.planted.releases_early();
        #[cfg(not(feature = "sim"))]
        let withholds = self.withholds;
        if withholds {
            self.withheld.push_back((entry.index, ticket, outcome));
        } else {
            host.reply(ticket, outcome);
        }
    }

    #[cold]
    fn take_digest(&mut self, now: Time) {
        self.digest_at = match self.machine.digest() {
            Some(digest) => {
                self.protocol
                    .on_digest(now, self.applied, digest, &mut self.out);
                next_digest(&self.limits, self.applied.index)
            }
            None => NEVER,
        };
    }

    /// Everything up to `upto` is decided: whoever waits for that is answered.
    fn release(&mut self, upto: Index, host: &mut dyn Host) {
        while let Some((index, _, _)) = self.withheld.front()
            && *index <= upto
            && let Some((_, ticket, outcome)) = self.withheld.pop_front()
        {
            host.reply(ticket, outcome);
        }
    }

    fn answer_read(&mut self, ticket: Ticket, token: Token, host: &mut dyn Host) {
        let outcome = match self.reads.remove(&ticket) {
            None => return,
            Some(Wanted::Query(query)) => match self.machine.query(&query) {
                Ok(response) => self.outcome(Some(Applied::Response(response)), token),
                Err(Malformed(why)) => Outcome::Malformed(why),
            },
            Some(Wanted::Look(look)) => {
                look(self.machine.as_any());
                let response = Bytes::new();
                Outcome::Done { response, token }
            }
        };
        host.reply(ticket, outcome);
    }

    fn outcome(&self, applied: Option<Applied>, token: Token) -> Outcome {
        let applied = applied.expect("a ticket waits for a command, and commands have an outcome");
        outcome_of(applied, token, &self.limits)
    }

    fn too_large(&self, bytes: usize) -> Outcome {
        Outcome::TooLarge {
            bytes: bytes as u64,
            bytes_max: self.limits.command_bytes_max as u64,
        }
    }
}

/// Where the state's digest is taken after `index`: the same places on every replica.
fn next_digest(limits: &Limits, index: Index) -> Index {
    match index.0.checked_div(limits.digest_every_entries) {
        Some(before) => Index((before + 1).saturating_mul(limits.digest_every_entries)),
        None => NEVER,
    }
}

/// Behind every entry.
const NEVER: Index = Index(u64::MAX);
