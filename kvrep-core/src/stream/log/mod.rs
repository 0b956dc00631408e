//! An ordered stream without a broker: the log of the [passive scheme](crate::protocol::passive) is the order.
//!
//! Each member runs a node of the log beside its replica, over any transport. What members and clients put into the stream is a command of that log's state
//! machine; its primary numbers the commands, and when that one dies another takes over, so that there is no third protocol that orders anything. A member
//! hears what its own node applies ([`Node::subscribe`]). What members tell each other beside the stream, and the answers to clients, travel in the log, too:
//! whatever connects the nodes of the log is all that is needed.
//!
//! While the log has no primary nothing is heard, heartbeats neither; nobody is accused then, for the accusation would stand in the log. So a group notices a
//! dead member after the log's own timeout and the active scheme's, one after the other, at the worst.
//!
//! ```no_run
//! use kvrep_core::node::{ActiveNode, Client, ClientLink, Node};
//! use kvrep_core::stream::log::{LogLink, LogStream};
//! use kvrep_core::transport::Transport;
//! use kvrep_core::{Fold, ReplicaId};
//!
//! type Counter = Fold<i64, i64>;
//!
//! /// One member; `link` leads to the nodes of the log, as `TcpGroupLink::new("counter/log", addresses)` does.
//! async fn member(me: ReplicaId, transport: impl Transport, link: impl ClientLink)
//! -> Result<ActiveNode, Box<dyn std::error::Error>> {
//!     let members = [1, 2, 3].map(ReplicaId);
//!     let log = Node::builder("counter/log", me).members(members).transport(transport);
//!     let replica = ActiveNode::builder("counter", me)
//!         .members(members)
//!         .stream(LogStream::new(log, link))
//!         .state_machine(Counter::new(0, |sum, by| *sum += by));
//!     Ok(replica.start().await?)
//! }
//!
//! async fn add(link: impl ClientLink) -> Result<i64, Box<dyn std::error::Error>> {
//!     let client = Client::<Counter>::new(LogLink::new("counter", link));
//!     Ok(client.execute(2).await?)
//! }
//! ```

mod client;
mod sequencer;

pub use client::LogLink;

use super::{OrderedStream, StreamEvent, StreamMember};
use crate::client_wire::Outcome;
use crate::node::{
    Client, ClientError, ClientLink, ClientOptions, Feed, Node, NodeBuilder, NodeError,
    Subscription,
};
use crate::protocol::active::{AnswerNumber, Message, Published};
use crate::state_machine::{decode, encode};
use crate::transport::{Destination, TransportError};
use async_trait::async_trait;
use bytes::Bytes;
use sequencer::{CallId, Record, Sequencer};
use std::collections::VecDeque;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use xxhash_rust::xxh3::xxh3_64;

/// One member's end of a stream over a log. See the [module](self).
pub struct LogStream {
    log: Option<NodeBuilder>,
    link: Arc<dyn ClientLink>,
    open: Option<Open>,
}

struct Open {
    me: StreamMember,
    node: Node,
    feed: Subscription,
    /// Of a command that was applied, and not yet passed on.
    heard: VecDeque<StreamEvent>,
    puts: mpsc::Sender<Put>,
    told: mpsc::Receiver<StreamEvent>,
    pump: JoinSet<()>,
    /// Something did not fit into the queue.
    missed: bool,
    /// Why the node has ended was told.
    ended: bool,
    /// The record behind which what is heard counts: a node without a disk hears the whole log again. `None`: it was heard.
    awaits: Option<u64>,
}

/// What waits to be put into the log.
struct Put {
    record: Record,
    answer: Option<AnswerNumber>,
}

impl LogStream {
    /// `log` describes this member's node of the log: its name (another one than the active group's), members, transport and storage; it needs no state machine. `link`
    /// leads to the nodes of the log, wherever its primary is.
    #[must_use]
    pub fn new(log: NodeBuilder, link: impl ClientLink) -> Self {
        Self {
            log: Some(log),
            link: Arc::new(link),
            open: None,
        }
    }
}

