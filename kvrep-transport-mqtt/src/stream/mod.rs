//! The ordered stream of the active scheme through a broker: [`Dialect`].

mod dialect;

pub use dialect::{Addressed, Dialect, Heard, StreamTopics};
