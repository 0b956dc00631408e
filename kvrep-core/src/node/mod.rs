//! The tokio driver.

pub mod link;

pub use link::{ClientLink, LinkError};
