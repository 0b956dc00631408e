//! The server: arguments, where a node is, how the group replicates, what clients are served, and what the operator hears.

pub mod absences;
pub mod args;
pub mod crowd;
mod force;
pub mod group;
pub mod hearing;
mod lost;
mod newcomer;
pub mod notes;
pub mod place;
pub mod run;
pub mod service;
pub mod words;
