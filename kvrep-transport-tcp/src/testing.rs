//! The conformance suite for transports, over TCP: for whoever gives it a codec or other settings.
//!
//! ```
//! // In a file below `tests/`, which is then a suite:
//! use kvrep_transport_tcp::testing::OverTcp;
//!
//! kvrep_core::transport_suite!(OverTcp::configured(|config| config /* .codec(…) */));
//! # fn main() {}
//! ```

use crate::{TcpConfig, TcpTransport};
use async_trait::async_trait;
use kvrep_core::ReplicaId;
use kvrep_core::testing::transport_suite::TransportFactory;
use kvrep_core::transport::Transport;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Makes transports on free ports of this machine that know each other.
pub struct OverTcp {
    configure: Box<dyn Fn(TcpConfig) -> TcpConfig + Send + Sync>,
    addresses: Mutex<BTreeMap<ReplicaId, String>>,
}

impl OverTcp {
    /// Transports with what `configure` makes of each one's settings.
    pub fn configured(configure: impl Fn(TcpConfig) -> TcpConfig + Send + Sync + 'static) -> Self {
        Self {
            configure: Box::new(configure),
            addresses: Mutex::default(),
        }
    }

    fn addresses(&self) -> MutexGuard<'_, BTreeMap<ReplicaId, String>> {
        self.addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for OverTcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OverTcp({:?})", self.addresses())
    }
}

/// # Panics
/// When the machine has no free port: a suite cannot go on without.
#[async_trait]
impl TransportFactory for OverTcp {
    async fn make(&self, replicas: &[ReplicaId]) -> BTreeMap<ReplicaId, Arc<dyn Transport>> {
        let mut bound = BTreeMap::new();
        for id in replicas {
            let config = (self.configure)(TcpConfig::new("127.0.0.1:0"));
            let transport = TcpTransport::bind(config).await.expect("a free port");
            let address = transport.local_addr().expect("it is bound").to_string();
            self.addresses().insert(*id, address);
            bound.insert(*id, transport);
        }
        let addresses = self.addresses().clone();
        let listed = |(id, transport): (ReplicaId, TcpTransport)| {
            for (peer, address) in &addresses {
                transport.add_peer(*peer, address);
            }
            (id, Arc::new(transport) as Arc<dyn Transport>)
        };
        bound.into_iter().map(listed).collect()
    }

    async fn remake(&self, replica: ReplicaId) -> Arc<dyn Transport> {
        let addresses = self.addresses().clone();
        let config = TcpConfig::new(&addresses[&replica]).peers(addresses);
        Arc::new(TcpTransport::new((self.configure)(config)))
    }
}
