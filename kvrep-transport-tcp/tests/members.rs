//! Members that come and go on real nodes over TCP, under load: no command fails, none is done twice.

mod common;

use common::PATIENCE;
use kvrep_core::node::{Client, ClientOptions, Node};
use kvrep_core::protocol::passive::Join;
use kvrep_core::{Authority, Fold, Manage, MemberKind, Read, ReplicaId};
use kvrep_transport_tcp::{TcpConfig, TcpGroupLink, TcpTransport, Unlisted};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

type Sum = Fold<i64, i64>;

fn sum() -> Sum {
    Fold::new(0_i64, |sum, by: i64| *sum += by)
}

struct Group {
    name: String,
    authority: Authority,
    nodes: Vec<Node>,
    addresses: Vec<(ReplicaId, String)>,
    data: TempDir,
    _witness: Option<Node>,
}

impl Group {
    /// Founders 1 to `count`, with directories, that list each other.
    async fn start(name: &str, authority: Authority, count: u32) -> Self {
        let name = format!("{name} {authority:?}");
        let data = tempfile::tempdir().unwrap();
        let mut addresses = Vec::new();
        let mut witness = None;
        if authority == Authority::Witness {
            let config = TcpConfig::new("127.0.0.1:0").unlisted(Unlisted::Answer);
            let transport = TcpTransport::bind(config).await.unwrap();
            addresses.push((ReplicaId::WITNESS, at(&transport)));
            let node = Node::witness(&name)
                .transport(transport)
                .data_dir(data.path().join("witness"));
            witness = Some(node.start().await.unwrap());
        }
        let mut group = Self {
            name,
            authority,
            nodes: Vec::new(),
            addresses,
            data,
            _witness: witness,
        };
        let ids: Vec<ReplicaId> = (1..=count).map(ReplicaId).collect();
        let mut bound = Vec::new();
        for id in &ids {
            let transport = TcpTransport::bind(TcpConfig::new("127.0.0.1:0"))
                .await
                .unwrap();
            group.addresses.push((*id, at(&transport)));
            bound.push(transport);
        }
        for (id, transport) in ids.iter().zip(bound) {
            for (peer, address) in &group.addresses {
                transport.add_peer(*peer, address);
            }
            let node = Node::builder(&group.name, *id)
                .members(ids.iter().copied())
                .authority(authority)
                .data_dir(group.directory(*id))
                .transport(transport)
                .shutdown_within(Duration::from_secs(1))
                .state_machine(sum());
            group.nodes.push(node.start().await.unwrap());
        }
        group.in_sync(&ids).await;
        group
    }

    fn directory(&self, id: ReplicaId) -> PathBuf {
        self.data.path().join(id.to_string())
    }

    /// A newcomer that knows the addresses of one elder, and of the witness.
    async fn join(&mut self, id: u32, elder: u32, join: Join) -> ReplicaId {
        let (id, elder) = (ReplicaId(id), ReplicaId(elder));
        let transport = TcpTransport::bind(TcpConfig::new("127.0.0.1:0"))
            .await
            .unwrap();
        for (peer, address) in &self.addresses {
            if *peer == elder || *peer == ReplicaId::WITNESS {
                transport.add_peer(*peer, address);
            }
        }
        self.addresses.push((id, at(&transport)));
        let node = Node::builder(&self.name, id)
            .members([elder])
            .join(join)
            .authority(self.authority)
            .data_dir(self.directory(id))
            .transport(transport)
            .shutdown_within(Duration::from_secs(1))
            .state_machine(sum());
        self.nodes.push(node.start().await.unwrap());
        id
    }

    /// Waits until these are in the in-sync set, and no others.
    async fn in_sync(&self, ids: &[ReplicaId]) {
        let configurations = || {
            let statuses = self.nodes.iter().map(|node| node.status().protocol);
            statuses.filter(|s| s.serving).find_map(|s| s.configuration)
        };
        let there = || configurations().is_some_and(|c| c.in_sync.keys().eq(ids.iter()));
        self.until(&format!("{ids:?} are in sync"), there).await;
    }

    async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            let statuses: Vec<_> = self.nodes.iter().map(|n| n.status().protocol).collect();
            assert!(Instant::now() < deadline, "never: {what}: {statuses:#?}");
            sleep(Duration::from_millis(2)).await;
        }
    }

    fn node(&self, id: ReplicaId) -> &Node {
        let mut nodes = self.nodes.iter();
        nodes.find(|n| n.identity().replica == id).unwrap()
    }

    fn client(&self) -> Client<Sum> {
        let members = self.addresses.iter();
        let members = members.filter(|(id, _)| *id != ReplicaId::WITNESS);
        let addresses: Vec<String> = members.map(|(_, address)| address.clone()).collect();
        let mut options = ClientOptions::default();
        options.deadline = PATIENCE;
        Client::with_options(TcpGroupLink::new(&self.name, addresses), options)
    }
}

fn at(transport: &TcpTransport) -> String {
    transport.local_addr().unwrap().to_string()
}

/// A client that adds 1, again and again; every answer must follow the one before.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    running: JoinHandle<(i64, Duration)>,
}

