//! Sockets and nothing else.

use super::pending::Pending;
use kvrep_benches::load::Caller;
use kvrep_transport_multicast::{GroupSocket, MulticastConfig};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::task::JoinSet;

pub(crate) struct Bare {
    asks: Arc<GroupSocket>,
    pending: Arc<Pending>,
    group: SocketAddr,
    /// Aborted when dropped.
    _tasks: JoinSet<()>,
}

pub(crate) struct Slot {
    asks: Arc<GroupSocket>,
    pending: Arc<Pending>,
    group: SocketAddr,
    bytes: usize,
}

pub(crate) fn start(config: &MulticastConfig) -> Result<Bare, String> {
    let open = || GroupSocket::open(config).map_err(|error| error.to_string());
    let (asks, answers) = (Arc::new(open()?), open()?);
    let pending = Arc::new(Pending::default());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut buffer = vec![0; 2_048];
        while let Ok((bytes, from)) = answers.group().recv_from(&mut buffer).await {
            let _ = answers.own().try_send_to(&buffer[..bytes], from);
        }
    });
    // Whoever belongs to a group hears what he sends to it.
    let own = Arc::clone(&asks);
    tasks.spawn(async move {
        let mut buffer = vec![0; 2_048];
        while own.group().recv_from(&mut buffer).await.is_ok() {}
    });
    let (socket, waiting) = (Arc::clone(&asks), Arc::clone(&pending));
    tasks.spawn(async move {
        let mut buffer = vec![0; 2_048];
        while let Ok((bytes, _)) = socket.own().recv_from(&mut buffer).await {
            waiting.answered(&buffer[..bytes]);
        }
    });
    Ok(Bare {
        asks,
        pending,
        group: config.group.into(),
        _tasks: tasks,
    })
}

impl Bare {
    pub(crate) fn callers(&self, clients: u32, bytes: usize) -> Vec<Slot> {
        (0..clients)
            .map(|_| Slot {
                asks: Arc::clone(&self.asks),
                pending: Arc::clone(&self.pending),
                group: self.group,
                bytes,
            })
            .collect()
    }
}

impl Caller for Slot {
    async fn call(&mut self) -> Result<(), String> {
        let send = |number: u64| {
            let mut datagram = vec![7; self.bytes];
            datagram[..8].copy_from_slice(&number.to_be_bytes());
            let _ = self.asks.own().try_send_to(&datagram, self.group);
        };
        self.pending.ask(send).await
    }
}
