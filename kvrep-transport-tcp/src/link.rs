//! A client's connection to one replica: many calls at a time, each paired with its reply by a number.
//!
//! Calls made at about the same time leave with one write. When the connection ends, every call under way learns it at
//! once. A call that failed says whether the request may have reached the replica: if it may, its outcome is unknown,
//! and only asking again within the same session tells.
//!
//! One link is one connection. Connecting again is the business of [`TcpGroupLink`](crate::TcpGroupLink), finding the
//! primary that of the client above it.

use crate::greeting::{Greeting, Refusal};
use crate::queue::{Push, SendQueue};
use crate::reader::{FrameReader, Patience, ReadError};
use crate::writer::write_frames;
use bytes::BytesMut;
use kvrep_core::client_wire::{Op, Outcome, Reply, Request};
use kvrep_core::node::LinkError;
use kvrep_core::node::linger::Linger;
use kvrep_core::wire::{FrameKind, HEADER_BYTES};
use kvrep_core::{GroupId, ReplicaId};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

/// Why there is no connection. Nothing was sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("{0}")]
    Failed(String),
    /// It is no address.
    #[error("{0}")]
    BadAddress(String),
    /// The replica does not talk to this client; trying again does not help.
    #[error("{0}")]
    Refused(Refusal),
}

/// How much a link holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LinkLimits {
    /// Largest body of a reply. 4 MiB by default.
    pub reply_bytes_max: usize,
    /// Calls under way at a time; more are not sent. 65,536 by default.
    pub calls_max: usize,
    /// Bytes of requests waiting to be written; more are not sent. 32 MiB by default.
    pub request_bytes_max: usize,
}

impl ConnectError {
    /// What it is for whoever wanted to call.
    pub(crate) fn lasts(&self) -> Lasts {
        match self {
            Self::Failed(_) | Self::Refused(Refusal::TooManyClients { .. }) => Lasts::AWhile,
            Self::BadAddress(_)
            | Self::Refused(
                Refusal::OtherGroup { .. }
                | Refusal::OtherConfiguration { .. }
                | Refusal::WrongReplica { .. }
                | Refusal::NotListed { .. }
                | Refusal::OtherVersion { .. }
                | Refusal::OtherDialect { .. }
                | Refusal::Superseded { .. },
            ) => Lasts::UntilChanged,
        }
    }
}

/// Whether trying again helps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lasts {
    /// It may.
    AWhile,
    /// Not before somebody changes an address, a name or a program.
    UntilChanged,
}

impl Lasts {
    /// The error with these words.
    pub(crate) fn error(self, why: String) -> LinkError {
        match self {
            Self::AWhile => LinkError::NotSent(why),
            Self::UntilChanged => LinkError::Hopeless(why),
        }
    }
}

impl Default for LinkLimits {
    fn default() -> Self {
        Self {
            reply_bytes_max: kvrep_core::Limits::default().frame_bytes_max,
            calls_max: 65_536,
            request_bytes_max: 32 << 20,
        }
    }
}

/// A connection to one replica. See the [crate](crate).
///
/// A client of a whole group uses [`connect`](crate::connect). This is for tools that ask one certain replica:
///
/// ```
/// use kvrep_core::client_wire::{Op, Outcome};
/// use kvrep_core::{Fold, GroupId, Node, ReplicaId};
/// use kvrep_transport_tcp::{LinkLimits, TcpConfig, TcpLink, TcpTransport};
/// use tokio::time::{Duration, Instant};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let transport = TcpTransport::bind(TcpConfig::new("127.0.0.1:0")).await?;
/// # let address = transport.local_addr().unwrap().to_string();
/// # let node = Node::builder("counter", ReplicaId(1))
/// #     .transport(transport)
/// #     .state_machine(Fold::new(0_i64, |sum, by: i64| *sum += by))
/// #     .start()
/// #     .await?;
/// let deadline = Instant::now() + Duration::from_secs(5);
/// let group = GroupId::named("counter");
/// let link = TcpLink::connect(&address, group, LinkLimits::default(), deadline).await?;
/// assert_eq!(link.replica(), ReplicaId(1));
/// let outcome = link.call(Op::Status, deadline).await?;
/// assert!(matches!(outcome, Outcome::Status(_)));
/// # node.shutdown().await?;
/// # Ok(())
/// # }
/// ```
pub struct TcpLink {
    shared: Arc<Shared>,
    task: AbortHandle,
    replica: ReplicaId,
}

