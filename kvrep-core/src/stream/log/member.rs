//! One member's end of a stream over a log: its node of the log, its ear there, and what it puts into it.

use super::ear::Ear;
use super::puts::{Put, Puts};
use super::sequencer::{CallId, Record, Sequencer};
use crate::client_wire::Outcome;
use crate::node::{
    Client, ClientError, ClientLink, ClientOptions, Feed, Node, NodeBuilder, NodeError, NodeEvent,
    Subscription,
};
use crate::protocol::Event;
use crate::protocol::active::{AnswerNumber, Message, Published};
use crate::state_machine::{decode, encode};
use crate::stream::{OrderedStream, StreamEvent, StreamMember};
use crate::transport::{Destination, TransportError};
use async_trait::async_trait;
use bytes::Bytes;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// One member's end of a stream over a log. See the [module](super).
pub struct LogStream {
    log: Option<NodeBuilder>,
    link: Arc<dyn ClientLink>,
    open: Option<Open>,
}

struct Open {
    node: Node,
    feed: Subscription,
    events: broadcast::Receiver<NodeEvent>,
    ear: Ear,
    puts: mpsc::Sender<Put>,
    told: mpsc::Receiver<StreamEvent>,
    pump: JoinSet<()>,
    /// When the opening is put into the log again, unless it is heard.
    opens_again: Instant,
    /// Why the node has ended was told.
    ended: bool,
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
            events: node.events(),
            node,
            feed,
            ear: Ear::new(me, opening),
            puts,
            told,
            pump,
            opens_again: Instant::now() + Ear::OPEN_AGAIN_AFTER,
            ended: false,
        };
        // The feed is there: what is put into the log from now on comes out of it.
        open.put(open.ear.opening(), None);
        self.open = Some(open);
        Ok(())
    }

    async fn next(&mut self) -> Option<StreamEvent> {
        let open = self.open.as_mut()?;
        loop {
            if let Some(event) = open.ear.next() {
                return Some(event);
            }
            tokio::select! {
                Some(event) = open.told.recv() => return Some(event),
                () = sleep_until(open.opens_again), if !open.ear.is_open() => {
                    open.opens_again = Instant::now() + Ear::OPEN_AGAIN_AFTER;
                    open.put(open.ear.opening(), None);
                }
                Ok(event) = open.events.recv() => {
                    if let Some(what) = trouble_of(&event) {
                        return Some(StreamEvent::Trouble(what));
                    }
                }
                fed = open.feed.next() => match fed {
                    Some(fed) => open.hear(&fed),
                    None => return open.node_ended().await,
                },
            }
        }
    }

    fn publish(&mut self, published: &Published) {
        if let Some(open) = &mut self.open {
            let item = published.encode(open.ear.me().group);
            open.put(Record::Item(item), None);
        }
    }

    fn send(&mut self, to: Destination, message: &Message) {
        if let Some(open) = &mut self.open {
            let record = Record::said(open.ear.me(), to, message);
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
            Err(_) => open.ear.tell(StreamEvent::Answered(number)),
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
            self.ear.miss();
            if let Some(number) = answer {
                self.ear.tell(StreamEvent::Answered(number));
            }
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
        match fed {
            Feed::Applied(command) => {
                if let Ok((records, _)) = command.decode::<Sequencer>() {
                    self.ear.hear(records);
                }
            }
            Feed::Lagged { .. } | Feed::Replaced { .. } => {
                if let Some(opening) = self.ear.skip() {
                    self.put(opening, None);
                }
            }
        }
    }
}

/// What members' operators should know of the log itself.
pub(super) fn trouble_of(event: &NodeEvent) -> Option<String> {
    match event {
        NodeEvent::Protocol(Event::AcknowledgedWritesLost { from, .. }) => Some(format!(
            "the log under the stream has parted into two histories, and this node's is not the one that counts: what stood in it from {from} on was taken back, and is lost without being counted here. A witness prevents it"
        )),
        NodeEvent::Protocol(Event::Refused(why)) => Some(format!(
            "this member's node of the log may not serve: {why}"
        )),
        NodeEvent::Protocol(_) | NodeEvent::Storage(_) => None,
    }
}

/// Puts what waits into the log, in its order, as much at once as has come meanwhile.
async fn put_all(
    log: Client<Sequencer>,
    mut queue: mpsc::Receiver<Put>,
    tell: mpsc::Sender<StreamEvent>,
) {
    let mut puts = Puts::new(BATCH_BYTES_MAX);
    loop {
        if puts.waiting() == 0 {
            let Some(put) = queue.recv().await else {
                return;
            };
            puts.push(put);
        }
        while puts.waiting() < AT_HAND_MAX
            && let Ok(put) = queue.try_recv()
        {
            puts.push(put);
        }
        put_batch(&log, puts.take(), &tell).await;
        for answer in puts.stored() {
            if tell.send(StreamEvent::Answered(answer)).await.is_err() {
                return;
            }
        }
    }
}

/// Until it stands in the log, or nobody wants it any more. What is too large for one command goes in parts, also a piece of a state; another single record that is never will be there.
pub(super) async fn put_batch(
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
            Err(error @ ClientError::TooLarge { .. }) => {
                match part.pop().and_then(Record::halves) {
                    Some(halves) => parts.extend(halves.map(|half| vec![half]).into_iter().rev()),
                    None => trouble(format!(
                        "what is said in the log is too large for it, and left out: {error}; raise the log's Limits::command_bytes_max"
                    )),
                }
            }
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
        let me = self.open.as_ref().map(|open| open.ear.me().replica);
        write!(f, "LogStream({me:?})")
    }
}

/// What may wait to be put into the log.
const PUTS_MAX: usize = 65_536;
/// Taken out of that queue before the next command is made.
const AT_HAND_MAX: usize = 1_024;
const BATCH_BYTES_MAX: usize = 256 << 10;
/// An attempt to put something into the log; then it is said, and tried again.
const ATTEMPT: Duration = Duration::from_secs(5);
const AGAIN_AFTER: Duration = Duration::from_millis(100);
const CLOSE_WITHIN: Duration = Duration::from_secs(2);
