//! Replication schemes as sans-IO state machines.
//!
//! A [`Protocol`] is told what happened and puts what is to be done into an [`Outbox`]. It knows no clock, socket,
//! file or thread; the same object runs in the tokio driver and in the simulator.
//!
//! Rules for implementers:
//!
//! * a method never waits: what takes time is an [`Action`] whose completion comes back through another method;
//! * bytes of a peer may be anything: count what does not fit, never panic on it;
//! * nothing is acknowledged to anybody before it is as durable as the scheme promises: put the `Send` behind the
//!   `Persist` in the same outbox;
//! * what must survive a restart is in the storage (log, hard state), and only there.
//!
//! A protocol driven by hand, as a driver does it:
//!
//! ```
//! use kvrep_core::protocol::{Action, Outbox, Protocol, passive::{Options, Passive}};
//! use kvrep_core::storage::{Storage, memory::MemoryStorage};
//! use kvrep_core::{Authority, GroupConfig, GroupId, Incarnation, ReplicaId, StoreId, Time, Timestamp};
//!
//! let (me, life) = (ReplicaId(1), Incarnation(1));
//! let group = GroupConfig::new([me], Authority::Alone); // a group of one
//! let found = MemoryStorage::new(StoreId(1), life).open().unwrap();
//! let mut protocol = Passive::new(Options::new(me, group, 7), found).unwrap();
//! let mut out = Outbox::new(GroupId::named("orders"), me, life);
//!
//! // Does what is in the outbox, tells what is done, and returns what the state machine is to carry out.
//! let run = |protocol: &mut Passive, now: Time, out: &mut Outbox| {
//!     let mut commands = Vec::new();
//!     while !out.is_empty() {
//!         for action in out.take() {
//!             match action {
//!                 Action::Persist { token, .. } => protocol.on_persisted(now, token, out),
//!                 Action::Apply(entries) => {
//!                     let end = entries.last().unwrap().index;
//!                     commands.extend(entries.iter().map(|e| e.payload.clone()));
//!                     protocol.on_applied(now, end, out);
//!                 }
//!                 _ => {} // nobody to send to, no snapshots, no reads
//!             }
//!         }
//!     }
//!     commands
//! };
//!
//! let mut now = Time::ZERO;
//! protocol.start(now, &mut out);
//! run(&mut protocol, now, &mut out);
//! while !protocol.status().serving {
//!     now = protocol.next_deadline(now).unwrap(); // time is an input
//!     protocol.on_tick(now, &mut out);
//!     run(&mut protocol, now, &mut out);
//! }
//! protocol.propose(now, Timestamp(0), vec!["an order".into()], &mut out).unwrap();
//! assert_eq!(run(&mut protocol, now, &mut out), ["an order"]);
//! ```

pub mod active;
pub mod lowest;
pub mod outbox;
pub mod passive;
pub mod witness;

pub use outbox::{Action, Outbox};

use crate::config::{Read, Visibility};
use crate::error::ProposeError;
use crate::id::{
    Configuration, Index, LogPoint, Origin, PersistToken, ReplicaId, StoreId, Term, Ticket,
};
use crate::manage::{Manage, Managed};
use crate::storage::SnapshotMeta;
use crate::time::{Time, Timestamp};
use crate::transport::{Hint, Shipment};
use crate::wire::Envelope;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::fmt::Debug;

