//! The witness: a durable register.
