//! One real node: its life, its limits, its errors.

mod support;

use bytes::Bytes;
use kvrep_core::client_wire::{Op, Outcome};
use kvrep_core::node::{Client, ClientError, ClientOptions, LinkError, LocalLink};
use kvrep_core::node::{Node, NodeBuilder, NodeError, StartError};
use kvrep_core::protocol::passive::Join;
use kvrep_core::storage::{Durability, StorageError};
use kvrep_core::transport::memory::MemoryNetwork;
use kvrep_core::{
    ApplyContext, Authority, Fold, GroupConfig, Limits, Read, ReplicaId, StateMachine, Timing,
};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use support::gate::{GatedStorage, Mode};
use support::{Ledger, until};
use tokio::time::Instant;

fn single() -> NodeBuilder {
    Node::builder("single", ReplicaId(1)).state_machine(Ledger::default())
}

async fn serving(node: &Node) {
    until("the node serves", async || node.status().protocol.serving).await;
}

fn soon(ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(ms)
}

fn command(number: u64) -> Op {
    Op::Plain(kvrep_core::state_machine::encode(&number))
}

fn client_of(node: &Node, options: ClientOptions) -> Client<Ledger> {
    Client::with_options(LocalLink::new([node]), options)
}

#[tokio::test(flavor = "current_thread")]
async fn a_node_on_disk_finds_everything_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let limits = Limits {
        snapshot_log_entries: 40,
        retained_entries: 10,
        ..Limits::default()
    };
    let mut expected = Vec::new();
    for life in 0..4 {
        let node = single()
            .limits(limits)
            .data_dir(&data)
            .start()
            .await
            .unwrap();
        let client = client_of(&node, ClientOptions::default());
        for n in 0..50 {
            client.execute(life * 50 + n).await.unwrap();
            expected.push(life * 50 + n);
        }
        assert_eq!(
            client.query(Read::Linearizable, ()).await.unwrap(),
            expected,
            "life {life}"
        );
        assert!(node.status().node.syncs > 0);
        node.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_in_use_is_refused_until_the_shutdown_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let node = single()
        .data_dir(dir.path().join("d"))
        .start()
        .await
        .unwrap();
    let refused = single().data_dir(dir.path().join("d")).start().await;
    assert!(matches!(
        refused,
        Err(StartError::Storage(StorageError::Locked { .. }))
    ));
    node.shutdown().await.unwrap();
    let again = single()
        .data_dir(dir.path().join("d"))
        .start()
        .await
        .unwrap();
    again.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_answers_what_is_under_way_and_leaves_no_task() {
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let before = tasks();
    let (storage, gate) = GatedStorage::new(Durability::Disk);
    let node = single().storage(storage).start().await.unwrap();
    let mut options = ClientOptions::default();
    options.deadline = Duration::from_secs(1);
    let client = client_of(&node, options);
    client.session().await.unwrap();
    gate.set(Mode::Stalls);
    let requests = node.status().node.requests;
    let writing = tokio::spawn({
        let client = client.clone();
        async move { client.execute(7).await }
    });
    until("the command is in the log's queue", async || {
        node.status().node.requests > requests
    })
    .await;
    let ending = tokio::spawn(node.shutdown());
    gate.set(Mode::Works);
    assert_eq!(writing.await.unwrap().unwrap(), [1]);
    ending.await.unwrap().unwrap();
    until("all tasks have ended", async || tasks() == before).await;
    let refused = client.execute(8).await;
    assert!(matches!(refused, Err(ClientError::Unavailable { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_node_ends_in_the_background() {
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let before = tasks();
    let node = single().start().await.unwrap();
    serving(&node).await;
    assert!(tasks() > before);
    drop(node);
    until("all tasks have ended", async || tasks() == before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_ends_the_node_without_an_acknowledgement() {
    for durability in [Durability::Disk, Durability::Memory] {
        let (storage, gate) = GatedStorage::new(durability);
        let node = single().storage(storage).start().await.unwrap();
        serving(&node).await;
        gate.set(Mode::Fails);
        let answer = node.call(command(1), soon(20_000)).await;
        assert!(
            matches!(answer, Ok(Outcome::Unknown) | Err(LinkError::Lost(_))),
            "{durability:?}: {answer:?}"
        );
        let end = node.wait().await;
        assert!(
            matches!(end, Err(NodeError::Storage(_))),
            "{durability:?}: {end:?}"
        );
        let after = node.call(command(2), soon(20_000)).await;
        assert!(matches!(after, Err(LinkError::NotSent(_))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_deadline_a_command_is_unknown_and_a_full_node_is_busy() {
    let (storage, gate) = GatedStorage::new(Durability::Disk);
    let node = single()
        .storage(storage)
        .pending_max(1)
        .start()
        .await
        .unwrap();
    serving(&node).await;
    gate.set(Mode::Stalls);
    let waiting = node.call(command(1), soon(300));
    let second = async {
        until("the first is under way", async || {
            node.status().node.requests > 0
        })
        .await;
        node.call(command(2), soon(300)).await
    };
    let (first, second) = tokio::join!(waiting, second);
    assert_eq!(first.unwrap(), Outcome::Unknown);
    assert_eq!(second.unwrap(), Outcome::Busy);
    assert_eq!(node.status().node.busy, 1);
    gate.set(Mode::Works);
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_hangs_ends_its_node_and_the_group_goes_on_without_it() {
    let network = MemoryNetwork::default();
    let members = [1, 2, 3].map(ReplicaId);
    let mut nodes = Vec::new();
    let mut gates = Vec::new();
    for id in members {
        let (storage, gate) = GatedStorage::new(Durability::Disk);
        let node = Node::builder("stalls", id)
            .members(members)
            .transport(network.transport())
            .storage(storage)
            .storage_stall_max(Duration::from_secs(1))
            .shutdown_within(Duration::from_millis(500))
            .state_machine(Fold::new(0_u64, |sum, by: u64| *sum += by));
        nodes.push(node.start().await.unwrap());
        gates.push(gate);
    }
    let mut options = ClientOptions::default();
    options.deadline = Duration::from_secs(30);
    let client = Client::<Fold<u64, u64>>::with_options(LocalLink::new(&nodes), options);
    assert_eq!(client.execute(1).await, Ok(1));
    let serves = |node: &Node| node.status().protocol.serving;
    let somebody_serves = async || {
        until("somebody serves", async || nodes.iter().any(serves)).await;
        nodes.iter().position(serves).unwrap()
    };
    // First a backup's, then the primary's.
    let backup = (somebody_serves().await + 1) % 3;
    gates[backup].set(Mode::Stalls);
    assert_eq!(client.execute(1).await, Ok(2), "it is dropped");
    let ended = nodes[backup].wait().await;
    assert!(
        matches!(ended, Err(NodeError::StorageStalled { .. })),
        "{ended:?}"
    );
    gates[somebody_serves().await].set(Mode::Stalls);
    assert_eq!(client.execute(1).await, Ok(3), "another takes over");
    for gate in &gates {
        gate.set(Mode::Works);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_refused_while_the_disk_is_too_far_behind() {
    let (storage, gate) = GatedStorage::new(Durability::Disk);
    let node = single()
        .storage(storage)
        .log_backlog_bytes_max(1_000)
        .start()
        .await
        .unwrap();
    serving(&node).await;
    gate.set(Mode::Stalls);
    let large = Op::Plain(Bytes::from(vec![0; 5_000]));
    let first = node.call(large, soon(10_000));
    let second = async {
        until("a command is refused", async || {
            node.call(command(2), soon(1)).await == Ok(Outcome::Busy)
        })
        .await;
        gate.set(Mode::Works);
    };
    let (first, ()) = tokio::join!(first, second);
    assert!(matches!(first, Ok(Outcome::Malformed(_))), "{first:?}");
    until("it takes commands again", async || {
        matches!(
            node.call(command(3), soon(10_000)).await,
            Ok(Outcome::Done { .. })
        )
    })
    .await;
    node.shutdown().await.unwrap();
}

/// Waits in `apply` for a lock that the test holds.
struct Slow(Arc<Mutex<()>>);

impl StateMachine for Slow {
    type Command = ();
    type Query = ();
    type Response = ();
    type Snapshot = ();

    fn apply(&mut self, _: &mut ApplyContext, (): ()) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn query(&self, (): ()) {}

    fn snapshot(&self) {}

    fn restore(&mut self, (): ()) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_full_queue_says_busy_at_once() {
    let lock = Arc::new(Mutex::new(()));
    let node = Node::builder("slow", ReplicaId(1))
        .state_machine(Slow(Arc::clone(&lock)))
        .request_queue_max(4)
        .start()
        .await
        .unwrap();
    serving(&node).await;
    let calls = {
        let held = lock.lock().unwrap();
        let node = Arc::new(node);
        let calls: Vec<_> = (0..100)
            .map(|_| {
                let node = Arc::clone(&node);
                tokio::spawn(async move {
                    node.call(Op::Plain(Bytes::new()), soon(20_000))
                        .await
                        .unwrap()
                })
            })
            .collect();
        let some_refused = tokio::task::block_in_place(|| {
            wait(|| calls.iter().filter(|c| c.is_finished()).count() > 0)
        });
        assert!(some_refused, "the queue holds 4");
        drop(held);
        calls
    };
    let (mut done, mut busy) = (0, 0);
    for call in calls {
        match call.await.unwrap() {
            Outcome::Done { .. } => done += 1,
            Outcome::Busy => busy += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(done >= 1 && busy >= 1, "{done} done, {busy} busy");
}

/// Waits without a timer: the test holds a lock that the runtime's thread may wait for.
fn wait(condition: impl Fn() -> bool) -> bool {
    let begun = Instant::now();
    while !condition() {
        if begun.elapsed() > Duration::from_secs(20) {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

/// Panics at command 13.
struct Unlucky;

impl StateMachine for Unlucky {
    type Command = u64;
    type Query = ();
    type Response = ();
    type Snapshot = ();

    fn apply(&mut self, _: &mut ApplyContext, number: u64) {
        assert_ne!(number, 13, "unlucky");
    }

    fn query(&self, (): ()) {}

    fn snapshot(&self) {}

    fn restore(&mut self, (): ()) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_of_the_state_machine_ends_the_node_and_is_reported() {
    let node = Node::builder("unlucky", ReplicaId(1))
        .state_machine(Unlucky)
        .start()
        .await
        .unwrap();
    serving(&node).await;
    let lost = node.call(command(13), soon(20_000)).await;
    assert!(matches!(lost, Err(LinkError::Lost(_))), "{lost:?}");
    match node.wait().await {
        Err(NodeError::Panicked(why)) => assert!(why.contains("unlucky"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_and_oversized_commands_are_refused_by_name() {
    let limits = Limits {
        command_bytes_max: 100,
        frame_bytes_max: 8_192,
        ..Limits::default()
    };
    let node = single().limits(limits).start().await.unwrap();
    let client = client_of(&node, ClientOptions::default());
    let malformed = client.execute_raw(Bytes::from_static(b"\xff")).await;
    assert!(matches!(malformed, Err(ClientError::Malformed(_))));
    let large = client.execute_raw(Bytes::from(vec![0; 101])).await;
    assert_eq!(
        large,
        Err(ClientError::TooLarge {
            bytes: 101,
            bytes_max: 100
        })
    );
    for n in 0..60 {
        // Beyond 100 bytes the ledger itself is too large an answer.
        client.execute(n + 1_000).await.unwrap();
    }
    assert!(matches!(
        client.query(Read::Linearizable, ()).await,
        Err(ClientError::ResponseTooLarge { .. })
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_session_is_renewed_when_nothing_can_have_been_done() {
    let limits = Limits {
        sessions_max: 1,
        ..Limits::default()
    };
    let node = single().limits(limits).start().await.unwrap();
    let one = client_of(&node, ClientOptions::default());
    let other = client_of(&node, ClientOptions::default());
    for n in 0..5 {
        assert_eq!(one.execute(2 * n).await.unwrap(), [2 * n + 1]);
        assert_eq!(other.execute(2 * n + 1).await.unwrap(), [2 * n + 2]);
    }
    other.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn more_commands_at_once_than_the_window_all_succeed() {
    let limits = Limits {
        session_window: 4,
        ..Limits::default()
    };
    let node = single().limits(limits).start().await.unwrap();
    let mut options = ClientOptions::default();
    options.window = 4;
    let client = client_of(&node, options);
    let all: Vec<_> = (0..200)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move { client.execute(n).await.unwrap() })
        })
        .collect();
    for one in all {
        one.await.unwrap();
    }
    let mut ledger = client.query(Read::Linearizable, ()).await.unwrap();
    ledger.sort_unstable();
    assert_eq!(ledger, (0..200).collect::<Vec<_>>());
}

#[tokio::test(flavor = "current_thread")]
async fn wrong_descriptions_are_refused_with_what_to_change() {
    let hasty = Timing {
        suspect_after: Duration::from_millis(1),
        ..Timing::default()
    };
    let three = || (1..=3).map(ReplicaId);
    let cases: Vec<(NodeBuilder, &str)> = vec![
        (single().members([]), "at least one member"),
        (single().members([ReplicaId(2)]), "not among the members"),
        (single().members(three()), "transport"),
        (single().timing(hasty), "suspect_after"),
        (single().pending_max(0), "pending_max"),
        (single().reply_within(Duration::ZERO), "reply_within"),
        (single().authority(Authority::Witness), "transport"),
        (Node::builder("x", ReplicaId(1)), "state_machine"),
        (
            single().group(GroupConfig::new([ReplicaId::WITNESS], Authority::Alone)),
            "reserved",
        ),
    ];
    for (builder, word) in cases {
        match builder.start().await {
            Err(StartError::Config(why)) => assert!(why.contains(word), "{word}: {why}"),
            other => panic!("{word}: {other:?}"),
        }
    }
    match Node::witness("x").start().await {
        Err(StartError::Config(why)) => assert!(why.contains("transport"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_group_without_a_name_and_a_replica_in_its_own_place_are_refused_with_a_reason() {
    let nameless = Node::builder("", ReplicaId(1)).state_machine(Ledger::default());
    let why = nameless.start().await.unwrap_err().to_string();
    assert!(why.contains("name of the group is empty"), "{why}");
    let itself = single()
        .members([1, 2].map(ReplicaId))
        .join(Join::full().in_place_of(ReplicaId(1)));
    let why = itself.start().await.unwrap_err().to_string();
    assert!(why.contains("n1 cannot join in its own place"), "{why}");
}
