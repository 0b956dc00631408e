//! A client's way to a group: it asks the group who is there, and then one replica.
//!
//! Invariants:
//! - A call is answered or lost at the latest when its deadline passes, and lost sooner if its replica says nothing at all for [`SILENT_AFTER`].
//! - A request is sent again until it is answered, under the same number: a replica carries it out once, and sends its answer again.
//! - Whoever is asked for and not known is looked for, and while calls are made the group is asked again and again who is there.
//! - Whom of those whom it has heard to ask, and where, [`Replicas`] knows.
//!
//! Caveat: that a group is of this name cannot be told from a group that does not run: both are silent.

use crate::config::MulticastConfig;
use crate::datagram::{Heading, Piece, Said, To, pieces_of};
use crate::outbox::remedy;
use crate::reassembly::{Reassembly, Taken};
use crate::replicas::{Known, Replicas, SILENT_AFTER};
use crate::socket::own_socket;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use kvrep_core::client_wire::{Op, Outcome, Reply, Request};
use kvrep_core::node::{Client, ClientLink, LinkError};
use kvrep_core::wire::{self, FrameKind};
use kvrep_core::{GroupId, Incarnation, ReplicaId};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use tracing::debug;

/// A client of the group of this name. `S` is the group's state machine.
///
/// Nothing is sent before the first call, and no replica is listed: whoever answers is asked. For other options than the default ones, give a
/// [`MulticastGroupLink`] to [`Client::with_options`]. The [crate](crate) has an example.
pub fn connect<S>(group: &str, config: MulticastConfig) -> Client<S> {
    Client::new(MulticastGroupLink::new(group, config))
}

/// Reaches the replicas of one group by datagrams. See [`connect`].
///
/// ```
/// use kvrep_core::Fold;
/// use kvrep_core::node::{Client, ClientError, ClientOptions};
/// use kvrep_transport_multicast::{MulticastConfig, MulticastGroupLink};
/// use std::net::Ipv4Addr;
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let config = MulticastConfig::new("239.255.0.7:47812".parse().unwrap()).interface(Ipv4Addr::LOCALHOST);
/// let options = ClientOptions::default().deadline(Duration::from_millis(50));
/// let link = MulticastGroupLink::new("counter", config); // nobody is there
/// let client = Client::<Fold<i64, i64>>::with_options(link, options);
/// let error = client.execute(1).await.unwrap_err();
/// assert!(matches!(error, ClientError::Unavailable { .. })); // certainly nothing was done
/// # }
/// ```
pub struct MulticastGroupLink {
    config: MulticastConfig,
    /// Made at the first call, and again when the runtime that it ran on has ended.
    open: Mutex<Option<Open>>,
    shared: Arc<Shared>,
}

struct Open {
    socket: Arc<UdpSocket>,
    task: AbortHandle,
}

struct Shared {
    group: GroupId,
    /// Drawn, so that no two clients at one address are taken for one.
    me: Incarnation,
    state: Mutex<State>,
    /// Somebody was heard.
    heard: Notify,
    /// Somebody is asked for who is not known.
    missed: Notify,
}

struct State {
    replicas: Replicas,
    calls: BTreeMap<u64, oneshot::Sender<Outcome>>,
    /// Of requests, and of the frames that carry them.
    next_id: u64,
    /// There were calls since the group was asked last.
    asked: bool,
}

impl MulticastGroupLink {
    /// A link to the group of this name. Opens a socket when it is first used.
    #[must_use]
    pub fn new(group_name: &str, config: MulticastConfig) -> Self {
        let shared = Shared {
            group: GroupId::named(group_name),
            me: Incarnation(drawn()),
            state: Mutex::new(State {
                replicas: Replicas::new(config.timing.address_kept),
                calls: BTreeMap::new(),
                next_id: 0,
                asked: false,
            }),
            heard: Notify::new(),
            missed: Notify::new(),
        };
        Self {
            config,
            open: Mutex::default(),
            shared: Arc::new(shared),
        }
    }

