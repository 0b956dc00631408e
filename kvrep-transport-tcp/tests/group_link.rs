//! A client's link to a group: connecting when needed, again when it ended, and once for many calls.

mod common;

use common::{GROUP, Node, PATIENCE, me};
use kvrep_core::client_wire::{Op, Outcome, Reply, Request};
use kvrep_core::node::{Client, ClientError, ClientLink, ClientOptions, LinkError};
use kvrep_core::transport::Transport;
use kvrep_core::{Fold, ReplicaId};
use kvrep_transport_tcp::{TcpConfig, TcpGroupLink, TcpTransport};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::Instant;

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

/// Answers every request with *busy*.
async fn answer(node: &Node) {
    loop {
        let (request, reply) = node.next_request().await;
        let id = Request::from_body(&request).unwrap().id;
        let outcome = Outcome::Busy;
        reply.send(Reply { id, outcome }.to_frame());
    }
}

/// A port at which nobody listens.
async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

async fn ask(link: &TcpGroupLink, node: &Node) -> Result<Outcome, LinkError> {
    tokio::select! {
        outcome = link.call(0, Op::Status, soon()) => outcome,
        () = answer(node) => unreachable!("it answers for ever"),
    }
}

#[tokio::test]
async fn a_link_connects_when_it_is_used_and_again_when_the_replica_came_back() {
    let node = Node::alone(|config| config).await;
    let address = node.address();
    let link = TcpGroupLink::new(GROUP, [&*address]);
    assert_eq!(ask(&link, &node).await, Ok(Outcome::Busy));
    assert_eq!(link.resolve(ReplicaId(1), None), Some(0));
    node.transport.close().await;
    let deadline = soon();
    while link.resolve(ReplicaId(1), None).is_some() {
        assert!(Instant::now() < deadline, "the end is never noticed");
        tokio::task::yield_now().await;
    }
    let gone = link.call(0, Op::Status, soon()).await;
    assert!(matches!(gone, Err(LinkError::NotSent(_))), "{gone:?}");
    let back = TcpTransport::bind(TcpConfig::new(address)).await.unwrap();
    let node = Node::start(me(1), back).await;
    assert_eq!(ask(&link, &node).await, Ok(Outcome::Busy));
}

#[tokio::test]
async fn many_calls_share_one_attempt_to_connect_and_each_keeps_its_deadline() {
    // Accepts, and never says a word.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let link = Arc::new(TcpGroupLink::new(GROUP, [address]));
    let began = Instant::now();
    let calls: Vec<_> = (1..=50_u64)
        .map(|n| {
            let (link, deadline) = (Arc::clone(&link), began + Duration::from_millis(n));
            tokio::spawn(async move { link.call(0, Op::Status, deadline).await })
        })
        .collect();
    for call in calls {
        let outcome = call.await.unwrap();
        assert!(matches!(outcome, Err(LinkError::NotSent(_))), "{outcome:?}");
    }
    // Without a deadline of their own they wait for the attempt, which ends by itself.
    let outcome = link.call(0, Op::Status, soon()).await;
    assert!(matches!(outcome, Err(LinkError::NotSent(_))), "{outcome:?}");
    assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
    let mut accepted = 0;
    while let Ok(connection) =
        tokio::time::timeout(Duration::from_millis(50), listener.accept()).await
    {
        drop(connection.unwrap());
        accepted += 1;
    }
    assert_eq!(accepted, 1);
}

#[tokio::test]
async fn another_group_at_one_address_is_told_with_the_failure_of_the_other() {
    let node = Node::alone(|config| config).await;
    let link = TcpGroupLink::new("other", [node.address(), nobody().await]);
    let refused = link.call(0, Op::Status, soon()).await.unwrap_err();
    assert!(matches!(refused, LinkError::Hopeless(_)), "{refused}");
    assert!(refused.to_string().contains("another group"), "{refused}");
    let dead = link.call(1, Op::Status, soon()).await.unwrap_err();
    assert!(matches!(dead, LinkError::NotSent(_)), "{dead}");
    let text = dead.to_string();
    assert!(
        text.contains("another group") && text.contains(&node.address()),
        "{text}"
    );
}

#[tokio::test]
async fn a_request_that_the_replica_would_not_read_is_answered_here_and_disturbs_nobody() {
    let node = Node::alone(|config| config).await;
    let link = TcpGroupLink::new(GROUP, [node.address()]);
    assert_eq!(ask(&link, &node).await, Ok(Outcome::Busy));
    let huge = Op::Plain(vec![0; 8 << 20].into());
    let refused = link.call(0, huge, soon()).await;
    assert!(
        matches!(refused, Ok(Outcome::TooLarge { .. })),
        "{refused:?}"
    );
    // The connection is still the same.
    assert_eq!(link.resolve(ReplicaId(1), None), Some(0));
    assert_eq!(ask(&link, &node).await, Ok(Outcome::Busy));
    assert_eq!(node.transport.counters().refused, 0);
}

#[tokio::test]
async fn what_cannot_pass_is_told_at_once() {
    let node = Node::alone(|config| config).await;
    let mut options = ClientOptions::default();
    options.deadline = PATIENCE;
    for (group, addresses, why) in [
        (
            GROUP,
            vec!["nonsense".to_owned(), "127.0.0.1:99999".into()],
            "nonsense",
        ),
        ("other", vec![node.address()], "another group"),
        (
            "other",
            vec![node.address(), "nonsense".into()],
            "another group",
        ),
    ] {
        let began = Instant::now();
        let link = TcpGroupLink::new(group, addresses);
        let client = Client::<Fold<i64, i64>>::with_options(link, options);
        let error = client.execute(1).await.unwrap_err();
        assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
        let said = error.to_string();
        assert!(matches!(error, ClientError::Unavailable { .. }), "{said}");
        assert!(said.contains(why), "{said}");
    }
}
