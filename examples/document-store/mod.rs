//! MondongoDB: collections of documents with schemas, replicated with one leader and any number of followers.
//!
//! The example is three things. A **state machine**: the [`Store`](store::Store), deterministic and in memory, with indexes
//! that searches use. A **wire of its own** on the replica's port: one request a connection, JSON behind a length of two
//! bytes ([`wire`], [`server::service`]). And a **choice of policies** of the passive scheme ([`server::group`]): every in-sync node has a
//! write in its log before the client hears of it, the most advanced of them takes over, nodes come and go.
//!
//! The rest is what a person sees: the server's arguments ([`server::args`]) and the command line ([`cli`]).
//! `examples/document-store/README.md` says what is promised, and where each requirement is tested.

pub mod cli;
pub mod collection;
pub mod distinct;
pub mod query;
pub mod schema;
pub mod server;
pub mod stage;
pub mod store;
pub mod value;
pub mod wire;
