//! Four levels counted in ticks.
