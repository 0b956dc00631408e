//! A client's way to a whole group: one [`TcpLink`] per address, made when it is first needed, and again when it has
//! ended.
//!
//! Invariants:
//! - At most one connection is made to an address at a time; all calls that need it wait for the same attempt, each at
//!   most until its own deadline. An attempt outlives the calls that wait for it, so that a slow network is reached in
//!   the end, however impatient each call is.
//! - Before there is a connection nothing was sent, so every error of connecting is [`LinkError::NotSent`].
//! - A call over a connection that stands takes no lock that is held while anybody waits.
//!
//! Caveat: addresses are compared as text. A replica that is listed as `localhost:7001` and named `127.0.0.1:7001` by
//! a redirect is recognised while it is connected, and becomes a second target otherwise; that costs nothing but a
//! connection.

use crate::link::{Lasts, LinkLimits, TcpLink};
use async_trait::async_trait;
use kvrep_core::client_wire::{Op, Outcome};
use kvrep_core::node::{Client, ClientLink, LinkError};
use kvrep_core::{GroupId, ReplicaId};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// A client of the group of this name, reached at any of `addresses` (`HOST:PORT`); one that lives is enough, the
/// others are learned from it. `S` is the group's state machine.
///
/// Nothing is connected before the first call. For other options than the default ones, give a [`TcpGroupLink`] to
/// [`Client::with_options`].
///
/// ```
/// # use kvrep_core::{Node, ReplicaId};
/// # use kvrep_transport_tcp::{TcpConfig, TcpTransport};
/// use kvrep_core::{Fold, Read};
/// use kvrep_transport_tcp::connect;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let transport = TcpTransport::bind(TcpConfig::new("127.0.0.1:0")).await?;
/// # let address = transport.local_addr().unwrap().to_string();
/// # let node = Node::builder("counters", ReplicaId(1))
/// #     .transport(transport)
/// #     .state_machine(Fold::new(0_i64, |sum, by: i64| *sum += by))
/// #     .start()
/// #     .await?;
/// let client = connect::<Fold<i64, i64>>("counters", [address]);
/// assert_eq!(client.execute(2).await?, 2);
/// assert_eq!(client.query(Read::Linearizable, ()).await?, 2);
/// # node.shutdown().await?;
/// # Ok(())
/// # }
/// ```
///
/// # Panics
/// Without an address.
pub fn connect<S>(
    group: &str,
    addresses: impl IntoIterator<Item = impl Into<String>>,
) -> Client<S> {
    Client::new(TcpGroupLink::new(group, addresses))
}

/// Reaches the replicas of one group over TCP. See the [crate](crate) and [`connect`].
///
/// ```
/// use kvrep_core::Fold;
/// use kvrep_core::node::{Client, ClientError, ClientOptions};
/// use kvrep_transport_tcp::TcpGroupLink;
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let options = ClientOptions::default().deadline(Duration::from_millis(50));
/// let link = TcpGroupLink::new("counter", ["127.0.0.1:1"]); // nobody is there
/// let client = Client::<Fold<i64, i64>>::with_options(link, options);
/// let error = client.execute(1).await.unwrap_err();
/// assert!(matches!(error, ClientError::Unavailable { .. })); // certainly nothing was done
/// # }
/// ```
pub struct TcpGroupLink {
    group: GroupId,
    limits: LinkLimits,
    targets: RwLock<Vec<Arc<Target>>>,
}

/// One address.
struct Target {
    address: String,
    state: Mutex<State>,
}

enum State {
    Idle,
    Connecting(watch::Receiver<Option<Attempt>>),
    Connected(Arc<TcpLink>),
    /// It is no address of this group: not asked again at once, and told with every other failure.
    Wrong {
        why: String,
        since: Instant,
    },
}

type Attempt = Result<Arc<TcpLink>, NoLink>;

/// Why there is no connection.
#[derive(Clone)]
struct NoLink {
    why: String,
    lasts: Lasts,
}

impl NoLink {
    fn for_now(why: &str) -> Self {
        Self {
            why: why.into(),
            lasts: Lasts::AWhile,
        }
    }
}

