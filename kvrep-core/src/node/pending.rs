//! Requests that wait for their outcome, found again by their ticket.
//!
//! A slab: tickets are slot numbers with a generation, so that a late answer to a request that was already given up
//! finds nobody. Deadlines cost nothing while they are kept: the slab is only searched when the earliest deadline
//! ever put in since the last search has passed.

use super::answer::Reply;
use crate::client_wire::{Outcome, Reply as ReplyFrame};
use crate::id::Ticket;
use crate::time::Time;
use crate::transport::ReplyTo;

/// Who waits.
pub(super) enum Waiter {
    Here(Reply),
    Remote { id: u64, reply: ReplyTo },
}

impl Waiter {
    /// Answers. Whoever does not wait any more is passed over.
    pub(super) fn answer(self, outcome: Outcome) {
        match self {
            Self::Here(reply) => reply.send(outcome),
            Self::Remote { id, reply } => reply.send(ReplyFrame { id, outcome }.to_frame()),
        }
    }
}

/// What is said when the deadline passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AtDeadline {
    /// A command: it may still be carried out.
    Unknown,
    /// A query: this replica cannot answer it now.
    Behind,
}

struct Waiting {
    deadline: Time,
    at_deadline: AtDeadline,
    waiter: Waiter,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    waiting: Option<Waiting>,
}

/// The slab. Bounded by whoever puts requests in ([`len`](Self::len)).
pub(super) struct Pending {
    slots: Vec<Slot>,
    free: Vec<u32>,
    earliest: Option<Time>,
}

impl Pending {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            earliest: None,
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// When [`expire`](Self::expire) is next worth calling.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.earliest
    }

    pub(super) fn insert(
        &mut self,
        waiter: Waiter,
        deadline: Time,
        at_deadline: AtDeadline,
    ) -> Ticket {
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).expect("pending requests are bounded")
        });
        let slot = &mut self.slots[at as usize];
        slot.waiting = Some(Waiting {
            deadline,
            at_deadline,
            waiter,
        });
        self.earliest = Some(self.earliest.map_or(deadline, |e| e.min(deadline)));
        Ticket(u64::from(slot.generation) << 32 | u64::from(at))
    }

    /// Takes out who waits under `ticket`; nobody when the request was given up.
    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<Waiter> {
        let at = (ticket.0 & u64::from(u32::MAX)) as usize;
        let slot = self.slots.get_mut(at)?;
        if u64::from(slot.generation) != ticket.0 >> 32 {
            return None;
        }
        let waiting = slot.waiting.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(u32::try_from(at).ok()?);
        if self.free.len() == self.slots.len() {
            self.earliest = None;
        }
        Some(waiting.waiter)
    }

    /// Answers everybody whose deadline has passed. Returns how many.
    pub(super) fn expire(&mut self, now: Time) -> u64 {
        if self.earliest.is_none_or(|earliest| earliest > now) {
            return 0;
        }
        let mut expired = 0;
        let mut earliest: Option<Time> = None;
        for (at, slot) in self.slots.iter_mut().enumerate() {
            let Some(waiting) = slot.waiting.take_if(|w| w.deadline <= now) else {
                if let Some(waiting) = &slot.waiting {
                    earliest = Some(earliest.map_or(waiting.deadline, |e| e.min(waiting.deadline)));
                }
                continue;
            };
            slot.generation = slot.generation.wrapping_add(1);
            self.free.extend(u32::try_from(at));
            expired += 1;
            waiting.waiter.answer(match waiting.at_deadline {
                AtDeadline::Unknown => Outcome::Unknown,
                AtDeadline::Behind => Outcome::Behind,
            });
        }
        self.earliest = earliest;
        expired
    }

    /// Tells everybody that the node stops.
    pub(super) fn give_up(&mut self) {
        self.expire(Time::from_nanos(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::super::answer::answer;
    use super::*;
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    fn at(ms: u64) -> Time {
        Time::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn a_request_given_up_at_its_deadline_is_not_answered_again() {
        let mut pending = Pending::new();
        let (reply, mut told) = answer();
        let old = pending.insert(Waiter::Here(reply), at(5), AtDeadline::Unknown);
        assert_eq!(pending.expire(at(4)), 0);
        assert_eq!(pending.expire(at(5)), 1);
        let mut context = Context::from_waker(Waker::noop());
        let told = Pin::new(&mut told).poll(&mut context);
        assert_eq!(told, Poll::Ready(Some(Outcome::Unknown)));
        let (reply, _answer) = answer();
        let new = pending.insert(Waiter::Here(reply), at(9), AtDeadline::Behind);
        assert!(pending.remove(old).is_none(), "the slot has another tenant");
        assert!(pending.remove(new).is_some());
        assert_eq!((pending.len(), pending.next_deadline()), (0, None));
    }

    #[test]
    fn a_search_finds_the_next_deadline() {
        let mut pending = Pending::new();
        let mut waiters = Vec::new();
        for ms in [30, 10, 20] {
            let (reply, waits) = answer();
            waiters.push(waits);
            pending.insert(Waiter::Here(reply), at(ms), AtDeadline::Behind);
        }
        assert_eq!(pending.next_deadline(), Some(at(10)));
        assert_eq!(pending.expire(at(10)), 1);
        assert_eq!(pending.next_deadline(), Some(at(20)));
        pending.give_up();
        assert_eq!(pending.len(), 0);
    }
}
