//! Which address a replica dials from.
#![cfg(target_os = "linux")] // Elsewhere, 127.0.0.2 is not an address of the machine by itself.

mod common;

use common::{Node, PATIENCE, me, reaches};
use kvrep_core::ReplicaId;
use kvrep_core::transport::Transport;
use kvrep_transport_tcp::{TcpConfig, TcpTransport};
use std::net::IpAddr;
use tokio::net::TcpListener;
use tokio::time::timeout;

/// Where a connection of a replica with this configuration comes from.
async fn source(config: TcpConfig) -> IpAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let transport = TcpTransport::new(config.peer(ReplicaId(2), address));
    let _node = Node::start(me(1), transport).await;
    let (_, from) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    from.ip()
}

#[tokio::test]
async fn a_replica_dials_from_the_address_it_was_given_or_listens_on() {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let any = TcpConfig::new("0.0.0.0:0");
    assert_eq!(source(any.clone()).await, ip("127.0.0.1"));
    assert_eq!(
        source(any.dial_from(ip("127.0.0.2"))).await,
        ip("127.0.0.2")
    );
    assert_eq!(source(TcpConfig::new("127.0.0.3:0")).await, ip("127.0.0.3"));
}

#[tokio::test]
async fn two_replicas_with_addresses_of_their_own_hear_each_other() {
    let one = TcpTransport::bind(TcpConfig::new("127.0.0.2:0"))
        .await
        .unwrap();
    let two = TcpTransport::bind(TcpConfig::new("127.0.0.3:0"))
        .await
        .unwrap();
    one.add_peer(ReplicaId(2), two.local_addr().unwrap().to_string());
    two.add_peer(ReplicaId(1), one.local_addr().unwrap().to_string());
    let (one, two) = (Node::start(me(1), one).await, Node::start(me(2), two).await);
    reaches(&one, &two, 1).await;
    reaches(&two, &one, 2).await;
}

#[tokio::test]
async fn an_address_that_the_machine_does_not_have_is_reported_at_the_start() {
    for (address, said) in [("203.0.113.1", "203.0.113.1"), ("0.0.0.0", "one address")] {
        let config = TcpConfig::new("127.0.0.1:0").dial_from(address.parse().unwrap());
        let mailbox = kvrep_core::testing::mailbox::Mailbox::new(1);
        let error = TcpTransport::new(config)
            .start(me(1), mailbox.inbox())
            .await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}