impl TcpGroupLink {
    /// A link to the group of this name, at these addresses (`HOST:PORT`). Connects when it is first used.
    ///
    /// # Panics
    /// Without an address.
    pub fn new(group_name: &str, addresses: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let mut targets: Vec<Arc<Target>> = Vec::new();
        for address in addresses {
            let address = address.into();
            if targets.iter().all(|target| target.address != address) {
                targets.push(Target::new(address));
            }
        }
        assert!(!targets.is_empty(), "a link needs an address");
        Self {
            group: GroupId::named(group_name),
            limits: LinkLimits::default(),
            targets: RwLock::new(targets),
        }
    }

    /// Sets the limits of each connection.
    #[must_use]
    pub fn limits(mut self, limits: LinkLimits) -> Self {
        self.limits = limits;
        self
    }

    fn read(&self) -> RwLockReadGuard<'_, Vec<Arc<Target>>> {
        self.targets.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every other address that is none of this group, for the one who reads the error.
    fn wrong(&self, but: &Target) -> String {
        let targets = self.read().clone();
        let others = targets.iter().filter(|t| t.address != but.address);
        others
            .filter_map(|target| match &*target.state() {
                State::Wrong { why, .. } => Some(format!("; {}: {why}", target.address)),
                State::Idle | State::Connecting(_) | State::Connected(_) => None,
            })
            .collect()
    }

    async fn connection(
        &self,
        target: &Arc<Target>,
        deadline: Instant,
    ) -> Result<Arc<TcpLink>, LinkError> {
        let mut attempt = match target.attempt(self.group, self.limits) {
            Ok(attempt) => attempt,
            Err(why) => return Err(self.not_sent(target, why)),
        };
        let finished = timeout_at(deadline, attempt.wait_for(Option::is_some)).await;
        let why = match finished.map(|finished| finished.map(|result| result.clone())) {
            Ok(Ok(Some(Ok(link)))) => return Ok(link),
            Ok(Ok(Some(Err(why)))) => why,
            Ok(Ok(None) | Err(_)) => NoLink::for_now("the runtime that connected was shut down"),
            Err(_) => NoLink::for_now("not connected in time"),
        };
        Err(self.not_sent(target, why))
    }

    fn not_sent(&self, target: &Target, NoLink { why, lasts }: NoLink) -> LinkError {
        lasts.error(format!("{}: {why}{}", target.address, self.wrong(target)))
    }
}

#[async_trait]
impl ClientLink for TcpGroupLink {
    fn targets(&self) -> usize {
        self.read().len()
    }

    fn resolve(&self, replica: ReplicaId, address: Option<&str>) -> Option<usize> {
        let known = |targets: &[Arc<Target>]| {
            let listed = targets
                .iter()
                .position(|target| address == Some(&*target.address));
            listed.or_else(|| targets.iter().position(|t| t.replica() == Some(replica)))
        };
        if let Some(target) = known(&self.read()) {
            return Some(target);
        }
        let address = address.filter(|address| can_be_dialled(address))?;
        let mut targets = self.targets.write().unwrap_or_else(PoisonError::into_inner);
        // Somebody else may have added it meanwhile.
        if let Some(target) = known(&targets) {
            return Some(target);
        }
        if targets.len() >= TARGETS_MAX {
            return None;
        }
        targets.push(Target::new(address.to_owned()));
        Some(targets.len() - 1)
    }

    async fn call(&self, target: usize, op: Op, deadline: Instant) -> Result<Outcome, LinkError> {
        let Some(target) = self.read().get(target).cloned() else {
            return Err(LinkError::NotSent(format!("no target {target}")));
        };
        let link = match target.connected() {
            Some(link) => link,
            None => self.connection(&target, deadline).await?,
        };
        link.call(op, deadline).await
    }
}

