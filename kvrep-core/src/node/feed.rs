//! The feed of what was applied on this replica.
//!
//! A cache beside the state, an index, a watcher: many things want to hear of every command in the order in which it
//! took effect. A subscriber has a queue of its own. The node only ever puts something in and never waits: if the queue
//! is full, the subscriber is told so afterwards, with the number of commands that it missed.
//!
//! Invariants:
//!
//! * a subscriber gets every command applied after [`Node::subscribe`] returned, in order and once, or a
//!   [`Feed::Lagged`] in the place of those that it missed;
//! * what replaces the state other than by commands (a snapshot from the primary) is told as [`Feed::Replaced`] in its place;
//! * a queue holds at most its bound of commands and of bytes, and a few items that say what is missing;
//! * without a subscriber a command costs one load and one branch.

use super::Node;
use crate::entry::Entry;
use crate::id::{Index, LogPoint, Term};
use crate::session::Envelope;
use crate::state_machine::{Malformed, StateMachine, decode};
use crate::time::Timestamp;
use bytes::Bytes;
use futures_core::Stream;
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// What a subscriber hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Feed {
    /// A command was carried out.
    Applied(AppliedCommand),
    /// The subscriber did not keep up: commands were applied here that it does not get. What it derived from the
    /// feed must be made anew from the state ([`Node::read_local`], whose token says where).
    Lagged {
        /// How many commands.
        missed: u64,
    },
    /// The state was replaced as a whole, because this replica was too far behind or its history was refuted. What came
    /// before does not count any more; the next command follows `upto`. Of several that nobody took, the last is told.
    Replaced {
        /// The last entry whose effect is in the state now.
        upto: LogPoint,
    },
}

/// A command that the state machine has carried out.
///
/// A request that a client sent again is carried out, and heard of, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedCommand {
    /// Its place. Not every index has a command: sessions and new primaries make entries too.
    pub index: Index,
    /// The term in which it was ordered.
    pub term: Term,
    /// The primary's time when it took it.
    pub timestamp: Timestamp,
    /// The command.
    pub command: Bytes,
    /// The state machine's response.
    pub response: Bytes,
}

impl AppliedCommand {
    /// Command and response in the state machine's types.
    ///
    /// # Errors
    /// [`Malformed`] when `M` is not the machine that carried it out.
    pub fn decode<M: StateMachine>(&self) -> Result<(M::Command, M::Response), Malformed> {
        Ok((decode(&self.command)?, decode(&self.response)?))
    }

    fn bytes(&self) -> usize {
        self.command.len() + self.response.len()
    }
}

/// How much a subscriber may fall behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedLimits {
    /// Commands that wait at most; at least 1. 4,096 by default.
    pub commands_max: usize,
    /// Bytes of commands and responses that wait at most; a single command may be larger. 16 MiB by default.
    pub bytes_max: usize,
}

impl Default for FeedLimits {
    fn default() -> Self {
        Self {
            commands_max: 4_096,
            bytes_max: 16 << 20,
        }
    }
}

/// A subscriber's end of the feed: a [`Stream`] that ends when the node ends. Dropped, it is forgotten by the node.
pub struct Subscription {
    queue: Arc<Queue>,
    registry: Arc<Registry>,
}

impl Node {
    /// What is applied on this replica from now on. See [`FeedLimits`] for how far one may fall behind.
    ///
    /// ```
    /// use kvrep_core::node::{Client, Feed, LocalLink, Node};
    /// use kvrep_core::{Fold, ReplicaId};
    ///
    /// type Counter = Fold<i64, i64>;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let node = Node::builder("counter", ReplicaId(1))
    ///     .state_machine(Counter::new(0, |counter, by| *counter += by))
    ///     .start()
    ///     .await?;
    /// let mut feed = node.subscribe();
    /// Client::<Counter>::new(LocalLink::new([&node])).execute(3).await?;
    /// let Some(Feed::Applied(first)) = feed.next().await else { panic!() };
    /// assert_eq!(first.decode::<Counter>()?, (3, 3)); // the command and the answer
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        self.subscribe_with(FeedLimits::default())
    }

    /// The same with bounds of one's own.
    #[must_use]
    pub fn subscribe_with(&self, limits: FeedLimits) -> Subscription {
        self.feed.subscribe(limits)
    }
}

impl Subscription {
    /// The next item; `None` when the node has ended.
    pub async fn next(&mut self) -> Option<Feed> {
        poll_fn(|context| self.queue.poll(context)).await
    }
}

impl Stream for Subscription {
    type Item = Feed;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Feed>> {
        self.queue.poll(context)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.registry.forget(&self.queue);
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.queue.lock();
        write!(f, "Subscription({} waiting)", state.items.len())
    }
}

