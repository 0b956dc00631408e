//! System 0: replicated key-value servers that talk through MQTT topics only. See `examples/mqtt-kv/README.md`.
//!
//! What is this system's own: the [table](machine), and the [dialect] in which servers, clients and the monitor speak on the topics. The
//! [monitor] (its [timers], its [reporting]) and the [client] are programs beside the group; everything else is the library's active scheme under the policies that [`server`]
//! chooses. The [stories](play) (and those of the broker's [faults]) are played on a [stage] of real processes.

pub mod brokers;
pub mod client;
pub mod connection;
pub mod dialect;
pub mod ears;
pub mod faults;
pub mod machine;
pub mod monitor;
pub mod play;
pub mod probe;
pub mod reporting;
pub mod server;
pub mod stage;
pub mod timers;
pub mod topics;
pub mod words;
