//! Complete systems assembled from the parts of kvrep.

pub mod demo;
