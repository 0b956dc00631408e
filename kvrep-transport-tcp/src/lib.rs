//! TCP transport for kvrep.
