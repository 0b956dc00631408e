//! Complete systems assembled from the parts of kvrep.

pub mod common;
pub mod demo;

/// The README's programs compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
