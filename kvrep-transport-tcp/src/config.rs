//! Settings of the TCP transport. They are a node's own: replicas of one group may differ in them.

use crate::codec::{self, Codec};
use crate::foreign::ForeignService;
use crate::greeting::{Cause, Refusal};
use kvrep_core::ReplicaId;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Where to listen, whom to talk to, and how much and how long.
///
/// ```
/// use kvrep_core::ReplicaId;
/// use kvrep_transport_tcp::TcpConfig;
///
/// let config = TcpConfig::new("127.0.0.1:7001")
///     .peer(ReplicaId(2), "127.0.0.1:7002")
///     .peer(ReplicaId(3), "127.0.0.1:7003")
///     .peer(ReplicaId::WITNESS, "127.0.0.1:7000");
/// assert_eq!(config.peers.len(), 3);
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct TcpConfig {
    /// Where to listen: `HOST:PORT`. Port 0 takes a free one.
    pub listen: String,
    /// Where the others are (`HOST:PORT`), the witness under [`ReplicaId::WITNESS`]. An entry of this replica itself
    /// is not dialled; it is what clients are told. The same map may so be given to every replica.
    pub peers: BTreeMap<ReplicaId, String>,
    /// The address to dial peers from, on a machine that has several. Without one, where `listen` is a specific
    /// address, from that. A replica is so known by its address: a firewall can cut it off from the others.
    pub dial_from: Option<IpAddr>,
    /// What to do with a member of the group that is not among `peers`.
    pub unlisted: Unlisted,
    /// Where a member is that is neither listed nor has told where it listens. See [`locate`](Self::locate).
    pub locate: Option<Locate>,
    /// Who is told of peers that cannot be reached. See [`on_unreachable`](Self::on_unreachable).
    pub on_unreachable: Option<OnUnreachable>,
    /// See [`TcpLimits`].
    pub limits: TcpLimits,
    /// See [`TcpTiming`].
    pub timing: TcpTiming,
    /// Serves connections that do not speak kvrep's wire. Without one they are closed and counted.
    pub foreign: Option<Arc<dyn ForeignService>>,
    /// How members speak to each other, the same on every one of them. Without one, in kvrep's own binary wire.
    /// kvrep's clients are served beside it.
    pub codec: Option<Arc<dyn Codec>>,
}

/// Tells a replica's address by its id.
pub type Locate = Arc<dyn Fn(ReplicaId) -> Option<String> + Send + Sync>;

/// Is told of a peer that cannot be reached.
pub type OnUnreachable = Arc<dyn Fn(&Unreachable) + Send + Sync>;

/// A peer that cannot be reached, or cannot reach this replica, for a reason that somebody must remove.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Unreachable {
    /// The other end.
    pub peer: ReplicaId,
    /// Who is not reached: the peer, or this replica.
    pub way: Way,
    /// Where whoever is not reached was tried.
    pub address: String,
    /// What it was told there, if it was refused.
    pub refusal: Option<Refusal>,
    /// Why, and what to do, in the library's words.
    pub why: String,
}

/// Which of two replicas does not reach the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Way {
    /// This one does not reach the peer.
    There,
    /// The peer hears this one, and says that it does not reach it to answer: the address that this one tells the others
    /// (its own entry in [`TcpConfig::peers`], or else where it listens) is wrong for them, or the way to it is closed.
    Back {
        /// What the peer sees.
        cause: Cause,
    },
}

/// What to do with a member of the group that connects without being listed.
///
/// ```
/// use kvrep_core::Node;
/// use kvrep_transport_tcp::{TcpConfig, TcpTransport, Unlisted};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let temporary = tempfile::tempdir()?;
/// # let directory = temporary.path().join("witness");
/// let config = TcpConfig::new("127.0.0.1:0").unlisted(Unlisted::Answer);
/// let witness = Node::witness("counters")
///     .transport(TcpTransport::bind(config).await?)
///     .data_dir(directory)
///     .start()
///     .await?;
/// # witness.shutdown().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Unlisted {
    /// Learn from its greeting where it listens, dial it as if it were listed, and tell the others where it is; for at most
    /// 64 such members. Right for replicas: a newcomer then need only list some of the group, in either direction. (Who
    /// belongs, the group decides; what does not is heard by nobody.)
    #[default]
    Learn,
    /// Tell it that it is not listed here, and close. Right where every address must be known beforehand.
    Refuse,
    /// Hear it, and answer over the connection it made, for at most 64 such members. Right for a witness, which
    /// then needs no list.
    Answer,
}