#[async_trait]
impl OrderedStream for LogStream {
    async fn open(&mut self, me: StreamMember) -> Result<(), TransportError> {
        let Some(log) = self.log.take() else {
            let what = "a stream over a log is opened once".into();
            return Err(TransportError::Config(what));
        };
        let node = (log.state_machine(Sequencer::default()).start().await)
            .map_err(|error| TransportError::Config(format!("the node of the log: {error}")))?;
        let feed = node.subscribe();
        let (puts, queue) = mpsc::channel(PUTS_MAX);
        let (tell, told) = mpsc::channel(PUTS_MAX);
        let options = ClientOptions {
            deadline: ATTEMPT,
            ..ClientOptions::default()
        };
        let client = Client::shared(Arc::clone(&self.link), options);
        let mut pump = JoinSet::new();
        pump.spawn(put_all(client, queue, tell));
        let opening = RandomState::new().hash_one(me.incarnation.0);
        let mut open = Open {
            me,
            node,
            feed,
            heard: VecDeque::new(),
            puts,
            told,
            pump,
            missed: false,
            ended: false,
            awaits: Some(opening),
        };
        // The feed is there: what is put into the log from now on comes out of it.
        open.put(Record::Opened { opening }, None);
        self.open = Some(open);
        Ok(())
    }

    async fn next(&mut self) -> Option<StreamEvent> {
        let open = self.open.as_mut()?;
        loop {
            if open.awaits.is_none() && std::mem::take(&mut open.missed) {
                return Some(StreamEvent::Reset);
            }
            if let Some(event) = open.heard.pop_front() {
                return Some(event);
            }
            tokio::select! {
                Some(event) = open.told.recv() => return Some(event),
                fed = open.feed.next() => match fed {
                    Some(fed) => open.hear(&fed),
                    None => return open.node_ended().await,
                },
            }
        }
    }

    fn publish(&mut self, published: &Published) {
        if let Some(open) = &mut self.open {
            let item = published.encode(open.me.group);
            open.put(Record::Item(item), None);
        }
    }

    fn send(&mut self, to: Destination, message: &Message) {
        if let Some(open) = &mut self.open {
            let record = Record::Message {
                from: open.me.replica,
                config_hash: open.me.config_hash,
                to: match to {
                    Destination::One(one) => Some(one),
                    Destination::Group => None,
                },
                message: message.clone(),
            };
            open.put(record, None);
        }
    }

    fn answer(&mut self, number: AnswerNumber, reply_to: &Bytes, outcome: &Outcome) {
        let Some(open) = &mut self.open else {
            return;
        };
        match decode::<CallId>(reply_to) {
            Ok(call) => {
                let outcome = encode(outcome);
                open.put(Record::Answer { call, outcome }, Some(number));
            }
            // Nobody waits there.
            Err(_) => open.heard.push_back(StreamEvent::Answered(number)),
        }
    }

    async fn close(&mut self) {
        let Some(open) = self.open.take() else {
            return;
        };
        drop(open.puts);
        let mut pump = open.pump;
        // What does not end in time is given up with it.
        drop(timeout(CLOSE_WITHIN, pump.join_next()).await);
        drop(pump);
        // How it ended was told as an event of the node's own.
        drop(open.node.shutdown().await);
    }
}

impl Open {
    fn put(&mut self, record: Record, answer: Option<AnswerNumber>) {
        // What does not fit is lost, and said to be.
        if self.puts.try_send(Put { record, answer }).is_err() {
            self.missed = true;
            self.heard.extend(answer.map(StreamEvent::Answered));
        }
    }

    async fn node_ended(&mut self) -> Option<StreamEvent> {
        match self.node.wait().await {
            Err(NodeError::Superseded) => Some(StreamEvent::Superseded),
            Err(error) if !std::mem::replace(&mut self.ended, true) => Some(StreamEvent::Trouble(
                format!("this member's node of the log has ended: {error}"),
            )),
            Ok(()) | Err(_) => None,
        }
    }