struct Shared {
    queue: SendQueue,
    next_id: AtomicU64,
    pending: Mutex<Pending>,
    calls_max: usize,
    /// Largest body of a request that the replica reads, as it said.
    body_bytes_max: u64,
}

#[derive(Default)]
struct Pending {
    calls: BTreeMap<u64, oneshot::Sender<Outcome>>,
    /// Set when the connection has ended.
    why_ended: Option<String>,
}

impl TcpLink {
    /// Connects to the replica at `address` (`HOST:PORT`), which must belong to the group.
    ///
    /// # Errors
    /// [`LinkError::NotSent`] when it cannot be reached by the deadline; [`LinkError::Hopeless`] when it is no address, or
    /// not one of this group.
    pub async fn connect(
        address: &str,
        group: GroupId,
        limits: LinkLimits,
        deadline: Instant,
    ) -> Result<Self, LinkError> {
        let connected = Self::dial(address, group, limits, deadline).await;
        connected.map_err(|error| error.lasts().error(format!("{address}: {error}")))
    }

    pub(crate) async fn dial(
        address: &str,
        group: GroupId,
        limits: LinkLimits,
        deadline: Instant,
    ) -> Result<Self, ConnectError> {
        timeout_at(deadline, Self::open(address, group, limits))
            .await
            .unwrap_or_else(|_| Err(ConnectError::Failed("no answer in time".into())))
    }

    async fn open(address: &str, group: GroupId, limits: LinkLimits) -> Result<Self, ConnectError> {
        let failed = |error: std::io::Error| ConnectError::Failed(error.to_string());
        let connected = TcpStream::connect(address).await;
        let mut stream = connected.map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidInput => ConnectError::BadAddress(error.to_string()),
            _ => failed(error),
        })?;
        if stream.local_addr().ok() == stream.peer_addr().ok() {
            // TCP lets a port without listener connect to itself, if the system chooses it as our own.
            return Err(failed(std::io::ErrorKind::ConnectionRefused.into()));
        }
        stream.set_nodelay(true).map_err(failed)?;
        let hello = Greeting::Client { group }.to_frame();
        stream.write_all(&hello).await.map_err(failed)?;
        let mut reader = FrameReader::new(stream, BytesMut::new(), CHUNK_BYTES, PATIENCE);
        let unclear = |why: ReadError| ConnectError::Failed(why.to_string());
        let answer = match reader
            .next(|_| limits.reply_bytes_max)
            .await
            .map_err(unclear)?
        {
            (FrameKind::Handshake, body) => Greeting::from_body(&body),
            (FrameKind::Peer | FrameKind::Request | FrameKind::Reply, _) => None,
        };
        let (replica, body_bytes_max) = match answer {
            Some(Greeting::Welcome {
                replica,
                request_bytes_max,
                ..
            }) => (replica, request_bytes_max),
            Some(Greeting::Refused(refusal)) => return Err(ConnectError::Refused(refusal)),
            Some(
                Greeting::Peer(_)
                | Greeting::Client { .. }
                | Greeting::Ping
                | Greeting::Pong
                | Greeting::Knows { .. }
                | Greeting::Unreached { .. },
            )
            | None => return Err(unclear(ReadError::Unexpected)),
        };
        let (stream, read_already) = reader.into_parts();
        let shared = Arc::new(Shared {
            queue: SendQueue::new(limits.calls_max, limits.request_bytes_max),
            next_id: AtomicU64::new(1),
            pending: Mutex::default(),
            calls_max: limits.calls_max,
            body_bytes_max,
        });
        shared.queue.open();
        let task = tokio::spawn(run(
            Arc::clone(&shared),
            stream,
            read_already,
            limits.reply_bytes_max,
        ));
        Ok(Self {
            shared,
            task: task.abort_handle(),
            replica,
        })
    }

    /// Sends the request and waits for its outcome. Dropping the future abandons the call, not the request.
    ///
    /// # Errors
    /// Whether the request may have reached the replica: see [`LinkError`].
    pub async fn call(&self, op: Op, deadline: Instant) -> Result<Outcome, LinkError> {
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let frame = Request { id, op }.to_frame();
        let bytes = (frame.len() - HEADER_BYTES) as u64;
        if bytes > self.shared.body_bytes_max {
            // The replica would end the connection, and with it the calls of others.
            let bytes_max = self.shared.body_bytes_max;
            return Ok(Outcome::TooLarge { bytes, bytes_max });
        }
        let (answer, outcome) = oneshot::channel();
        {
            let mut pending = self.shared.pending();
            if let Some(why) = &pending.why_ended {
                return Err(LinkError::NotSent(why.clone()));
            }
            if pending.calls.len() >= self.shared.calls_max {
                return Err(LinkError::NotSent("too many calls are under way".into()));
            }
            pending.calls.insert(id, answer);
        }
        let _forget = Forget {
            shared: &self.shared,
            id,
        };
        match self.shared.queue.push(frame) {
            Push::Queued => {}
            Push::Full => return Err(LinkError::NotSent("too many calls are under way".into())),
            Push::Closed => return Err(LinkError::NotSent(self.shared.why_ended())),
        }
        match timeout_at(deadline, outcome).await {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(_)) => Err(LinkError::Lost(self.shared.why_ended())),
            Err(_) => Err(LinkError::Lost("no reply in time".into())),
        }
    }

    /// Who was reached.
    #[must_use]
    pub fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// Whether the connection has ended; no call succeeds any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.pending().why_ended.is_some()
    }
}

