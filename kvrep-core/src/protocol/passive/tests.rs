//! A small group in memory, driven by hand: every message arrives at once and in order, unless a link is cut.

mod anew;
mod awake;
mod departed;
mod handover;
mod members;
mod model;
mod policies;
mod register;
mod repair;

use super::*;
use crate::client_wire::{Op, Outcome};
use crate::engine::{Engine, Host, Identity};
use crate::entry::{Entry, EntryKind};
use crate::id::{GroupId, StoreId};
use crate::id::{Incarnation, LogPoint};
use crate::protocol::witness::Witness;
use crate::protocol::{Event, Role};
use crate::session::Machine;
use crate::state_machine::{ApplyContext, FrozenState, StateMachine, Typed, decode, encode};
use crate::storage::memory::MemoryStorage;
use crate::storage::{Durability, SnapshotReader, Storage, StorageOp};
use crate::transport::Destination;
use std::collections::VecDeque;
use std::time::Duration;

#[derive(Default)]
struct Journal(Vec<u64>);

impl StateMachine for Journal {
    type Command = u64;
    type Query = ();
    type Response = Vec<u64>;
    type Snapshot = Vec<u64>;

    fn apply(&mut self, _: &mut ApplyContext, n: u64) -> Vec<u64> {
        self.0.push(n);
        Vec::new()
    }
    fn query(&self, (): ()) -> Vec<u64> {
        self.0.clone()
    }
    fn snapshot(&self) -> Vec<u64> {
        self.0.clone()
    }
    fn restore(&mut self, state: Vec<u64>) {
        self.0 = state;
    }
    fn digest(&self) -> Option<u64> {
        Some(xxhash_rust::xxh3::xxh3_64(&encode(&self.0)))
    }
}

/// What a node wants done.
enum Todo {
    Frame(ReplicaId, Bytes),
    Shipment(ReplicaId, Shipment),
    Persist(PersistToken, Vec<StorageOp>),
    Write(LogPoint, FrozenState),
    Piece(ReplicaId, u64, usize),
    Load(SnapshotMeta),
}

#[derive(Default)]
struct Effects {
    todo: VecDeque<Todo>,
    replies: BTreeMap<Ticket, Outcome>,
    events: Vec<Event>,
    /// Entries that were sent; every other time as it is done within a process.
    shipped: u64,
}

impl Host for Effects {
    fn send(&mut self, to: Destination, frame: Bytes) {
        let Destination::One(to) = to else {
            panic!("the passive scheme says to each what is for him");
        };
        self.todo.push_back(Todo::Frame(to, frame));
    }
    fn takes_shipments(&self) -> bool {
        true
    }
    fn ship(&mut self, to: ReplicaId, shipment: Shipment) {
        self.shipped += 1;
        self.todo.push_back(if self.shipped.is_multiple_of(2) {
            Todo::Shipment(to, shipment)
        } else {
            Todo::Frame(to, shipment.frame())
        });
    }
    fn persist(&mut self, token: PersistToken, ops: Vec<StorageOp>) {
        self.todo.push_back(Todo::Persist(token, ops));
    }
    fn reply(&mut self, ticket: Ticket, outcome: Outcome) {
        assert!(
            self.replies.insert(ticket, outcome).is_none(),
            "{ticket} is answered once"
        );
    }
    fn write_snapshot(&mut self, last: LogPoint, state: FrozenState) {
        self.todo.push_back(Todo::Write(last, state));
    }
    fn read_snapshot(&mut self, peer: ReplicaId, offset: u64, bytes_max: usize) {
        self.todo.push_back(Todo::Piece(peer, offset, bytes_max));
    }
    fn load_snapshot(&mut self, meta: SnapshotMeta) {
        self.todo.push_back(Todo::Load(meta));
    }
    fn event(&mut self, event: Event) {
        self.events.push(event);
    }
    fn fatal(&mut self, reason: String) {
        panic!("{reason}");
    }
}

