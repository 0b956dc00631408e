//! What a node is made of: state machine, group, storage, transport, and the bounds of its queues.
//!
//! Everything is said before anything runs: a builder only collects, and [`start`](NodeBuilder::start) checks all of it
//! before it opens the first file.

use super::Node;
use super::guard::Guard;
use super::start::{self, Plan, StartError};
use crate::config::{Authority, GroupConfig, Limits, Timing};
use crate::detector::FailureDetector;
use crate::detector::ticks::TickConfig;
use crate::id::{Incarnation, ReplicaId};
use crate::protocol::Protocol;
use crate::protocol::lowest::LowestId;
use crate::protocol::passive::{self, Join, OnDivergence, Passive, Start};
use crate::state_machine::{Malformed, RawStateMachine, StateMachine, Typed};
use crate::storage::wal::OnCorruption;
use crate::storage::{Recovered, Storage};
use crate::transport::Transport;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

mod parts;
mod witness;

use parts::{Parts, Place, common_settings};
pub use witness::WitnessBuilder;

/// Describes a replica. Only the state machine has no default; a group of several needs a transport too.
///
/// Three replicas in one process, over a network in memory:
///
/// ```
/// use kvrep_core::node::{Client, LocalLink, Node};
/// use kvrep_core::transport::memory::MemoryNetwork;
/// use kvrep_core::{ApplyContext, Read, ReplicaId, StateMachine};
///
/// #[derive(Default)]
/// struct Counter(i64);
///
/// impl StateMachine for Counter {
///     type Command = i64;
///     type Query = ();
///     type Response = i64;
///     type Snapshot = i64;
///
///     fn apply(&mut self, _: &mut ApplyContext, by: i64) -> i64 {
///         self.0 += by;
///         self.0
///     }
/// #   fn query(&self, (): ()) -> i64 { self.0 }
/// #   fn snapshot(&self) -> i64 { self.0 }
/// #   fn restore(&mut self, state: i64) { self.0 = state; }
///     // … query, snapshot, restore
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let network = MemoryNetwork::new();
/// let mut nodes = Vec::new();
/// for id in 1..=3 {
///     let node = Node::builder("counters", ReplicaId(id))
///         .members([1, 2, 3].map(ReplicaId))
///         .transport(network.transport())
///         .state_machine(Counter::default());
///     nodes.push(node.start().await?);
/// }
/// let client = Client::<Counter>::new(LocalLink::new(&nodes));
/// assert_eq!(client.execute(2).await?, 2);
/// assert_eq!(client.execute(3).await?, 5);
/// assert_eq!(client.query(Read::Linearizable, ()).await?, 5);
/// # Ok(())
/// # }
/// ```
pub struct NodeBuilder {
    group: String,
    replica: ReplicaId,
    config: GroupConfig,
    frames: Frames,
    writes: Writes,
    start: Start,
    /// Both joined and forced were asked for.
    contradicts: bool,
    on_divergence: OnDivergence,
    detector: Option<Box<dyn FailureDetector>>,
    seed: Option<u64>,
    machine: Option<Box<dyn RawStateMachine>>,
    protocol: Option<MakeCustom>,
    from_copy: Option<PathBuf>,
    guard: Guard,
    parts: Parts,
}

type MakeCustom =
    Box<dyn FnOnce(ProtocolContext, Recovered) -> Result<Box<dyn Protocol>, Malformed> + Send>;

/// What a protocol of one's own may know, besides what was recovered. See [`NodeBuilder::protocol`].
///
/// The passive scheme with another failure detector:
///
/// ```
/// use kvrep_core::detector::ticks::{TickConfig, TickDetector};
/// use kvrep_core::protocol::passive::{Options, Passive};
/// use kvrep_core::{Fold, Node, ReplicaId};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let detector = TickDetector::new(TickConfig::default())?;
/// let node = Node::builder("counters", ReplicaId(1))
///     .state_machine(Fold::new(0_i64, |sum, by: i64| *sum += by))
///     .protocol(|context, recovered| {
///         let options = Options::new(context.replica, context.config, context.seed);
///         Passive::with_detector(options, recovered, Box::new(detector))
///     })
///     .start()
///     .await?;
/// node.watch().wait_for(|status| status.protocol.serving).await?;
/// node.shutdown().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ProtocolContext {
    /// The replica.
    pub replica: ReplicaId,
    /// The group.
    pub config: GroupConfig,
    /// For every random choice.
    pub seed: u64,
}