impl Drop for TcpLink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for TcpLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpLink")
            .field("replica", &self.replica)
            .field("calls", &self.shared.pending().calls.len())
            .finish_non_exhaustive()
    }
}

/// Takes a call off the list when its caller stops waiting.
struct Forget<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.shared.pending().calls.remove(&self.id);
    }
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn why_ended(&self) -> String {
        let ended = self.pending().why_ended.clone();
        ended.unwrap_or_else(|| ReadError::Ended.to_string())
    }
}

/// Carries requests and replies until the connection ends; then every call under way learns it.
async fn run(
    shared: Arc<Shared>,
    stream: TcpStream,
    read_already: BytesMut,
    reply_bytes_max: usize,
) {
    let (from, to) = stream.into_split();
    let to = Arc::new(to);
    shared.queue.attach(Arc::clone(&to));
    let mut reader = FrameReader::new(from, read_already, CHUNK_BYTES, PATIENCE);
    let why = tokio::select! {
        why = read_replies(&shared, &mut reader, reply_bytes_max) => why,
        written = write_frames(&to, &shared.queue, None) => match written {
            Ok(()) => ReadError::Ended,
            Err(error) => error.into(),
        },
    };
    let calls = {
        let mut pending = shared.pending();
        pending.why_ended = Some(why.to_string());
        std::mem::take(&mut pending.calls)
    };
    shared.queue.close();
    drop(calls);
}

async fn read_replies<R: AsyncRead + Unpin>(
    shared: &Shared,
    reader: &mut FrameReader<R>,
    reply_bytes_max: usize,
) -> ReadError {
    let mut linger = Linger::new();
    loop {
        match linger.on(reader.next(|_| reply_bytes_max)).await {
            Ok((FrameKind::Reply, body)) => {
                let Ok(Reply { id, outcome }) = Reply::from_body(&body) else {
                    return ReadError::Unexpected;
                };
                // A reply that nobody waits for any more is no fault of the replica.
                let call = shared.pending().calls.remove(&id);
                if let Some(call) = call {
                    let _ = call.send(outcome);
                }
            }
            Ok((FrameKind::Peer | FrameKind::Request | FrameKind::Handshake, _)) => {
                return ReadError::Unexpected;
            }
            Err(why) => return why,
        }
    }
}

const CHUNK_BYTES: usize = 16 << 10;
/// Calls have deadlines of their own; only half a reply is not waited for.
const PATIENCE: Patience = Patience {
    idle: Duration::from_secs(3_600 * 24 * 365),
    frame: Duration::from_secs(10),
};