/// A replication scheme at one replica. Everything that happens comes in through a method with the time and an
/// outbox; everything to be done goes out through the outbox.
pub trait Protocol: Send + 'static {
    /// Once, before anything else.
    fn start(&mut self, now: Time, out: &mut Outbox);

    /// A message came. `body` is what follows the envelope: unchecked bytes of a peer.
    fn on_message(&mut self, now: Time, envelope: &Envelope, body: Bytes, out: &mut Outbox);

    /// A message came from a peer that shares this process's memory, with its entries. What it says besides is unchecked.
    fn on_shipment(
        &mut self,
        now: Time,
        envelope: &Envelope,
        shipment: Shipment,
        out: &mut Outbox,
    ) {
        self.on_message(now, envelope, shipment.body(), out);
    }

    /// The time of [`next_deadline`](Self::next_deadline) has come (or passed).
    fn on_tick(&mut self, now: Time, out: &mut Outbox);

    /// The transport saw something of a peer.
    fn on_hint(&mut self, now: Time, peer: ReplicaId, hint: Hint, out: &mut Outbox) {
        let _ = (now, peer, hint, out);
    }

    /// Everything up to `token` is as durable as the storage makes it.
    fn on_persisted(&mut self, now: Time, token: PersistToken, out: &mut Outbox) {
        let _ = (now, token, out);
    }

    /// The state machine has applied everything up to `index`.
    fn on_applied(&mut self, now: Time, index: Index, out: &mut Outbox) {
        let _ = (now, index, out);
    }

    /// The state machine's digest after the entry at `at`, taken after the same entries on every replica.
    fn on_digest(&mut self, now: Time, at: LogPoint, digest: u64, out: &mut Outbox) {
        let _ = (now, at, digest, out);
    }

    /// The snapshot asked for with [`Action::TakeSnapshot`] is durable.
    fn on_snapshot_ready(&mut self, now: Time, meta: SnapshotMeta, out: &mut Outbox) {
        let _ = (now, meta, out);
    }

    /// The snapshot asked for with [`Action::TakeSnapshot`] came to nothing: the history that it belongs to was
    /// replaced meanwhile.
    fn on_snapshot_dropped(&mut self, now: Time, out: &mut Outbox) {
        let _ = (now, out);
    }

    /// The piece asked for with [`Action::ReadSnapshot`]; `None` when there is no snapshot to read.
    fn on_snapshot_piece(
        &mut self,
        now: Time,
        peer: ReplicaId,
        piece: Option<SnapshotPiece>,
        out: &mut Outbox,
    ) {
        let _ = (now, peer, piece, out);
    }

    /// The state machine now holds the snapshot of [`Action::Restore`].
    fn on_restored(&mut self, now: Time, meta: SnapshotMeta, out: &mut Outbox) {
        let _ = (now, meta, out);
    }

    /// Appends commands, in order, at consecutive indices: all or none.
    ///
    /// # Errors
    /// Nothing was appended.
    fn propose(
        &mut self,
        now: Time,
        wall: Timestamp,
        commands: Vec<Bytes>,
        out: &mut Outbox,
    ) -> Result<Index, ProposeError>;

    /// Asks for a read; answered, now or later, by [`Action::ReadReady`] or [`Action::ReadFailed`].
    fn read(&mut self, now: Time, ticket: Ticket, read: Read, out: &mut Outbox);

    /// An operator asks for something; answered, now or later, by [`Action::Managed`].
    fn manage(&mut self, now: Time, ticket: Ticket, manage: Manage, out: &mut Outbox) {
        let _ = (now, manage);
        let outcome = Managed::Refused("this scheme cannot be managed".into());
        out.push(Action::Managed { ticket, outcome });
    }

    /// When [`on_tick`](Self::on_tick) is next needed.
    fn next_deadline(&self, now: Time) -> Option<Time>;

    /// Whether entries are applied once they are decided, or before. Never changes.
    fn visibility(&self) -> Visibility {
        Visibility::OnCommit
    }

    /// What an operator wants to know.
    fn status(&self) -> ProtocolStatus;

    /// The hard state that a replica begins with which starts from a copy of this one's state, in a storage of its own. It
    /// must keep that replica from taking the group for a new one, and from using a term again. `None` where copies make
    /// no sense.
    fn hard_state_for_copy(&self) -> Option<Bytes> {
        None
    }

    /// Asserts what must hold inside this replica at any moment; each assertion names its rule.
    fn check_invariants(&self) {}
}

