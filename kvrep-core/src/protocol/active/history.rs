//! What a replica has of the stream: where it is, the chain over it, and what follows from it alone.
//!
//! The chain is `h = xxh3(bytes of the item, h before)` over everything delivered since the origin. Two replicas with the same
//! chain at the same position have delivered the same, so they agree on everything that is a function of the stream.

use super::debts::{Debts, Logged};
use super::message::Confirmed;
use super::ring::Ring;
use crate::entry::{Entry, EntryKind};
use crate::id::{Index, Term};
use crate::session::Machine;
use crate::time::{Time, Timestamp};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io;

#[derive(Debug)]
pub(super) struct History {
    pub(super) at: Index,
    pub(super) chain: u64,
    /// The clock of the last mark.
    pub(super) clock: Timestamp,
    pub(super) ring: Ring,
    pub(super) debts: Debts,
    /// Up to here every one that served was known to have the same.
    pub(super) agreed: Index,
    /// The chain at the first position.
    origin: u64,
    /// It began from nothing, and nothing of it was confirmed since.
    pub(super) unconfirmed: bool,
    /// The chains of the last positions, the current one last.
    recent: VecDeque<u64>,
    /// What the chain was before that at some positions, as the one knew that gave this state.
    earlier: Vec<(Index, u64)>,
}

/// What stands before the state machine's own snapshot.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    at: Index,
    chain: u64,
    clock: Timestamp,
    ring: Ring,
    agreed: Index,
    origin: u64,
    unconfirmed: bool,
    /// As the one that wrote this knows.
    confirmed: Confirmed,
    debts: Vec<Logged>,
    /// The chain at some positions before this one.
    earlier: Vec<(Index, u64)>,
}

impl History {
    pub(super) fn new(ring: Ring) -> Self {
        Self {
            at: Index::ZERO,
            chain: 0,
            clock: Timestamp(0),
            ring,
            debts: Debts::default(),
            agreed: Index::ZERO,
            origin: 0,
            unconfirmed: true,
            recent: VecDeque::new(),
            earlier: Vec::new(),
        }
    }

    /// One more item, with these bytes' hash.
    pub(super) fn advance(&mut self, hash: u64) {
        self.at = self.at.next();
        self.chain = xxhash_rust::xxh3::xxh3_64_with_seed(&hash.to_be_bytes(), self.chain);
        if self.at == Index(1) {
            self.origin = self.chain;
        }
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(self.chain);
    }

    /// Tells it from histories that began separately; `None` while nothing of it is confirmed.
    pub(super) fn origin(&self) -> Option<u64> {
        (!self.unconfirmed).then_some(self.origin)
    }

    /// Whether both began together, at whatever positions they are now.
    pub(super) fn began_with(&self, other: &Self) -> bool {
        self.origin == other.origin
    }

    /// The chain at a position that is not too long ago.
    pub(super) fn chain_at(&self, at: Index) -> Option<u64> {
        let back = usize::try_from(self.at.0.checked_sub(at.0)?).ok()?;
        let place = self.recent.len().checked_sub(back + 1)?;
        self.recent.get(place).copied()
    }

    /// The chain at some of the last positions: one, two, four before this one, and so on, and what an earlier state told.
    fn samples(&self) -> Vec<(Index, u64)> {
        let back = |back: usize| {
            let place = self.recent.len().checked_sub(back + 1)?;
            let at = self.at.0.checked_sub(back as u64)?;
            Some((Index(at), *self.recent.get(place)?))
        };
        let mut samples: Vec<_> = (0..usize::BITS)
            .map_while(|power| back(1 << power))
            .collect();
        samples.extend(&self.earlier);
        samples.truncate(SAMPLES_MAX);
        samples
    }

    /// Up to where this one is certainly the same as another one, which was given.
    pub(super) fn common_with(&self, given: &Self) -> Index {
        let same = (given.earlier.iter())
            .filter(|(at, chain)| self.chain_at(*at) == Some(*chain))
            .map(|(at, _)| *at);
        same.max().unwrap_or(Index::ZERO)
    }

    /// Whether it is certain that they are not the same.
    pub(super) fn parts_from(&self, given: &Self) -> bool {
        let mut known = given.earlier.iter();
        known.any(|(at, chain)| self.chain_at(*at).is_some_and(|own| own != *chain))
    }

    /// The write delivered last, as an entry of a log.
    pub(super) fn entry(&self, payload: Bytes) -> Entry {
        Entry {
            term: Term::ZERO,
            index: self.at,
            timestamp: self.clock,
            seed: self.chain,
            kind: EntryKind::Command,
            payload,
            hash: self.chain,
        }
    }

    /// Everything that a newcomer needs, at this position.
    pub(super) fn write(&self, machine: &Machine, confirmed: Confirmed) -> io::Result<Vec<u8>> {
        let head = Head {
            at: self.at,
            chain: self.chain,
            clock: self.clock,
            ring: self.ring.clone(),
            agreed: self.agreed,
            origin: self.origin,
            unconfirmed: self.unconfirmed,
            confirmed,
            debts: self.debts.handed_over(self.agreed),
            earlier: self.samples(),
        };
        let head = crate::state_machine::encode(&head);
        let mut out = Vec::with_capacity(head.len() + 1_024);
        out.extend_from_slice(&(head.len() as u64).to_be_bytes());
        out.extend_from_slice(&head);
        machine.freeze()(&mut out)?;
        Ok(out)
    }

    /// The other end of [`write`](Self::write): the history, what of it was known to be confirmed, and the machine's snapshot.
    pub(super) fn read(bytes: &[u8], now: Time) -> Option<(Self, Confirmed, &[u8])> {
        let (length, rest) = bytes.split_first_chunk()?;
        let length = usize::try_from(u64::from_be_bytes(*length)).ok()?;
        let (head, machine) = rest.split_at_checked(length)?;
        let mut head: Head = crate::state_machine::decode(head).ok()?;
        head.earlier.truncate(SAMPLES_MAX);
        let history = Self {
            at: head.at,
            chain: head.chain,
            clock: head.clock,
            ring: head.ring,
            debts: Debts::take_over(head.debts, now),
            agreed: head.agreed,
            origin: head.origin,
            unconfirmed: head.unconfirmed,
            recent: VecDeque::from([head.chain]),
            earlier: head.earlier,
        };
        Some((history, head.confirmed, machine))
    }
}

/// How far back chains are remembered.
pub(super) const RECENT_MAX: usize = 16_384;
const SAMPLES_MAX: usize = 64;
