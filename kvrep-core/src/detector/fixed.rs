//! A fixed timeout: two levels.
