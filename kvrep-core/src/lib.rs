//! kvrep keeps replicas of one deterministic state machine on several machines, through crashes.
//!
//! You write one [`StateMachine`]: what a command changes, what a query answers. kvrep orders the commands, carries out
//! each exactly once on every replica, and goes on when a replica dies. You choose **who replicates how** (a scheme)
//! and **over what** (a transport), each in one line. It is a library: there is no server to install, and the state is
//! a value in your own process.
//!
//! # The smallest program
//!
//! Three replicas in one process; one of them crashes. (Put each into a process of its own, and `kvrep-transport-tcp` in
//! place of the network in memory, and they survive the loss of a machine.)
//!
#![cfg_attr(feature = "runtime", doc = "```")]
#![cfg_attr(not(feature = "runtime"), doc = "```text")]
//! use kvrep_core::node::{Client, LocalLink, Node};
//! use kvrep_core::transport::memory::MemoryNetwork;
//! use kvrep_core::{Fold, Read, ReplicaId};
//!
//! /// The state is a number, and so is a command.
//! type Counter = Fold<i64, i64>;
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let network = MemoryNetwork::new();
//!     let members = [1, 2, 3].map(ReplicaId);
//!     let mut replicas = Vec::new();
//!     for me in members {
//!         let replica = Node::builder("counter", me)
//!             .members(members)
//!             .transport(network.transport())
//!             .state_machine(Counter::new(0, |counter, amount| *counter += amount));
//!         replicas.push(replica.start().await?);
//!     }
//!     let client = Client::<Counter>::new(LocalLink::new(&replicas));
//!     client.execute(40).await?; // every live replica has it now
//!     drop(replicas.remove(0)); // one crashes; the other two go on
//!     client.execute(2).await?;
//!     assert_eq!(client.query(Read::Linearizable, ()).await?, 42);
//!     Ok(())
//! }
//! ```
//!
//! # Four questions
//!
//! Every replicated system answers them. Here each answer is a knob; [`config`] has those of the group and of a call.
//!
//! | question | knob | answers to choose from |
//! |---|---|---|
//! | Who orders the writes? | the scheme, a [`Protocol`](protocol::Protocol) | one primary ([`protocol::passive`]); a stream that all carry out ([`protocol::active`], in a [`node::active`](node/active/index.html)); or a scheme of your own |
//! | Who has a write before the client hears OK? | [`Ack`] | every member of the in-sync set, each as durable as its [`Storage`](storage::Storage) makes it; every member of the group; the primary alone, with a bounded loss window |
//! | Who answers a read? | [`Read`], with each call | any replica; any that is at least as new as a [`Token`]; the primary, confirmed by all in sync |
//! | Who takes over, and how does a returner catch up? | [`Takeover`], [`Authority`] | the most advanced log, at once or when a client asks; nobody; the missing suffix, or a snapshot where there is none any more |
//!
//! # What is promised
//!
//! The passive scheme is primary-backup after PacificA. A write is acknowledged when the whole *in-sync set* has it, so
//! it lives as long as one member of the set does; a member that fails leaves the set first. Who may change the set is
//! the [`Authority`], and the promise depends on it:
//!
//! - [`Authority::Alone`], the default: nothing besides the replicas. Right while they crash and restart with their
//!   disks. **Unsafe under partitions, pauses and false suspicion**: two primaries are then possible, and acknowledged
//!   writes of one may be lost; on heal that is found, set aside and reported.
//! - [`Authority::Witness`]: a tiny process with a durable register besides. Linearizable under partitions, pauses and
//!   lost disks too; writes stop only while a change of the set is due and the witness cannot be reached.
//!
//! Commands through a `Client` are exactly-once across retries and takeovers ([`session`]). An outcome that is not
//! known is reported as unknown, never guessed.
//!
//! # The book, in reading order
//!
//! | chapter | modules |
//! |---|---|
//! | what you write | [`state_machine`] |
//! | what you choose | [`config`]; [`mod@error`], what refused operations did |
//! | running it | [`node`](node/index.html): the tokio driver, its events, metrics and the client |
//! | the words | [`id`], [`mod@time`], [`entry`], [`random`] |
//! | a scheme | [`protocol`] and its outbox, [`protocol::passive`], [`protocol::witness`], [`protocol::active`] |
//! | around a scheme | [`session`] (exactly once), [`engine`] (what both drivers share), [`detector`], [`membership`] |
//! | the world outside | [`storage`] and its [`wal`](storage::wal), [`transport`], [`stream`], [`wire`], [`client_wire`] |
//! | proof | [`sim`](sim/index.html), [`check`](check/index.html), [`testing`](testing/index.html) |
//!
//! All but the driver, the network in memory, the real file system and the suites is *sans-IO*: no thread, socket,
//! file, clock, randomness or hash order, only calls with the time in and an outbox of effects out. So the same objects
//! run in production and in the simulator.
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `runtime` | yes | `node`, `transport::memory`; tokio, `metrics`, `tracing` |
//! | `sim` | | `sim`, `storage::mem_fs`, and `check` |
//! | `check` | | `check`: linearizability and session guarantees of recorded histories |
//! | `testing` | | `testing`: conformance suites for a storage, transport or detector of your own; and `runtime` |
//!
//! Features only add. Without any, what is left is the sans-IO core and needs no tokio.
//!
//! # Try your state machine in the simulator
//!
//! A simulated minute with crashes, partitions, torn writes and retrying clients takes some tens of milliseconds. It
//! finds machines that are not deterministic and snapshots that are not complete; a failing seed prints the command that
//! replays it.
//!
#![cfg_attr(feature = "sim", doc = "```")]
#![cfg_attr(not(feature = "sim"), doc = "```text")]
//! use kvrep_core::Fold;
//! use kvrep_core::sim::{Cell, Clients, Freshness, Simulation, Step};
//!
//! let clients = Clients::new(
//!     || Fold::new(0_i64, |sum, amount: i64| *sum += amount), // your machine
//!     |random, _| match random.below(3) {
//!         0 => Step::Query(Freshness::Linearizable, ()),
//!         _ => Step::Command(1),
//!     },
//! );
//! let cell = Cell::named("witness/wal/all").unwrap(); // a row of the table of promises
//! let run = Simulation::new(cell, 42).seconds(10).operations(200).clients(clients);
//! run.run().expect_ok(); // now with other seeds
//! ```
//!
//! # What is not done
//!
//! A scheme over a consensus quorum. A snapshot is always the whole state. Nothing is encrypted, and nobody is
//! authenticated: run it in a network you trust. Replicas that lie (Byzantine faults) are not tolerated;
//! damage on the way or on the disk is detected by checksums.