/// How much a transport holds. Each queue drops (and counts) the newest at its limit.
///
/// ```
/// use kvrep_core::{Authority, GroupConfig, ReplicaId};
/// use kvrep_transport_tcp::{TcpConfig, TcpLimits};
///
/// let mut group = GroupConfig::new([1, 2, 3].map(ReplicaId), Authority::Alone);
/// group.limits.command_bytes_max = 8 << 20;
/// group.limits.frame_bytes_max = 16 << 20;
/// let mut limits = TcpLimits::for_group(&group.limits); // every frame that the group may send fits
/// limits.clients_max = 100;
/// assert_eq!(TcpConfig::new("127.0.0.1:0").limits(limits).validate(), Ok(()));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct TcpLimits {
    /// Largest body of a frame between replicas, and of a reply. At least the group's `Limits::frame_bytes_max`.
    /// 4 MiB by default.
    pub frame_bytes_max: usize,
    /// Largest body of a client's request. 1 MiB and 4 KiB by default.
    pub request_bytes_max: usize,
    /// Frames waiting for one peer, or as replies for one client. 65,536 by default.
    pub queue_frames_max: usize,
    /// Bytes waiting for one peer. As much again may be on its way into the socket. 32 MiB by default.
    pub queue_bytes_max: usize,
    /// Bytes of replies waiting for one client. A client that lets more pile up is disconnected. 8 MiB by default.
    pub reply_bytes_max: usize,
    /// Connections that have not said yet what they are; the oldest goes when one more comes. 256 by default.
    pub greetings_max: usize,
    /// Connected kvrep clients; more are refused. 1,024 by default.
    pub clients_max: usize,
    /// Connected foreign clients; more are closed. 1,024 by default.
    pub foreign_max: usize,
}

/// How long a transport waits.
///
/// ```
/// use kvrep_transport_tcp::{TcpConfig, TcpTiming};
/// use std::time::Duration;
///
/// let mut timing = TcpTiming::default();
/// timing.client_idle_after = Duration::from_secs(3_600);
/// assert_eq!(TcpConfig::new("127.0.0.1:0").timing(timing).validate(), Ok(()));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct TcpTiming {
    /// For a connection to be made. 1 s by default.
    pub connect_within: Duration,
    /// For a connection to say who it is, and for the answer. 3 s by default.
    pub handshake_within: Duration,
    /// Where there is a service for [foreign](TcpConfig::foreign) clients: for a connection to say anything, if that is longer; an older one ends earlier where more than
    /// [`TcpLimits::greetings_max`] have said nothing yet. 3 s by default.
    pub foreign_begins_within: Duration,
    /// For the next frame of a peer, and for the rest of a frame that has begun. Peers send a sign of life every
    /// third of this. 5 s by default.
    pub idle_after: Duration,
    /// For the next request of a client. 5 minutes by default.
    pub client_idle_after: Duration,
    /// After the first failed attempt to connect. 5 ms by default.
    pub backoff_min: Duration,
    /// After many failed attempts, and after a refusal. 1 s by default.
    pub backoff_max: Duration,
}

impl TcpConfig {
    /// Listens here and knows nobody yet.
    pub fn new(listen: impl Into<String>) -> Self {
        Self {
            listen: listen.into(),
            peers: BTreeMap::new(),
            dial_from: None,
            unlisted: Unlisted::default(),
            locate: None,
            on_unreachable: None,
            limits: TcpLimits::default(),
            timing: TcpTiming::default(),
            foreign: None,
            codec: None,
        }
    }

    /// Adds a peer.
    #[must_use]
    pub fn peer(mut self, replica: ReplicaId, address: impl Into<String>) -> Self {
        self.peers.insert(replica, address.into());
        self
    }

    /// Adds peers. This replica may be among them, so that all are given the same.
    #[must_use]
    pub fn peers<A: Into<String>>(
        mut self,
        peers: impl IntoIterator<Item = (ReplicaId, A)>,
    ) -> Self {
        let peers = peers.into_iter();
        self.peers
            .extend(peers.map(|(id, address)| (id, address.into())));
        self
    }

    /// Sets the address to dial peers from. Peers whose addresses are of the other family (IPv4, IPv6) are then not
    /// reached.
    #[must_use]
    pub fn dial_from(mut self, address: IpAddr) -> Self {
        self.dial_from = Some(address);
        self
    }

    /// Serves connections that do not speak kvrep's wire.
    #[must_use]
    pub fn foreign(mut self, service: Arc<dyn ForeignService>) -> Self {
        self.foreign = Some(service);
        self
    }

    /// Lets members speak another dialect. See the [module](crate::codec).
    #[must_use]
    pub fn codec(mut self, codec: Arc<dyn Codec>) -> Self {
        self.codec = Some(codec);
        self
    }

    /// Sets what happens to members that are not listed.
    #[must_use]
    pub fn unlisted(mut self, unlisted: Unlisted) -> Self {
        self.unlisted = unlisted;
        self
    }

    /// Sets the rule by which members are found that are neither listed nor learned (and [may be](Unlisted::Learn)): for groups
    /// in which the id of a replica tells its address. A replica that restarts then reaches whoever joined since its list
    /// was written. What a member says of itself, or others of it, counts before the rule.
    ///
    /// ```
    /// use kvrep_transport_tcp::TcpConfig;
    ///
    /// let config = TcpConfig::new("10.0.0.7:9000")
    ///     .locate(|replica| Some(format!("10.0.0.{}:9000", u8::try_from(replica.0).ok()?)));
    /// # let _ = config;
    /// ```
    #[must_use]
    pub fn locate(
        mut self,
        rule: impl Fn(ReplicaId) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.locate = Some(Arc::new(rule));
        self
    }