    fn opened(&self) -> Result<Arc<UdpSocket>, LinkError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = open.as_ref().filter(|open| !open.task.is_finished()) {
            return Ok(Arc::clone(&open.socket));
        }
        self.config.validate().map_err(LinkError::Hopeless)?;
        let socket = own_socket(&self.config).map_err(|error| {
            LinkError::Hopeless(format!("no socket: {error}. {}", remedy(&error)))
        })?;
        let socket = Arc::new(socket);
        let hearing = hear(
            Arc::clone(&self.shared),
            Arc::clone(&socket),
            self.config.clone(),
        );
        *open = Some(Open {
            socket: Arc::clone(&socket),
            task: tokio::spawn(hearing).abort_handle(),
        });
        Ok(socket)
    }

    /// Asks the group who is there.
    async fn look(&self, socket: &UdpSocket) -> Result<(), LinkError> {
        let asked = self.shared.ask_who_is_there(socket, self.config.group);
        asked.await.map_err(|error| {
            LinkError::NotSent(format!(
                "the group cannot be reached: {error}. {}",
                remedy(&error)
            ))
        })
    }

    /// Waits for somebody to ask if nobody is known.
    async fn found(
        &self,
        socket: &UdpSocket,
        target: usize,
        deadline: Instant,
    ) -> Result<Known, LinkError> {
        loop {
            let heard = self.shared.heard.notified();
            tokio::pin!(heard);
            heard.as_mut().enable();
            {
                let state = self.shared.state();
                match state.replicas.get(target) {
                    Some(known) => return Ok(known),
                    None if target > 0 => {
                        return Err(LinkError::NotSent(format!("no target {target}")));
                    }
                    None => {}
                }
            }
            if Instant::now() >= deadline {
                let group = self.config.group;
                return Err(LinkError::NotSent(format!(
                    "nobody of this group answers at {group}: is the group's name right, and the interface, and does it run?"
                )));
            }
            self.look(socket).await?;
            let _ = timeout_at(deadline.min(Instant::now() + RESEND_EVERY), heard).await;
        }
    }
}

#[async_trait]
impl ClientLink for MulticastGroupLink {
    /// One as long as nobody was heard of: the first who will be.
    fn targets(&self) -> usize {
        self.shared.state().replicas.len().max(1)
    }

    fn resolve(&self, replica: ReplicaId, _: Option<&str>) -> Option<usize> {
        let state = self.shared.state();
        let target = state.replicas.target_of(replica);
        if target.is_none_or(|target| state.replicas.is_silent(Instant::now(), target)) {
            self.shared.missed.notify_one();
        }
        target
    }

    fn is_silent(&self, target: usize) -> bool {
        let state = self.shared.state();
        state.replicas.is_silent(Instant::now(), target)
    }

    async fn call(&self, target: usize, op: Op, deadline: Instant) -> Result<Outcome, LinkError> {
        let socket = self.opened()?;
        let known = self.found(&socket, target, deadline).await?;
        let (answer, outcome) = oneshot::channel();
        let id = {
            let mut state = self.shared.state();
            if state.calls.len() >= CALLS_MAX {
                return Err(LinkError::NotSent("too many calls are under way".into()));
            }
            state.next_id += 1;
            state.asked = true;
            let id = state.next_id;
            state.calls.insert(id, answer);
            id
        };
        let _forget = Forget {
            shared: &self.shared,
            id,
        };
        let frame = Request { id, op }.to_frame();
        let (bytes, bytes_max) = (frame.len(), self.config.limits.frame_bytes_max);
        if bytes > bytes_max {
            let (bytes, bytes_max) = (bytes as u64, bytes_max as u64);
            return Ok(Outcome::TooLarge { bytes, bytes_max });
        }
        let heading = |piece: Piece| self.shared.heading(Said::Piece(piece));
        let to = (To::One(known.replica), id);
        let pieces = pieces_of(&frame, self.config.piece_bytes_max(), heading, to);
        let pieces = pieces.unwrap_or_default();
        let began = Instant::now();
        let mut outcome = std::pin::pin!(outcome);
        let mut address = known.address;
        loop {
            for piece in &pieces {
                if let Err(error) = socket.send_to(piece, address).await {
                    debug!(%address, "not sent: {error}");
                }
            }
            let again = deadline.min(Instant::now() + RESEND_EVERY);
            if let Ok(answered) = timeout_at(again, &mut outcome).await {
                return answered.map_err(|_| LinkError::Lost("the link was closed".into()));
            }
            let now = self.shared.state().replicas.get(target);
            let Some(now) = now.filter(|now| now.incarnation == known.incarnation) else {
                let why = format!("{} was started anew", known.replica);
                return Err(LinkError::Lost(why));
            };
            if Instant::now() >= deadline {
                let why = format!("no reply from {} in time", known.replica);
                return Err(LinkError::Lost(why));
            }
            if now.heard.max(began).elapsed() > SILENT_AFTER {
                return Err(LinkError::Lost(format!("{} is silent", known.replica)));
            }
            address = now.address;
            // Whoever is there says so, and where, if it was started anew.
            self.look(&socket).await?;
        }
    }
}

