//! What the tasks of one transport share: who this is, the queues to the others, the counters.

use crate::codec::Dialect;
use crate::config::{TcpConfig, Unlisted, Unreachable, Way};
use crate::greeting::{ADDRESS_BYTES_MAX, Cause, Greeting};
use crate::queue::{Push, SendQueue};
use crate::source::Source;
use bytes::Bytes;
use kvrep_core::transport::{Hint, Inbox, InboxEvent, LocalPeer, TransportCounters};
use kvrep_core::{Incarnation, ReplicaId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, oneshot, watch};
use tokio::time::Instant;
use tracing::warn;

/// Replicas whose latest life is remembered, at most: more than may be listed, learned and heard as guests in any group.
const LIVES_MAX: usize = 1_024;

/// Members that connect without being listed, at most.
const GUESTS_MAX: usize = 64;

pub(crate) struct Shared {
    pub(crate) me: LocalPeer,
    pub(crate) config: TcpConfig,
    pub(crate) source: Source,
    pub(crate) inbox: Inbox,
    pub(crate) counters: Arc<Counters>,
    /// The listed peers without this one.
    pub(crate) peers: BTreeMap<ReplicaId, Arc<Peer>>,
    /// Members that are not listed, heard over the connections they made.
    guests: RwLock<BTreeMap<ReplicaId, Arc<Peer>>>,
    /// Members that are not listed, with the addresses they or others told; each change is a new number.
    learners: RwLock<BTreeMap<ReplicaId, Arc<Peer>>>,
    /// The latest life of each replica that was here. Of its own, for what is learned of a replica is replaced when it moves.
    lives: Mutex<BTreeMap<ReplicaId, Incarnation>>,
    /// Grows with every member that is learned.
    pub(crate) learned: watch::Sender<u64>,
    /// Where this one listens, as others may dial it; without an address of a machine, at the one that it dials from.
    pub(crate) listens: Option<String>,
    /// Connections that have not said yet what they are; dropping an entry ends the connection.
    greetings: Mutex<BTreeMap<u64, oneshot::Sender<()>>>,
    pub(crate) clients: Arc<Semaphore>,
    pub(crate) foreigners: Arc<Semaphore>,
    /// Number of the next accepted connection.
    accepted: AtomicU64,
    pub(crate) complaints: LogGate,
}

/// What is known of one other member.
pub(crate) struct Peer {
    pub(crate) id: ReplicaId,
    /// Where to dial; `None` for a guest.
    pub(crate) address: Option<String>,
    /// What is to be sent to it: over the dialled connection, or to a guest over its own.
    pub(crate) queue: SendQueue,
    /// Something was heard of it: dial again at once.
    pub(crate) retry: Notify,
    /// It was connected, and has not been found gone since.
    seen: AtomicBool,
    pub(crate) arrivals: Arc<Arrivals>,
    pub(crate) complaints: LogGate,
    /// It listens elsewhere now, and another entry has taken this one's place.
    pub(crate) retired: watch::Sender<bool>,
    /// Somebody keeps a connection to it.
    dialled: AtomicBool,
    /// Where it says that it listens, if that is not `address`.
    elsewhere: Mutex<Option<String>>,
    /// Where it was reached last.
    reached: Mutex<Option<String>>,
    /// Where it cannot be reached, and why, while it cannot.
    pub(crate) unreached: watch::Sender<Option<(String, Cause)>>,
}

/// The connections that a member makes. They stay one sequence when another entry takes its place because it listens elsewhere.
pub(crate) struct Arrivals {
    /// The newest one; older ones end.
    pub(crate) newest: watch::Sender<u64>,
    /// Held by the one that is being read.
    pub(crate) turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
pub(crate) struct Counters {
    sent: AtomicU64,
    received: AtomicU64,
    dropped: AtomicU64,
    refused: AtomicU64,
    /// Counted as sent, but never left the queue. Apart, so that no counter ever goes back below zero.
    unsent: AtomicU64,
}

/// A queue while its connection lasts; closed when dropped, however the task ends.
pub(crate) struct OpenQueue<'a> {
    queue: &'a SendQueue,
    counters: &'a Counters,
}

/// Lets a warning through every few seconds.
#[derive(Default)]
pub(crate) struct LogGate {
    last: Mutex<Option<Instant>>,
}

