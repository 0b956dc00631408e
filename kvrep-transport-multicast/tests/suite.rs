//! The conformance suite, over the loopback interface.

use async_trait::async_trait;
use kvrep_core::ReplicaId;
use kvrep_core::testing::transport_suite::TransportFactory;
use kvrep_core::transport::Transport;
use kvrep_transport_multicast::{MulticastConfig, MulticastTransport};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::Arc;

struct Loopback(MulticastConfig);

impl Loopback {
    /// A group that nobody else has: the port was free a moment ago, and the address is one of this process.
    fn new() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = socket.local_addr().expect("it is bound").port();
        let [a, b, ..] = std::process::id().to_le_bytes();
        let group = SocketAddrV4::new(Ipv4Addr::new(239, 255, a, b), port);
        Self(MulticastConfig::new(group).interface(Ipv4Addr::LOCALHOST))
    }

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

kvrep_core::transport_suite!(Loopback::new());