impl Drop for MulticastGroupLink {
    fn drop(&mut self) {
        let open = self.open.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = open {
            open.task.abort();
        }
    }
}

impl fmt::Debug for MulticastGroupLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.state();
        let (group, at) = (self.shared.group, self.config.group);
        write!(
            f,
            "MulticastGroupLink({group:?} at {at}: {:?})",
            state.replicas
        )
    }
}

/// Takes a call off the list when its caller stops waiting.
struct Forget<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.shared.state().calls.remove(&self.id);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heading(&self, said: Said) -> Heading {
        Heading {
            group: self.group,
            from: ReplicaId::NOBODY,
            incarnation: self.me,
            config_hash: 0,
            said,
        }
    }

    async fn ask_who_is_there(&self, socket: &UdpSocket, group: SocketAddrV4) -> io::Result<()> {
        let mut hello = BytesMut::with_capacity(Heading::BYTES);
        self.heading(Said::Hello).encode(&mut hello);
        socket.send_to(&hello, group).await?;
        self.state().replicas.are_asked(Instant::now());
        Ok(())
    }

    /// A replica was heard, from this address.
    fn on_heard(&self, replica: ReplicaId, incarnation: Incarnation, address: SocketAddr) {
        let life = (replica, incarnation);
        self.state().replicas.heard(Instant::now(), life, address);
        self.heard.notify_waiters();
    }

    fn on_reply(&self, frame: &Bytes, bytes_max: usize) {
        let reply = match wire::decode_datagram(frame, bytes_max) {
            Ok((FrameKind::Reply, body)) => Reply::from_body(&body).ok(),
            Ok((FrameKind::Peer | FrameKind::Request | FrameKind::Handshake, _)) | Err(_) => None,
        };
        let Some(Reply { id, outcome }) = reply else {
            return debug!("what came as a reply is none");
        };
        let call = self.state().calls.remove(&id);
        if let Some(call) = call {
            // Its caller may have stopped waiting.
            let _ = call.send(outcome);
        }
    }
}

async fn hear(shared: Arc<Shared>, socket: Arc<UdpSocket>, config: MulticastConfig) {
    let mut frames = Reassembly::new(&config);
    let bytes_max = config.limits.frame_bytes_max;
    let mut buffer = vec![0; 65_536];
    let mut looking = interval(LOOK_EVERY);
    looking.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looked = None;
    loop {
        let received = tokio::select! {
            biased;
            _ = looking.tick() => {
                // Whoever came meanwhile has said so to the group, which is not heard here.
                if std::mem::take(&mut shared.state().asked) {
                    look(&shared, &socket, &config).await;
                }
                continue;
            }
            () = shared.missed.notified() => {
                // Whoever still misses it says so again.
                if looked.is_none_or(|at: Instant| at.elapsed() >= RESEND_EVERY) {
                    looked = Some(Instant::now());
                    look(&shared, &socket, &config).await;
                }
                continue;
            }
            received = socket.recv_from(&mut buffer) => received,
        };
        let (bytes, from) = match received {
            Ok(received) => received,
            Err(error) => {
                debug!("nothing was received: {error}");
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        let Ok((heading, data)) = Heading::decode(&buffer[..bytes]) else {
            continue;
        };
        if heading.group != shared.group {
            continue;
        }
        match heading.said {
            Said::Hello => shared.on_heard(heading.from, heading.incarnation, from),
            Said::Piece(piece) if piece.to == To::One(ReplicaId::NOBODY) => {
                shared.on_heard(heading.from, heading.incarnation, from);
                let sender = (heading.from, heading.incarnation, from);
                if let Taken::Whole(frame) =
                    frames.take(std::time::Instant::now(), sender, &piece, data)
                {
                    shared.on_reply(&frame, bytes_max);
                }
            }
            Said::Gone | Said::Later { .. } | Said::Piece(_) => {}
        }
    }
}

async fn look(shared: &Shared, socket: &UdpSocket, config: &MulticastConfig) {
    if let Err(error) = shared.ask_who_is_there(socket, config.group).await {
        // Whoever calls is told when it matters.
        debug!("the group cannot be asked: {error}");
    }
}

/// A number that no other client has.
fn drawn() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}

/// How often a request without an answer is sent again.
const RESEND_EVERY: Duration = Duration::from_millis(100);

/// How often the group is asked who is there, while calls are made.
const LOOK_EVERY: Duration = Duration::from_millis(500);

const CALLS_MAX: usize = 65_536;
