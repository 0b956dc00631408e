//! What a replica of the active scheme is made of.

use super::super::builder::this_life;
use super::super::events::{Ended, Events};
use super::super::start::StartError;
use super::runner::{self, Keeping, Runner};
use super::{ActiveIdentity, ActiveNode};
use crate::config::Limits;
use crate::id::{GroupId, Incarnation, ReplicaId};
use crate::protocol::active::{Active, Config, Create, Options, Responder, Timing, Watch};
use crate::state_machine::{RawStateMachine, StateMachine, Typed};
use crate::stream::{OrderedStream, StreamMember};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tracing::Instrument;

/// Describes a replica of the active scheme. State machine and stream have no default.
///
/// ```
/// use kvrep_core::protocol::active::Responder;
/// use kvrep_core::stream::memory::StreamHub;
/// use kvrep_core::{ActiveNode, Fold, ReplicaId};
///
/// let hub = StreamHub::new();
/// let replica = ActiveNode::builder("counter", ReplicaId(1))
///     .members([1, 2, 3].map(ReplicaId))
///     .confirmations(2) // an answer waits until two have what it says
///     .responder(Responder::LowestLive)
///     .stream(hub.stream())
///     .state_machine(Fold::new(0_i64, |sum, by: i64| *sum += by));
/// // … and replica.start().await
/// # drop(replica);
/// ```
pub struct ActiveBuilder {
    group: String,
    replica: ReplicaId,
    config: Config,
    create: Create,
    incarnation: Option<Incarnation>,
    machine: Option<Box<dyn RawStateMachine>>,
    stream: Option<Box<dyn OrderedStream>>,
    set_aside: Option<PathBuf>,
    state_bytes_max: usize,
    shutdown_within: Duration,
}

impl ActiveBuilder {
    pub(super) fn new(group: &str, replica: ReplicaId) -> Self {
        Self {
            group: group.to_owned(),
            replica,
            config: Config::new([replica]),
            create: Create::default(),
            incarnation: None,
            machine: None,
            stream: None,
            set_aside: None,
            state_bytes_max: 1 << 30,
            shutdown_within: Duration::from_secs(10),
        }
    }

    /// All members, this one among them; the same at each. Without it, a group of one.
    #[must_use]
    pub fn members(mut self, members: impl IntoIterator<Item = ReplicaId>) -> Self {
        self.config.members = members.into_iter().collect();
        self
    }

    /// How many members must be known to have the history that an answer is made from: 1 by default; more than one must be more than half.
    #[must_use]
    pub fn confirmations(mut self, members: usize) -> Self {
        self.config.confirmations = members;
        self
    }

    /// Who answers a request.
    #[must_use]
    pub fn responder(mut self, who: Responder) -> Self {
        self.config.responder = who;
        self
    }

    /// Who finds out that a member is dead.
    #[must_use]
    pub fn failure_watch(mut self, who: Watch) -> Self {
        self.config.watch = who;
        self
    }

    /// The group's times.
    #[must_use]
    pub fn timing(mut self, timing: Timing) -> Self {
        self.config.timing = timing;
        self
    }

