//! System 3: a key-value store of three servers with a fixed leader, after ZooKeeper. See `examples/zk-like-kv/README.md`.
//!
//! What is this system's own: the [table] with its timestamps, its [words](message) in their [dialects](dialect) and how they are
//! [framed](framing), the [front] that clients talk to, how the [three](trio) [find](registry) each other, and the
//! [dialect](codec) in which the library's messages travel. Everything else is the library's passive scheme under the policies that
//! [`server`] chooses.

pub mod codec;
pub mod console;
pub mod dialect;
pub mod failures;
pub mod forward;
pub mod framing;
pub mod front;
pub mod given;
pub mod hearsay;
pub mod in_order;
pub mod menu;
pub mod message;
pub mod play;
pub mod recent;
pub mod registering;
pub mod registry;
pub mod server;
pub mod session;
pub mod slow;
pub mod standin;
pub mod store;
pub mod table;
pub mod trio;
pub mod words;
