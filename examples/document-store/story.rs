//! `docstore-story`: to be told.
fn main() {}
