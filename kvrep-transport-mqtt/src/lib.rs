//! MQTT.
mod client;
mod config;
#[cfg(feature = "embedded-broker")]
mod embedded;
mod heading;
mod hearing;
mod link;
pub mod ordered;
mod presence;
mod shared;
mod topics;
mod transport;

#[cfg(feature = "tls")]
pub use config::Tls;
pub use config::{Login, MqttConfig, MqttLimits, MqttTiming};
#[cfg(feature = "embedded-broker")]
pub use embedded::EmbeddedBroker;
pub use client::{MqttGroupLink, connect};
pub use transport::{MqttTransport, Standing};

/// A number that no other process draws.
fn drawn() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}
