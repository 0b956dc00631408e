//! [`MqttTransport`]: starts, sends, closes.

use crate::config::MqttConfig;
use crate::heading::Said;
use crate::link::{self, BrokerLimits, Report, Session, Spec};
use crate::shared::{Shared, frame_bytes_max, life};
use crate::topics::Topics;
use async_trait::async_trait;
use bytes::Bytes;
use kvrep_core::ReplicaId;
use kvrep_core::transport::{
    Capabilities, Destination, FrameCounters, Inbox, LocalPeer, Order, Transport,
    TransportCounters, TransportError,
};
use kvrep_core::wire::{self, FrameKind};
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Carries frames through a broker. See the [crate](crate).
///
/// Nobody is listed: members find each other by what they say of their lives on topics that they share.
pub struct MqttTransport {
    config: MqttConfig,
    counters: Arc<FrameCounters>,
    running: OnceLock<Arc<Shared>>,
    /// Held while starting and closing.
    task: tokio::sync::Mutex<Option<JoinHandle<()>>>,
    stop: watch::Sender<bool>,
    standing: watch::Sender<Standing>,
}

/// How a transport stands with its broker.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Standing {
    /// Not connected, and why as far as it was tried; it is tried again.
    Connecting(Option<String>),
    /// Connected and subscribed.
    Connected(BrokerLimits),
    /// Closed.
    Closed,
}

impl MqttTransport {
    /// A transport that connects when it is started.
    #[must_use]
    pub fn new(config: MqttConfig) -> Self {
        Self {
            config,
            counters: Arc::default(),
            running: OnceLock::new(),
            task: tokio::sync::Mutex::default(),
            stop: watch::Sender::new(false),
            standing: watch::Sender::new(Standing::Connecting(None)),
        }
    }

    /// How it stands with the broker now.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Waits until it is connected: for programs that would rather end than wait for a broker.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use kvrep_transport_mqtt::{MqttConfig, MqttTransport};
    /// use std::time::Duration;
    ///
    /// let transport = MqttTransport::new(MqttConfig::new("127.0.0.1:1883"));
    /// // … given to a node as an Arc, and started; here it is not:
    /// let why = transport.connected(Duration::from_millis(10)).await.unwrap_err();
    /// assert!(why.contains("127.0.0.1:1883"));
    /// # }
    /// ```
    ///
    /// # Errors
    /// Why it is not, after `patience`.
    pub async fn connected(&self, patience: Duration) -> Result<(), String> {
        let mut standing = self.standing.subscribe();
        let settled = standing.wait_for(|s| !matches!(s, Standing::Connecting(_)));
        let _ = tokio::time::timeout(patience, settled).await;
        let broker = &self.config.broker;
        match self.standing() {
            Standing::Connected(_) => Ok(()),
            Standing::Closed => Err("the transport is closed".into()),
            Standing::Connecting(Some(why)) => Err(why),
            Standing::Connecting(None) => Err(format!("not connected to {broker} in time")),
        }
    }

    fn refused_start(why: impl Into<String>) -> TransportError {
        TransportError::Config(why.into())
    }
}

#[async_trait]
impl Transport for MqttTransport {
    /// Returns before there is a connection: a broker that is not there yet is waited for.
    async fn start(&self, me: LocalPeer, inbox: Inbox) -> Result<(), TransportError> {
        let mut task = self.task.lock().await;
        if *self.stop.borrow() || self.running.get().is_some() {
            return Err(Self::refused_start(
                "an MQTT transport is started once; make another one",
            ));
        }
        self.config.validate().map_err(Self::refused_start)?;
        let topics = Topics::new(&self.config, me.group);
        let client_id = self.config.client_id.clone();
        let spec = Spec {
            // A life of its own, so that an earlier one that still runs is told, rather than cut off and back in turns.
            client_id: client_id.unwrap_or_else(|| {
                let (group, replica, life) = (me.group.0, me.replica.0, me.incarnation.0);
                format!("kvrep-{group:016x}-{replica}-{life}")
            }),
            subscriptions: vec![topics.for_replica(me.replica), topics.every_life()],
            will: Some(life(&me, &topics, Said::Gone)),
            session: Session::Fresh,
            report: Report::Nothing,
        };
        let (link, reader) = link::open(&self.config, spec).map_err(Self::refused_start)?;
        let counters = Arc::clone(&self.counters);
        let shared = Arc::new(Shared::new(me, &self.config, topics, link, inbox, counters));
        let shared = self.running.get_or_init(|| shared);
        *task = Some(tokio::spawn(crate::hearing::run(
            Arc::clone(shared),
            reader,
            self.standing.clone(),
            self.stop.subscribe(),
        )));
        Ok(())
    }

    fn send(&self, to: Destination, frame: Bytes) {
        let fits = frame.len() <= frame_bytes_max(&self.config);
        if !fits || wire::own_body(&frame, FrameKind::Peer).is_none() {
            return self.counters.refused();
        }
        let Some(shared) = self.running.get().filter(|_| !*self.stop.borrow()) else {
            return self.counters.dropped(1);
        };
        match to {
            Destination::One(peer) => shared.send(peer, frame),
            Destination::Group => shared.send_to_all(&frame),
        }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            order: Order::FifoPerPeer,
            native_group: false,
            frame_bytes_max: frame_bytes_max(&self.config),
        }
    }

    /// Clients find replicas by their ids.
    fn address_of(&self, _: ReplicaId) -> Option<String> {
        None
    }

    fn counters(&self) -> TransportCounters {
        self.counters.read()
    }

    async fn close(&self) {
        let mut task = self.task.lock().await;
        self.stop.send_replace(true);
        if let Some(task) = task.as_mut() {
            // Its panic would be a bug of ours that tokio has reported already.
            let _ = task.await;
        }
        *task = None;
    }
}

impl Drop for MqttTransport {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

impl fmt::Debug for MqttTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MqttTransport")
            .field("config", &self.config)
            .field("standing", &*self.standing.borrow())
            .finish_non_exhaustive()
    }
}
