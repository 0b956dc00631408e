//! The span in which a node says what happens.
#![cfg(feature = "runtime")]

use kvrep_core::{Fold, Node, ReplicaId};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

#[derive(Default)]
struct Counts {
    spans: AtomicU64,
    recorded: AtomicU64,
    roles: AtomicU64,
}

/// Counts what is said.
struct Counting(Arc<Counts>);

impl Subscriber for Counting {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(self.0.spans.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {
        self.0.recorded.fetch_add(1, Ordering::Relaxed);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Roles(&self.0));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Roles<'a>(&'a Counts);

impl Visit for Roles<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" && format!("{value:?}") == "role changed" {
            self.0.roles.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[tokio::test]
async fn a_nodes_span_does_not_grow_with_its_role_changes() {
    let counts = Arc::new(Counts::default());
    let _listening = tracing::subscriber::set_default(Counting(Arc::clone(&counts)));
    let node = Node::builder("counter", ReplicaId(1))
        .state_machine(Fold::new(0_i64, |sum, by: i64| *sum += by))
        .start()
        .await
        .unwrap();
    let mut watch = node.watch();
    let serving = watch.wait_for(|status| status.protocol.serving);
    tokio::time::timeout(Duration::from_secs(60), serving)
        .await
        .unwrap()
        .unwrap();
    node.shutdown().await.unwrap();
    assert!(
        counts.roles.load(Ordering::Relaxed) > 0,
        "it became primary"
    );
    assert!(counts.spans.load(Ordering::Relaxed) > 0);
    assert_eq!(counts.recorded.load(Ordering::Relaxed), 0);
}
