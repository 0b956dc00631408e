//! What was delivered and is not acknowledged yet, and what a broker sends a second time.
//!
//! A broker that resumes a session sends again, first and in order, what it holds for unacknowledged [MQTT 5, 4.4 and
//! 4.6]. What *we* have not acknowledged yet is therefore certain to come again: such a copy is recognised by topic and
//! content (some brokers change its number, some do not mark it), and its receipt moves to the new connection. What we
//! have acknowledged may come again if the acknowledgement was lost with the connection; it is told by the mark, the number
//! and the content, and delivered as a possible duplicate.
//!
//! Invariants: acknowledgements leave in the order of the deliveries; none leaves on a connection on which its message did
//! not come.
//!
//! Caveat: a broker that gives a number away again at once, to a message with the same content, whose first copy was lost,
//! makes a new message look like a duplicate.

use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

/// What of a message tells it from others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival<'a> {
    pub(crate) topic: &'a Arc<str>,
    pub(crate) payload: &'a Bytes,
    pub(crate) packet: u16,
    pub(crate) marked: Marked,
}

/// Whether the broker says that it sends a message again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Marked {
    First,
    Again,
}

/// What an arrival is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    New { number: u64 },
    PerhapsAgain { number: u64 },
    /// Certainly a copy of one that was delivered.
    Again,
    /// More than the broker was asked to send: it cannot be held.
    TooMany,
}

struct Receipt {
    number: u64,
    packet: u16,
    topic: Arc<str>,
    digest: u128,
    connection: u64,
    acknowledged: bool,
}

struct Settled {
    packet: u16,
    digest: u128,
}

pub(crate) struct Receipts {
    /// By ascending number, which is the order of delivery.
    open: VecDeque<Receipt>,
    /// The latest that were acknowledged in this session.
    settled: VecDeque<Settled>,
    next: u64,
    connection: u64,
    /// How many of the open ones came on an earlier connection only.
    awaited: usize,
    open_max: usize,
}

impl Receipts {
    pub(crate) fn new(open_max: usize) -> Self {
        Self {
            open: VecDeque::new(),
            settled: VecDeque::new(),
            next: 1,
            connection: 0,
            awaited: 0,
            open_max,
        }
    }

    /// A new connection in a new session: nothing from before comes again.
    pub(crate) fn begin_session(&mut self) {
        self.connection += 1;
        self.awaited = 0;
        self.open.clear();
        self.settled.clear();
    }

    /// A new connection in the same session.
    pub(crate) fn resume_session(&mut self) {
        self.connection += 1;
        self.awaited = self.open.len();
    }

    pub(crate) fn arrived(&mut self, arrival: Arrival<'_>) -> Verdict {
        let digest = digest(arrival.topic, arrival.payload);
        let connection = self.connection;
        let searched = if self.awaited == 0 { 0 } else { self.open.len() };
        let expected = self
            .open
            .iter_mut()
            .take(searched)
            .find(|r| r.connection < connection && r.topic == *arrival.topic);
        if let Some(receipt) = expected.filter(|receipt| receipt.digest == digest) {
            receipt.connection = connection;
            receipt.packet = arrival.packet;
            self.awaited -= 1;
            return Verdict::Again;
        }
        if self.open.len() >= self.open_max {
            return Verdict::TooMany;
        }
        let number = self.next;
        self.next += 1;
        self.open.push_back(Receipt {
            number,
            packet: arrival.packet,
            topic: Arc::clone(arrival.topic),
            digest,
            connection,
            acknowledged: false,
        });
        let seen = |s: &Settled| s.packet == arrival.packet && s.digest == digest;
        if arrival.marked == Marked::Again && self.settled.iter().any(seen) {
            Verdict::PerhapsAgain { number }
        } else {
            Verdict::New { number }
        }
    }

    /// The message with this number is dealt with.
    pub(crate) fn acknowledge(&mut self, number: u64) {
        let at = self.open.binary_search_by_key(&number, |r| r.number);
        if let Ok(at) = at {
            self.open[at].acknowledged = true;
        }
    }