impl NodeBuilder {
    pub(super) fn new(group: &str, replica: ReplicaId) -> Self {
        Self {
            group: group.to_owned(),
            replica,
            config: GroupConfig::new([replica], Authority::Alone),
            frames: Frames::default(),
            writes: Writes::default(),
            start: Start::Normal,
            contradicts: false,
            on_divergence: OnDivergence::default(),
            detector: None,
            seed: None,
            machine: None,
            protocol: None,
            from_copy: None,
            guard: Guard::default(),
            parts: Parts::default(),
        }
    }

    /// Everybody who belongs to the group when it begins, this replica among them: all founders are given the same.
    /// Without it, a group of one. For a replica that [joins](Self::join), whom it asks.
    #[must_use]
    pub fn members(mut self, members: impl IntoIterator<Item = ReplicaId>) -> Self {
        self.config.members = members.into_iter().collect();
        self
    }

    /// Who decides who may be primary. Without it, [`Authority::Alone`].
    #[must_use]
    pub fn authority(mut self, authority: Authority) -> Self {
        self.config.authority = authority;
        self
    }

    /// The group's times.
    #[must_use]
    pub fn timing(mut self, timing: Timing) -> Self {
        self.config.timing = timing;
        self
    }

    /// The group's limits. Without them the default ones hold, with frames as large as the transport carries.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.config.limits = limits;
        self.frames = Frames::AsSaid;
        self
    }

    /// Everything that the group agrees on, at once.
    #[must_use]
    pub fn group(mut self, config: GroupConfig) -> Self {
        self.config = config;
        self.frames = Frames::AsSaid;
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

    /// Whether commands are carried out twice, to find out whether the state machine is deterministic; if it is not, the
    /// node ends and says at which entry. Without this call: in debug builds only. See [`Guard`].
    #[must_use]
    pub fn determinism_guard(mut self, guard: Guard) -> Self {
        self.guard = guard;
        self
    }

    /// Serves without the members that never return. **What only they had is lost**; for the operator's hand.
    ///
    /// Should they return all the same, they follow, and what they had is set aside: where the group decides by itself, the last force counts, by the clocks of
    /// the machines. With an empty storage, name them as [members](Self::members): who is not named has no place, and stops when it hears of this.
    #[must_use]
    pub fn forced(mut self) -> Self {
        self.contradicts |= matches!(self.start, Start::Join(_));
        self.start = Start::Forced;
        self
    }

    /// What to do when writes that this replica knows to be acknowledged are not in the history that counts. It rejoins by
    /// default, with its own history saved aside.
    #[must_use]
    pub fn on_divergence(mut self, what: OnDivergence) -> Self {
        self.on_divergence = what;
        self
    }

    /// Begins with the state of a copy that [`Node::copy_to`] wrote, in a storage that must be empty: for the one start
    /// that fills it. The replica becomes a new member that holds the copy's prefix of the history. Two uses:
    ///
    /// * *A disk was lost, the group lives.* The primary sends only what comes after the copy, if its log still
    ///   reaches so far back (`Limits::retained_entries`, `retained_bytes`), else a snapshot as ever. The replica counts when it
    ///   has caught up.
    /// * *No holder of the state is left.* Start **one** replica so, and [`forced`](Self::forced), before any other: it
    ///   begins a new history with the copy. Then start the others, with empty storages. **What came after the copy is
    ///   lost**, acknowledged or not; clients go on with the sessions of the copy. Start a witness that lost its register
    ///   anew, too.
    ///
    /// Not forced, it serves only after the group's members have been heard: a copy never becomes a second history by
    /// itself.
    #[must_use]
    pub fn from_copy(mut self, directory: impl Into<PathBuf>) -> Self {
        self.from_copy = Some(directory.into());
        self
    }

    /// Asks the [members](Self::members) to let this replica into the running group. Once its directory says that it belongs
    /// to the group, a start with this is a normal one. (Without it the replica must be among the [members](Self::members).)
    ///
    /// ```
    /// use kvrep_core::node::{Client, LocalLink, Node};
    /// use kvrep_core::protocol::passive::Join;
    /// use kvrep_core::transport::memory::MemoryNetwork;
    /// use kvrep_core::{Fold, Read, ReplicaId};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let sum = || Fold::new(0_i64, |sum, by: i64| *sum += by);
    /// let network = MemoryNetwork::new();
    /// let founder = Node::builder("sums", ReplicaId(1))
    ///     .transport(network.transport())
    ///     .state_machine(sum())
    ///     .start()
    ///     .await?;
    /// let client = Client::<Fold<i64, i64>>::new(LocalLink::new([&founder]));
    /// client.execute(2).await?;
    /// let newcomer = Node::builder("sums", ReplicaId(2))
    ///     .members([ReplicaId(1)])
    ///     .join(Join::full())
    ///     .transport(network.transport())
    ///     .state_machine(sum())
    ///     .start()
    ///     .await?;
    /// let counts = |c: &kvrep_core::Configuration| c.in_sync.contains_key(&ReplicaId(2));
    /// newcomer.watch().wait_for(|s| s.protocol.configuration.as_ref().is_some_and(counts)).await?;
    /// let here = Client::<Fold<i64, i64>>::new(LocalLink::new([&newcomer]));
    /// assert_eq!(here.query(Read::AtLeast(client.token()), ()).await?, 2);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn join(mut self, join: Join) -> Self {
        self.contradicts |= self.start == Start::Forced;
        self.start = Start::Join(join);
        self
    }

    /// Who decides when a peer looks dead. It only suggests, so replicas of a group may differ in it. Without one, a
    /// fixed timeout ([`Timing::suspect_after`]).
    #[must_use]
    pub fn detector(mut self, detector: impl FailureDetector) -> Self {
        self.detector = Some(Box::new(detector));
        self
    }

    /// Fixes every random choice of the protocol, for tests. Drawn by default.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Another replication scheme than the passive one. All members must use the same.
    #[must_use]
    pub fn protocol<P: Protocol>(
        mut self,
        make: impl FnOnce(ProtocolContext, Recovered) -> Result<P, Malformed> + Send + 'static,
    ) -> Self {
        self.writes = Writes::Replicated;
        self.protocol = Some(Box::new(move |context, recovered| {
            Ok(Box::new(make(context, recovered)?))
        }));
        self
    }

    /// The lowest that lives answers, and nothing is replicated ([`lowest`](crate::protocol::lowest)). For a state machine that takes no commands; with
    /// another one the node does not start.
    ///
    /// ```
    /// use kvrep_core::detector::ticks::TickConfig;
    /// use kvrep_core::transport::memory::MemoryNetwork;
    /// use kvrep_core::{Fold, Node, ReplicaId};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let sums = Fold::new(0_i64, |sum, by: i64| *sum += by);
    /// let refused = Node::builder("sums", ReplicaId(1))
    ///     .transport(MemoryNetwork::new().transport())
    ///     .lowest_id(TickConfig::default())
    ///     .state_machine(sums)
    ///     .start()
    ///     .await;
    /// assert!(refused.unwrap_err().to_string().contains("takes commands"));
    /// # }
    /// ```
    #[must_use]
    pub fn lowest_id(self, ticks: TickConfig) -> Self {
        let mut builder = self.protocol(move |context, recovered| {
            let members = context.config.members.iter().copied();
            LowestId::new(context.replica, members, ticks, recovered.store)
                .map_err(|error| Malformed(error.to_string()))
        });
        builder.writes = Writes::Refused;
        builder
    }

    common_settings!();

    /// Starts the node: opens the storage, restores the state machine, begins to listen.
    ///
    /// # Errors
    /// [`StartError`]: nothing runs.
    pub async fn start(mut self) -> Result<Node, StartError> {
        let mut config = self.config;
        config.validate().map_err(StartError::Config)?;
        if self.contradicts {
            return Err(StartError::Config(
                "a replica either joins a running group or is forced to serve without its members: drop join(…) or forced()"
                    .into(),
            ));
        }
        if self.group.is_empty() {
            return Err(StartError::Config(
                "the name of the group is empty: groups are told apart by their names".into(),
            ));
        }
        if let Start::Join(Join {
            replaces: Some(dead),
            ..
        }) = self.start
            && dead == self.replica
        {
            return Err(StartError::Config(format!(
                "{dead} cannot join in its own place: a member that lost its storage starts as before, or joins without in_place_of(…)"
            )));
        }
        let joins = matches!(self.start, Start::Join(_));
        if !joins && !config.members.contains(&self.replica) {
            return Err(StartError::Config(format!(
                "replica {} is not among the members {:?} of its group: add it, or start one of them",
                self.replica, config.members
            )));
        }
        let Some(machine) = self.machine else {
            return Err(StartError::Config(
                "a replica needs a state machine: call state_machine(…)".into(),
            ));
        };
        if joins && config.members.iter().all(|id| *id == self.replica) {
            return Err(StartError::Config(
                "a replica that joins must be told whom to ask: call members(…) with some of the group's"
                    .into(),
            ));
        }
        if self.writes == Writes::Refused && machine.takes_commands() {
            return Err(StartError::Config(
                "the lowest-id scheme replicates nothing, and this state machine takes commands: choose another scheme, or set StateMachine::TAKES_COMMANDS to false if it has none"
                    .into(),
            ));
        }
        let alone = config.members.len() == 1 && config.authority == Authority::Alone && !joins;
        let transport = self.parts.transport(alone)?;
        if self.frames == Frames::AsCarried {
            let carried = transport.capabilities().frame_bytes_max;
            config.limits = config.limits.within_frames(carried);
        }
        let (config_hash, limits) = (config.hash(), config.limits);
        let context = ProtocolContext {
            replica: self.replica,
            config,
            seed: self.seed.unwrap_or_else(draw),
        };
        let make = self
            .protocol
            .unwrap_or_else(|| passive(self.start, self.on_divergence, self.detector));
        start::start(Plan {
            storage: self.parts.storage(&self.group, self.replica),
            from_copy: self.from_copy,
            group: self.group,
            replica: self.replica,
            config_hash,
            limits,
            transport,
            machine,
            guard: self.guard,
            protocol: Box::new(move |recovered| make(context, recovered)),
            options: self.parts.options,
        })
        .await
    }
}

