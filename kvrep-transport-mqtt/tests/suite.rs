//! The conformance suite, over the embedded broker and over mosquitto.

mod common;

use async_trait::async_trait;
use common::{AnyBroker, prefix};
use kvrep_core::ReplicaId;
use kvrep_core::testing::transport_suite::{TransportFactory, run_all};
use kvrep_core::transport::Transport;
use kvrep_transport_mqtt::{MqttConfig, MqttTransport};
use std::collections::BTreeMap;
use std::sync::Arc;

struct OverMqtt {
    config: MqttConfig,
    /// Ends with the test.
    _broker: Arc<AnyBroker>,
}

impl OverMqtt {
    fn new(broker: &Arc<AnyBroker>) -> Self {
        Self {
            config: broker.config().prefix(prefix()),
            _broker: Arc::clone(broker),
        }
    }

    fn transport(&self) -> Arc<dyn Transport> {
        Arc::new(MqttTransport::new(self.config.clone()))
    }
}

#[async_trait]
impl TransportFactory for OverMqtt {
    async fn make(&self, replicas: &[ReplicaId]) -> BTreeMap<ReplicaId, Arc<dyn Transport>> {
        replicas.iter().map(|id| (*id, self.transport())).collect()
    }

    async fn remake(&self, _: ReplicaId) -> Arc<dyn Transport> {
        self.transport()
    }
}

mod over_the_embedded_broker {
    use super::*;
    kvrep_core::transport_suite!(OverMqtt::new(&Arc::new(AnyBroker::embedded())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_rule_holds_over_mosquitto_where_it_is_installed() {
    if let Some(broker) = AnyBroker::mosquitto().map(Arc::new) {
        run_all(|| OverMqtt::new(&broker)).await;
    }
}
