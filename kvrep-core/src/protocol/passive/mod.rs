//! Primary-backup with an in-sync set (PacificA).

#[cfg(feature = "sim")]
mod mutation;
#[cfg(feature = "sim")]
pub use mutation::Mutation;
