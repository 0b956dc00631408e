//! The library's conformance suite for transports, over the JSON lines that servers of system 3 speak.

use kvrep_examples::zk_like_kv::codec::JsonLines;
use kvrep_examples::zk_like_kv::recent::Recent;
use kvrep_transport_tcp::TcpConfig;
use kvrep_transport_tcp::testing::OverTcp;
use std::sync::Arc;

fn in_json(config: TcpConfig) -> TcpConfig {
    config.codec(Arc::new(JsonLines::new(Arc::new(Recent::silent()))))
}

kvrep_core::transport_suite!(OverTcp::configured(in_json));