impl Shared {
    pub(crate) fn new(
        me: LocalPeer,
        config: TcpConfig,
        source: Source,
        inbox: Inbox,
        counters: Arc<Counters>,
        local: Option<SocketAddr>,
    ) -> Self {
        let listed = config.peers.get(&me.replica).cloned();
        // Where it listens on all its addresses, whoever hears this takes the one that it came from.
        let listens = listed
            .or_else(|| local.map(|local| local.to_string()))
            .filter(|address| address.len() <= ADDRESS_BYTES_MAX);
        let peers = config
            .peers
            .iter()
            .filter(|(id, _)| **id != me.replica)
            .map(|(id, address)| {
                (
                    *id,
                    Arc::new(Peer::new(*id, Some(address.clone()), &config)),
                )
            })
            .collect();
        Self {
            peers,
            guests: RwLock::default(),
            learners: RwLock::default(),
            lives: Mutex::default(),
            learned: watch::Sender::new(0),
            listens,
            greetings: Mutex::default(),
            clients: semaphore(config.limits.clients_max),
            foreigners: semaphore(config.limits.foreign_max),
            accepted: AtomicU64::new(1),
            complaints: LogGate::default(),
            me,
            config,
            source,
            inbox,
            counters,
        }
    }

    /// How members speak.
    pub(crate) fn dialect(&self) -> Dialect<'_> {
        match &self.config.codec {
            None => Dialect::Kvrep,
            Some(codec) => Dialect::Own(&**codec),
        }
    }

    /// Queues a frame, encoded, for one member.
    pub(crate) fn send(&self, to: ReplicaId, frame: Bytes) {
        let pushed = match self.peers.get(&to) {
            Some(peer) => peer.queue.push(frame),
            None => self
                .learned(to)
                .or_else(|| self.guest(to))
                .or_else(|| self.located(to))
                .map_or(Push::Closed, |guest| guest.queue.push(frame)),
        };
        match pushed {
            Push::Queued => self.counters.sent(1),
            Push::Full | Push::Closed => self.counters.dropped(1),
        }
    }

    /// Queues a frame for every member but this one. The witness is none.
    pub(crate) fn send_to_all(&self, frame: &Bytes) {
        for peer in self
            .peers
            .keys()
            .filter(|peer| **peer != ReplicaId::WITNESS)
        {
            self.send(*peer, frame.clone());
        }
        if self.config.unlisted != Unlisted::Refuse {
            let mut unlisted: BTreeSet<ReplicaId> = self.guests().keys().copied().collect();
            unlisted.extend(self.learners().keys());
            unlisted.remove(&ReplicaId::WITNESS);
            for member in unlisted {
                self.send(member, frame.clone());
            }
        }
    }

    fn learners(&self) -> RwLockReadGuard<'_, BTreeMap<ReplicaId, Arc<Peer>>> {
        self.learners.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// This life of the replica is here, unless a later one was: whether it is the latest.
    pub(crate) fn is_latest(&self, id: ReplicaId, life: Incarnation) -> bool {
        let mut lives = lock(&self.lives);
        if lives.len() >= LIVES_MAX && !lives.contains_key(&id) {
            return true;
        }
        let latest = lives.entry(id).or_insert(life);
        *latest = life.max(*latest);
        *latest == life
    }

    /// The learned member of this name.
    pub(crate) fn learned(&self, id: ReplicaId) -> Option<Arc<Peer>> {
        self.learners().get(&id).cloned()
    }

    /// The member that nobody has told of, where the rule says it is; it is dialled from now on.
    fn located(&self, id: ReplicaId) -> Option<Arc<Peer>> {
        let address = self.config.locate.as_ref()?(id)?;
        self.learn(id, &address);
        self.learned(id)
    }

    /// Where every other member that is known listens, but `to`: what a member is told. Of those that are listed, their
    /// own word counts, once they were heard.
    pub(crate) fn addresses(&self, to: ReplicaId) -> Vec<(ReplicaId, String)> {
        if self.config.unlisted != Unlisted::Learn {
            return Vec::new();
        }
        let learners = self.learners();
        self.peers
            .values()
            .chain(learners.values())
            .filter(|peer| peer.id != to && peer.id != ReplicaId::WITNESS)
            .filter_map(|peer| Some((peer.id, peer.current_address()?)))
            .filter(|(_, address)| address.len() <= ADDRESS_BYTES_MAX)
            .take(2 * GUESTS_MAX)
            .collect()
    }

    /// A member that is not listed listens there: it is dialled from now on, and the others are told, if it is news.
    pub(crate) fn learn(&self, id: ReplicaId, address: &str) {
        let wanted = self.config.unlisted == Unlisted::Learn
            && id != self.me.replica
            && id != ReplicaId::NOBODY
            && id != ReplicaId::WITNESS
            && address.len() <= ADDRESS_BYTES_MAX
            && !self.peers.contains_key(&id);
        if !wanted {
            return;
        }
        {
            let mut learners = self
                .learners
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            let known = learners.get(&id).map(|peer| peer.address.as_deref());
            if known == Some(Some(address)) || (known.is_none() && learners.len() >= GUESTS_MAX) {
                return;
            }
            let mut peer = Peer::new(id, Some(address.to_owned()), &self.config);
            if let Some(before) = learners.get(&id) {
                peer.arrivals = Arc::clone(&before.arrivals);
                before.retired.send_replace(true);
            }
            learners.insert(id, Arc::new(peer));
        }
        self.learned.send_modify(|number| *number += 1);
        let address = address.to_owned();
        let told = self.dialect().greeting(Greeting::Knows {
            replica: id,
            address,
        });
        for peer in self.peers.values().chain(self.learners().values()) {
            if peer.id != id && peer.id != ReplicaId::WITNESS {
                // Who is not connected is told when it is.
                let _ = peer.queue.push(told.clone());
            }
        }
    }

    /// The learned members that nobody keeps a connection to yet; the caller does.
    pub(crate) fn undialled(&self) -> Vec<(Arc<Peer>, String)> {
        self.learners()
            .values()
            .filter(|peer| !peer.dialled.swap(true, Ordering::Relaxed))
            .filter_map(|peer| Some((Arc::clone(peer), peer.address.clone()?)))
            .collect()
    }

    fn guests(&self) -> RwLockReadGuard<'_, BTreeMap<ReplicaId, Arc<Peer>>> {
        self.guests.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn guest(&self, id: ReplicaId) -> Option<Arc<Peer>> {
        self.guests().get(&id).cloned()
    }

    /// The guest of this name, new if need be; `None` when there are too many.
    pub(crate) fn welcome_guest(&self, id: ReplicaId) -> Option<Arc<Peer>> {
        let mut guests = self.guests.write().unwrap_or_else(PoisonError::into_inner);
        if guests.len() >= GUESTS_MAX && !guests.contains_key(&id) {
            return None;
        }
        let new = || Arc::new(Peer::new(id, None, &self.config));
        Some(Arc::clone(guests.entry(id).or_insert_with(new)))
    }

    /// Gives the node an event, waiting for room. Returns whether the node still runs.
    pub(crate) async fn deliver(&self, event: InboxEvent) -> bool {
        // Waiting costs an allocation; mostly there is room.
        match self.inbox.try_deliver(event) {
            Ok(()) => true,
            Err(event) => self.inbox.deliver(event).await,
        }
    }

    /// Tells the node what was seen of a peer.
    pub(crate) async fn hint(&self, peer: ReplicaId, hint: Hint) {
        self.deliver(InboxEvent::Hint { peer, hint }).await;
    }

    /// A peer hears this one, and says that it cannot reach it there to answer. Said, and told to the node, every few seconds at most.
    pub(crate) async fn unheard(&self, peer: &Peer, address: String, cause: Cause) {
        if !peer.complaints.opens() {
            return;
        }
        warn!(me = %self.me.replica, peer = %peer.id, %address, %cause, "it hears this replica, and cannot reach it to answer");
        if let Some(tell) = &self.config.on_unreachable {
            let me = self.me.replica;
            tell(&Unreachable {
                peer: peer.id,
                way: Way::Back { cause },
                why: format!(
                    "{} hears this replica, and cannot reach it there to answer ({cause}): correct the address that {me} tells the others (its own entry in TcpConfig::peers), or open the way to it",
                    peer.id
                ),
                address,
                refusal: None,
            });
        }
        self.hint(peer.id, Hint::Unheard).await;
    }

    /// Counts a new connection among those that have not said what they are; the oldest of them ends if there are
    /// too many. The connection ends when the receiver is woken.
    pub(crate) fn begin_greeting(&self) -> (u64, oneshot::Receiver<()>) {
        let id = self.accepted.fetch_add(1, Ordering::Relaxed);
        let (keep, evicted) = oneshot::channel();
        let mut greetings = self
            .greetings
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        greetings.insert(id, keep);
        if greetings.len() > self.config.limits.greetings_max {
            greetings.pop_first();
            self.counters.refused();
        }
        (id, evicted)
    }

    pub(crate) fn end_greeting(&self, id: u64) {
        let mut greetings = self
            .greetings
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        greetings.remove(&id);
    }
}

