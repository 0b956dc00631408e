//! An ordered stream inside one process: a hub that appends under a lock and gives each member what was appended.
//!
//! For tests, examples and groups in one program. A member that does not take what is delivered to it for so long that its queue is full loses the
//! rest, and is told of a [`Reset`](StreamEvent::Reset), as with any keeper of an order.

use super::{OrderedStream, StreamEvent, StreamMember, repeat_after};
use crate::client_wire::{Op, Outcome};
use crate::id::{GroupId, ReplicaId};
use crate::node::{ClientLink, LinkError};
use crate::protocol::active::{AnswerNumber, Item, Message, Published, Request};
use crate::transport::{Destination, TransportError};
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use xxhash_rust::xxh3::xxh3_64;

/// Keeps the order of any number of groups. Clones are the same hub.
///
/// ```
/// use kvrep_core::node::{ActiveNode, Client};
/// use kvrep_core::stream::memory::StreamHub;
/// use kvrep_core::{Fold, ReplicaId};
///
/// type Counter = Fold<i64, i64>;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let hub = StreamHub::new();
/// let members = [1, 2, 3].map(ReplicaId);
/// let mut replicas = Vec::new();
/// for me in members {
///     let replica = ActiveNode::builder("counter", me)
///         .members(members)
///         .stream(hub.stream())
///         .state_machine(Counter::new(0, |sum, by| *sum += by));
///     replicas.push(replica.start().await?);
/// }
/// let client = Client::<Counter>::new(hub.client("counter"));
/// assert_eq!(client.execute(2).await?, 2);
/// assert_eq!(client.execute(3).await?, 5);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct StreamHub {
    hub: Arc<Hub>,
}

#[derive(Default)]
struct Hub {
    state: Mutex<State>,
    calls: AtomicU64,
}

#[derive(Default)]
struct State {
    /// By group, replica, and opening: another process may open the stream in the same name, as with any keeper of an order.
    ports: BTreeMap<(GroupId, ReplicaId, u64), Port>,
    waiting: BTreeMap<u64, oneshot::Sender<Outcome>>,
    opened: u64,
}

struct Port {
    config_hash: u64,
    events: mpsc::Sender<StreamEvent>,
    /// Something did not fit into its queue since it was last told.
    missed: bool,
}

impl StreamHub {
    /// A hub without members.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One member's end.
    #[must_use]
    pub fn stream(&self) -> MemoryStream {
        MemoryStream {
            hub: Arc::clone(&self.hub),
            me: None,
            number: 0,
            events: None,
        }
    }

    /// A client's way to the group of this name, for [`Client::new`](crate::node::Client::new).
    #[must_use]
    pub fn client(&self, group: &str) -> StreamLink {
        StreamLink {
            hub: Arc::clone(&self.hub),
            group: GroupId::named(group),
        }
    }
}

impl Hub {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn publish(&mut self, group: GroupId, published: &Published) {
        // (Encoded for the hash alone, and so that what is delivered is what could have been read.)
        let hash = xxh3_64(&published.encode(group));
        for port in self.group(group) {
            port.tell(StreamEvent::Delivered {
                published: published.clone(),
                hash,
            });
        }
    }

    fn group(&mut self, group: GroupId) -> impl Iterator<Item = &mut Port> {
        self.of_group(group).map(|(_, port)| port)
    }

    fn of_group(
        &mut self,
        group: GroupId,
    ) -> impl Iterator<Item = (&(GroupId, ReplicaId, u64), &mut Port)> {
        let all = (group, ReplicaId(0), 0)..=(group, ReplicaId(u32::MAX), u64::MAX);
        self.ports.range_mut(all)
    }
}

impl Port {
    fn tell(&mut self, event: StreamEvent) {
        if self.missed {
            self.missed = self.events.try_send(StreamEvent::Reset).is_err();
        }
        if !self.missed {
            self.missed = self.events.try_send(event).is_err();
        }
    }
}

/// One member's end of a stream in memory.
pub struct MemoryStream {
    hub: Arc<Hub>,
    me: Option<StreamMember>,
    number: u64,
    events: Option<mpsc::Receiver<StreamEvent>>,
}

#[async_trait]
impl OrderedStream for MemoryStream {
    async fn open(&mut self, me: StreamMember) -> Result<(), TransportError> {
        let (events, received) = mpsc::channel(QUEUE_MAX);
        let mut state = self.hub.state();
        state.opened += 1;
        self.number = state.opened;
        let mut port = Port {
            config_hash: me.config_hash,
            events,
            missed: false,
        };
        port.tell(StreamEvent::Opened);
        state
            .ports
            .insert((me.group, me.replica, self.number), port);
        drop(state);
        (self.me, self.events) = (Some(me), Some(received));
        Ok(())
    }

