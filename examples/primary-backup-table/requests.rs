//! Brings clients' requests to whoever acts as primary: this server, or the other one if that is alive.
//!
//! A request that reaches the secondary does not make it primary as long as the primary answers: it is passed on. Only when
//! the primary is found dead does asking this server make it take over; the request waits for that. One that answers at the
//! primary's address and does not count this server as its secondary is no primary of this table: it began another one.
//!
//! What cannot be answered (nobody serves, or it is not known whether a write was carried out) has no word on this wire:
//! the caller hangs up, and the client turns to the other server.

use super::policy::GROUP;
use super::skel::Ask;
use kvrep_core::client_wire::{Op, Outcome};
use kvrep_core::node::{ClientLink, LinkError, LocalLink, Node};
use kvrep_core::protocol::ProtocolStatus;
use kvrep_core::{GroupId, ReplicaId};
use kvrep_transport_tcp::{LinkLimits, TcpLink};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// There is no answer to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoAnswer;

/// The way to whoever serves.
pub struct Requests {
    me: ReplicaId,
    here: LocalLink,
    within: Duration,
    other: Mutex<Option<Other>>,
}

/// A connection to the other server.
#[derive(Clone)]
struct Other {
    address: String,
    link: Arc<TcpLink>,
}

impl Requests {
    /// By way of this node. A request waits for at most `within` until somebody serves it.
    #[must_use]
    pub fn new(node: &Node, within: Duration) -> Self {
        Self {
            me: node.identity().replica,
            here: LocalLink::new([node]),
            within,
            other: Mutex::new(None),
        }
    }

    /// The outcome of a request, from this server or from the primary.
    ///
    /// # Errors
    /// [`NoAnswer`]: nobody serves, or what became of it is not known.
    pub async fn carry_out(&self, ask: &Ask) -> Result<Outcome, NoAnswer> {
        self.carry_out_until(ask, Instant::now() + self.within)
            .await
    }

    async fn carry_out_until(&self, ask: &Ask, deadline: Instant) -> Result<Outcome, NoAnswer> {
        let op = ask.to_op();
        let mut pause = PAUSE_MIN;
        while Instant::now() < deadline {
            let met = self.here.call(0, op.clone(), deadline).await;
            let met = match met {
                Ok(Outcome::NotPrimary {
                    primary: Some(primary),
                    address: Some(address),
                }) if primary != self.me => match self.alive(&address).await {
                    Some(link) => link.call(op.clone(), deadline).await,
                    None => Err(LinkError::NotSent("the primary is dead".into())),
                },
                met => met,
            };
            match met {
                // Suspended while a server is brought up to date, or until somebody takes over.
                Ok(Outcome::Busy | Outcome::NotPrimary { .. }) | Err(LinkError::NotSent(_)) => {}
                Ok(Outcome::Unknown | Outcome::Behind) | Err(LinkError::Lost(_)) => {
                    if !ask.may_be_repeated() {
                        return Err(NoAnswer);
                    }
                }
                Ok(outcome) => return Ok(outcome),
                Err(_) => return Err(NoAnswer),
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        Err(NoAnswer)
    }

    /// The server there, if it answers: it is asked each time, for one that is stopped keeps its connections.
    async fn alive(&self, address: &str) -> Option<Arc<TcpLink>> {
        let deadline = Instant::now() + ALIVE_WITHIN;
        let link = match self.connected(address) {
            Some(link) => link,
            None => {
                let group = GroupId::named(GROUP);
                let made = TcpLink::connect(address, group, LinkLimits::default(), deadline).await;
                let link = Arc::new(made.ok()?);
                let other = Other {
                    address: address.to_owned(),
                    link: Arc::clone(&link),
                };
                *self.other.lock().unwrap_or_else(PoisonError::into_inner) = Some(other);
                link
            }
        };
        match link.call(Op::Status, deadline).await {
            Ok(Outcome::Status(status)) => knows(&status, self.me).then_some(link),
            Ok(_) | Err(_) => None,
        }
    }

    fn connected(&self, address: &str) -> Option<Arc<TcpLink>> {
        let other = self.other.lock().unwrap_or_else(PoisonError::into_inner);
        let other = other.as_ref()?;
        (other.address == address && !other.link.is_closed()).then(|| Arc::clone(&other.link))
    }
}

/// Whether the one that says this of itself serves the table of which `me` has a copy.
fn knows(status: &ProtocolStatus, me: ReplicaId) -> bool {
    let configuration = status.configuration.as_ref();
    configuration.is_none_or(|c| c.members.contains_key(&me))
}

/// The primary is alive if it answers within this.
const ALIVE_WITHIN: Duration = Duration::from_millis(500);
const PAUSE_MIN: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(50);
