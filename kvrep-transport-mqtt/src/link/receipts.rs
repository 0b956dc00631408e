//! What was delivered and is not acknowledged yet, and what a broker sends a second time.
//!
//! A broker that resumes a session sends again, first and in order, what it holds for unacknowledged [MQTT 5, 4.4 and
//! 4.6]. What *we* have not acknowledged yet is therefore certain to come again: such a copy is recognised by topic and
//! content (some brokers change its number, some do not mark it), and its receipt moves to the new connection. What we
//! have acknowledged may come again if the acknowledgement was lost with the connection, and then comes before all else of its
//! topic; it is delivered as a possible duplicate.
//!
//! Invariants: acknowledgements leave in the order of the deliveries; none leaves on a connection on which its message did
//! not come.
//!
//! Caveat: a new message that comes right after a resumed session, with the content of one that was delivered before, looks
//! like a duplicate.

use bytes::Bytes;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

/// What of a message tells it from others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival<'a> {
    pub(crate) topic: &'a Arc<str>,
    pub(crate) payload: &'a Bytes,
    pub(crate) packet: u16,
    /// The broker says that it has sent it before. Not all say so.
    pub(crate) marked: bool,
}

/// What an arrival is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    New {
        number: u64,
    },
    PerhapsAgain {
        number: u64,
    },
    /// Certainly a copy of one that was delivered.
    Again,
    /// More than MQTT allows to be under way.
    TooMany,
}

struct Receipt {
    number: u64,
    /// Where it stands in the broker's order: its number, or for a copy that of the first one.
    place: u64,
    packet: u16,
    topic: Arc<str>,
    digest: u128,
    connection: u64,
    acknowledged: bool,
}

/// One that was acknowledged, perhaps in vain.
struct Settled {
    place: u64,
    topic: Arc<str>,
    digest: u128,
}

pub(crate) struct Receipts {
    /// In the order of delivery on the latest connection on which each came.
    open: VecDeque<Receipt>,
    /// The latest that were acknowledged in this session.
    settled: VecDeque<Settled>,
    next: u64,
    connection: u64,
    /// How many of the open ones came on an earlier connection only.
    awaited: usize,
    /// Topics on which nothing new has come since the session was resumed.
    repeating: BTreeSet<Arc<str>>,
    open_max: usize,
    settled_max: usize,
}

impl Receipts {
    pub(crate) fn new(open_max: usize, settled_max: usize) -> Self {
        Self {
            open: VecDeque::new(),
            settled: VecDeque::new(),
            next: 1,
            connection: 0,
            awaited: 0,
            repeating: BTreeSet::new(),
            open_max,
            settled_max,
        }
    }

    /// A new connection in a new session: nothing from before comes again.
    pub(crate) fn begin_session(&mut self) {
        self.connection += 1;
        self.awaited = 0;
        self.repeating.clear();
        self.open.clear();
        self.settled.clear();
    }

    /// A new connection in the same session.
    pub(crate) fn resume_session(&mut self) {
        self.connection += 1;
        self.awaited = self.open.len();
        // What came twice, or was interrupted while it came again, stands elsewhere than the broker has it.
        self.open.make_contiguous().sort_by_key(|r| r.place);
        let open = self.open.iter().map(|r| &r.topic);
        let settled = self.settled.iter().map(|s| &s.topic);
        self.repeating = open.chain(settled).cloned().collect();
    }

    pub(crate) fn arrived(&mut self, arrival: Arrival<'_>) -> Verdict {
        let digest = digest(arrival.topic, arrival.payload);
        let connection = self.connection;
        let searched = if self.awaited == 0 {
            0
        } else {
            self.open.len()
        };
        let mut searched = self.open.iter().take(searched);
        let expected =
            searched.position(|r| r.connection < connection && r.topic == *arrival.topic);
        if let Some(mut receipt) = expected
            .filter(|at| self.open[*at].digest == digest)
            .and_then(|at| self.open.remove(at))
        {
            self.awaited -= 1;
            receipt.connection = connection;
            receipt.packet = arrival.packet;
            self.open.push_back(receipt);
            return Verdict::Again;
        }
        let copy_of = self.settled_place(&arrival, digest);
        if copy_of.is_none() && self.repeating.remove(arrival.topic) {
            // Something new: what has not come again by now, does not. Its tokens do nothing any more.
            self.open
                .retain(|r| r.connection == connection || r.topic != *arrival.topic);
            self.awaited = self
                .open
                .iter()
                .filter(|r| r.connection < connection)
                .count();
        }
        if self.open.len() >= self.open_max {
            return Verdict::TooMany;
        }
        let number = self.next;
        self.next += 1;
        self.open.push_back(Receipt {
            number,
            place: copy_of.unwrap_or(number),
            packet: arrival.packet,
            topic: Arc::clone(arrival.topic),
            digest,
            connection,
            acknowledged: false,
        });
        if copy_of.is_some() {
            Verdict::PerhapsAgain { number }
        } else {
            Verdict::New { number }
        }
    }

    /// Where this stood, if it is, as far as can be told, one of those that come again because their acknowledgements were lost.
    fn settled_place(&self, arrival: &Arrival<'_>, digest: u128) -> Option<u64> {
        // A broker that says which are copies may send some behind what is new.
        if !self.repeating.contains(arrival.topic) && !arrival.marked {
            return None;
        }
        let seen = |s: &&Settled| s.digest == digest && s.topic == *arrival.topic;
        self.settled.iter().find(seen).map(|s| s.place)
    }