struct Node {
    engine: Engine,
    storage: MemoryStorage,
    reader: Option<Box<dyn SnapshotReader>>,
    effects: Effects,
    up: bool,
    store: StoreId,
    disk: Disk,
}

/// What a disk would have kept of a node's writes.
#[derive(Clone, Default)]
struct Disk {
    hard_state: Option<Bytes>,
    entries: Vec<Entry>,
}

impl Disk {
    fn write(&mut self, ops: &[StorageOp]) {
        for op in ops {
            match op {
                StorageOp::HardState(state) => self.hard_state = Some(state.clone()),
                StorageOp::Append(entries) => self.entries.extend(entries.iter().cloned()),
                StorageOp::TruncateSuffix { from, .. } => self.entries.retain(|e| e.index < *from),
                StorageOp::Reset { .. } | StorageOp::InstallSnapshot { .. } => self.entries.clear(),
                StorageOp::PurgePrefix { .. } | StorageOp::SnapshotChunk { .. } => {}
            }
        }
    }
}

struct Group {
    nodes: BTreeMap<ReplicaId, Node>,
    config: GroupConfig,
    now: Time,
    cut: BTreeSet<(ReplicaId, ReplicaId)>,
    next_ticket: Ticket,
    lives: u64,
    /// The next message to this replica with these bytes in it loses one of them to another.
    tamper: Option<(ReplicaId, Bytes)>,
    /// Replicas whose disks have stopped: nothing that they write is ever done.
    stuck: BTreeSet<ReplicaId>,
    /// Messages that were sent.
    sent: u64,
    on_divergence: OnDivergence,
}

impl Group {
    fn new(members: u32, authority: Authority, limits: crate::Limits) -> Self {
        let mut config = GroupConfig::new((1..=members).map(ReplicaId), authority);
        config.limits = limits;
        config.validate().unwrap();
        let mut group = Self::of(config);
        for id in 1..=members {
            group.start(ReplicaId(id));
        }
        group
    }

    /// Only the witness runs, if there is one.
    fn empty(members: u32, authority: Authority) -> Self {
        Self::of(GroupConfig::new((1..=members).map(ReplicaId), authority))
    }

    fn of(config: GroupConfig) -> Self {
        let mut group = Self {
            nodes: BTreeMap::new(),
            config,
            now: Time::ZERO,
            cut: BTreeSet::new(),
            next_ticket: Ticket(0),
            lives: 0,
            tamper: None,
            stuck: BTreeSet::new(),
            sent: 0,
            on_divergence: OnDivergence::default(),
        };
        if group.config.authority == Authority::Witness {
            group.start(ReplicaId::WITNESS);
        }
        group
    }

    /// A life with an empty storage.
    fn start(&mut self, id: ReplicaId) {
        self.start_as(id, Start::Normal);
    }

    fn start_as(&mut self, id: ReplicaId, start: Start) {
        let store = StoreId((self.lives + 1) * 100 + u64::from(id.0));
        self.start_with(id, store, Disk::default(), start);
    }

    /// The next life of a replica, with everything that was durable. (Not for one that has begun with a snapshot.)
    fn restart(&mut self, id: ReplicaId) {
        self.restart_as(id, Start::Normal);
    }

    fn restart_as(&mut self, id: ReplicaId, start: Start) {
        let node = &self.nodes[&id];
        let (store, disk) = (node.store, node.disk.clone());
        self.start_with(id, store, disk, start);
    }

