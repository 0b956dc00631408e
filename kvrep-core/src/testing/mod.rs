//! Conformance suites for implementers.
