//! Primary-backup with an in-sync set (PacificA).
