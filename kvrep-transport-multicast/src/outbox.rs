//! What leaves: at once where the pace allows it, else in order as soon as it does.
//!
//! Invariants: what waits is bounded; a frame waits whole or is dropped whole; what one sender sends does not overtake what it sent before, and a farewell
//! ends what waits. The system is called without a lock where nothing waits, so senders do not wait for each other's calls.

use crate::config::MulticastConfig;
use crate::pace::Pace;
use crate::socket::GroupSocket;
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::Notify;
use tracing::{debug, warn};

pub(crate) struct Outbox {
    socket: Arc<GroupSocket>,
    state: Mutex<State>,
    waits: Notify,
    queue_bytes_max: usize,
    /// Sending failed, and it was said.
    failed: AtomicBool,
}

struct State {
    queue: VecDeque<(SocketAddr, Bytes)>,
    bytes: usize,
    pace: Pace,
}

impl Outbox {
    pub(crate) fn new(socket: Arc<GroupSocket>, config: &MulticastConfig) -> Self {
        let l = &config.limits;
        Self {
            socket,
            state: Mutex::new(State {
                queue: VecDeque::new(),
                bytes: 0,
                pace: Pace::new(Instant::now(), l.bytes_per_second_max, l.burst_bytes_max),
            }),
            waits: Notify::new(),
            queue_bytes_max: l.queue_bytes_max,
            failed: AtomicBool::new(false),
        }
    }

    /// Whether there was room.
    pub(crate) fn send(&self, to: SocketAddr, datagrams: Vec<Bytes>) -> bool {
        let mut left = datagrams.into_iter();
        if self.may_go(left.as_slice()) {
            while let Some(next) = left.as_slice().first() {
                if self.try_send(to, next).is_err() {
                    break;
                }
                left.next();
            }
        }
        left.len() == 0 || self.wait(to, left.as_slice())
    }

    /// Whether nothing waits, and the pace allows all of it: then it is taken from it.
    fn may_go(&self, datagrams: &[Bytes]) -> bool {
        let mut state = self.state();
        let all = datagrams.iter().map(cost).sum();
        state.queue.is_empty() && state.pace.take(Instant::now(), all)
    }

    /// Whether there was room behind what waits.
    fn wait(&self, to: SocketAddr, datagrams: &[Bytes]) -> bool {
        let mut state = self.state();
        let bytes: usize = datagrams.iter().map(Bytes::len).sum();
        if state.bytes + bytes > self.queue_bytes_max {
            return false;
        }
        state.bytes += bytes;
        state
            .queue
            .extend(datagrams.iter().map(|datagram| (to, datagram.clone())));
        drop(state);
        self.waits.notify_one();
        true
    }

    /// Sends what waits, until the end of time.
    pub(crate) async fn run(&self) {
        loop {
            let pause = {
                let mut state = self.state();
                self.flush(&mut state)
            };
            match pause {
                Pause::Nothing => self.waits.notified().await,
                Pause::Pace(wait) => tokio::time::sleep(wait).await,
                // Whether it is writable or broken, the next attempt tells.
                Pause::Full => drop(self.socket.own().writable().await),
            }
        }
    }

    /// Throws away what waits and sends this, whatever the pace; it gives up after a moment in which the system has no room.
    pub(crate) async fn send_last(&self, to: SocketAddr, datagram: Bytes) {
        {
            let mut state = self.state();
            state.queue.clear();
            state.bytes = 0;
        }
        let sending = async {
            while self.try_send(to, &datagram).is_err() {
                drop(self.socket.own().writable().await);
            }
        };
        if tokio::time::timeout(LAST_WITHIN, sending).await.is_err() {
            debug!(%to, "the system had no room for the last datagram");
        }
    }

    fn flush(&self, state: &mut State) -> Pause {
        let now = Instant::now();
        while let Some((to, datagram)) = state.queue.front().cloned() {
            let cost = cost(&datagram);
            if !state.pace.take(now, cost) {
                return Pause::Pace(state.pace.wait_for(cost));
            }
            if self.try_send(to, &datagram).is_err() {
                return Pause::Full;
            }
            state.bytes -= datagram.len();
            state.queue.pop_front();
        }
        Pause::Nothing
    }

    /// An error: the system has no room now. Any other one loses the datagram, as the network may.
    fn try_send(&self, to: SocketAddr, datagram: &Bytes) -> Result<(), ()> {
        match self.socket.own().try_send_to(datagram, to) {
            Ok(_) => {
                if self.failed.load(Ordering::Relaxed) {
                    self.failed.store(false, Ordering::Relaxed);
                }
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(()),
            Err(error) if self.failed.swap(true, Ordering::Relaxed) => {
                debug!(%to, "not sent: {error}");
                Ok(())
            }
            Err(error) => {
                warn!(%to, "nothing can be sent: {error}. {} (It is tried again.)", remedy(&error));
                Ok(())
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Pause {
    Nothing,
    Pace(std::time::Duration),
    Full,
}

/// What to do where a group cannot be reached.
pub(crate) fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => NO_ROUTE,
        io::ErrorKind::AddrNotAvailable => "No interface has this address.",
        io::ErrorKind::AddrInUse => {
            "Another program has this port for itself: take another one for the group."
        }
        io::ErrorKind::PermissionDenied => "A firewall forbids it.",
        // What a system without a route says to who joins a group and names no interface. (An address that no interface has is refused before that.)
        _ if error.raw_os_error() == Some(NO_SUCH_DEVICE) => NO_ROUTE,
        _ => "Look at the interface.",
    }
}

const NO_ROUTE: &str = "There is no route for multicast: name an interface by its address, or add a route (ip route add 224.0.0.0/4 dev eth0).";

/// ENODEV.
const NO_SUCH_DEVICE: i32 = 19;

/// How long the last datagram waits for room.
const LAST_WITHIN: std::time::Duration = std::time::Duration::from_millis(200);

/// What a datagram counts: the system keeps more than its bytes.
fn cost(datagram: &Bytes) -> u64 {
    datagram.len() as u64 + 256
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_route_is_told_whether_sending_or_joining_met_it() {
        for unreachable in [101, 113, NO_SUCH_DEVICE] {
            let error = io::Error::from_raw_os_error(unreachable);
            assert!(remedy(&error).contains("ip route add"), "{error}");
        }
    }
}
