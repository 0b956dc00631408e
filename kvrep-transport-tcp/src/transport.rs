//! [`TcpTransport`]: binds, starts, sends, closes.

use crate::config::TcpConfig;
use crate::shared::{Counters, Shared};
use crate::source::Source;
use async_trait::async_trait;
use bytes::Bytes;
use kvrep_core::ReplicaId;
use kvrep_core::transport::{
    Capabilities, Destination, Inbox, LocalPeer, Order, Transport, TransportCounters,
    TransportError,
};
use kvrep_core::wire::{self, FrameKind, HEADER_BYTES};
use std::fmt;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Carries frames over TCP. See the [crate](crate).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use kvrep_core::ReplicaId;
/// use kvrep_transport_tcp::{TcpConfig, TcpTransport};
///
/// // With free ports: bind first, then say who is where.
/// let one = TcpTransport::bind(TcpConfig::new("127.0.0.1:0")).await?;
/// let two = TcpTransport::bind(TcpConfig::new("127.0.0.1:0")).await?;
/// one.add_peer(ReplicaId(2), two.local_addr().unwrap().to_string());
/// two.add_peer(ReplicaId(1), one.local_addr().unwrap().to_string());
/// # Ok(()) }
/// ```
pub struct TcpTransport {
    config: Mutex<TcpConfig>,
    listener: Mutex<Option<TcpListener>>,
    local_addr: OnceLock<SocketAddr>,
    counters: Arc<Counters>,
    running: OnceLock<Arc<Shared>>,
    /// Held while starting and closing.
    task: tokio::sync::Mutex<Option<JoinHandle<()>>>,
    stop: watch::Sender<bool>,
    frame_bytes_max: usize,
}

impl TcpTransport {
    /// A transport that binds its address when it is started.
    #[must_use]
    pub fn new(config: TcpConfig) -> Self {
        Self {
            frame_bytes_max: config.limits.frame_bytes_max,
            config: Mutex::new(config),
            listener: Mutex::default(),
            local_addr: OnceLock::new(),
            counters: Arc::default(),
            running: OnceLock::new(),
            task: tokio::sync::Mutex::default(),
            stop: watch::Sender::new(false),
        }
    }

    /// A transport that holds its address from now on. Connections that come before it is started wait.
    ///
    /// # Errors
    /// When the address cannot be listened on, or a setting is wrong.
    pub async fn bind(config: TcpConfig) -> Result<Self, TransportError> {
        let transport = Self::new(config);
        let listener = transport.listen().await?;
        *lock(&transport.listener) = Some(listener);
        Ok(transport)
    }

    /// A transport over an address that is listened on already: by whoever started the process, or because connections were
    /// served there before it was known who belongs to the group. `config.listen` is not used.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use kvrep_transport_tcp::{TcpConfig, TcpTransport};
    /// use tokio::net::TcpListener;
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// let address = listener.local_addr()?;
    /// let transport = TcpTransport::from_listener(TcpConfig::new(address.to_string()), listener)?;
    /// assert_eq!(transport.local_addr(), Some(address));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// When a setting is wrong, or the listener cannot say where it listens.
    pub fn from_listener(config: TcpConfig, listener: TcpListener) -> Result<Self, TransportError> {
        config.validate().map_err(TransportError::Config)?;
        let local = listener
            .local_addr()
            .map_err(|error| TransportError::Config(format!("not a listener: {error}")))?;
        let transport = Self::new(config);
        transport.local_addr.get_or_init(|| local);
        *lock(&transport.listener) = Some(listener);
        Ok(transport)
    }

    /// Where this listens, once it does.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.local_addr.get().copied()
    }

    /// Adds a peer, or corrects its address. Without effect after the start.
    pub fn add_peer(&self, replica: ReplicaId, address: impl Into<String>) {
        lock(&self.config).peers.insert(replica, address.into());
    }

    async fn listen(&self) -> Result<TcpListener, TransportError> {
        let address = {
            let config = lock(&self.config);
            config.validate().map_err(TransportError::Config)?;
            config.listen.clone()
        };
        let failed = |source: std::io::Error| TransportError::Listen {
            address: address.clone(),
            remedy: remedy(source.kind()),
            source,
        };
        let listener = TcpListener::bind(address.as_str()).await.map_err(failed)?;
        let local = listener.local_addr().map_err(failed)?;
        self.local_addr.get_or_init(|| local);
        Ok(listener)
    }

    fn closed(&self) -> bool {
        *self.stop.borrow()
    }
}

