//! TCP transport for kvrep: peers, clients and foreign protocols on one port.

mod accept;
mod client;
mod config;
mod dial;
mod foreign;
mod greeting;
mod link;
mod peer;
mod queue;
mod reader;
mod shared;
mod transport;
mod writer;

pub use config::{TcpConfig, TcpLimits, TcpTiming, Unlisted};
pub use foreign::ForeignService;
pub use greeting::Refusal;
pub use link::{LinkError, LinkLimits, TcpLink};
pub use transport::TcpTransport;
