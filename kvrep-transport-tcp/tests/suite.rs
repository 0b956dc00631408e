//! The conformance suite, over TCP.

use kvrep_transport_tcp::testing::OverTcp;

kvrep_core::transport_suite!(OverTcp::configured(|config| config));
