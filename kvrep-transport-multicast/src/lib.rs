//! UDP multicast for kvrep: one send reaches a whole group, without a broker and without a list of members.
//!
//! [`MulticastTransport`] sends what is for the group once, as a multicast datagram, and what is for one replica to that one alone. Members say twice a
//! second where they read, so nobody is listed, and who comes later is found. Frames that do not fit a datagram go in pieces.
//!
//! | promise | |
//! |---|---|
//! | order | none; each frame arrives at most once |
//! | loss | any frame may be lost, the larger the likelier; the protocols repair it |
//! | pace | at most what [`MulticastLimits`] says, for a receiver cannot slow a sender down |
//! | size | a command, query or response has at most 61,440 bytes, not the 1 MiB of other transports |
//!
//! A frame has at most [`frame_bytes_max`](MulticastLimits::frame_bytes_max) bytes, 64 KiB and a header by default, because one lost piece loses all of it; a
//! command leaves 4 KiB of it to what goes along. A node lowers its [`Limits`](kvrep_core::Limits) to that, and what is larger is refused with
//! [`TooLarge`](kvrep_core::node::ClientError::TooLarge). For larger ones raise `frame_bytes_max`, to 1 MiB at most, at all members and clients.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use kvrep_core::{Fold, Node, ReplicaId};
//! use kvrep_transport_multicast::{MulticastConfig, MulticastTransport, connect};
//! use std::net::Ipv4Addr;
//!
//! let config = MulticastConfig::new("239.255.0.7:47810".parse()?).interface(Ipv4Addr::LOCALHOST);
//! let node = Node::builder("sums", ReplicaId(1))
//!     .transport(MulticastTransport::new(config.clone()))
//!     .state_machine(Fold::new(0_i64, |sum, by: i64| *sum += by))
//!     .start()
//!     .await?;
//! let client = connect::<Fold<i64, i64>>("sums", config);
//! assert_eq!(client.execute(2).await?, 2);
//! # node.shutdown().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Caveats: nobody proves who he is. All that a life of a member says of where it reads is alike: whoever repeats it from elsewhere is believed when the member
//! itself was silent for [`address_kept`](MulticastTiming::address_kept), by members until its next frame, by clients as long as the repetition lasts. A
//! host hears its own datagrams even when its link is down, so hearing oneself proves nothing. IPv4 only. Negative
//! acknowledgements, IPv6 and authenticated datagrams are not there yet; the version in each datagram leaves their place.

mod client;
mod clients;
mod config;
mod datagram;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod decoders;
mod hearing;
mod outbox;
mod pace;
mod peers;
mod reassembly;
mod replicas;
mod seen;
mod socket;
mod transport;

pub use client::{MulticastGroupLink, connect};
pub use config::{MulticastConfig, MulticastLimits, MulticastTiming, OwnHost};
pub use socket::GroupSocket;
pub use transport::MulticastTransport;