    fn start_with(&mut self, id: ReplicaId, store: StoreId, disk: Disk, start: Start) {
        self.lives += 1;
        let mut storage = MemoryStorage::new(store, Incarnation(self.lives));
        assert_eq!(storage.durability(), Durability::Memory);
        let mut recovered = storage.open().unwrap();
        storage
            .write(vec![StorageOp::Append(disk.entries.clone().into())])
            .unwrap();
        recovered.hard_state.clone_from(&disk.hard_state);
        recovered.entries.clone_from(&disk.entries);
        let identity = Identity {
            group: GroupId(1),
            replica: id,
            incarnation: recovered.incarnation,
        };
        let limits = self.config.limits;
        let machine = Machine::new(Box::new(Typed(Journal::default())), &limits).unwrap();
        let protocol: Box<dyn Protocol> = if id == ReplicaId::WITNESS {
            Box::new(Witness::new(&recovered).unwrap())
        } else {
            let mut options = Options::new(id, self.config.clone(), self.lives);
            options.start = start;
            options.on_divergence = self.on_divergence;
            Box::new(Passive::new(options, recovered).unwrap())
        };
        let mut node = Node {
            engine: Engine::new(identity, protocol, machine, LogPoint::ZERO, limits),
            storage,
            reader: None,
            effects: Effects::default(),
            up: true,
            store,
            disk,
        };
        node.engine.start(self.now, &mut node.effects);
        self.nodes.insert(id, node);
    }

    fn crash(&mut self, id: ReplicaId) {
        self.nodes.get_mut(&id).unwrap().up = false;
        let now = self.now;
        for (other, node) in &mut self.nodes {
            if node.up && *other != ReplicaId::WITNESS {
                node.engine.on_hint(now, id, Hint::Gone, &mut node.effects);
            }
        }
        self.settle();
    }

    /// Delivers and completes everything that is under way.
    fn settle(&mut self) {
        let now = self.now;
        for _ in 0..1_000_000 {
            let ids: Vec<_> = self.nodes.keys().copied().collect();
            let mut quiet = true;
            for id in ids {
                let node = self.nodes.get_mut(&id).unwrap();
                let Some(todo) = node.effects.todo.pop_front() else {
                    continue;
                };
                quiet = false;
                if !node.up {
                    continue;
                }
                let Node {
                    engine,
                    storage,
                    reader,
                    effects,
                    disk,
                    ..
                } = node;
                match todo {
                    Todo::Frame(to, frame) => self.deliver(id, to, &frame),
                    Todo::Shipment(to, shipment) => self.deliver_shipment(id, to, shipment),
                    Todo::Persist(..) if self.stuck.contains(&id) => {}
                    Todo::Persist(token, ops) => {
                        disk.write(&ops);
                        storage.write(ops).unwrap();
                        storage.sync().unwrap();
                        engine.on_persisted(now, token, effects);
                    }
                    Todo::Write(last, state) => {
                        let mut writer = storage.snapshots().create(last).unwrap();
                        state(&mut writer).unwrap();
                        let meta = writer.finish().unwrap();
                        engine.on_snapshot_written(now, meta, effects);
                    }
                    Todo::Piece(peer, offset, bytes_max) => {
                        if offset == 0 {
                            *reader = storage.snapshots().current().unwrap();
                        }
                        let piece = reader.as_ref().map(|r| SnapshotPiece {
                            meta: r.meta(),
                            offset,
                            data: r.read(offset, bytes_max).unwrap(),
                        });
                        engine.on_snapshot_piece(now, peer, piece, effects);
                    }
                    Todo::Load(meta) => {
                        let current = storage.snapshots().current().unwrap().unwrap();
                        assert_eq!(current.meta(), meta);
                        let bytes = current.read(0, usize::MAX).unwrap();
                        engine.on_snapshot_loaded(now, meta, &mut &bytes[..], effects);
                    }
                }
            }
            for node in self.nodes.values() {
                node.engine.check_invariants();
            }
            if quiet {
                return;
            }
        }
        panic!("the group never comes to rest");
    }

    fn deliver(&mut self, from: ReplicaId, to: ReplicaId, frame: &Bytes) {
        self.sent += 1;
        if self.cut.contains(&(from, to)) {
            return;
        }
        let (_, mut body) = crate::wire::decode_datagram(frame, 1 << 24).unwrap();
        if let Some((victim, bytes)) = &self.tamper
            && *victim == to
            && let Some(at) = body.windows(bytes.len()).position(|w| w == bytes)
        {
            let mut altered = body.to_vec();
            altered[at + 1] ^= 1;
            body = altered.into();
            self.tamper = None;
        }
        if let Some(node) = self.nodes.get_mut(&to).filter(|n| n.up) {
            node.engine.on_frame(self.now, body, &mut node.effects);
        }
    }

