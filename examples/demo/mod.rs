//! The demo: load a real file through a group of processes, kill its primary again and again, and prove that nothing
//! was lost.

pub mod carrier;
pub mod catalog;
mod cut;
pub mod input;
pub mod load;
pub mod member;
pub mod pair;
pub mod plot;
pub mod processes;
pub mod questions;
pub mod report;
pub mod run;
pub mod serve;
pub mod verify;
