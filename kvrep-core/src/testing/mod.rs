//! Conformance suites for implementers.

pub mod mailbox;
pub mod transport_suite;