    /// The group's limits.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.config.limits = limits;
        self
    }

    /// Everything that the group agrees on, at once.
    #[must_use]
    pub fn group(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Whether this replica may begin a history when nobody answers.
    #[must_use]
    pub fn create(mut self, create: Create) -> Self {
        self.create = create;
        self
    }

    /// This life of the replica, which must be above every earlier one. Without it, the microseconds since 1970. Where the others remember a later
    /// one, the replica goes on as one after that ([`Event::ClockBehind`](crate::protocol::active::Event::ClockBehind)).
    #[must_use]
    pub fn incarnation(mut self, incarnation: Incarnation) -> Self {
        self.incarnation = Some(incarnation);
        self
    }

    /// Where the order comes from.
    #[must_use]
    pub fn stream(mut self, stream: impl OrderedStream) -> Self {
        self.stream = Some(Box::new(stream));
        self
    }

    /// The state machine.
    #[must_use]
    pub fn state_machine(self, machine: impl StateMachine) -> Self {
        self.raw_state_machine(Typed(machine))
    }

    /// A state machine over bytes.
    #[must_use]
    pub fn raw_state_machine(mut self, machine: impl RawStateMachine) -> Self {
        self.machine = Some(Box::new(machine));
        self
    }

    /// Keeps the states of histories that do not count in this directory (the last eight of them). Without one they are thrown away.
    #[must_use]
    pub fn set_aside_in(mut self, directory: impl Into<PathBuf>) -> Self {
        self.set_aside = Some(directory.into());
        self
    }

    /// The largest state that is taken over (default 1 GiB).
    #[must_use]
    pub fn state_bytes_max(mut self, bytes: usize) -> Self {
        self.state_bytes_max = bytes;
        self
    }

    /// How long [`ActiveNode::shutdown`] may take (default 10 s).
    #[must_use]
    pub fn shutdown_within(mut self, time: Duration) -> Self {
        self.shutdown_within = time;
        self
    }

    /// Opens the stream and starts the replica. **It returns before the replica serves**: that is when it has listened whether another process has its
    /// number (it ends then, with [`NodeError::AlreadyRunning`](crate::node::NodeError::AlreadyRunning)), and has got what the others have, or has begun a history.
    /// To wait for that, watch its [status](ActiveNode::watch), or its [events](ActiveNode::events) for a
    /// [`Serving`](crate::protocol::active::Event::Serving).
    ///
    /// ```
    /// use kvrep_core::stream::memory::StreamHub;
    /// use kvrep_core::{ActiveNode, Fold, ReplicaId};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let node = ActiveNode::builder("sums", ReplicaId(1))
    ///     .stream(StreamHub::new().stream())
    ///     .state_machine(Fold::new(0_i64, |sum, by: i64| *sum += by))
    ///     .start()
    ///     .await?;
    /// tokio::select! {
    ///     status = async { node.watch().wait_for(|status| status.serving).await.is_ok() } => assert!(status),
    ///     ended = node.wait() => ended?, // why it will never serve
    /// }
    /// assert!(node.status().serving);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When the description is wrong, or the stream cannot be opened. Nothing runs then.
    pub async fn start(self) -> Result<ActiveNode, StartError> {
        let Self {
            group,
            replica,
            config,
            create,
            incarnation,
            machine,
            stream,
            set_aside,
            state_bytes_max,
            shutdown_within,
        } = self;
        let wrong = |why: &str| StartError::Config(why.to_owned());
        let machine =
            machine.ok_or_else(|| wrong("a replica needs a state machine: call state_machine"))?;
        let mut stream =
            stream.ok_or_else(|| wrong("a replica needs an ordered stream: call stream"))?;
        let incarnation = incarnation.unwrap_or_else(this_life);
        let me = StreamMember {
            group: GroupId::named(&group),
            replica,
            incarnation,
            members: config.members.iter().copied().collect(),
            config_hash: config.hash(),
            request_bytes_max: config.limits.command_bytes_max,
            state_bytes_max,
        };
        let mut options = Options::new(replica, incarnation, config);
        options.create = create;
        let active =
            Active::new(options, machine).map_err(|error| StartError::Config(error.to_string()))?;
        stream.open(me).await?;

        let (asked, questions) = mpsc::channel(QUESTIONS_MAX);
        let (happens, events) = Events::channel();
        let (status, watched) = watch::channel(active.status());
        let (ends, ended) = Ended::channel();
        let identity = ActiveIdentity {
            group: group.clone(),
            replica,
            incarnation,
        };
        let keeping = Keeping::new(set_aside, &identity);
        let runner = Runner::new(
            active,
            stream,
            (&group, replica),
            keeping,
            (status, happens),
        );
        let span = tracing::info_span!("node", %group, %replica);
        let running = tokio::spawn(runner.run(questions).instrument(span));
        tokio::spawn(async move {
            let result = match running.await {
                Ok((mut stream, result)) => {
                    let closed = timeout(shutdown_within, stream.close()).await;
                    result.and(closed.map_err(|_| runner::close_timed_out()))
                }
                Err(error) => Err(runner::panicked(error)),
            };
            ends.send_replace(Some(result));
        });
        Ok(ActiveNode {
            identity,
            asked,
            status: watched,
            events,
            ended,
        })
    }
}

impl fmt::Debug for ActiveBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ActiveBuilder({} {})", self.group, self.replica)
    }
}

/// Looks and digests that wait.
const QUESTIONS_MAX: usize = 64;
