//! System 4: a fault-tolerant calculator over UDP multicast. See `examples/multicast-calculator/README.md`.
//!
//! What is this system's own: its [arithmetic](expression), the words of its [datagrams and consoles](words), who it believes to be there
//! ([cluster]: the library's `Responder` with this wire's ids), the [server]'s tasks and the [client]. Who answers is the library's
//! lowest-id scheme.

pub mod client;
pub mod cluster;
pub mod console;
pub mod expression;
pub mod menu;
pub mod requests;
pub mod server;
pub mod words;
