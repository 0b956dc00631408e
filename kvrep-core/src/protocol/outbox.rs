//! What is to be done, in order.
//!
//! A protocol does nothing itself. It says what is to be done, and the order in which it says so is a promise that the
//! driver keeps: **within one outbox, what is sent behind a `Persist` leaves only when that is durable.** So a backup
//! writes `Persist, Send(acknowledgement)` and a primary `Send(entries), Persist`: its disk works at the same time as
//! those of the backups. Later outboxes do not wait: heartbeats never stand behind a disk.

use super::{Event, ReplicaId};
use crate::config::Token;
use crate::entry::Run;
use crate::error::ReadError;
use crate::id::{GroupId, Incarnation, Index, PersistToken, Ticket};
use crate::manage::Managed;
use crate::shipment::EncodedRun;
use crate::storage::{SnapshotMeta, StorageOp};
use crate::transport::{Destination, Shipment};
use crate::wire::{self, Envelope, FrameKind};
use bytes::{Bytes, BytesMut};

/// One thing to be done.
#[derive(Debug)]
pub enum Action {
    /// Change the storage. What is *sent* behind it **in this outbox** (and a [`Restore`](Self::Restore)) waits until
    /// it is durable; everything else, and later outboxes, do not. A send that waits is a slow network to others.
    /// Completion is told through [`on_persisted`](super::Protocol::on_persisted), in order of the tokens.
    Persist {
        /// Names the batch.
        token: PersistToken,
        /// The changes.
        ops: Vec<StorageOp>,
    },
    /// Send a frame.
    Send {
        /// To whom.
        to: Destination,
        /// The whole frame.
        frame: Bytes,
    },
    /// Send entries that need not be encoded: what is said of a [`Send`](Self::Send) holds for it. Only for a driver that
    /// [wants it](Outbox::set_ships).
    Ship {
        /// To whom.
        to: ReplicaId,
        /// A message, and the entries that follow it.
        shipment: Shipment,
    },
    /// Apply decided entries, consecutive and in order; then call [`on_applied`](super::Protocol::on_applied).
    Apply(Run),
    /// Everything up to here is decided: answer those who wait for it. Only where
    /// [`visibility`](super::Protocol::visibility) is `OnAppend`; otherwise what is applied is decided.
    Release(Index),
    /// The read may be answered from the state as it is now.
    ReadReady {
        /// Which read.
        ticket: Ticket,
        /// What the client has seen then.
        token: Token,
    },
    /// The read cannot be answered.
    ReadFailed {
        /// Which read.
        ticket: Ticket,
        /// Why.
        error: ReadError,
    },
    /// What became of an operator's request.
    Managed {
        /// Which request.
        ticket: Ticket,
        /// How it ended.
        outcome: Managed,
    },
    /// Every proposal still waiting has an unknown outcome: this replica is no longer primary in their term.
    Abandon,
    /// Freeze the state as it is now and write it as a snapshot.
    TakeSnapshot,
    /// Read a piece of the current snapshot for `peer`.
    ReadSnapshot {
        /// For whom.
        peer: ReplicaId,
        /// From where; 0 opens the current snapshot.
        offset: u64,
        /// How much at most.
        bytes_max: usize,
    },
    /// Load the installed snapshot into the state machine.
    Restore(SnapshotMeta),
    /// Put the state machine back to its initial state.
    ResetMachine,
    /// Tell the operator.
    Event(Event),
}

