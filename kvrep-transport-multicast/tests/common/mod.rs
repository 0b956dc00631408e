//! What the tests share.
#![allow(dead_code, reason = "each test program uses a part of it")]

use kvrep_transport_multicast::MulticastConfig;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a test waits for what should happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A group that nobody else has: the port was free a moment ago, and the address is one of this process. Over the loopback interface.
pub(crate) fn config() -> MulticastConfig {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = socket.local_addr().expect("it is bound").port();
    let [a, b, ..] = std::process::id().to_le_bytes();
    let group = SocketAddrV4::new(Ipv4Addr::new(239, 255, a, b), port);
    MulticastConfig::new(group).interface(Ipv4Addr::LOCALHOST)
}

/// Waits until it holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}
