//! The witness: a durable register with compare-and-set, reached by messages like any other peer.
//!
//! It holds one [`Configuration`] of one group and decides races for it: whoever wants to drop or add a member, or to
//! become primary, swaps the configuration he knows for a new one. It takes no part in writes and keeps no data, so it
//! can be tiny; while it cannot be reached, writes go on as long as the configuration need not change.
//!
//! Invariants: the register's (term, version) only grows; no answer shows a value that is not durable.
//!
//! Caveats: a witness that lost its register must not be replaced by an empty one while the group lives; and it is no
//! backup: a group whose replicas are all lost is lost.
//!
//! ```
//! use kvrep_core::protocol::{Protocol, Role, witness::Witness};
//! use kvrep_core::storage::{Storage, memory::MemoryStorage};
//! use kvrep_core::{Incarnation, StoreId};
//!
//! let found = MemoryStorage::new(StoreId(1), Incarnation(1)).open().unwrap();
//! let witness = Witness::new(&found).unwrap();
//! assert_eq!(witness.status().role, Role::Witness);
//! assert_eq!(witness.status().configuration, None); // the register is empty at first
//! ```
//!
//! To run one, see `Node::witness`, or the program `kvrep-witness` of the crate `kvrep-transport-tcp`.

use super::passive::{Message, is_plausible};
use super::{Outbox, Protocol, ProtocolStatus, Role};
use crate::config::Read;
use crate::error::{ProposeError, ReadError};
use crate::id::{
    Configuration, Incarnation, Index, LogPoint, Nonce, PersistToken, ReplicaId, StoreId, Term,
    Ticket,
};
use crate::protocol::Action;
use crate::state_machine::{Malformed, decode, encode};
use crate::storage::{Recovered, StorageOp};
use crate::time::{Time, Timestamp};
use crate::wire::Envelope;
use bytes::Bytes;

/// The protocol object of a witness.
#[derive(Debug)]
pub struct Witness {
    register: Option<Configuration>,
    /// The last change handed to the storage, and whether it is durable.
    written: PersistToken,
    done: PersistToken,
    dropped: u64,
    store: StoreId,
}

impl Witness {
    /// A witness with what its storage held.
    ///
    /// # Errors
    /// [`Malformed`] when the hard state is not a witness's: the directory belongs to something else.
    pub fn new(recovered: &Recovered) -> Result<Self, Malformed> {
        let register = match &recovered.hard_state {
            Some(bytes) => Some(decode(bytes)?),
            None => None,
        };
        Ok(Self {
            register,
            written: PersistToken(0),
            done: PersistToken(0),
            dropped: 0,
            store: recovered.store,
        })
    }

    fn answer(&mut self, to: ReplicaId, life: Incarnation, nonce: Nonce, out: &mut Outbox) {
        if self.done < self.written {
            // What is written is not durable yet: the answer waits behind it.
            out.persist(Vec::new());
        }
        let message = Message::Register {
            nonce,
            configuration: self.register.clone(),
        };
        out.send(to, life, |body| message.encode(body));
    }
}

impl Protocol for Witness {
    fn start(&mut self, _: Time, _: &mut Outbox) {}

    fn on_message(&mut self, _: Time, envelope: &Envelope, mut body: Bytes, out: &mut Outbox) {
        match Message::decode(&mut body) {
            Ok(Message::ReadRegister { nonce }) => {
                self.answer(envelope.from, envelope.incarnation, nonce, out);
            }
            Ok(Message::CompareAndSet {
                nonce,
                expected,
                new,
            }) => {
                let current = self.register.as_ref().map(Configuration::rank);
                if current == expected && Some(new.rank()) > current && is_plausible(&new) {
                    let bytes = encode(&new);
                    self.register = Some(new);
                    self.written = out.persist(vec![StorageOp::HardState(bytes)]);
                }
                self.answer(envelope.from, envelope.incarnation, nonce, out);
            }
            Ok(_) | Err(_) => self.dropped += 1,
        }
    }

    fn on_tick(&mut self, _: Time, _: &mut Outbox) {}

    fn on_persisted(&mut self, _: Time, token: PersistToken, _: &mut Outbox) {
        self.done = token;
    }

    fn propose(
        &mut self,
        _: Time,
        _: Timestamp,
        _: Vec<Bytes>,
        _: &mut Outbox,
    ) -> Result<Index, ProposeError> {
        Err(ProposeError::NotPrimary {
            primary: self.register.as_ref().map(|c| c.term.replica),
        })
    }

    fn read(&mut self, _: Time, ticket: Ticket, _: Read, out: &mut Outbox) {
        out.push(Action::ReadFailed {
            ticket,
            error: ReadError::NotPrimary {
                primary: self.register.as_ref().map(|c| c.term.replica),
            },
        });
    }

    fn next_deadline(&self, _: Time) -> Option<Time> {
        None
    }

    fn status(&self) -> ProtocolStatus {
        ProtocolStatus {
            role: Role::Witness,
            store: self.store,
            term: self.register.as_ref().map_or(Term::ZERO, |c| c.term),
            primary: self.register.as_ref().map(|c| c.term.replica),
            serving: true,
            configuration: self.register.clone(),
            view: 1,
            last: LogPoint::ZERO,
            durable: Index::ZERO,
            commit: Index::ZERO,
            replicated: None,
            awaited: std::collections::BTreeSet::new(),
            applied: Index::ZERO,
            log_start: Index::ZERO,
            waiting_for: String::new(),
            dropped: self.dropped,
        }
    }
}