/// Collects actions; **run top to bottom**.
///
/// Within one outbox a `Persist` before a `Send` means durable first; a `Send` before a `Persist` is the primary's
/// parallel disk write.
///
/// ```
/// use bytes::BufMut;
/// use kvrep_core::protocol::{Action, Outbox};
/// use kvrep_core::transport::Destination;
/// use kvrep_core::storage::StorageOp;
/// use kvrep_core::{GroupId, Incarnation, ReplicaId};
///
/// let mut out = Outbox::new(GroupId::named("orders"), ReplicaId(2), Incarnation(1));
/// let token = out.persist(vec![StorageOp::HardState(b"promised".as_slice().into())]);
/// out.send(ReplicaId(1), Incarnation(4), |body| body.put_slice(b"I promise"));
///
/// let actions = out.take();
/// assert!(matches!(actions[0], Action::Persist { token: first, .. } if first == token));
/// assert!(matches!(actions[1], Action::Send { to: Destination::One(ReplicaId(1)), .. })); // after it is durable
/// ```
#[derive(Debug)]
pub struct Outbox {
    group: GroupId,
    from: ReplicaId,
    incarnation: Incarnation,
    actions: Vec<Action>,
    next_token: PersistToken,
    ships: bool,
    encoded: EncodedRun,
}

impl Outbox {
    /// An empty outbox of this replica in this life.
    #[must_use]
    pub fn new(group: GroupId, from: ReplicaId, incarnation: Incarnation) -> Self {
        Self {
            group,
            from,
            incarnation,
            actions: Vec::new(),
            next_token: PersistToken(1),
            ships: false,
            encoded: EncodedRun::default(),
        }
    }

    /// Adds an action.
    pub fn push(&mut self, action: Action) {
        self.actions.push(action);
    }

    /// Adds a change of the storage and returns its token.
    pub fn persist(&mut self, ops: Vec<StorageOp>) -> PersistToken {
        let token = self.next_token;
        self.next_token = token.next();
        self.actions.push(Action::Persist { token, ops });
        token
    }

    /// Adds a message to `to`, written by `body` behind the envelope.
    pub fn send(
        &mut self,
        to: ReplicaId,
        to_incarnation: Incarnation,
        body: impl FnOnce(&mut BytesMut),
    ) {
        self.send_frame(Destination::One(to), to_incarnation, body);
    }

    /// Whether entries are sent as [`Action::Ship`]; else they are encoded, as a part of an [`Action::Send`].
    pub fn set_ships(&mut self, ships: bool) {
        self.ships = ships;
    }

    /// Adds a message to `to`, written by `head` behind the envelope, and entries behind it.
    pub fn ship(
        &mut self,
        to: ReplicaId,
        to_incarnation: Incarnation,
        entries: Run,
        head: impl FnOnce(&mut BytesMut),
    ) {
        let mut bytes = BytesMut::with_capacity(HEAD_BYTES);
        self.envelope(to_incarnation).encode(&mut bytes);
        head(&mut bytes);
        let shipment = Shipment::new(bytes.freeze(), entries);
        self.actions.push(if self.ships {
            Action::Ship { to, shipment }
        } else {
            let (to, frame) = (Destination::One(to), self.encoded.frame(&shipment));
            Action::Send { to, frame }
        });
    }

    /// Adds a message to all others, in whichever life they are.
    pub fn send_to_group(&mut self, body: impl FnOnce(&mut BytesMut)) {
        self.send_frame(Destination::Group, Incarnation(0), body);
    }

    fn send_frame(
        &mut self,
        to: Destination,
        to_incarnation: Incarnation,
        body: impl FnOnce(&mut BytesMut),
    ) {
        let mut frame = BytesMut::with_capacity(HEAD_BYTES);
        let start = wire::begin_frame(&mut frame, FrameKind::Peer);
        self.envelope(to_incarnation).encode(&mut frame);
        body(&mut frame);
        wire::end_frame(&mut frame, start);
        self.actions.push(Action::Send {
            to,
            frame: frame.freeze(),
        });
    }

    fn envelope(&self, to_incarnation: Incarnation) -> Envelope {
        Envelope {
            group: self.group,
            from: self.from,
            incarnation: self.incarnation,
            to_incarnation,
        }
    }

    /// Takes everything out.
    pub fn take(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// The same; later actions are collected in `room`, which is empty.
    pub(crate) fn take_for(&mut self, room: Vec<Action>) -> Vec<Action> {
        debug_assert!(room.is_empty());
        std::mem::replace(&mut self.actions, room)
    }

    /// Whether nothing is to be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }
}

/// Of most frames, but for entries and pieces of snapshots.
const HEAD_BYTES: usize = 256;
