//! MQTT.
mod config;
#[cfg(feature = "embedded-broker")]
mod embedded;
mod link;
pub mod ordered;

#[cfg(feature = "tls")]
pub use config::Tls;
pub use config::{Login, MqttConfig, MqttLimits, MqttTiming};
#[cfg(feature = "embedded-broker")]
pub use embedded::EmbeddedBroker;

/// A number that no other process draws.
fn drawn() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}