    /// Tells of peers that cannot be reached for a reason that somebody must remove: they refuse this one, or somebody else
    /// listens there; and of those that hear this replica and cannot reach it to answer. It is logged, too; this is for programs that say it in
    /// words of their own. Called at most every few seconds for a peer; it must not block.
    ///
    /// ```
    /// use kvrep_transport_tcp::TcpConfig;
    ///
    /// let config = TcpConfig::new("10.0.0.7:9000")
    ///     .on_unreachable(|trouble| eprintln!("{}: {}", trouble.address, trouble.why));
    /// # let _ = config;
    /// ```
    #[must_use]
    pub fn on_unreachable(mut self, tell: impl Fn(&Unreachable) + Send + Sync + 'static) -> Self {
        self.on_unreachable = Some(Arc::new(tell));
        self
    }

    /// Sets the limits.
    #[must_use]
    pub fn limits(mut self, limits: TcpLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the waits.
    #[must_use]
    pub fn timing(mut self, timing: TcpTiming) -> Self {
        self.timing = timing;
        self
    }

    /// Checks that the values make sense.
    ///
    /// # Errors
    /// A sentence that says what to change.
    pub fn validate(&self) -> Result<(), String> {
        let (l, t) = (&self.limits, &self.timing);
        if self.peers.contains_key(&ReplicaId::NOBODY) {
            return Err(format!("replica id {} is reserved", ReplicaId::NOBODY.0));
        }
        for (peer, address) in &self.peers {
            let port = address
                .rsplit_once(':')
                .map(|(host, port)| (host, port.parse()));
            if !matches!(port, Some((host, Ok(1_u16..))) if !host.is_empty())
                && *peer != ReplicaId::NOBODY
            {
                return Err(format!(
                    "the address of {peer} is {address:?}: write it as HOST:PORT, such as 10.0.0.2:7001"
                ));
            }
        }
        if self.dial_from.is_some_and(|from| from.is_unspecified()) {
            return Err(
                "dial_from must be one address of this machine; leave it out for any".into(),
            );
        }
        let frame_sizes = 1024..=u32::MAX as usize / 2;
        if !frame_sizes.contains(&l.frame_bytes_max) || !frame_sizes.contains(&l.request_bytes_max)
        {
            return Err("frame_bytes_max and request_bytes_max must be 1 KiB to 2 GiB".into());
        }
        let counts = [
            l.queue_frames_max,
            l.greetings_max,
            l.queue_bytes_max,
            l.reply_bytes_max,
        ];
        if counts.contains(&0) {
            return Err("limits of queues and of greetings must not be zero".into());
        }
        let waits = [
            t.connect_within,
            t.handshake_within,
            t.foreign_begins_within,
            t.idle_after,
            t.client_idle_after,
            t.backoff_min,
        ];
        if waits.iter().any(|wait| *wait < Duration::from_millis(1))
            || t.backoff_max < t.backoff_min
        {
            return Err("waits must be at least 1 ms, and backoff_max at least backoff_min".into());
        }
        self.codec.as_deref().map_or(Ok(()), codec::check)
    }
}

impl Default for TcpLimits {
    fn default() -> Self {
        let group = kvrep_core::Limits::default();
        Self {
            frame_bytes_max: group.frame_bytes_max,
            request_bytes_max: group.command_bytes_max + 4_096,
            queue_frames_max: 65_536,
            queue_bytes_max: 32 << 20,
            reply_bytes_max: 8 << 20,
            greetings_max: 256,
            clients_max: 1_024,
            foreign_max: 1_024,
        }
    }
}

impl TcpLimits {
    /// Limits that fit those of the group.
    #[must_use]
    pub fn for_group(limits: &kvrep_core::Limits) -> Self {
        Self {
            frame_bytes_max: limits.frame_bytes_max,
            request_bytes_max: limits.command_bytes_max + 4_096,
            queue_bytes_max: (4 * limits.inflight_bytes_max).max(2 * limits.frame_bytes_max),
            reply_bytes_max: (8 << 20).max(2 * limits.command_bytes_max),
            ..Self::default()
        }
    }
}

impl Default for TcpTiming {
    fn default() -> Self {
        Self {
            connect_within: Duration::from_secs(1),
            handshake_within: Duration::from_secs(3),
            foreign_begins_within: Duration::from_secs(3),
            idle_after: Duration::from_secs(5),
            client_idle_after: Duration::from_secs(300),
            backoff_min: Duration::from_millis(5),
            backoff_max: Duration::from_secs(1),
        }
    }
}

impl fmt::Debug for TcpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpConfig")
            .field("listen", &self.listen)
            .field("peers", &self.peers)
            .field("dial_from", &self.dial_from)
            .field("unlisted", &self.unlisted)
            .field("limits", &self.limits)
            .field("timing", &self.timing)
            .field("locate", &self.locate.is_some())
            .field("on_unreachable", &self.on_unreachable.is_some())
            .field("foreign", &self.foreign.is_some())
            .field("codec", &self.codec.is_some())
            .finish()
    }
}
