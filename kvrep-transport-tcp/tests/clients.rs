//! Clients over TCP: calls in parallel, refusals, and what a call knows when its connection ends.

mod common;

use bytes::Bytes;
use common::{GROUP, Node, PATIENCE, until};
use kvrep_core::client_wire::{Op, Outcome, Reply, Request};
use kvrep_core::config::Token;
use kvrep_core::node::LinkError;
use kvrep_core::transport::Transport;
use kvrep_core::{GroupId, ReplicaId};
use kvrep_transport_tcp::{LinkLimits, TcpLimits, TcpLink};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

async fn link(node: &Node) -> Result<TcpLink, LinkError> {
    let group = GroupId::named(GROUP);
    TcpLink::connect(&node.address(), group, LinkLimits::default(), soon()).await
}

/// Answers requests with their own command, newest first where several wait.
async fn echo(node: &Node) {
    loop {
        let (request, reply) = node.next_request().await;
        let Request {
            id,
            op: Op::Plain(response),
        } = Request::from_body(&request).unwrap()
        else {
            panic!("only plain commands are sent here");
        };
        let outcome = Outcome::Done {
            response,
            token: Token::default(),
        };
        reply.send(Reply { id, outcome }.to_frame());
    }
}

#[tokio::test]
async fn many_calls_share_a_connection_and_each_gets_its_own_reply() {
    let node = Node::alone(|config| config).await;
    let link = Arc::new(link(&node).await.unwrap());
    assert_eq!(link.replica(), ReplicaId(1));
    let calls: Vec<_> = (0..2_000_u32)
        .map(|number| {
            let link = Arc::clone(&link);
            tokio::spawn(async move {
                let command = Bytes::from(number.to_be_bytes().to_vec());
                let outcome = link.call(Op::Plain(command.clone()), soon()).await.unwrap();
                assert!(matches!(outcome, Outcome::Done { response, .. } if response == command));
            })
        })
        .collect();
    let all = async {
        for call in calls {
            call.await.unwrap();
        }
    };
    tokio::select! {
        () = all => {}
        () = echo(&node) => {}
    }
}

#[tokio::test]
async fn when_the_connection_ends_every_call_under_way_is_lost_at_once() {
    let node = Node::alone(|config| config).await;
    let link = Arc::new(link(&node).await.unwrap());
    let calls: Vec<_> = (0..10)
        .map(|_| {
            let link = Arc::clone(&link);
            tokio::spawn(async move { link.call(Op::Status, soon()).await })
        })
        .collect();
    for _ in 0..10 {
        node.next_request().await;
    }
    let began = Instant::now();
    node.transport.close().await;
    for call in calls {
        assert!(matches!(call.await.unwrap(), Err(LinkError::Lost(_))));
    }
    assert!(began.elapsed() < Duration::from_secs(2));
    assert!(link.is_closed());
    let late = link.call(Op::Status, soon()).await;
    assert!(matches!(late, Err(LinkError::NotSent(_))), "{late:?}");
}

#[tokio::test]
async fn a_call_without_reply_is_lost_at_its_deadline_and_harms_no_other() {
    let node = Node::alone(|config| config).await;
    let link = link(&node).await.unwrap();
    let late = link
        .call(Op::Status, Instant::now() + Duration::from_millis(30))
        .await;
    assert!(matches!(late, Err(LinkError::Lost(_))), "{late:?}");
    let (request, reply) = node.next_request().await;
    let id = Request::from_body(&request).unwrap().id;
    reply.send(
        Reply {
            id,
            outcome: Outcome::Busy,
        }
        .to_frame(),
    );
    let command = Op::Plain(Bytes::from_static(b"next"));
    tokio::select! {
        outcome = link.call(command, soon()) => {
            assert!(matches!(outcome, Ok(Outcome::Done { .. })), "{outcome:?}");
        }
        () = echo(&node) => {}
    }
}

#[tokio::test]
async fn a_client_of_another_group_is_told_so() {
    let node = Node::alone(|config| config).await;
    let other = GroupId::named("other");
    let refused = TcpLink::connect(&node.address(), other, LinkLimits::default(), soon()).await;
    let error = refused.unwrap_err();
    assert!(matches!(error, LinkError::Hopeless(_)));
    assert!(error.to_string().contains("correct the address"), "{error}");
}

#[tokio::test]
async fn one_client_too_many_is_told_so_until_another_leaves() {
    let mut limits = TcpLimits::default();
    limits.clients_max = 2;
    let node = Node::alone(|config| config.limits(limits)).await;
    let first = link(&node).await.unwrap();
    let _second = link(&node).await.unwrap();
    let third = link(&node).await.unwrap_err();
    assert!(
        third.to_string().contains("2 clients are connected there"),
        "{third}"
    );
    drop(first);
    let deadline = soon();
    while link(&node).await.is_err() {
        assert!(Instant::now() < deadline, "the place is never free");
    }
}

#[tokio::test]
async fn nobody_there_means_not_sent() {
    let node = Node::alone(|config| config).await;
    let address = node.address();
    node.transport.close().await;
    let group = GroupId::named(GROUP);
    let error = TcpLink::connect(&address, group, LinkLimits::default(), soon()).await;
    assert!(matches!(error, Err(LinkError::NotSent(_))), "{error:?}");
}

#[tokio::test]
async fn a_client_that_does_not_read_its_replies_is_disconnected() {
    let mut limits = TcpLimits::default();
    limits.reply_bytes_max = 1 << 20;
    let node = Node::alone(|config| config.limits(limits)).await;
    let mut stream = tokio::net::TcpStream::connect(node.address())
        .await
        .unwrap();
    stream
        .write_all(
            &Request {
                id: 1,
                op: Op::Status,
            }
            .to_frame(),
        )
        .await
        .unwrap();
    let (_, reply) = node.next_request().await;
    let response = Bytes::from(vec![0; 256 << 10]);
    let outcome = Outcome::Done {
        response,
        token: Token::default(),
    };
    let frame = Reply { id: 1, outcome }.to_frame();
    until("disconnected", || {
        reply.send(frame.clone());
        node.counters().frames_dropped > 100
    })
    .await;
}