    fn hear(&mut self, fed: &Feed) {
        let command = match fed {
            Feed::Applied(command) => command,
            Feed::Lagged { .. } | Feed::Replaced { .. } => {
                if let Some(opening) = self.awaits {
                    // It may have been among what was missed.
                    self.put(Record::Opened { opening }, None);
                    return;
                }
                self.heard.push_back(StreamEvent::Reset);
                return;
            }
        };
        let Ok((records, _)) = command.decode::<Sequencer>() else {
            return;
        };
        for record in records {
            match record {
                Record::Opened { opening } if self.awaits == Some(opening) => {
                    self.awaits = None;
                    self.heard.push_back(StreamEvent::Opened);
                }
                _ if self.awaits.is_some() => {}
                Record::Item(bytes) => self.heard.push_back(StreamEvent::Delivered {
                    published: Published::decode(self.me.group, &bytes),
                    hash: xxh3_64(&bytes),
                }),
                Record::Message {
                    from,
                    config_hash,
                    to,
                    message,
                } if from != self.me.replica && to.is_none_or(|to| to == self.me.replica) => {
                    self.heard.push_back(if config_hash == self.me.config_hash {
                        StreamEvent::Message(message)
                    } else {
                        StreamEvent::ConfiguredOtherwise(from)
                    });
                }
                Record::Message { .. } | Record::Opened { .. } | Record::Answer { .. } => {}
            }
        }
    }
}

/// Puts what waits into the log, in its order, as much at once as has come meanwhile.
async fn put_all(
    log: Client<Sequencer>,
    mut queue: mpsc::Receiver<Put>,
    tell: mpsc::Sender<StreamEvent>,
) {
    let mut first = None;
    loop {
        let Some(put) = (match first.take() {
            Some(put) => Some(put),
            None => queue.recv().await,
        }) else {
            return;
        };
        let mut bytes = put.record.size();
        let mut batch = vec![put];
        while let Ok(next) = queue.try_recv() {
            bytes += next.record.size();
            if batch.len() >= BATCH_MAX || bytes > BATCH_BYTES_MAX {
                first = Some(next);
                break;
            }
            batch.push(next);
        }
        let records = batch.iter().map(|put| put.record.clone()).collect();
        put_batch(&log, records, &tell).await;
        for answer in batch.iter().filter_map(|put| put.answer) {
            if tell.send(StreamEvent::Answered(answer)).await.is_err() {
                return;
            }
        }
    }
}

/// Until it stands in the log, or nobody wants it any more. What is too large for one command goes in parts; a single record that is never will be there.
async fn put_batch(
    log: &Client<Sequencer>,
    records: Vec<Record>,
    tell: &mpsc::Sender<StreamEvent>,
) {
    // Whether it is told is not worth waiting for.
    let trouble = |what: String| drop(tell.try_send(StreamEvent::Trouble(what)));
    let mut parts = vec![records];
    let mut said = false;
    while let Some(mut part) = parts.pop() {
        match log.execute(part.clone()).await {
            Ok(_) => said = false,
            Err(ClientError::TooLarge { .. }) if part.len() > 1 => {
                let rest = part.split_off(part.len() / 2);
                parts.extend([rest, part]);
            }
            Err(error @ ClientError::TooLarge { .. }) => trouble(format!(
                "what is said in the log is too large for it, and left out: {error}; raise the log's Limits::command_bytes_max"
            )),
            Err(_) if tell.is_closed() => return,
            Err(error) => {
                if !std::mem::replace(&mut said, true) {
                    trouble(format!("nothing can be put into the log: {error}"));
                }
                parts.push(part);
                sleep(AGAIN_AFTER).await;
            }
        }
    }
}

impl fmt::Debug for LogStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let me = self.open.as_ref().map(|open| open.me.replica);
        write!(f, "LogStream({me:?})")
    }
}

/// What may wait to be put into the log.
const PUTS_MAX: usize = 65_536;
const BATCH_MAX: usize = 512;
const BATCH_BYTES_MAX: usize = 256 << 10;
/// An attempt to put something into the log; then it is said, and tried again.
const ATTEMPT: Duration = Duration::from_secs(5);
const AGAIN_AFTER: Duration = Duration::from_millis(100);
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
