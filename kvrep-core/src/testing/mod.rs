//! Conformance suites for implementers.

pub mod detector_suite;
pub mod mailbox;
pub mod transport_suite;
