//! kvrep over TCP: members of a group, their clients, and an application's own protocol, all on one port.
//!
//! Each replica is told where it listens and where the others are; a client, where some of them are:
//!
//! ```
//! use kvrep_core::{Fold, Node, ReplicaId};
//! use kvrep_transport_tcp::{TcpConfig, TcpTransport, connect};
//!
//! type Counter = Fold<i64, i64>;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut transports = Vec::new();
//! for _ in 0..3 {
//!     transports.push(TcpTransport::bind(TcpConfig::new("127.0.0.1:0")).await?); // any free port
//! }
//! let address = |t: &TcpTransport| t.local_addr().unwrap().to_string();
//! let addresses: Vec<String> = transports.iter().map(address).collect();
//!
//! let members = [1, 2, 3].map(ReplicaId);
//! let mut replicas = Vec::new();
//! for (me, transport) in members.into_iter().zip(transports) {
//!     for (peer, address) in members.into_iter().zip(&addresses) {
//!         transport.add_peer(peer, address);
//!     }
//!     let replica = Node::builder("counter", me)
//!         .members(members)
//!         .transport(transport)
//!         .state_machine(Counter::new(0, |sum, by| *sum += by));
//!     replicas.push(replica.start().await?);
//! }
//!
//! let client = connect::<Counter>("counter", &addresses); // in any process
//! assert_eq!(client.execute(2).await?, 2);
//! # Ok(())
//! # }
//! ```
//!
//! With ports that are known beforehand, [`TcpTransport::new`] and [`TcpConfig::peers`] say it in one expression.
//!
//! # How it works
//!
//! Every member dials every other, and sends its frames over the connection it dialled; what others dialled, it reads.
//! A connection begins with a handshake: who speaks, in which life, for which group with which configuration, and who
//! is meant. Whoever does not fit is told why, and what to do about it; both sides log it, and the refused one waits
//! before it tries again. Frames that are queued together leave with one write, and one read takes in many.
//!
//! ```text
//!   n1 ──── dialled by n1: frames of n1, signs of life ───▶ n2
//!      ◀─── dialled by n2: frames of n2, signs of life ────
//!   client ── requests ─▶ n1 ── replies ─▶ client        (connect, TcpGroupLink, TcpLink)
//!   anybody else ── first bytes not kvrep's ─▶ n1         (ForeignService)
//! ```
//!
//! What members say looks otherwise where a system fixes that: see [`codec`].
//!
//! # What holds
//!
//! - Frames of one connection arrive in order, whole and unchanged (a checksum beside TCP's own), or the connection
//!   ends.
//! - `send` never waits. A queue that is full, or a peer that is not connected, makes it drop the frame and count it.
//!   A node that does not take its frames makes the senders' queues fill, by TCP's own backpressure.
//! - When a connection ends, the peer is dialled again at once. If its machine answers that nobody listens there, the
//!   node is told [`Gone`](kvrep_core::transport::Hint::Gone) immediately, once; a connection that was merely reset ends in
//!   [`Connected`](kvrep_core::transport::Hint::Connected).
//! - Nothing read is believed or allocated for before its size is checked; a connection that is silent, slow with half a
//!   frame, or one too many is closed. A crowd of silent connections cannot keep a peer out.
//!
//! # The runtime
//!
//! A process that serves one replica does best on a single-threaded tokio runtime (`#[tokio::main(flavor =
//! "current_thread")]`, as `kvrep-witness` has): reading, running and writing then happen on one thread and wake no
//! other, frames and replies are written where they are made, and node and [`TcpLink`] look for more
//! [for a moment](kvrep_core::node::linger) before they sleep, as long as that pays. A log on disk has a thread of its
//! own in any case. Several threads are for processes that have more to do than this.
//!
//! # Caveats
//!
//! - Nothing is encrypted, and the handshake is no authentication: run it in a network you trust.
//! - A client whose first frame is a request is served without a check of its group; [`TcpLink`] says which it wants.
//! - A client that closes its half of the connection does not get the replies that are still under way.
//! - A machine that vanishes without a word is no `Gone`: only the detector's timeout tells.

mod accept;
mod client;
pub mod codec;
mod config;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod decoders;
mod dial;
mod foreign;
mod greeting;
mod group_link;
mod link;
mod peer;
mod queue;
mod reader;
mod shared;
mod source;
#[cfg(feature = "testing")]
pub mod testing;
mod transport;
mod writer;

pub use config::{
    Locate, OnUnreachable, TcpConfig, TcpLimits, TcpTiming, Unlisted, Unreachable, Way,
};
pub use foreign::ForeignService;
pub use group_link::{TcpGroupLink, connect};
pub use link::{LinkLimits, TcpLink};
pub use transport::TcpTransport;
