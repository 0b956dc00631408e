//! Checkers of recorded histories: what did the clients see, and is there a story that explains it?
//!
//! Record each request with its time of invocation and, if one came, its response in a [`History`]; then ask whether
//! the answers could have come from one copy of the data ([`linearizable::check`]), or whether each client at least
//! saw its own session in order ([`sessions::check`]).
//!
//! Invariants: the checkers look only at what clients could see, never at the system; they are functions of the
//! history, without clock or randomness; and they end, whatever the history ([`Budget`]).
//!
//! Caveat: a history that passes proves nothing about the runs that were not recorded; one that fails is a proof.
//!
//! ```
//! use kvrep_core::Time;
//! use kvrep_core::check::{Budget, ClientId, History, Linearizability, linearizable, models::{Kv, KvOp, KvRet}};
//!
//! let at = Time::from_nanos;
//! let mut history = History::new();
//! let put = history.invoke(at(0), ClientId(1), KvOp::Put("a", 1));
//! history.respond(at(10), put, KvRet::Done);
//! let get = history.invoke(at(20), ClientId(2), KvOp::Get("a"));
//! history.respond(at(30), get, KvRet::Value(None)); // the put was acknowledged before: a stale read
//!
//! let Linearizability::Violated(violation) = linearizable::check(&Kv::new(), &history, Budget::default()) else {
//!     panic!("the stale read was not noticed");
//! };
//! assert_eq!(violation.culprit, get);
//! ```

pub mod history;
pub mod linearizable;
pub mod models;
pub mod sessions;

mod foresight;
mod memo;
mod search;

pub use history::{ClientId, History, OpId, Operation, Response};
pub use linearizable::{Budget, Hint, Linearizability, Model, Violation};
