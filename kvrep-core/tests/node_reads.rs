//! Reads and feeds within a process: closures over the state, and what was applied.

mod support;

use kvrep_core::client_wire::{Op, Outcome};
use kvrep_core::node::{Feed, LocalReadError, Node, Subscription};
use kvrep_core::state_machine::encode;
use kvrep_core::transport::memory::MemoryNetwork;
use kvrep_core::{Index, Read, ReplicaId, Seq, Term, Token};
use std::time::Duration;
use support::{Ledger, client, group, primary, replica, three, until};
use tokio::time::{Instant, timeout};

const SOON: Duration = Duration::from_secs(20);

fn len(ledger: &Ledger) -> usize {
    ledger.0.len()
}

/// The next command's number, or what else was heard.
async fn heard(feed: &mut Subscription) -> Result<u64, Feed> {
    let item = timeout(SOON, feed.next())
        .await
        .expect("something is heard");
    match item.expect("the node lives") {
        Feed::Applied(applied) => Ok(applied.decode::<Ledger>().unwrap().0),
        other => Err(other),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closure_sees_the_state_in_its_own_type_as_fresh_as_it_asks_for() {
    let network = MemoryNetwork::new();
    let nodes = three(&network).await;
    let client = client(&nodes).0;
    for n in 0..50 {
        client.execute(n).await.unwrap();
    }
    let at = primary(&nodes).await;
    let (found, token) = nodes[at].read_local(Read::Linearizable, len).await.unwrap();
    assert_eq!(found, 50);
    assert!(token >= client.token());
    for node in &nodes {
        let mine = Read::AtLeast(client.token());
        assert_eq!(node.read_local(mine, len).await.unwrap().0, 50);
        assert!(node.read_local(Read::Local, len).await.unwrap().0 <= 50);
    }
    let refused = nodes[(at + 1) % 3]
        .read_local(Read::Linearizable, len)
        .await;
    let primary = Some(nodes[at].identity().replica);
    assert_eq!(refused, Err(LocalReadError::NotPrimary { primary }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closure_over_the_wrong_type_is_told_so_and_one_that_panics_harms_only_its_caller() {
    let network = MemoryNetwork::new();
    let nodes = three(&network).await;
    let wrong = nodes[0].read_local(Read::Local, |s: &String| s.len()).await;
    let error = wrong.unwrap_err();
    assert!(
        error.to_string().contains("is not a alloc::string::String"),
        "{error}"
    );
    let guilty = |_: &Ledger| panic!("the caller's own fault");
    let panicked = catch(nodes[0].read_local(Read::Local, guilty)).await;
    assert!(panicked.is_err());
    assert_eq!(nodes[0].read_local(Read::Local, len).await.unwrap().0, 0);
}

/// What a future's panic says.
async fn catch<T>(future: impl Future<Output = T>) -> Result<T, Box<dyn std::any::Any + Send>> {
    let mut future = Box::pin(future);
    std::future::poll_fn(|context| {
        let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            future.as_mut().poll(context)
        }));
        match polled {
            Ok(std::task::Poll::Ready(value)) => std::task::Poll::Ready(Ok(value)),
            Ok(std::task::Poll::Pending) => std::task::Poll::Pending,
            Err(panic) => std::task::Poll::Ready(Err(panic)),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closure_that_waits_for_a_token_never_reached_is_told_that_the_replica_is_behind() {
    let network = MemoryNetwork::new();
    let mut config = group();
    config.timing.suspect_after = Duration::from_millis(100);
    let node = replica(&network, 1).group(config).members([ReplicaId(1)]);
    let node = node.start().await.unwrap();
    let future = Token {
        term: Term::ZERO.next_for(ReplicaId(1)),
        index: Index(1 << 40),
    };
    let behind = node.read_local(Read::AtLeast(future), len).await;
    assert_eq!(behind, Err(LocalReadError::Behind));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_replica_hears_of_every_command_once_and_in_order() {
    let network = MemoryNetwork::new();
    let nodes = three(&network).await;
    let mut feeds: Vec<Subscription> = nodes.iter().map(Node::subscribe).collect();
    let client = client(&nodes).0;
    let writing = (0..200).map(|n| {
        let client = client.clone();
        tokio::spawn(async move { client.execute(n).await.unwrap() })
    });
    for write in writing.collect::<Vec<_>>() {
        write.await.unwrap();
    }
    let state = client.query(Read::Linearizable, ()).await.unwrap();
    for feed in &mut feeds {
        for number in &state {
            assert_eq!(heard(feed).await, Ok(*number));
        }
    }
    drop(nodes);
    for feed in &mut feeds {
        assert_eq!(timeout(SOON, feed.next()).await.unwrap(), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_sent_twice_is_heard_of_once() {
    let network = MemoryNetwork::new();
    let node = replica(&network, 1).members([ReplicaId(1)]);
    let node = node.start().await.unwrap();
    until("it serves", async || node.status().protocol.serving).await;
    let mut feed = node.subscribe();
    let soon = || Instant::now() + SOON;
    let opened = node.call(Op::OpenSession, soon()).await.unwrap();
    let Outcome::Opened { session, .. } = opened else {
        panic!("{opened:?}");
    };
    for (seq, number) in [(1, 7_u64), (1, 7), (2, 8)] {
        let command = Op::Command {
            session,
            seq: Seq(seq),
            done_below: Seq(1),
            command: encode(&number),
        };
        let outcome = node.call(command, soon()).await.unwrap();
        assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    }
    assert_eq!(heard(&mut feed).await, Ok(7));
    assert_eq!(heard(&mut feed).await, Ok(8));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_gets_a_snapshot_says_that_its_state_was_replaced() {
    let network = MemoryNetwork::new();
    let mut config = group();
    config.limits.snapshot_log_entries = 50;
    config.limits.retained_entries = 5;
    let start = |id| replica(&network, id).group(config.clone()).start();
    let mut nodes = Vec::new();
    for id in 1..=3 {
        nodes.push(start(id).await.unwrap());
    }
    let (client, link) = client(&nodes);
    client.execute(0).await.unwrap();
    let away = (primary(&nodes).await + 1) % 3;
    let id = nodes.swap_remove(away).identity().replica.0;
    for n in 1..200 {
        client.execute(n).await.unwrap();
    }
    // What comes before the transfer is heard of too, so it must not have begun.
    network.isolate(ReplicaId(id));
    let back = start(id).await.unwrap();
    let mut feed = back.subscribe();
    network.heal_all();
    link.add(&back);
    let Err(Feed::Replaced { upto }) = heard(&mut feed).await else {
        panic!("a state that was lost is replaced");
    };
    assert!(upto.index >= Index(50));
    let (known, token) = back.read_local(Read::Local, len).await.unwrap();
    assert!(token.index >= upto.index);
    client.execute(1_000).await.unwrap();
    let mut last = None;
    while last != Some(1_000) {
        last = heard(&mut feed).await.ok();
    }
    assert!(back.read_local(Read::Local, len).await.unwrap().0 > known.min(200));
}
