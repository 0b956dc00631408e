//! The conformance suite, over the loopback interface.

mod common;

use async_trait::async_trait;
use kvrep_core::ReplicaId;
use kvrep_core::testing::transport_suite::TransportFactory;
use kvrep_core::transport::Transport;
use kvrep_transport_multicast::{MulticastConfig, MulticastTransport};
use std::collections::BTreeMap;
use std::sync::Arc;

struct Loopback(MulticastConfig);

impl Loopback {
    fn transport(&self) -> Arc<dyn Transport> {
        Arc::new(MulticastTransport::new(self.0.clone()))
    }
}

#[async_trait]
impl TransportFactory for Loopback {
    async fn make(&self, replicas: &[ReplicaId]) -> BTreeMap<ReplicaId, Arc<dyn Transport>> {
        let made = replicas.iter().map(|id| (*id, self.transport()));
        made.collect()
    }

    async fn remake(&self, _: ReplicaId) -> Arc<dyn Transport> {
        self.transport()
    }
}

kvrep_core::transport_suite!(Loopback(common::config()));
