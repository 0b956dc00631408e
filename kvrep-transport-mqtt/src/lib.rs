//! kvrep through an MQTT broker: the members of a group, their clients, and the ordered stream of the active scheme, over
//! a broker that perhaps runs already. Nobody is told where anybody is; all are told where the broker is.
//!
//! ```
//! # #[cfg(not(feature = "embedded-broker"))] fn main() {}
//! # #[cfg(feature = "embedded-broker")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use kvrep_core::{Fold, Node, ReplicaId};
//! use kvrep_transport_mqtt::{EmbeddedBroker, MqttConfig, MqttTransport, connect};
//!
//! type Counter = Fold<i64, i64>;
//!
//! let broker = EmbeddedBroker::start("127.0.0.1:0")?; // or one that runs anyway
//! let config = MqttConfig::new(broker.address().to_string());
//!
//! let members = [1, 2, 3].map(ReplicaId);
//! let mut replicas = Vec::new();
//! for me in members {
//!     let replica = Node::builder("counter", me)
//!         .members(members)
//!         .transport(MqttTransport::new(config.clone()))
//!         .state_machine(Counter::new(0, |sum, by| *sum += by));
//!     replicas.push(replica.start().await?);
//! }
//!
//! let client = connect::<Counter>("counter", config); // in any process
//! assert_eq!(client.execute(2).await?, 2);
//! # Ok(())
//! # }
//! ```
//!
//! Four things stand on one kind of connection (QoS 1 throughout, acknowledged by hand, queues with limits, connected again
//! with backoff):
//!
//! - [`MqttTransport`], for schemes whose messages go from replica to replica;
//! - [`connect`] and [`MqttGroupLink`], for their clients;
//! - [`stream`], for the active scheme, whose members carry out a stream that all receive in one order;
//! - [`ordered`], such a stream by itself.
//!
//! # How it works
//!
//! ```text
//!                        PREFIX/to/2/r frames for n2, from everybody
//!   n1 ── publishes ─▶   PREFIX/to/2/c requests for n2, with a topic for the reply  ── n2 subscribes ─▶
//!                        PREFIX/life/+ "n1 is here, in this life", kept by the broker; or its last will
//!                        PREFIX/a/NAME replies for the client NAME
//! ```
//!
//! `PREFIX` is `kvrep/` and the group's id, or what [`MqttConfig::prefix`] says. A replica that has connected says so on
//! the topic of its life, and whoever connects later hears it from the broker. When its connection ends, its last will is
//! published there: to the others a [`Gone`](kvrep_core::transport::Hint::Gone).
//!
//! Every publication between replicas begins with a heading: the sender, its life, what its group agreed on, and a number.
//! Frames that wait together for one receiver leave as one publication.
//!
//! # What holds
//!
//! - Frames from one replica to another arrive once and in the order of the sends, whole and unchanged, or not at all.
//! - `send` never waits. What does not fit into the queue, or is for one who is not there, is dropped and counted.
//! - A broken connection leaves nothing at the broker: what was under way is lost, as on any datagram's way. (An
//!   [`ordered`] stream does keep its session.)
//! - A node that does not take its frames makes the broker hold them, and then drop them; it does not hold up a client.
//! - What is published by others on the group's topics, by whatever mistake or malice, is checked, counted and dropped.
//!
//! # Choosing and setting up a broker
//!
//! MQTT 5 is spoken. Tested with mosquitto 2 and the embedded one. What a broker allows is looked at when it is connected; what makes
//! it slow or a loss likely is logged as a warning ([`ordered::BrokerLimits::warnings`]). For mosquitto:
//!
//! ```text
//! max_inflight_messages 1000     # 20 by default: so many a round trip
//! max_queued_messages 0          # 1,000 by default: further ones are dropped without a word when a receiver is slow
//! set_tcp_nodelay true           # off by default: an answer behind an acknowledgement may then wait for 40 ms (the receiver's delayed ACK)
//! ```
//!
//! # Caveats
//!
//! - The broker is a single point of failure: without it, nobody hears anybody. The group goes on when it comes back.
//! - A last will is no proof of death: a connection that breaks has the same effect. A takeover that it causes is safe, and
//!   perhaps needless. A machine that vanishes is noticed after one and a half times
//!   [`keep_alive`](MqttTiming::keep_alive).
//! - Who may publish to the group's topics may speak in its name: let the broker ask for user and password, and grant each what it needs.
//! - A frame must fit into a publication, and a publication into the broker's limit of a packet; one that does not is refused and counted.
//!   Snapshots go over in pieces and fit by default.
//! - kvrep's messages make two hops; over TCP they make one.

mod client;
mod config;
#[cfg(feature = "embedded-broker")]
mod embedded;
mod heading;
mod hearing;
mod link;
mod names;
pub mod ordered;
mod presence;
mod shared;
pub mod stream;
mod topics;
mod transport;

pub use client::{MqttGroupLink, connect};
#[cfg(feature = "tls")]
pub use config::Tls;
pub use config::{Login, MqttConfig, MqttLimits, MqttTiming};
#[cfg(feature = "embedded-broker")]
pub use embedded::EmbeddedBroker;
pub use names::check_topic;
pub use transport::{MqttTransport, Standing};

/// A number that no other process draws.
fn drawn() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}
