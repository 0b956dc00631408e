//! A transport that is worse than the one it stands on: it loses frames, sends them twice, and lets later ones overtake them.
//!
//! For tests of a group over a transport that is too good on the machine where it is tested. Its luck is drawn from a seed.

use crate::id::ReplicaId;
use crate::random::Rng;
use crate::transport::{
    Capabilities, Destination, Inbox, LocalPeer, Order, Transport, TransportCounters,
    TransportError,
};
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// How much worse, in frames of a hundred.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Impairment {
    /// Lost.
    pub lost: u32,
    /// Sent twice.
    pub doubled: u32,
    /// Sent behind one of the next frames.
    pub overtaken: u32,
}

/// A transport over a worse network. See the [module](self).
///
/// ```
/// use kvrep_core::testing::impaired::{Impaired, Impairment};
/// use kvrep_core::transport::{Order, Transport, memory::MemoryNetwork};
///
/// let network = MemoryNetwork::new();
/// let worse = Impairment { lost: 10, doubled: 5, overtaken: 10 };
/// let transport = Impaired::new(network.transport(), worse, 7);
/// assert_eq!(transport.capabilities().order, Order::None);
/// ```
pub struct Impaired<T> {
    inner: T,
    worse: Impairment,
    state: Mutex<State>,
}

struct State {
    rng: Rng,
    /// Frames that are overtaken, with how many more overtake each.
    behind: VecDeque<(u64, Destination, Bytes)>,
}

impl<T: Transport> Impaired<T> {
    /// `inner`, made worse. The same seed has the same luck.
    pub fn new(inner: T, worse: Impairment, seed: u64) -> Self {
        let state = State {
            rng: Rng::new(seed),
            behind: VecDeque::new(),
        };
        Self {
            inner,
            worse,
            state: Mutex::new(state),
        }
    }
}

#[async_trait]
impl<T: Transport> Transport for Impaired<T> {
    async fn start(&self, me: LocalPeer, inbox: Inbox) -> Result<(), TransportError> {
        self.inner.start(me, inbox).await
    }

    fn send(&self, to: Destination, frame: Bytes) {
        let mut due = Vec::new();
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            for (more, _, _) in &mut state.behind {
                *more -= 1;
            }
            let drawn = u32::try_from(state.rng.below(100)).unwrap_or(0);
            let Impairment {
                lost,
                doubled,
                overtaken,
            } = self.worse;
            if drawn < lost {
                // Nobody will hear it.
            } else if drawn < lost + doubled {
                due.extend([(to, frame.clone()), (to, frame)]);
            } else if drawn < lost + doubled + overtaken {
                let more = 1 + state.rng.below(OVERTAKEN_BY_MAX);
                state.behind.push_back((more, to, frame));
            } else {
                due.push((to, frame));
            }
            let (ready, waits): (VecDeque<_>, VecDeque<_>) =
                state.behind.drain(..).partition(|(more, ..)| *more == 0);
            state.behind = waits;
            due.extend(ready.into_iter().map(|(_, to, frame)| (to, frame)));
        }
        for (to, frame) in due {
            self.inner.send(to, frame);
        }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            order: Order::None,
            ..self.inner.capabilities()
        }
    }

    fn address_of(&self, peer: ReplicaId) -> Option<String> {
        self.inner.address_of(peer)
    }

    fn counters(&self) -> TransportCounters {
        self.inner.counters()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

/// Frames that overtake one, at most.
const OVERTAKEN_BY_MAX: u64 = 8;
