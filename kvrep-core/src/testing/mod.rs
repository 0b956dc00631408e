//! Conformance suites for implementers (feature `testing`).
//!
//! kvrep's promises rest on what a storage, a transport and a detector keep. If you write one, run its suite in a test of
//! your crate: each rule panics with its name when it does not hold. kvrep's own pass them.
//!
//! | you wrote a | run |
//! |---|---|
//! | [`Storage`](crate::storage::Storage) | [`storage_suite::run_all`] |
//! | [`Transport`](crate::transport::Transport) | [`transport_suite!`](crate::transport_suite) |
//! | [`FailureDetector`](crate::detector::FailureDetector) | [`detector_suite::check`] |
//!
//! [`impaired::Impaired`] makes a transport worse, for tests of a whole group;
//! [`active`] waits until a group of the active scheme serves, or has the same state.
//!
//! Caveat: a suite sees what can be seen from outside in one process. That a storage survives a loss of power, for one,
//! only its own tests can show.

pub mod active;
pub mod detector_suite;
pub mod impaired;
pub mod mailbox;
pub mod storage_suite;
pub mod transport_suite;