/// The subscribers of a node.
#[derive(Default)]
pub(super) struct Registry {
    /// How many there are: what the node looks at for each entry.
    count: AtomicUsize,
    subscribers: Mutex<Subscribers>,
}

#[derive(Default)]
struct Subscribers {
    queues: Vec<Arc<Queue>>,
    ended: bool,
}

impl Registry {
    fn subscribe(self: &Arc<Self>, limits: FeedLimits) -> Subscription {
        let queue = Arc::new(Queue::new(limits));
        let mut subscribers = self.lock();
        if subscribers.ended {
            queue.end();
        }
        subscribers.queues.push(Arc::clone(&queue));
        self.count
            .store(subscribers.queues.len(), Ordering::Release);
        drop(subscribers);
        let registry = Arc::clone(self);
        Subscription { queue, registry }
    }

    fn forget(&self, queue: &Arc<Queue>) {
        let mut subscribers = self.lock();
        subscribers.queues.retain(|q| !Arc::ptr_eq(q, queue));
        self.count
            .store(subscribers.queues.len(), Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Subscribers> {
        self.subscribers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The node's end of the feed. Dropped, every subscription ends.
pub(super) struct Publisher(Arc<Registry>);

impl Publisher {
    pub(super) fn new(registry: Arc<Registry>) -> Self {
        Self(registry)
    }

    /// Whether nobody subscribes.
    #[inline]
    pub(super) fn is_idle(&self) -> bool {
        self.0.count.load(Ordering::Acquire) == 0
    }

    /// A command was carried out.
    #[inline]
    pub(super) fn applied(&self, entry: &Entry, response: &Bytes) {
        if !self.is_idle() {
            self.publish_applied(entry, response);
        }
    }

    #[cold]
    fn publish_applied(&self, entry: &Entry, response: &Bytes) {
        let command = match Envelope::decode(entry.payload.clone()) {
            Ok(Envelope::Plain(command) | Envelope::Command { command, .. }) => command,
            Ok(Envelope::Open | Envelope::Close(_)) | Err(_) => return,
        };
        let applied = AppliedCommand {
            index: entry.index,
            term: entry.term,
            timestamp: entry.timestamp,
            command,
            response: response.clone(),
        };
        for queue in &self.0.lock().queues {
            queue.put(&applied);
        }
    }

    /// The state was replaced.
    pub(super) fn replaced(&self, upto: LogPoint) {
        for queue in &self.0.lock().queues {
            queue.replaced(upto);
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let mut subscribers = self.0.lock();
        subscribers.ended = true;
        for queue in &subscribers.queues {
            queue.end();
        }
    }
}

/// What waits for one subscriber.
struct Queue {
    limits: FeedLimits,
    state: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    items: VecDeque<Feed>,
    bytes: usize,
    /// Commands that came while the queue was full. While there are any, nothing is taken in: one gap, not many.
    missed: u64,
    ended: bool,
    waker: Option<Waker>,
}

impl Queue {
    fn new(limits: FeedLimits) -> Self {
        Self {
            limits,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, applied: &AppliedCommand) {
        let mut state = self.lock();
        let bytes = state.bytes + applied.bytes();
        let full = state.items.len() >= self.limits.commands_max.max(1)
            || (bytes > self.limits.bytes_max && !state.items.is_empty());
        if full || state.missed > 0 {
            state.missed += 1;
            return;
        }
        state.bytes = bytes;
        state.items.push_back(Feed::Applied(applied.clone()));
        wake(state);
    }

    fn replaced(&self, upto: LogPoint) {
        let mut state = self.lock();
        let missed = std::mem::take(&mut state.missed);
        let over = state.items.len() > self.limits.commands_max;
        // However often it happens to somebody who does not listen, it takes no more room.
        if let Some(Feed::Replaced { .. }) = state.items.back()
            && (missed == 0 || over)
        {
            state.items.pop_back();
        }
        match state.items.back_mut() {
            Some(Feed::Lagged { missed: before }) => *before += missed,
            Some(Feed::Applied(_) | Feed::Replaced { .. }) | None => {
                if missed > 0 {
                    state.items.push_back(Feed::Lagged { missed });
                }
            }
        }
        state.items.push_back(Feed::Replaced { upto });
        wake(state);
    }

    fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        wake(state);
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<Option<Feed>> {
        let mut state = self.lock();
        if let Some(item) = state.items.pop_front() {
            if let Feed::Applied(applied) = &item {
                state.bytes -= applied.bytes();
            }
            return Poll::Ready(Some(item));
        }
        if state.missed > 0 {
            let missed = std::mem::take(&mut state.missed);
            return Poll::Ready(Some(Feed::Lagged { missed }));
        }
        if state.ended {
            return Poll::Ready(None);
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(context.waker()),
            empty @ None => *empty = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

/// Wakes the subscriber, if it sleeps, when the queue is free.
fn wake(mut state: MutexGuard<'_, Waiting>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::EntryKind;
    use crate::id::ReplicaId;

    fn entry(index: u64, envelope: &Envelope) -> Entry {
        let prev = LogPoint {
            index: Index(index - 1),
            ..LogPoint::ZERO
        };
        let (term, time) = (Term::ZERO.next_for(ReplicaId(1)), Timestamp(9));
        Entry::following(prev, term, time, 0, EntryKind::Command, envelope.encode())
    }

    fn plain(index: u64) -> Entry {
        entry(index, &Envelope::Plain("12345678".into()))
    }

    fn feed(limits: FeedLimits) -> (Publisher, Subscription) {
        let registry = Arc::new(Registry::default());
        let subscription = registry.subscribe(limits);
        (Publisher::new(registry), subscription)
    }

    /// What is there now: indices of commands, −n for n missed, a thousand more for a replacement.
    fn drain(subscription: &mut Subscription) -> Vec<i64> {
        let mut context = Context::from_waker(Waker::noop());
        let mut heard = Vec::new();
        while let Poll::Ready(Some(item)) = subscription.queue.poll(&mut context) {
            heard.push(match item {
                Feed::Applied(applied) => applied.index.0 as i64,
                Feed::Lagged { missed } => -(missed as i64),
                Feed::Replaced { upto } => 1_000 + upto.index.0 as i64,
            });
        }
        heard
    }

    fn at(index: u64) -> LogPoint {
        plain(index).point()
    }

    #[test]
    fn a_subscriber_that_falls_behind_hears_of_one_gap_and_then_goes_on() {
        let (publisher, mut subscription) = feed(FeedLimits {
            commands_max: 3,
            ..FeedLimits::default()
        });
        for index in 1..=10 {
            publisher.applied(&plain(index), &Bytes::new());
        }
        assert_eq!(drain(&mut subscription), [1, 2, 3, -7]);
        publisher.applied(&plain(11), &Bytes::new());
        assert_eq!(drain(&mut subscription), [11]);
    }

    #[test]
    fn bytes_are_bounded_too_but_one_command_always_fits() {
        let (publisher, mut subscription) = feed(FeedLimits {
            bytes_max: 20,
            ..FeedLimits::default()
        });
        for index in 1..=4 {
            publisher.applied(&plain(index), &Bytes::new()); // eight bytes each
        }
        assert_eq!(drain(&mut subscription), [1, 2, -2]);
        publisher.applied(&plain(5), &Bytes::from(vec![0; 100]));
        assert_eq!(drain(&mut subscription), [5]);
    }

    #[test]
    fn replacements_stand_in_their_place_and_take_no_more_room_however_many_there_are() {
        let (publisher, mut subscription) = feed(FeedLimits {
            commands_max: 2,
            ..FeedLimits::default()
        });
        publisher.applied(&plain(1), &Bytes::new());
        publisher.replaced(at(50));
        publisher.replaced(at(60));
        publisher.applied(&plain(61), &Bytes::new());
        assert_eq!(drain(&mut subscription), [1, 1_060, -1]);
        for round in 1..=100 {
            for index in 0..4 {
                publisher.applied(&plain(round * 10 + index), &Bytes::new());
            }
            publisher.replaced(at(round * 10 + 9));
        }
        assert!(subscription.queue.lock().items.len() <= 5);
        // Two of the four of the first round were heard, and none of the others.
        assert_eq!(drain(&mut subscription), [10, 11, -398, 2_009]);
    }

    #[test]
    fn sessions_are_not_commands_and_nobody_waits_for_a_node_that_has_ended() {
        let (publisher, mut subscription) = feed(FeedLimits::default());
        publisher.applied(&entry(1, &Envelope::Open), &Bytes::new());
        publisher.applied(&plain(2), &"yes".into());
        let registry = Arc::clone(&subscription.registry);
        drop(publisher);
        assert_eq!(drain(&mut subscription), [2]);
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(subscription.queue.poll(&mut context), Poll::Ready(None));
        let late = registry.subscribe(FeedLimits::default());
        assert_eq!(late.queue.poll(&mut context), Poll::Ready(None));
        drop((late, subscription));
        assert_eq!(registry.count.load(Ordering::Relaxed), 0);
    }
}