/// A piece of a snapshot, read for a peer.
#[derive(Clone, Debug)]
pub struct SnapshotPiece {
    /// Of which snapshot.
    pub meta: SnapshotMeta,
    /// Where it starts.
    pub offset: u64,
    /// The bytes; empty only at the end.
    pub data: Bytes,
}

/// What a replica does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, serde::Serialize, serde::Deserialize)]
pub enum Role {
    /// Knows no primary: asks around, or waits for those it must hear.
    Seeking,
    /// Tries to become primary.
    Candidate,
    /// Orders and ships.
    Primary,
    /// Follows a primary; counts or not as the configuration says.
    Backup,
    /// Keeps the group's register.
    Witness,
}

/// What a replica knows of itself and the group.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ProtocolStatus {
    /// Its role.
    pub role: Role,
    /// The identity under which what it holds counts: its storage's, or another one since it threw away a history that was refuted.
    pub store: StoreId,
    /// The highest term it has promised or serves.
    pub term: Term,
    /// The primary it knows.
    pub primary: Option<ReplicaId>,
    /// Whether it takes writes and linearizable reads now (as primary, with an entry of its own term committed).
    pub serving: bool,
    /// The newest configuration that it knows.
    pub configuration: Option<Configuration>,
    /// Number of the view of live members.
    pub view: u64,
    /// Last entry of its log.
    pub last: LogPoint,
    /// Up to here it is durable.
    pub durable: Index,
    /// Up to here it is decided.
    pub commit: Index,
    /// Up to here it is applied.
    pub applied: Index,
    /// As primary: up to here every in-sync member has it, durably. With [`Ack::Primary`](crate::Ack::Primary) what lies
    /// behind it is what a takeover now would lose at most.
    pub replicated: Option<Index>,
    /// As primary: the members that must have what waits to be decided, and do not; empty when nothing waits. Most often they
    /// are about to. Once they have not for long, [`waiting_for`](Self::waiting_for) says so.
    pub awaited: BTreeSet<ReplicaId>,
    /// The entry before the first one that it still has.
    pub log_start: Index,
    /// What it waits for, in a sentence for an operator; empty when nothing is amiss.
    pub waiting_for: String,
    /// Messages dropped: malformed, stale, of another life.
    pub dropped: u64,
}

impl ProtocolStatus {
    /// Of a replica that holds nothing and knows of nothing yet.
    #[must_use]
    pub fn of_nothing(store: StoreId) -> Self {
        Self {
            role: Role::Seeking,
            store,
            term: Term::ZERO,
            primary: None,
            serving: false,
            configuration: None,
            view: 1,
            last: LogPoint::ZERO,
            durable: Index::ZERO,
            commit: Index::ZERO,
            applied: Index::ZERO,
            replicated: None,
            awaited: BTreeSet::new(),
            log_start: Index::ZERO,
            waiting_for: String::new(),
            dropped: 0,
        }
    }
}

