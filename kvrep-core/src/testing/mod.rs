//! Conformance suites for implementers.

pub mod detector_suite;