    /// The message with this number is dealt with.
    pub(crate) fn acknowledge(&mut self, number: u64) {
        if let Some(receipt) = self.open.iter_mut().find(|r| r.number == number) {
            receipt.acknowledged = true;
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
        let Receipt {
            place,
            packet,
            topic,
            digest,
            ..
        } = self.open.remove(at)?;
        if self.settled.len() >= self.settled_max {
            self.settled.pop_front();
        }
        self.settled.push_back(Settled {
            place,
            topic,
            digest,
        });
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
            let mut receipts = Receipts::new(4, 4);
            receipts.begin_session();
            Self {
                receipts,
                topic: "t".into(),
            }
        }

        fn arrives(&mut self, payload: &'static str, packet: u16) -> Verdict {
            self.receipts.arrived(Arrival {
                marked: false,
                topic: &self.topic,
                payload: &payload.into(),
                packet,
            })
        }

        fn new_one(&mut self, payload: &'static str, packet: u16) -> u64 {
            match self.arrives(payload, packet) {
                Verdict::New { number } => number,
                other => panic!("{other:?}"),
            }
        }

        fn sent(&mut self) -> Vec<u16> {
            std::iter::from_fn(|| self.receipts.next_to_send()).collect()
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
        assert_eq!(w.sent(), [1, 2, 3]);
    }

    #[test]
    fn what_was_not_acknowledged_is_recognised_when_it_comes_again_under_whatever_number() {
        let mut w = World::new();
        let [a, b] = [w.new_one("a", 7), w.new_one("b", 8)];
        w.receipts.acknowledge(a); // after the connection broke: nothing was sent
        w.receipts.resume_session();
        assert_eq!(
            w.receipts.next_to_send(),
            None,
            "on a connection on which it never came"
        );
        assert_eq!(w.arrives("a", 1), Verdict::Again);
        assert_eq!(w.sent(), [1]);
        assert_eq!(w.arrives("b", 8), Verdict::Again);
        assert_eq!(w.sent(), [] as [u16; 0], "it is not dealt with yet");
        w.receipts.acknowledge(b);
        assert_eq!(w.sent(), [8]);
    }

    #[test]
    fn what_was_acknowledged_in_vain_is_flagged_until_something_new_comes() {
        let mut w = World::new();
        let numbers = [w.new_one("a", 7), w.new_one("b", 8)];
        numbers.iter().for_each(|n| w.receipts.acknowledge(*n));
        assert_eq!(w.sent(), [7, 8]);
        let c = w.new_one("c", 9);
        w.receipts.resume_session();
        // The broker got the first acknowledgement only.
        let Verdict::PerhapsAgain { number } = w.arrives("b", 1) else {
            panic!("it was delivered before");
        };
        assert_eq!(w.arrives("c", 2), Verdict::Again);
        // In the order of this connection.
        w.receipts.acknowledge(c);
        assert_eq!(w.sent(), [] as [u16; 0]);
        w.receipts.acknowledge(number);
        assert_eq!(w.sent(), [1, 2]);
        w.new_one("d", 3);
        w.new_one("b", 4);
    }

    #[test]
    fn connections_that_break_while_things_come_again_confuse_nothing() {
        let mut w = World::new();
        let a = w.new_one("a", 1);
        w.new_one("b", 2);
        w.new_one("c", 3);
        w.receipts.acknowledge(a);
        assert_eq!(w.sent(), [1]); // in vain
        for _ in 0..3 {
            w.receipts.resume_session();
            // A stretch of what the broker still has, in its order.
            let again = w.arrives("a", 1);
            assert!(
                matches!(again, Verdict::PerhapsAgain { .. } | Verdict::Again),
                "{again:?}"
            );
            assert_eq!(w.arrives("b", 2), Verdict::Again);
        }
        w.receipts.resume_session();
        assert_eq!(w.arrives("a", 1), Verdict::Again);
        assert_eq!(w.arrives("b", 2), Verdict::Again);
        assert_eq!(w.arrives("c", 3), Verdict::Again);
        assert_eq!(w.receipts.open.len(), 3);
        w.new_one("d", 4);
    }

    #[test]
    fn what_a_broker_does_not_send_again_is_given_up_when_something_new_comes() {
        let mut w = World::new();
        for packet in 1..=4 {
            w.new_one("x", packet);
        }
        w.receipts.resume_session();
        let new = w.new_one("y", 1);
        w.receipts.acknowledge(new);
        assert_eq!(w.sent(), [1]);
        assert!(w.receipts.open.is_empty());
    }

    #[test]
    fn in_a_new_session_nothing_is_taken_for_a_copy_and_old_tokens_do_nothing() {
        let mut w = World::new();
        let a = w.new_one("a", 7);
        w.receipts.begin_session();
        w.receipts.acknowledge(a);
        assert_eq!(w.receipts.next_to_send(), None);
        w.new_one("a", 7);
        assert_eq!(w.receipts.next_to_send(), None);
    }

    #[test]
    fn more_than_may_be_under_way_is_not_held() {
        let mut w = World::new();
        for packet in 1..=4 {
            w.new_one("x", packet);
        }
        assert_eq!(w.arrives("x", 5), Verdict::TooMany);
    }
}
