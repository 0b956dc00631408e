//! System 4: a fault-tolerant calculator over UDP multicast. See `examples/multicast-calculator/README.md`.

pub mod expression;
