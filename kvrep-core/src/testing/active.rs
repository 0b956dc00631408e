//! What tests of whole groups of the active scheme wait for, whatever carries their streams.

use crate::node::ActiveNode;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Waits until every one of them serves and holds no answer back.
///
/// # Panics
/// When they do not within this time; it shows their statuses.
pub async fn all_serve(nodes: &[ActiveNode], within: Duration) {
    let deadline = Instant::now() + within;
    let serves = |node: &ActiveNode| {
        let status = node.status();
        status.serving && !status.holding
    };
    while !nodes.iter().all(serves) {
        assert!(Instant::now() < deadline, "{:#?}", statuses(nodes));
        sleep(LOOKS_EVERY).await;
    }
}

/// Waits until all have come to the same position, with the same chain and the same state.
///
/// # Panics
/// When they do not within this time, or when one has ended.
pub async fn all_equal(nodes: &[ActiveNode], within: Duration) {
    let deadline = Instant::now() + within;
    loop {
        let mut seen = BTreeSet::new();
        for node in nodes {
            let digest = node.digest().await.expect("it runs");
            seen.insert((digest.at, digest.chain, digest.digest));
        }
        if seen.len() <= 1 {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{seen:?}\n{:#?}",
            statuses(nodes)
        );
        sleep(LOOKS_EVERY).await;
    }
}

fn statuses(nodes: &[ActiveNode]) -> Vec<impl std::fmt::Debug> {
    nodes.iter().map(ActiveNode::status).collect()
}

const LOOKS_EVERY: Duration = Duration::from_millis(10);