impl Target {
    fn new(address: String) -> Arc<Self> {
        Arc::new(Self {
            address,
            state: Mutex::new(State::Idle),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connected(&self) -> Option<Arc<TcpLink>> {
        match &*self.state() {
            State::Connected(link) if !link.is_closed() => Some(Arc::clone(link)),
            State::Connected(_) | State::Idle | State::Connecting(_) | State::Wrong { .. } => None,
        }
    }

    /// Who is there, as far as a standing connection tells: the same address may be another replica's tomorrow.
    fn replica(&self) -> Option<ReplicaId> {
        self.connected().map(|link| link.replica())
    }

    /// The attempt to connect that is under way, or a new one; or why there is none.
    fn attempt(
        self: &Arc<Self>,
        group: GroupId,
        limits: LinkLimits,
    ) -> Result<watch::Receiver<Option<Attempt>>, NoLink> {
        let mut state = self.state();
        match &*state {
            // A sender that is gone without a result went with its runtime.
            State::Connecting(attempt) if attempt.has_changed().is_ok() => {
                return Ok(attempt.clone());
            }
            State::Connected(link) if !link.is_closed() => {
                return Ok(watch::channel(Some(Ok(Arc::clone(link)))).1);
            }
            State::Wrong { why, since } if since.elapsed() < WRONG_FOR => {
                return Err(NoLink {
                    why: why.clone(),
                    lasts: Lasts::UntilChanged,
                });
            }
            State::Idle | State::Connecting(_) | State::Connected(_) | State::Wrong { .. } => {}
        }
        let (result, attempt) = watch::channel(None);
        *state = State::Connecting(attempt.clone());
        let target = Arc::clone(self);
        tokio::spawn(async move {
            let made = target.connect(group, limits).await;
            result.send_replace(Some(made));
        });
        Ok(attempt)
    }

    async fn connect(&self, group: GroupId, limits: LinkLimits) -> Attempt {
        let deadline = Instant::now() + CONNECT_WITHIN;
        let made = TcpLink::dial(&self.address, group, limits, deadline).await;
        let (state, attempt) = match made {
            Ok(link) => {
                let link = Arc::new(link);
                (State::Connected(Arc::clone(&link)), Ok(link))
            }
            Err(error) => {
                let (why, lasts) = (error.to_string(), error.lasts());
                let state = match lasts {
                    Lasts::AWhile => State::Idle,
                    Lasts::UntilChanged => State::Wrong {
                        why: why.clone(),
                        since: Instant::now(),
                    },
                };
                (state, Err(NoLink { why, lasts }))
            }
        };
        *self.state() = state;
        attempt
    }
}

impl fmt::Debug for TcpGroupLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<_> = self.read().iter().map(|t| t.address.clone()).collect();
        write!(f, "TcpGroupLink({:?} at {addresses:?})", self.group)
    }
}

/// Not an address that only says "any of mine": a replica that listens on all of its addresses does not know which of
/// them others reach it by.
fn can_be_dialled(address: &str) -> bool {
    match address.parse::<SocketAddr>() {
        Ok(address) => !address.ip().is_unspecified() && address.port() != 0,
        Err(_) => address.contains(':') && address.len() <= ADDRESS_BYTES_MAX,
    }
}

/// Targets, at most, after addresses were learned from redirects. As many as were given are always taken.
const TARGETS_MAX: usize = 64;
/// The longest host name, and a port.
const ADDRESS_BYTES_MAX: usize = 253 + 6;
/// For a connection to be made.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// For how long an address that is none of this group is not asked again.
const WRONG_FOR: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_add_targets_up_to_a_limit_and_only_those_that_can_be_dialled() {
        let link = TcpGroupLink::new("tests", ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:1"]);
        assert_eq!(link.targets(), 2);
        assert_eq!(link.resolve(ReplicaId(7), Some("127.0.0.1:2")), Some(1));
        assert_eq!(link.resolve(ReplicaId(3), None), None);
        assert_eq!(link.resolve(ReplicaId(3), Some("0.0.0.0:7000")), None);
        assert_eq!(link.resolve(ReplicaId(3), Some("[::]:7000")), None);
        assert_eq!(link.resolve(ReplicaId(3), Some("nonsense")), None);
        assert_eq!(link.resolve(ReplicaId(3), Some("n3.example:7000")), Some(2));
        assert_eq!(link.resolve(ReplicaId(3), Some("n3.example:7000")), Some(2));
        for port in 1_000..1_100 {
            link.resolve(ReplicaId(4), Some(&format!("10.0.0.4:{port}")));
        }
        assert_eq!(link.targets(), TARGETS_MAX);
    }
}
