//! System 1: a key-value table on two servers, one primary and one secondary, over a binary wire on TCP.
//!
//! What is of this system alone: the [`table`] (a state machine), its [`message`]s, the server's [`skel`]eton that turns one
//! into the other, the [`policy`] of the pair, and its console. Order, replication, takeover, transfer and restarts are the
//! library's. README.md beside this file maps every requirement to its test.

pub mod arguments;
pub mod client_console;
pub mod client_stub;
mod itself;
mod keyboard;
mod last_holder;
mod launch;
mod loss;
mod meeting;
pub mod message;
pub mod network_client;
mod notes;
pub mod pair;
pub mod policy;
pub mod primary_backup;
pub mod requests;
mod roles;
mod roll;
pub mod room;
pub mod server;
pub mod server_console;
mod service;
pub mod skel;
pub mod start;
pub mod state_dir;
pub mod story;
pub mod table;
pub mod told;
mod witness;
pub mod words;
