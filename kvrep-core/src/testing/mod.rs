//! Conformance suites for implementers.

pub mod detector_suite;
pub mod mailbox;
pub mod storage_suite;
pub mod transport_suite;
