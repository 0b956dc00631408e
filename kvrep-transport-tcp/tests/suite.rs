//! The conformance suite, over TCP.

use async_trait::async_trait;
use kvrep_core::ReplicaId;
use kvrep_core::testing::transport_suite::TransportFactory;
use kvrep_core::transport::Transport;
use kvrep_transport_tcp::{TcpConfig, TcpTransport};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

#[derive(Default)]
struct OverTcp(Mutex<BTreeMap<ReplicaId, String>>);

#[async_trait]
impl TransportFactory for OverTcp {
    async fn make(&self, replicas: &[ReplicaId]) -> BTreeMap<ReplicaId, Arc<dyn Transport>> {
        let mut bound = BTreeMap::new();
        for id in replicas {
            let transport = TcpTransport::bind(TcpConfig::new("127.0.0.1:0"))
                .await
                .unwrap();
            let address = transport.local_addr().unwrap().to_string();
            self.0.lock().unwrap().insert(*id, address);
            bound.insert(*id, transport);
        }
        let addresses = self.0.lock().unwrap().clone();
        let listed = |(id, transport): (ReplicaId, TcpTransport)| {
            for (peer, address) in &addresses {
                transport.add_peer(*peer, address);
            }
            (id, Arc::new(transport) as Arc<dyn Transport>)
        };
        bound.into_iter().map(listed).collect()
    }

    async fn remake(&self, replica: ReplicaId) -> Arc<dyn Transport> {
        let addresses = self.0.lock().unwrap().clone();
        let config = TcpConfig::new(&addresses[&replica]).peers(addresses);
        Arc::new(TcpTransport::new(config))
    }
}

kvrep_core::transport_suite!(OverTcp::default());
