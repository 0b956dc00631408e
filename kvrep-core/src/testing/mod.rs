//! Conformance suites for implementers.

pub mod storage_suite;
