//! The library's conformance suite for transports, over the JSON lines that servers of system 3 speak.

use async_trait::async_trait;
use kvrep_core::ReplicaId;
use kvrep_core::testing::transport_suite::TransportFactory;
use kvrep_core::transport::Transport;
use kvrep_examples::zk_like_kv::codec::JsonLines;
use kvrep_examples::zk_like_kv::recent::Recent;
use kvrep_transport_tcp::{TcpConfig, TcpTransport};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

#[derive(Default)]
struct OverJson(Mutex<BTreeMap<ReplicaId, String>>);

fn in_json(config: TcpConfig) -> TcpConfig {
    config.codec(Arc::new(JsonLines::new(Arc::new(Recent::silent()))))
}

#[async_trait]
impl TransportFactory for OverJson {
    async fn make(&self, replicas: &[ReplicaId]) -> BTreeMap<ReplicaId, Arc<dyn Transport>> {
        let mut bound = BTreeMap::new();
        for id in replicas {
            let transport = TcpTransport::bind(in_json(TcpConfig::new("127.0.0.1:0"))).await;
            let transport = transport.expect("a free port");
            let address = transport.local_addr().expect("it is bound").to_string();
            self.0.lock().expect("not poisoned").insert(*id, address);
            bound.insert(*id, transport);
        }
        let addresses = self.0.lock().expect("not poisoned").clone();
        let listed = |(id, transport): (ReplicaId, TcpTransport)| {
            for (peer, address) in &addresses {
                transport.add_peer(*peer, address);
            }
            (id, Arc::new(transport) as Arc<dyn Transport>)
        };
        bound.into_iter().map(listed).collect()
    }

    async fn remake(&self, replica: ReplicaId) -> Arc<dyn Transport> {
        let addresses = self.0.lock().expect("not poisoned").clone();
        let config = TcpConfig::new(&addresses[&replica]).peers(addresses);
        Arc::new(TcpTransport::new(in_json(config)))
    }
}

kvrep_core::transport_suite!(OverJson::default());