impl Load {
    fn start(client: Client<Sum>) -> Self {
        let (stop, done) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let running = tokio::spawn({
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            async move {
                let (mut count, mut longest) = (0, Duration::ZERO);
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    client.execute(1).await.expect("no command fails");
                    count += 1;
                    longest = longest.max(began.elapsed());
                    done.fetch_add(1, Ordering::Relaxed);
                }
                (count, longest)
            }
        });
        Self {
            stop,
            done,
            running,
        }
    }

    /// Waits until some more is done.
    async fn goes_on(&self) {
        let deadline = Instant::now() + PATIENCE;
        let before = self.done.load(Ordering::Relaxed);
        while self.done.load(Ordering::Relaxed) < before + 20 {
            assert!(Instant::now() < deadline, "the load stands still");
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// How many commands were done, and the longest that one took.
    async fn end(self) -> (i64, Duration) {
        self.stop.store(true, Ordering::Relaxed);
        self.running.await.unwrap()
    }
}

fn both() -> [Authority; 2] {
    [Authority::Alone, Authority::Witness]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handover_under_load_fails_no_command() {
    for authority in both() {
        let group = Group::start("handover", authority, 3).await;
        let client = group.client();
        let load = Load::start(client.clone());
        load.goes_on().await;
        for to in [2, 3, 1].map(ReplicaId) {
            let began = Instant::now();
            let now = client
                .manage(Manage::Handover { to: Some(to) })
                .await
                .unwrap();
            println!("{authority:?}: {to} reigns after {:?}", began.elapsed());
            assert_eq!(now.term.replica, to);
            load.goes_on().await;
        }
        let (count, longest) = load.end().await;
        println!("{authority:?}: {count} commands, the longest took {longest:?}");
        assert_eq!(client.query(Read::Linearizable, ()).await.unwrap(), count);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_replaced_one_by_one_under_load_by_newcomers_that_know_one_elder() {
    for authority in both() {
        let mut group = Group::start("replaced", authority, 2).await;
        let client = group.client();
        let load = Load::start(client.clone());
        load.goes_on().await;
        let four = group.join(4, 1, Join::full()).await;
        let five = group.join(5, 2, Join::full()).await;
        group
            .in_sync(&[ReplicaId(1), ReplicaId(2), four, five])
            .await;
        load.goes_on().await;
        // The elders leave, the primary among them; the newcomers, that never listed each other, go on.
        for elder in [1, 2].map(ReplicaId) {
            group.node(elder).leave().await.unwrap();
            load.goes_on().await;
        }
        group.in_sync(&[four, five]).await;
        let (before, after) = (2, group.nodes.len());
        drop(group.nodes.drain(..before));
        assert_eq!(after, 4);
        load.goes_on().await;
        let (count, longest) = load.end().await;
        println!("{authority:?}: {count} commands, the longest took {longest:?}");
        assert_eq!(client.query(Read::Linearizable, ()).await.unwrap(), count);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_is_replaced_in_one_step_and_a_learner_only_copies() {
    for authority in both() {
        let mut group = Group::start("killed", authority, 3).await;
        let client = group.client();
        let load = Load::start(client.clone());
        load.goes_on().await;
        let dead = ReplicaId(3);
        drop(group.nodes.remove(2));
        std::fs::remove_dir_all(group.directory(dead)).unwrap();
        let four = group.join(4, 1, Join::full().in_place_of(dead)).await;
        group.in_sync(&[ReplicaId(1), ReplicaId(2), four]).await;
        load.goes_on().await;

        let learner = group.join(7, 2, Join::learner()).await;
        let is_learner = || {
            let known = group.node(learner).status().protocol.configuration;
            known.is_some_and(|c| c.members.get(&learner) == Some(&MemberKind::Learner))
        };
        group.until("it belongs", is_learner).await;
        let (count, _) = load.end().await;
        let here = Client::<Sum>::new(kvrep_core::node::LocalLink::new([group.node(learner)]));
        let caught_up = || {
            let status = group.node(learner).status().protocol;
            status.applied == status.last.index && status.applied >= client.token().index
        };
        group.until("the learner has everything", caught_up).await;
        assert_eq!(here.query(Read::Local, ()).await.unwrap(), count);
        group.in_sync(&[ReplicaId(1), ReplicaId(2), four]).await;

        let gone = client.manage(Manage::Remove(learner)).await.unwrap();
        assert!(!gone.members.contains_key(&learner));
        let told = || {
            let why = group.node(learner).status().protocol.waiting_for;
            why.contains("was removed from the group")
        };
        group.until("the learner knows", told).await;
        let unknown = client.manage(Manage::Remove(dead)).await.unwrap_err();
        assert!(
            unknown.to_string().contains("n3 is not a member"),
            "{unknown}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_belongs_after_its_restart_and_finds_elders_that_restarted() {
    let mut group = Group::start("restarts", Authority::Witness, 2).await;
    let client = group.client();
    client.execute(1).await.unwrap();
    let four = group.join(4, 1, Join::full()).await;
    group.in_sync(&[ReplicaId(1), ReplicaId(2), four]).await;
    // Everybody restarts at the same addresses; nobody lists the newcomer, and it lists one elder.
    let addresses = group.addresses.clone();
    for node in group.nodes.drain(..) {
        node.shutdown().await.unwrap();
    }
    for id in [four, ReplicaId(1), ReplicaId(2)] {
        let listen = &addresses.iter().find(|(a, _)| *a == id).unwrap().1;
        let listed: Vec<_> = addresses
            .iter()
            .filter(|(peer, _)| *peer != four && (id != four || *peer != ReplicaId(2)))
            .cloned()
            .collect();
        let transport = TcpTransport::new(TcpConfig::new(listen).peers(listed));
        let node = Node::builder(&group.name, id)
            .members([1, 2].map(ReplicaId))
            .authority(Authority::Witness)
            .data_dir(group.directory(id))
            .transport(transport)
            .shutdown_within(Duration::from_secs(1))
            .state_machine(sum());
        let node = if id == four {
            node.join(Join::full())
        } else {
            node
        };
        group.nodes.push(node.start().await.unwrap());
    }
    group.in_sync(&[ReplicaId(1), ReplicaId(2), four]).await;
    assert_eq!(client.execute(1).await.unwrap(), 2);
}