/// A life that comes after every earlier one, even if the data was lost meanwhile.
pub(super) fn this_life() -> Incarnation {
    #[allow(
        clippy::disallowed_methods,
        reason = "the driver's side: lives are told apart by the clock where nothing else is left of the last one"
    )]
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    Incarnation(u64::try_from(since.as_micros()).unwrap_or(u64::MAX).max(1))
}

/// A number from the system's random source.
fn draw() -> u64 {
    RandomState::new().hash_one(0_u8)
}

impl fmt::Debug for NodeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeBuilder({} {})", self.group, self.replica)
    }
}

/// The default scheme.
fn passive(
    start: Start,
    on_divergence: OnDivergence,
    detector: Option<Box<dyn FailureDetector>>,
) -> MakeCustom {
    Box::new(move |context, recovered| {
        let mut options = passive::Options::new(context.replica, context.config, context.seed);
        options.start = start;
        options.on_divergence = on_divergence;
        Ok(Box::new(match detector {
            Some(detector) => Passive::with_detector(options, recovered, detector)?,
            None => Passive::new(options, recovered)?,
        }))
    })
}

/// Whether the scheme replicates what is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Writes {
    #[default]
    Replicated,
    Refused,
}

/// How large frames may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Frames {
    /// Nobody said: as the transport carries them.
    #[default]
    AsCarried,
    AsSaid,
}