pub mod backoff;
pub mod client_wire;
pub mod config;
pub mod detector;
pub mod engine;
pub mod entry;
pub mod error;
mod fold;
pub mod id;
pub mod manage;
pub mod membership;
pub mod policy;
pub mod protocol;
pub mod random;
mod scratch;
pub mod session;
mod shipment;
pub mod state_machine;
pub mod storage;
pub mod stream;
mod streamed;
pub mod time;
pub mod transport;
pub mod wire;

#[cfg(feature = "check")]
pub mod check;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod decoders;
#[cfg(feature = "runtime")]
pub mod node;
#[cfg(feature = "sim")]
pub mod sim;
#[cfg(feature = "testing")]
pub mod testing;

pub use config::{
    Ack, Authority, Confirm, GroupConfig, Limits, Read, Takeover, Timing, Token, Transfer,
    Visibility,
};
pub use entry::{Entry, EntryKind, Run};
pub use error::{ProposeError, ReadError};
pub use fold::Fold;
pub use id::{
    Configuration, Departed, GroupId, Incarnation, Index, LogPoint, MemberKind, Nonce, Origin,
    PersistToken, ReplicaId, Seq, SessionId, StoreId, Term, Ticket, Version,
};
pub use manage::Manage;
pub use state_machine::{ApplyContext, Malformed, RawStateMachine, StateMachine, Typed};
pub use time::{Time, Timestamp};

#[cfg(feature = "runtime")]
pub use node::{ActiveNode, Client, Node};