    async fn next(&mut self) -> Option<StreamEvent> {
        self.events.as_mut()?.recv().await
    }

    fn publish(&mut self, published: &Published) {
        if let Some(me) = &self.me {
            self.hub.state().publish(me.group, published);
        }
    }

    fn send(&mut self, to: Destination, message: &Message) {
        let Some(me) = &self.me else {
            return;
        };
        let mut state = self.hub.state();
        let me_here = (me.group, me.replica, self.number);
        for (place, port) in state.of_group(me.group) {
            let wanted = match to {
                Destination::One(one) => one == place.1,
                Destination::Group => true,
            };
            if wanted && *place != me_here {
                port.tell(if port.config_hash == me.config_hash {
                    StreamEvent::Message(message.clone())
                } else {
                    StreamEvent::ConfiguredOtherwise(me.replica)
                });
            }
        }
    }

    fn answer(&mut self, number: AnswerNumber, reply_to: &Bytes, outcome: &Outcome) {
        let Some(me) = &self.me else {
            return;
        };
        let mut state = self.hub.state();
        let call = reply_to.first_chunk().copied().map(u64::from_be_bytes);
        let waiting = call.and_then(|call| state.waiting.remove(&call));
        if let Some(waiting) = waiting {
            // Its caller may have stopped waiting.
            drop(waiting.send(outcome.clone()));
        }
        let me_here = (me.group, me.replica, self.number);
        if let Some(port) = state.ports.get_mut(&me_here) {
            port.tell(StreamEvent::Answered(number));
        }
    }

    async fn close(&mut self) {
        self.leave();
        self.events = None;
    }
}

impl MemoryStream {
    fn leave(&mut self) {
        if let Some(me) = self.me.take() {
            let mut state = self.hub.state();
            state.ports.remove(&(me.group, me.replica, self.number));
        }
    }
}

impl Drop for MemoryStream {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A client's way to a group over a stream in memory.
#[derive(Clone)]
pub struct StreamLink {
    hub: Arc<Hub>,
    group: GroupId,
}

#[async_trait]
impl ClientLink for StreamLink {
    /// The group: whoever owns a request answers it.
    fn targets(&self) -> usize {
        1
    }

    fn resolve(&self, _: ReplicaId, _: Option<&str>) -> Option<usize> {
        Some(0)
    }

    async fn call(&self, _: usize, op: Op, deadline: Instant) -> Result<Outcome, LinkError> {
        let number = self.hub.calls.fetch_add(1, Ordering::Relaxed);
        let repeat = repeat_after(&op);
        let request = match Request::of_op(op, number, number.to_be_bytes().to_vec().into()) {
            Ok(request) => request,
            Err(outcome) => return Ok(outcome),
        };
        let (answer, mut answered) = oneshot::channel();
        let item = Item::Request(request);
        let published = Published { stamp: None, item };
        {
            let mut state = self.hub.state();
            if state.group(self.group).next().is_none() {
                return Err(LinkError::NotSent("no member is there".into()));
            }
            state.waiting.insert(number, answer);
            state.publish(self.group, &published);
        }
        let _forget = Forget {
            hub: &self.hub,
            number,
        };
        loop {
            let again = deadline.min(Instant::now() + repeat.unwrap_or(NEVER));
            match timeout_at(again, &mut answered).await {
                Ok(Ok(outcome)) => return Ok(outcome),
                Err(_) if again < deadline => self.hub.state().publish(self.group, &published),
                Ok(Err(_)) | Err(_) => return Err(LinkError::Lost("no answer in time".into())),
            }
        }
    }
}

/// Takes a call off the list when its caller stops waiting.
struct Forget<'a> {
    hub: &'a Hub,
    number: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.hub.state().waiting.remove(&self.number);
    }
}

impl fmt::Debug for StreamHub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamHub({} members)", self.hub.state().ports.len())
    }
}

impl fmt::Debug for MemoryStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "MemoryStream({:?})",
            self.me.as_ref().map(|me| me.replica)
        )
    }
}

impl fmt::Debug for StreamLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamLink({:?})", self.group)
    }
}

/// Longer than any deadline.
const NEVER: Duration = Duration::from_secs(365 * 86_400);
/// What may wait for a member.
const QUEUE_MAX: usize = 65_536;