/// Something an operator should hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The role changed.
    RoleChanged {
        /// The new one.
        role: Role,
        /// In this term.
        term: Term,
    },
    /// A configuration counts.
    Configured(Configuration),
    /// A member was dropped from the in-sync set (decided).
    Dropped(ReplicaId),
    /// A member joined the in-sync set (decided).
    Joined(ReplicaId),
    /// A tail that this replica did not know to be committed was cut off and saved aside. It is also reported (only where that may be) when a snapshot replaces a log that cannot be compared with the primary's any more:
    /// `from` is then 1, for where a difference begins cannot be told.
    TailTruncated {
        /// The first entry cut.
        from: Index,
        /// How many.
        entries: u64,
        /// How many of them are commands that somebody gave, if they were here to be counted: the others begin a reign or a session.
        writes: Option<u64>,
        /// Whether a client may have been told of them.
        acknowledged: Acknowledged,
    },
    /// A history below this replica's own commit point was refuted: **acknowledged writes are lost**. Possible
    /// only with [`crate::Ack::Primary`]; with [`crate::Authority::Alone`] under a partition, a pause or a lost disk; or
    /// after a forced start.
    AcknowledgedWritesLost {
        /// Here the histories part, where `writes` is told; else here or before, for earlier entries are not there any more to be compared. What
        /// this replica had is set aside (`StorageEvent::TailSaved`): compare that.
        from: Index,
        /// This replica's commit point.
        commit: Index,
        /// How many of the entries from `from` to `commit` are commands that somebody gave, if they were here to be counted.
        writes: Option<u64>,
    },
    /// This replica may not serve and says why.
    Refused(String),
    /// This replica becomes primary because its operator forced it ([`passive::Start::Forced`]).
    Forced {
        /// The configuration that it replaces, as far as it is known here.
        replaced: Option<Configuration>,
        /// Members of that in-sync set that were not waited for. If one returns, what only it has is refuted, saved aside
        /// and reported there.
        not_awaited: Vec<ReplicaId>,
        /// From this index on, acknowledged writes may be lost: those that only the others had.
        from: Index,
    },
    /// This replica does not belong to the group any more, which is this now. It serves nothing until it joins again.
    Removed(Configuration),
    /// This primary begins to hand over, and takes no more requests.
    HandingOver {
        /// To whom.
        to: ReplicaId,
    },
    /// This primary refused the writes of another one, of an older term: **two primaries took writes** for a while, which only
    /// [`Authority::Alone`](crate::Authority::Alone) under a pause or partition allows, or the other was about to notice. It becomes a
    /// backup; what it had to give up is reported there. Told once for each such term.
    RivalRefused {
        /// Whose, and which.
        term: Term,
    },
    /// A replica was heard that is of another group of this name: it was started with an empty storage, and without anybody to ask, or has one from another
    /// group. It is not followed and counts for nothing here; whether it yields, or this replica does, is told by [`Refused`](Self::Refused) there. **If neither does, there are two
    /// groups**: stop one, and start its replicas with empty storages to join the other. Told once for each replica and origin.
    OtherGroup {
        /// Who.
        replica: ReplicaId,
        /// The origin of the group that this replica belongs to.
        ours: Origin,
        /// The other one's.
        theirs: Origin,
    },
    /// The witness does not know any more what it has recorded for this group: it was started with an empty directory, or with an old copy of
    /// one. **Nobody can take over from now on**; the replica's `waiting_for` says what to do. Told once.
    RegisterLost,
    /// Everything is committed: this primary has stepped down for its successor. Who reigns next is told by
    /// [`Configured`](Self::Configured) there.
    HandedOver {
        /// To whom.
        to: ReplicaId,
    },
    /// A handover came to nothing before this primary stepped down.
    HandoverFailed {
        /// To whom.
        to: ReplicaId,
        /// For an operator.
        why: String,
    },
    /// The state of a replica is not that of most others (at the primary; itself, if it is the one): it is dropped and
    /// repaired, or resigns. **What it answered since may have been wrong**; find out why: a damaged memory, or a state
    /// machine that is not deterministic.
    StateDiffers {
        /// Whose.
        replica: ReplicaId,
        /// After this entry.
        index: Index,
    },
    /// States differ, and it cannot be told whose is right, for instance because there are only two. Nothing is repaired.
    StatesDiffer {
        /// After this entry.
        index: Index,
    },
    /// This replica has thrown away its state and its log (kept aside), to be given those of the primary.
    StateDiscarded {
        /// Its commit point.
        upto: Index,
    },
}

/// Whether writes that this replica did not know to be committed may have been acknowledged all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledged {
    /// The group's authority and ack policy rule it out.
    Never,
    /// Where the primary alone decides ([`crate::Ack::Primary`]), and with [`crate::Authority::Alone`] if there was a partition or a pause: a
    /// backup, or a replica that restarted, cannot tell.
    Perhaps,
}