    fn deliver_shipment(&mut self, from: ReplicaId, to: ReplicaId, shipment: Shipment) {
        if self.tamper.is_some() {
            self.deliver(from, to, &shipment.frame());
            return;
        }
        self.sent += 1;
        if self.cut.contains(&(from, to)) {
            return;
        }
        if let Some(node) = self.nodes.get_mut(&to).filter(|n| n.up) {
            node.engine
                .on_shipment(self.now, shipment, &mut node.effects);
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            // As a driver does: what is due is asked before the time passes.
            let before = self.now;
            self.now = before + Duration::from_millis(5);
            let now = self.now;
            for node in self.nodes.values_mut().filter(|n| n.up) {
                if node.engine.next_deadline(before).is_some_and(|d| d <= now) {
                    node.engine.tick(now, &mut node.effects);
                }
            }
            self.settle();
        }
    }

    fn ask(&mut self, id: ReplicaId, op: Op) -> Ticket {
        self.next_ticket = self.next_ticket.next();
        let (ticket, now) = (self.next_ticket, self.now);
        let node = self.nodes.get_mut(&id).unwrap();
        node.engine
            .on_requests(now, Timestamp(1), [(ticket, op)], &mut node.effects);
        self.settle();
        ticket
    }

    fn write(&mut self, id: ReplicaId, n: u64) -> Option<Outcome> {
        let ticket = self.ask(id, Op::Plain(encode(&n)));
        self.nodes[&id].effects.replies.get(&ticket).cloned()
    }

    fn read(&mut self, id: ReplicaId, read: Read) -> Option<Vec<u64>> {
        let query = encode(&());
        let ticket = self.ask(id, Op::Query { read, query });
        match self.nodes[&id].effects.replies.get(&ticket) {
            Some(Outcome::Done { response, .. }) => Some(decode(response).unwrap()),
            _ => None,
        }
    }

    fn primary(&self) -> ReplicaId {
        let serving: Vec<_> = self
            .nodes
            .iter()
            .filter(|(id, n)| n.up && **id != ReplicaId::WITNESS && n.engine.status().serving)
            .map(|(id, _)| *id)
            .collect();
        assert_eq!(serving.len(), 1, "{:?}", self.statuses());
        serving[0]
    }

    fn statuses(&self) -> Vec<ProtocolStatus> {
        self.nodes
            .values()
            .filter(|n| n.up)
            .map(|n| n.engine.status())
            .collect()
    }

    fn in_sync(&self) -> usize {
        let primary = self.primary();
        self.nodes[&primary]
            .engine
            .status()
            .configuration
            .unwrap()
            .in_sync
            .len()
    }
}

const SECOND: Duration = Duration::from_secs(1);

fn both() -> [Authority; 2] {
    [Authority::Witness, Authority::Alone]
}

#[test]
fn a_group_starts_takes_writes_and_every_replica_has_them() {
    for authority in both() {
        let mut g = Group::new(3, authority, crate::Limits::default());
        g.pass(SECOND);
        let p = g.primary();
        assert_eq!(g.in_sync(), 3);
        for n in 1..=10 {
            assert!(matches!(g.write(p, n), Some(Outcome::Done { .. })));
        }
        g.pass(SECOND);
        for id in 1..=3 {
            let all: Vec<u64> = (1..=10).collect();
            assert_eq!(g.read(ReplicaId(id), Read::Local), Some(all));
        }
        assert_eq!(g.read(p, Read::Linearizable).map(|v| v.len()), Some(10));
    }
}

