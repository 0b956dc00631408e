//! What will happen, ordered by time and then by who was first to ask.

use super::client::Verb;
use crate::client_wire::{Op, Outcome};
use crate::time::Time;
use crate::transport::Hint;
use bytes::Bytes;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// One thing that happens. Nodes are numbered from 0, the witness is the last; `life` counts the starts of a node, and
/// what is meant for an earlier life is dropped.
#[derive(Debug)]
pub(super) enum Happening {
    /// A frame arrives.
    Frame {
        from: usize,
        to: usize,
        frame: Bytes,
    },
    /// A transport tells its node about a peer.
    Hint { to: usize, about: usize, hint: Hint },
    /// A node's deadline.
    Tick { node: usize, life: u32 },
    /// The next step of a node's disk.
    Disk {
        node: usize,
        life: u32,
        step: DiskStep,
    },
    /// A piece of snapshot work is done.
    Snapshot { node: usize, life: u32 },
    /// A client's request arrives.
    Request {
        client: u32,
        node: usize,
        attempt: u64,
        op: Op,
    },
    /// A client hears.
    Reply {
        client: u32,
        node: usize,
        attempt: u64,
        outcome: Box<Outcome>,
    },
    /// A client's timer.
    Client { client: u32, timer: u64, verb: Verb },
    /// The next fault is due.
    Fault,
    /// A fault that lasts comes to its end (or flaps).
    FaultEnds { fault: usize },
    /// A script goes on with this step.
    Script { step: usize },
    /// A dead node starts.
    Start { node: usize },
    /// A paused node goes on.
    Resume { node: usize },
    /// The faults are over: heal.
    Heal,
    /// After healing: has the group converged?
    Look,
}

/// What a disk does with a batch, one after the other; a crash comes between any two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DiskStep {
    /// Everything that waits is written.
    Write,
    /// What was written is synced.
    Sync,
    /// The node is told.
    Tell,
}

#[derive(Debug)]
struct Slot<T> {
    at: Time,
    order: u64,
    what: T,
}

impl<T> PartialEq for Slot<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl<T> Eq for Slot<T> {}

impl<T> PartialOrd for Slot<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Slot<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// What will happen.
#[derive(Debug)]
pub(super) struct Queue<T> {
    heap: BinaryHeap<Reverse<Slot<T>>>,
    next: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            heap: BinaryHeap::new(),
            next: 0,
        }
    }
}

impl<T> Queue<T> {
    /// Adds.
    pub(super) fn push(&mut self, at: Time, what: T) {
        let order = self.next;
        self.next += 1;
        self.heap.push(Reverse(Slot { at, order, what }));
    }

    /// When the first is due.
    pub(super) fn next_at(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse(slot)| slot.at)
    }

    /// Takes the first.
    pub(super) fn pop(&mut self) -> Option<(Time, T)> {
        self.heap.pop().map(|Reverse(slot)| (slot.at, slot.what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_at_the_same_time_happens_in_the_order_of_asking() {
        let mut queue = Queue::default();
        for node in 0..3 {
            queue.push(Time::from_nanos(5), Happening::Start { node });
        }
        queue.push(Time::from_nanos(1), Happening::Heal);
        assert!(matches!(queue.pop(), Some((_, Happening::Heal))));
        for expected in 0..3 {
            let Some((_, Happening::Start { node })) = queue.pop() else {
                panic!("three starts");
            };
            assert_eq!(node, expected);
        }
    }
}