impl Peer {
    fn new(id: ReplicaId, address: Option<String>, config: &TcpConfig) -> Self {
        let limits = &config.limits;
        Self {
            id,
            address,
            queue: SendQueue::new(limits.queue_frames_max, limits.queue_bytes_max),
            retry: Notify::new(),
            seen: AtomicBool::new(false),
            arrivals: Arc::new(Arrivals {
                newest: watch::Sender::new(0),
                turn: tokio::sync::Mutex::default(),
            }),
            complaints: LogGate::default(),
            retired: watch::Sender::new(false),
            dialled: AtomicBool::new(false),
            elsewhere: Mutex::default(),
            reached: Mutex::default(),
            unreached: watch::Sender::new(None),
        }
    }

    /// It says that it listens there.
    pub(crate) fn told(&self, address: &str) {
        let other = self.address.as_deref() != Some(address);
        let fits = address.len() <= ADDRESS_BYTES_MAX;
        let new = (other && fits).then(|| address.to_owned());
        *lock(&self.elsewhere) = new;
    }

    /// It was reached there.
    pub(crate) fn reached_at(&self, address: &str) {
        *lock(&self.reached) = Some(address.to_owned());
        self.unreached.send_replace(None);
    }

    /// It was not reached there.
    pub(crate) fn not_reached_at(&self, address: &str, cause: Cause) {
        self.unreached.send_if_modified(|known| {
            let news =
                known.as_ref().map(|(at, why)| (at.as_str(), *why)) != Some((address, cause));
            if news {
                *known = Some((address.to_owned(), cause));
            }
            news
        });
    }

