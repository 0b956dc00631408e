//! Who still owes which answer.
//!
//! Every request is a *debt* of whoever owns it when it is delivered. Its debtor says up to which position all its answers have
//! been acknowledged (`answered`, in heartbeats); a debt is discharged when that comes after the position *since* which it
//! is owed: an inherited debt is not discharged by what its heir had answered before. When a debtor fails, what is not
//! discharged moves to the current owner, who answers it: reads from the state as it is then, writes with the response that every replica kept.
//!
//! Invariants: a debt has one debtor, or none while nobody serves; it is discharged, moved or expired, never forgotten.
//!
//! Caveat: a debt expires after a while ([`Timing::keep_requests`](super::Timing::keep_requests)), or when too many are kept; both are counted.

use super::item::Request;
use crate::client_wire::Outcome;
use crate::id::{Index, ReplicaId};
use crate::time::Time;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// What is owed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) enum Owed {
    Read(Bytes),
    Write(Outcome),
}

/// A request, as long as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Logged {
    pub(super) at: Index,
    pub(super) slot: u32,
    pub(super) reply_to: Bytes,
    pub(super) owed: Owed,
    pub(super) debtor: Option<ReplicaId>,
    pub(super) since: Index,
    pub(super) discharged: bool,
    #[serde(skip)]
    pub(super) received: Time,
}

impl Logged {
    fn bytes(&self) -> usize {
        let owed = match &self.owed {
            Owed::Read(query) => query.len(),
            Owed::Write(Outcome::Done { response, .. }) => response.len(),
            Owed::Write(_) => 0,
        };
        128 + self.reply_to.len() + owed
    }
}

/// The requests of the last while, by position.
#[derive(Debug, Default)]
pub(super) struct Debts {
    log: VecDeque<Logged>,
    /// What each one owes: (since, position), in order of `since`.
    open: BTreeMap<Option<ReplicaId>, VecDeque<(Index, Index)>>,
    bytes: usize,
}

impl Debts {
    /// A request was delivered at `at`.
    pub(super) fn owe(
        &mut self,
        at: Index,
        slot: usize,
        request: Request,
        owed: Owed,
        debtor: Option<ReplicaId>,
        now: Time,
    ) {
        let logged = Logged {
            at,
            slot: slot as u32,
            reply_to: request.reply_to,
            owed,
            debtor,
            since: at,
            discharged: false,
            received: now,
        };
        self.bytes += logged.bytes();
        self.log.push_back(logged);
        self.open.entry(debtor).or_default().push_back((at, at));
    }

    pub(super) fn get(&self, at: Index) -> Option<&Logged> {
        self.place(at).map(|place| &self.log[place])
    }

    fn get_mut(&mut self, at: Index) -> Option<&mut Logged> {
        self.place(at).map(|place| &mut self.log[place])
    }

    /// Where the request at that position is kept. Nearly every position is a request's, so it is not far from where it would be if every one were.
    fn place(&self, at: Index) -> Option<usize> {
        let first = self.log.front()?.at;
        let beyond = usize::try_from(at.0.checked_sub(first.0)?).unwrap_or(usize::MAX);
        let mut high = beyond.saturating_add(1).min(self.log.len());
        let mut low = high - 1;
        let mut step = 1;
        while self.log[low].at > at {
            high = low;
            low = low.saturating_sub(step);
            step *= 2;
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.log[middle].at > at {
                high = middle;
            } else {
                low = middle;
            }
        }
        (self.log[low].at == at).then_some(low)
    }

    /// Everything that `debtor` has owed since `upto` or earlier is answered.
    pub(super) fn discharge(&mut self, debtor: ReplicaId, upto: Index) {
        while let Some(open) = self.open.get_mut(&Some(debtor))
            && let Some((since, at)) = open.front().copied()
            && since <= upto
        {
            open.pop_front();
            if let Some(logged) = self.get_mut(at) {
                logged.discharged = true;
            }
        }
    }

    /// `debtor` owes nothing any more: its debts go to who owns their slots now, since `at`. Returns the positions of those that moved, in order.
    pub(super) fn move_on(
        &mut self,
        debtor: Option<ReplicaId>,
        at: Index,
        owner: impl Fn(usize) -> Option<ReplicaId>,
    ) -> Vec<Index> {
        let open = self.open.remove(&debtor).unwrap_or_default();
        let mut positions: Vec<_> = open.into_iter().map(|(_, position)| position).collect();
        positions.sort_unstable();
        positions.retain(|position| self.reassign(*position, at, &owner));
        positions
    }

    /// Forgets what `debtor` has from others, or what came earlier than `since`: planted bugs.
    #[cfg(feature = "sim")]
    pub(super) fn forget(&mut self, debtor: Option<ReplicaId>, kept: impl Fn(&Logged) -> bool) {
        let Some(mut open) = self.open.remove(&debtor) else {
            return;
        };
        let (keep, forget): (VecDeque<_>, VecDeque<_>) = open
            .drain(..)
            .partition(|(_, at)| self.get(*at).is_some_and(&kept));
        for (_, at) in forget {
            if let Some(logged) = self.get_mut(at) {
                logged.discharged = true;
            }
        }
        self.open.insert(debtor, keep);
    }

