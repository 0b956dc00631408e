//! The log against a disk that crashes, decays, refuses and is full.

mod crash;
mod damage;
mod directory;
mod model;