    /// Where it was reached last, or else where it is said to listen.
    pub(crate) fn current_address(&self) -> Option<String> {
        lock(&self.reached).clone().or_else(|| self.address.clone())
    }

    /// Where it says that it listens, if that is not the address that was given.
    pub(crate) fn elsewhere(&self) -> Option<String> {
        lock(&self.elsewhere).clone()
    }

    /// It is there.
    pub(crate) fn see(&self) {
        self.seen.store(true, Ordering::Relaxed);
    }

    /// Its machine says that nobody listens there. Whether that is news.
    pub(crate) fn lose(&self) -> bool {
        self.seen.swap(false, Ordering::Relaxed)
    }
}

impl Counters {
    pub(crate) fn sent(&self, frames: usize) {
        self.sent.fetch_add(frames as u64, Ordering::Relaxed);
    }

    pub(crate) fn received(&self) {
        self.received.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn dropped(&self, frames: usize) {
        self.dropped.fetch_add(frames as u64, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Frames that were counted as sent but never left their queue.
    pub(crate) fn unsent(&self, frames: usize) {
        self.unsent.fetch_add(frames as u64, Ordering::Relaxed);
        self.dropped(frames);
    }

    pub(crate) fn read(&self) -> TransportCounters {
        let unsent = self.unsent.load(Ordering::Relaxed);
        TransportCounters {
            frames_sent: self.sent.load(Ordering::Relaxed).saturating_sub(unsent),
            frames_received: self.received.load(Ordering::Relaxed),
            frames_dropped: self.dropped.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }
}

impl<'a> OpenQueue<'a> {
    pub(crate) fn new(queue: &'a SendQueue, counters: &'a Counters) -> Self {
        queue.open();
        Self { queue, counters }
    }
}

impl Drop for OpenQueue<'_> {
    fn drop(&mut self) {
        self.counters.unsent(self.queue.close());
    }
}

impl LogGate {
    /// Whether to log now.
    pub(crate) fn opens(&self) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let open = last.is_none_or(|last| now - last >= COMPLAIN_EVERY);
        if open {
            *last = Some(now);
        }
        open
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn semaphore(permits: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)))
}

const COMPLAIN_EVERY: Duration = Duration::from_secs(5);
