//! The demo: load a real file through a group of processes, kill its primary again and again, and prove that nothing
//! was lost. Here are its parts without processes: what is loaded, and how the outcome is shown.

pub mod input;
pub mod plot;
pub mod report;