    /// The packet whose acknowledgement may leave next.
    pub(crate) fn next_to_send(&mut self) -> Option<u16> {
        // What came on an earlier connection waits for its second copy, and holds nobody up.
        let connection = self.connection;
        let at = self.open.iter().position(|r| r.connection == connection)?;
        if !self.open[at].acknowledged {
            return None;
        }
        let Receipt { packet, digest, .. } = self.open.remove(at)?;
        if self.settled.len() >= self.open_max {
            self.settled.pop_front();
        }
        self.settled.push_back(Settled { packet, digest });
        Some(packet)
    }
}

fn digest(topic: &str, payload: &[u8]) -> u128 {
    let mut hasher = Xxh3::new();
    hasher.update(&(topic.len() as u64).to_be_bytes());
    hasher.update(topic.as_bytes());
    hasher.update(payload);
    hasher.digest128()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        receipts: Receipts,
        topic: Arc<str>,
    }

    impl World {
        fn new() -> Self {
            let mut receipts = Receipts::new(4);
            receipts.begin_session();
            Self {
                receipts,
                topic: "t".into(),
            }
        }

        fn arrives(&mut self, payload: &'static str, packet: u16, marked: Marked) -> Verdict {
            self.receipts.arrived(Arrival {
                topic: &self.topic,
                payload: &payload.into(),
                packet,
                marked,
            })
        }

        fn new_one(&mut self, payload: &'static str, packet: u16) -> u64 {
            match self.arrives(payload, packet, Marked::First) {
                Verdict::New { number } => number,
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn acknowledgements_leave_in_the_order_of_the_deliveries() {
        let mut w = World::new();
        let numbers = [1, 2, 3].map(|packet| w.new_one("x", packet));
        w.receipts.acknowledge(numbers[2]);
        w.receipts.acknowledge(numbers[1]);
        assert_eq!(w.receipts.next_to_send(), None);
        w.receipts.acknowledge(numbers[0]);
        let sent: Vec<_> = std::iter::from_fn(|| w.receipts.next_to_send()).collect();
        assert_eq!(sent, [1, 2, 3]);
    }

    #[test]
    fn what_was_not_acknowledged_is_recognised_when_it_comes_again_under_whatever_number() {
        let mut w = World::new();
        let [a, b] = [w.new_one("a", 7), w.new_one("b", 8)];
        w.receipts.acknowledge(a); // after the connection broke: nothing was sent
        w.receipts.resume_session();
        assert_eq!(w.receipts.next_to_send(), None, "on a connection on which it never came");
        assert_eq!(w.arrives("a", 1, Marked::First), Verdict::Again);
        assert_eq!(w.receipts.next_to_send(), Some(1));
        assert_eq!(w.arrives("b", 8, Marked::Again), Verdict::Again);
        assert_eq!(w.receipts.next_to_send(), None, "it is not dealt with yet");
        w.receipts.acknowledge(b);
        assert_eq!(w.receipts.next_to_send(), Some(8));
    }

    #[test]
    fn what_was_acknowledged_in_vain_is_flagged_and_what_only_looks_alike_is_not() {
        let mut w = World::new();
        let a = w.new_one("a", 7);
        w.receipts.acknowledge(a);
        assert_eq!(w.receipts.next_to_send(), Some(7));
        w.receipts.resume_session();
        assert!(matches!(w.arrives("a", 7, Marked::Again), Verdict::PerhapsAgain { .. }));
        assert!(matches!(w.arrives("a", 9, Marked::First), Verdict::New { .. }));
        assert!(matches!(w.arrives("b", 8, Marked::Again), Verdict::New { .. }));
    }

    #[test]
    fn in_a_new_session_nothing_is_taken_for_a_copy_and_old_tokens_do_nothing() {
        let mut w = World::new();
        let a = w.new_one("a", 7);
        w.receipts.begin_session();
        w.receipts.acknowledge(a);
        assert_eq!(w.receipts.next_to_send(), None);
        assert!(matches!(w.arrives("a", 7, Marked::Again), Verdict::New { .. }));
        assert_eq!(w.receipts.next_to_send(), None);
    }

    #[test]
    fn more_than_the_broker_was_asked_for_is_not_held() {
        let mut w = World::new();
        for packet in 1..=4 {
            w.new_one("x", packet);
        }
        assert_eq!(w.arrives("x", 5, Marked::First), Verdict::TooMany);
    }
}