#[test]
fn a_backup_takes_over_and_the_old_primary_comes_back_as_a_backup() {
    for authority in both() {
        let mut g = Group::new(3, authority, crate::Limits::default());
        g.pass(SECOND);
        let old = g.primary();
        g.write(old, 1);
        g.crash(old);
        g.pass(Duration::from_millis(20));
        let new = g.primary();
        assert_ne!(new, old);
        assert!(matches!(g.write(new, 2), Some(Outcome::Done { .. })));
        g.start(old);
        g.pass(SECOND);
        assert_eq!(g.primary(), new);
        assert_eq!(g.in_sync(), 3);
        assert_eq!(g.read(old, Read::Local), Some(vec![1, 2]));
    }
}

#[test]
fn a_write_is_not_acknowledged_before_a_silent_backup_is_dropped() {
    for authority in both() {
        let mut g = Group::new(3, authority, crate::Limits::default());
        g.pass(SECOND);
        let p = g.primary();
        let silent = ReplicaId(if p.0 == 3 { 2 } else { 3 });
        for other in [ReplicaId(1), ReplicaId(2), ReplicaId(3), ReplicaId::WITNESS] {
            g.cut.insert((silent, other));
            g.cut.insert((other, silent));
        }
        assert_eq!(g.write(p, 1), None);
        g.pass(SECOND);
        assert_eq!(g.read(p, Read::Linearizable), Some(vec![1]));
        assert_eq!(
            g.nodes[&p]
                .engine
                .status()
                .configuration
                .unwrap()
                .in_sync
                .len(),
            2
        );
        g.cut.clear();
        g.pass(SECOND * 2);
        assert_eq!(g.in_sync(), 3);
    }
}

#[test]
fn a_newcomer_whose_entries_are_purged_gets_a_snapshot() {
    let limits = crate::Limits {
        snapshot_log_entries: 10,
        retained_entries: 0,
        ..crate::Limits::default()
    };
    for authority in both() {
        let mut g = Group::new(3, authority, limits);
        g.pass(SECOND);
        let p = g.primary();
        let away = ReplicaId(if p.0 == 3 { 2 } else { 3 });
        g.crash(away);
        g.pass(SECOND);
        for n in 0..100 {
            assert!(matches!(g.write(p, n), Some(Outcome::Done { .. })), "{n}");
        }
        assert!(g.nodes[&p].engine.status().log_start > Index(50));
        g.start(away);
        g.pass(SECOND * 2);
        assert_eq!(g.in_sync(), 3);
        assert_eq!(g.read(away, Read::Local).map(|v| v.len()), Some(100));
    }
}

#[test]
fn a_token_read_at_a_backup_waits_for_the_write_it_names() {
    let mut g = Group::new(3, Authority::Witness, crate::Limits::default());
    g.pass(SECOND);
    let p = g.primary();
    let backup = ReplicaId(if p.0 == 3 { 2 } else { 3 });
    let Some(Outcome::Done { token, .. }) = g.write(p, 7) else {
        panic!("no answer");
    };
    assert_eq!(g.read(backup, Read::AtLeast(token)), Some(vec![7]));
}

#[test]
fn the_last_man_is_waited_for() {
    for authority in both() {
        let mut g = Group::new(2, authority, crate::Limits::default());
        g.pass(SECOND);
        let last = g.primary();
        let other = ReplicaId(3 - last.0);
        g.crash(other);
        g.pass(SECOND);
        assert!(matches!(g.write(last, 1), Some(Outcome::Done { .. })));
        g.crash(last);
        g.start(other);
        g.pass(SECOND * 3);
        assert!(!g.nodes[&other].engine.status().serving);
        // In memory, what the last man had is gone with him: nobody serves an empty state in its place.
        g.start(last);
        g.pass(SECOND * 3);
        if authority == Authority::Witness {
            assert!(
                g.statuses()
                    .iter()
                    .all(|s| !s.serving || s.role == Role::Witness)
            );
            let why = g.nodes[&last].engine.status().waiting_for;
            assert!(why.contains("no holder of the state remains"), "{why}");
        }
    }
}
