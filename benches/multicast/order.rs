//! Three members of one ordered stream over a log, without a state machine above it: a message counts when all three were delivered it.

use bytes::Bytes;
use kvrep_benches::load::Caller;
use kvrep_core::client_wire::{Op, Outcome};
use kvrep_core::node::{ClientLink, Node};
use kvrep_core::protocol::active::{Item, Published, Request};
use kvrep_core::stream::log::LogStream;
use kvrep_core::stream::{OrderedStream, StreamEvent, StreamMember};
use kvrep_core::{GroupId, Incarnation, ReplicaId};
use kvrep_transport_multicast::{MulticastConfig, MulticastGroupLink, MulticastTransport};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

pub(crate) struct Order {
    members: Vec<mpsc::Sender<Published>>,
    delivered: Arc<Delivered>,
    /// To the log, to hear how far it has come.
    log: MulticastGroupLink,
    tasks: JoinSet<()>,
}

pub(crate) struct Slot {
    member: mpsc::Sender<Published>,
    delivered: Arc<Delivered>,
    bytes: usize,
}

/// Who waits for which message, and at how many members it is not yet.
#[derive(Default)]
struct Delivered {
    missing: Mutex<HashMap<u64, (usize, oneshot::Sender<()>)>>,
    next: AtomicU64,
}

pub(crate) async fn start(config: MulticastConfig) -> Result<Order, String> {
    let delivered = Arc::new(Delivered::default());
    let (mut members, mut opened, mut tasks) = (Vec::new(), Vec::new(), JoinSet::new());
    for me in MEMBERS {
        let log = Node::builder(LOG, me)
            .members(MEMBERS)
            .transport(MulticastTransport::new(config.clone()));
        let mut stream = LogStream::new(log, MulticastGroupLink::new(LOG, config.clone()));
        let me = StreamMember {
            group: GroupId::named("bench"),
            replica: me,
            incarnation: Incarnation(1),
            members: MEMBERS.into(),
            config_hash: 7,
            request_bytes_max: 1 << 20,
            state_bytes_max: 1 << 20,
        };
        stream.open(me).await.map_err(|error| error.to_string())?;
        let (put, puts) = mpsc::channel(PUTS_MAX);
        let (open, is_open) = oneshot::channel();
        tasks.spawn(member(stream, puts, open, Arc::clone(&delivered)));
        members.push(put);
        opened.push(is_open);
    }
    for is_open in opened {
        let opened = timeout(PATIENCE, is_open).await;
        opened
            .map_err(|_| "the stream did not open in time")?
            .map_err(|_| "a member ended")?;
    }
    Ok(Order {
        members,
        delivered,
        log: MulticastGroupLink::new(LOG, config),
        tasks,
    })
}

/// Puts into the stream what its callers say, and tells what comes out, until there are no callers.
async fn member(
    mut stream: LogStream,
    mut puts: mpsc::Receiver<Published>,
    open: oneshot::Sender<()>,
    delivered: Arc<Delivered>,
) {
    let mut open = Some(open);
    loop {
        tokio::select! {
            put = puts.recv() => match put {
                Some(published) => stream.publish(&published),
                None => break,
            },
            event = stream.next() => match event {
                Some(StreamEvent::Delivered { published, .. }) => {
                    if let Item::Request(request) = published.item {
                        delivered.at_one_more(request.hash);
                    }
                }
                Some(StreamEvent::Opened) => drop(open.take().map(|open| open.send(()))),
                Some(_) => {}
                None => break,
            },
        }
    }
    stream.close().await;
}

impl Order {
    /// They share the members.
    pub(crate) fn callers(&self, clients: u32, bytes: usize) -> Vec<Slot> {
        let members = self.members.iter().cycle().take(clients as usize);
        members
            .map(|member| Slot {
                member: member.clone(),
                delivered: Arc::clone(&self.delivered),
                bytes,
            })
            .collect()
    }

    /// How many messages were put into the stream so far, and how many entries its log has.
    pub(crate) async fn progress(&self) -> Result<(u64, u64), String> {
        let asked = self.log.call(0, Op::Status, Instant::now() + PATIENCE);
        match asked.await {
            Ok(Outcome::Status(status)) => {
                let messages = self.delivered.next.load(Ordering::Relaxed);
                Ok((messages, status.last.index.0))
            }
            other => Err(format!("the log says {other:?}")),
        }
    }

    pub(crate) async fn stop(mut self) {
        drop(self.members);
        while self.tasks.join_next().await.is_some() {}
    }
}

impl Delivered {
    fn at_one_more(&self, number: u64) {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((members, _)) = missing.get_mut(&number) else {
            return;
        };
        *members -= 1;
        if *members == 0
            && let Some((_, waits)) = missing.remove(&number)
        {
            let _ = waits.send(());
        }
    }
}

impl Caller for Slot {
    async fn call(&mut self) -> Result<(), String> {
        let number = self.delivered.next.fetch_add(1, Ordering::Relaxed);
        let (tell, told) = oneshot::channel();
        {
            let missing = &self.delivered.missing;
            let mut missing = missing.lock().unwrap_or_else(PoisonError::into_inner);
            missing.insert(number, (MEMBERS.len(), tell));
        }
        let op = Op::Plain(Bytes::from(vec![7; self.bytes]));
        let request = Request::of_op(op, number, Bytes::new());
        let item = Item::Request(request.map_err(|refused| format!("{refused:?}"))?);
        let put = self.member.send(Published { stamp: None, item }).await;
        put.map_err(|_| "a member ended")?;
        match timeout(PATIENCE, told).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err("a message was not delivered to all in time".into()),
        }
    }
}

const LOG: &str = "bench/log";
const MEMBERS: [ReplicaId; 3] = [ReplicaId(1), ReplicaId(2), ReplicaId(3)];
/// As many as callers can have under way.
const PUTS_MAX: usize = 10_000;
const PATIENCE: Duration = Duration::from_secs(20);