#[async_trait]
impl Transport for TcpTransport {
    async fn start(&self, me: LocalPeer, inbox: Inbox) -> Result<(), TransportError> {
        let mut task = self.task.lock().await;
        if self.closed() || self.running.get().is_some() {
            return Err(TransportError::Config(
                "a TCP transport is started once; make another one".into(),
            ));
        }
        let bound = lock(&self.listener).take();
        let listener = match bound {
            Some(listener) => listener,
            None => self.listen().await?,
        };
        let config = lock(&self.config).clone();
        config.validate().map_err(TransportError::Config)?;
        let source = Source::new(config.dial_from, self.local_addr());
        source.check().map_err(|error| {
            let from = config.dial_from.map(|from| from.to_string());
            TransportError::Config(format!(
                "cannot dial from {}: {error}. Choose one of this machine's addresses",
                from.unwrap_or_default()
            ))
        })?;
        let counters = Arc::clone(&self.counters);
        let shared = Arc::new(Shared::new(
            me,
            config,
            source,
            inbox,
            counters,
            self.local_addr(),
        ));
        let shared = self.running.get_or_init(|| shared);
        *task = Some(tokio::spawn(crate::accept::run(
            Arc::clone(shared),
            listener,
            self.stop.subscribe(),
        )));
        Ok(())
    }

    fn send(&self, to: Destination, frame: Bytes) {
        let fits = frame.len() <= self.frame_bytes_max + HEADER_BYTES;
        let body = wire::own_body(&frame, FrameKind::Peer).filter(|_| fits);
        let Some(body) = body else {
            return self.counters.refused();
        };
        let Some(shared) = self.running.get() else {
            return self.counters.dropped(1);
        };
        let frame = shared.dialect().message(frame, body);
        match to {
            Destination::One(peer) => shared.send(peer, frame),
            Destination::Group => shared.send_to_all(&frame),
        }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            order: Order::FifoPerPeer,
            native_group: false,
            frame_bytes_max: self.frame_bytes_max + HEADER_BYTES,
        }
    }

    fn address_of(&self, peer: ReplicaId) -> Option<String> {
        let listed = match self.running.get() {
            Some(shared) if peer == shared.me.replica => shared.config.peers.get(&peer).cloned(),
            Some(shared) => shared.peers.get(&peer).and_then(|p| p.current_address()),
            None => lock(&self.config).peers.get(&peer).cloned(),
        };
        let mine = || {
            let me = self.running.get()?.me.replica;
            (peer == me).then(|| self.local_addr().map(|address| address.to_string()))?
        };
        let learned = || self.running.get()?.learned(peer)?.address.clone();
        listed.or_else(learned).or_else(mine)
    }

    fn counters(&self) -> TransportCounters {
        self.counters.read()
    }

    async fn close(&self) {
        let mut task = self.task.lock().await;
        self.stop.send_replace(true);
        drop(lock(&self.listener).take());
        if let Some(task) = task.as_mut() {
            // Its panic would be a bug of ours that tokio has reported already.
            let _ = task.await;
        }
        *task = None;
    }
}

impl fmt::Debug for TcpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpTransport")
            .field("config", &*lock(&self.config))
            .field("local_addr", &self.local_addr())
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn remedy(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::AddrInUse => "Another process listens there: stop it, or choose another port.",
        ErrorKind::AddrNotAvailable => {
            "This machine has no such address: listen on one of its own, or on 0.0.0.0 for all."
        }
        ErrorKind::PermissionDenied => "Ports below 1024 need privileges: choose a higher one.",
        ErrorKind::InvalidInput => "Write the address as HOST:PORT, such as 127.0.0.1:7001.",
        _ => "Check that the address is HOST:PORT and that its host is this machine.",
    }
}
