//! Conformance suites for implementers.

pub mod transport_suite;