    /// The same for what was discharged after `agreed` by somebody whose word does not count.
    pub(super) fn reopen(
        &mut self,
        debtor: ReplicaId,
        agreed: Index,
        at: Index,
        owner: impl Fn(usize) -> Option<ReplicaId>,
    ) -> Vec<Index> {
        let doubtful = |logged: &&Logged| {
            logged.discharged && logged.debtor == Some(debtor) && logged.since > agreed
        };
        let positions: Vec<_> = (self.log.iter().filter(doubtful))
            .map(|logged| logged.at)
            .collect();
        for position in &positions {
            self.reassign(*position, at, &owner);
        }
        positions
    }

    fn reassign(
        &mut self,
        position: Index,
        at: Index,
        owner: &impl Fn(usize) -> Option<ReplicaId>,
    ) -> bool {
        let Some(logged) = self.get_mut(position) else {
            return false;
        };
        let debtor = owner(logged.slot as usize);
        (logged.debtor, logged.since, logged.discharged) = (debtor, at, false);
        self.open
            .entry(debtor)
            .or_default()
            .push_back((at, position));
        true
    }

    /// Who owes something, and those whom nobody owes it to yet.
    pub(super) fn debtors(&self) -> Vec<Option<ReplicaId>> {
        let owing = self.open.iter().filter(|(_, open)| !open.is_empty());
        owing.map(|(debtor, _)| *debtor).collect()
    }

    /// Forgets what is discharged, and will not be [opened again](Self::reopen): all that serve had the same up to `agreed`.
    pub(super) fn settle(&mut self, agreed: Index) {
        while let Some(first) = self.log.front()
            && first.discharged
            && first.since <= agreed
            && let Some(first) = self.log.pop_front()
        {
            self.bytes -= first.bytes();
        }
    }

    /// Forgets what is older than `keep`, or too much. Returns how many answers were still owed, and the last request forgotten.
    pub(super) fn expire(
        &mut self,
        now: Time,
        keep: Duration,
        bytes_max: usize,
    ) -> (u64, Option<Index>) {
        let (mut expired, mut last) = (0, None);
        while let Some(first) = self.log.front()
            && (now - first.received > keep || self.bytes > bytes_max)
            && let Some(first) = self.log.pop_front()
        {
            self.bytes -= first.bytes();
            last = Some(first.at);
            if !first.discharged {
                expired += 1;
                if let Some(open) = self.open.get_mut(&first.debtor) {
                    // Mostly it is the first.
                    match open.front() {
                        Some((_, at)) if *at == first.at => drop(open.pop_front()),
                        Some(_) | None => open.retain(|(_, at)| *at != first.at),
                    }
                }
            }
        }
        (expired, last)
    }

    /// How many requests are kept.
    pub(super) fn len(&self) -> usize {
        self.log.len()
    }

    /// What a newcomer must know: what is owed, and what was answered by somebody who may turn out to be wrong.
    pub(super) fn handed_over(&self, agreed: Index) -> Vec<Logged> {
        let counts = |logged: &&Logged| !logged.discharged || logged.since > agreed;
        self.log.iter().filter(counts).cloned().collect()
    }

    /// The other end of [`handed_over`](Self::handed_over).
    pub(super) fn take_over(handed: Vec<Logged>, now: Time) -> Self {
        let mut debts = Self::default();
        let mut open: Vec<_> = (handed.iter().filter(|logged| !logged.discharged))
            .map(|logged| (logged.since, logged.at, logged.debtor))
            .collect();
        open.sort_unstable();
        for (since, at, debtor) in open {
            debts.open.entry(debtor).or_default().push_back((since, at));
        }
        debts.bytes = handed.iter().map(Logged::bytes).sum();
        debts.log = (handed.into_iter())
            .map(|logged| Logged {
                received: now,
                ..logged
            })
            .collect();
        debts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::active::Call;
    use crate::random::Rng;

    #[test]
    fn a_request_is_found_by_its_position_however_many_items_lie_between() {
        for seed in 0..200 {
            let mut rng = Rng::new(seed);
            let (mut debts, mut at) = (Debts::default(), rng.below(5));
            let spread = 1 + rng.below(4) * rng.below(40);
            let mut positions = Vec::new();
            for _ in 0..rng.below(100) {
                at += 1 + rng.below(spread);
                positions.push(at);
                let request = Request {
                    hash: 0,
                    call: Call::Read(Bytes::new()),
                    reply_to: Bytes::new(),
                    asked: None,
                };
                let owed = Owed::Read(Bytes::new());
                debts.owe(Index(at), 0, request, owed, None, Time::ZERO);
            }
            for at in 0..at + 3 {
                let found = debts.get(Index(at)).map(|logged| logged.at.0);
                assert_eq!(found, positions.contains(&at).then_some(at), "seed {seed}");
            }
        }
    }
}
