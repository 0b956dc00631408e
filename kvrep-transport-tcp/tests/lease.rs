//! Reads under a lease, on real nodes over TCP: they ask nobody, and a primary that stood still for longer than its lease
//! answers none from what it knew before.

mod common;

use bytes::BytesMut;
use common::{PATIENCE, until};
use kvrep_core::client_wire::{Op, Outcome, Reply, Request};
use kvrep_core::node::{Client, Node};
use kvrep_core::state_machine::{decode, encode};
use kvrep_core::wire::{self, FrameKind};
use kvrep_core::{Authority, Confirm, Fold, GroupConfig, Manage, Read, ReplicaId};
use kvrep_transport_tcp::{TcpConfig, TcpGroupLink, TcpTransport, Unlisted};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::timeout;

type Sum = Fold<i64, i64>;

const GROUP: &str = "leases";
const FIRST: ReplicaId = ReplicaId(1);

/// Three replicas in memory and a witness; the first replica has a thread of its own.
struct Group {
    nodes: Vec<Node>,
    addresses: Vec<String>,
    apart: Apart,
    _witness: Node,
}

impl Group {
    /// Starts it and waits until the first replica serves with all three in sync.
    async fn start(change: impl Fn(&mut GroupConfig)) -> Self {
        let mut config = GroupConfig::new([1, 2, 3].map(ReplicaId), Authority::Witness);
        change(&mut config);
        let witness = TcpConfig::new("127.0.0.1:0").unlisted(Unlisted::Answer);
        let witness = TcpTransport::bind(witness).await.unwrap();
        let mut everybody = vec![(ReplicaId::WITNESS, at(&witness))];
        let apart = Apart::start();
        let mut bound = Vec::new();
        for id in &config.members {
            let bind = TcpTransport::bind(TcpConfig::new("127.0.0.1:0"));
            let transport = apart.or_here(*id, bind).await.unwrap();
            everybody.push((*id, at(&transport)));
            bound.push((*id, transport));
        }
        let witness = Node::witness(GROUP).transport(witness).start();
        let mut nodes = Vec::new();
        for (id, transport) in bound {
            for (peer, address) in everybody.iter().filter(|(peer, _)| *peer != id) {
                transport.add_peer(*peer, address);
            }
            let node = Node::builder(GROUP, id)
                .group(config.clone())
                .transport(transport)
                .shutdown_within(Duration::from_secs(1))
                .state_machine(Fold::new(0_i64, |sum, by: i64| *sum += by));
            nodes.push(apart.or_here(id, node.start()).await.unwrap());
        }
        let group = Self {
            nodes,
            addresses: everybody.into_iter().skip(1).map(|(_, a)| a).collect(),
            apart,
            _witness: witness.await.unwrap(),
        };
        group.begins().await;
        group
    }

    async fn begins(&self) {
        let everybody_in_sync = || {
            let statuses = self.nodes.iter().map(|node| node.status().protocol);
            let mut serving = statuses.filter(|status| status.serving);
            serving.any(|s| s.configuration.is_some_and(|c| c.in_sync.len() == 3))
        };
        until("all three are in sync", everybody_in_sync).await;
        let to = Some(FIRST);
        let handed_over = self.client(0).manage(Manage::Handover { to }).await;
        assert_eq!(handed_over.unwrap().term.replica, FIRST);
        until("the first serves", || self.serves(0)).await;
    }

    fn serves(&self, at: usize) -> bool {
        self.nodes[at].status().protocol.serving
    }

    /// A client of the replicas from this place on.
    fn client(&self, from: usize) -> Client<Sum> {
        Client::new(TcpGroupLink::new(GROUP, &self.addresses[from..]))
    }

    /// Frames that the backups have sent so far: the answers to heartbeats, and to rounds of reads.
    fn answers(&self) -> u64 {
        self.sent_by_each().sum()
    }

    fn sent_by_each(&self) -> impl Iterator<Item = u64> {
        let sent = |node: &Node| node.status().transport.frames_sent;
        self.nodes[1..].iter().map(sent)
    }

    /// The first replica is not touched from its own thread any more.
    async fn stop(self) {
        for node in self.nodes {
            drop(node.shutdown().await);
        }
        drop(self.apart);
    }
}

/// A thread with a runtime that can be made to stand still, as a process does that gets SIGSTOP: its sockets take
/// what comes, its clock goes on.
struct Apart {
    handle: Handle,
    end: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Apart {
    fn start() -> Self {
        let (tell, told) = mpsc::channel();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            tell.send(runtime.handle().clone()).unwrap();
            drop(runtime.block_on(ended));
        });
        Self {
            handle: told.recv().unwrap(),
            end: Some(end),
            thread: Some(thread),
        }
    }

    /// Runs this on the thread if it is the first replica's.
    async fn or_here<T: Send + 'static>(
        &self,
        id: ReplicaId,
        what: impl Future<Output = T> + Send + 'static,
    ) -> T {
        if id == FIRST {
            self.handle.spawn(what).await.unwrap()
        } else {
            what.await
        }
    }

    /// Stands still until what is returned is dropped.
    async fn stand_still(&self) -> mpsc::Sender<()> {
        let (go_on, until_dropped) = mpsc::channel::<()>();
        let (tell, stands) = tokio::sync::oneshot::channel();
        self.handle.spawn(async move {
            tell.send(()).unwrap();
            let _ = until_dropped.recv();
        });
        stands.await.unwrap();
        go_on
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        drop(self.end.take());
        drop(self.thread.take().map(JoinHandle::join));
    }
}

fn at(transport: &TcpTransport) -> String {
    transport.local_addr().unwrap().to_string()
}

/// A connection to one replica. What is sent is in the system's hands when `send` returns.
struct Connection {
    stream: TcpStream,
    read: BytesMut,
}

impl Connection {
    async fn open(address: &str) -> Self {
        Self {
            stream: TcpStream::connect(address).await.unwrap(),
            read: BytesMut::new(),
        }
    }

    async fn send(&mut self, id: u64) {
        let (read, query) = (Read::Linearizable, encode(&()));
        let op = Op::Query { read, query };
        let frame = Request { id, op }.to_frame();
        self.stream.write_all(&frame).await.unwrap();
    }

    async fn next(&mut self) -> Outcome {
        loop {
            if let Some((kind, body)) = wire::decode_frame(&mut self.read, 1 << 20).unwrap() {
                assert_eq!(kind, FrameKind::Reply);
                return Reply::from_body(&body).unwrap().outcome;
            }
            let came = timeout(PATIENCE, self.stream.read_buf(&mut self.read)).await;
            assert!(came.unwrap().unwrap() > 0, "the connection ended");
        }
    }

    async fn ask(&mut self, id: u64) -> Outcome {
        self.send(id).await;
        self.next().await
    }
}

/// What was read, if the question was answered.
fn value(outcome: &Outcome) -> Option<i64> {
    let Outcome::Done { response, .. } = outcome else {
        return None;
    };
    Some(decode(response).unwrap())
}

fn lease(config: &mut GroupConfig) {
    config.confirm = Confirm::Lease {
        length: config.timing.suspect_after,
        drift_ppm_max: 1_000,
    };
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_under_a_lease_asks_nobody_and_one_without_asks_everybody() {
    const READS: u64 = 500;
    for leased in [false, true] {
        // So few heartbeats that their answers do not count beside those to rounds.
        let group = Group::start(|config| {
            config.timing.heartbeat_every = Duration::from_millis(200);
            config.timing.suspect_after = Duration::from_secs(3);
            if leased {
                lease(config);
            }
        })
        .await;
        group.client(0).execute(7).await.unwrap();
        let mut connection = Connection::open(&group.addresses[0]).await;
        let before = group.answers();
        for id in 0..READS {
            let outcome = connection.ask(id).await;
            assert_eq!(value(&outcome), Some(7), "{outcome:?}");
        }
        if leased {
            // What each of them publishes after its next heartbeat's answer tells of all that it sent before.
            let seen: Vec<u64> = group.sent_by_each().collect();
            let more = || {
                group
                    .sent_by_each()
                    .zip(&seen)
                    .all(|(now, then)| now > *then)
            };
            until("each answered another heartbeat", more).await;
            let answers = group.answers() - before;
            assert!(answers < READS / 2, "{answers} answers for {READS} reads");
        } else {
            let asked = || group.answers() - before >= 2 * READS;
            until("each is seen to have answered for every read", asked).await;
        }
        group.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_stood_still_for_longer_than_its_lease_answers_no_read_from_its_old_state() {
    let group = Group::start(lease).await;
    group.client(0).execute(1).await.unwrap();
    let mut connection = Connection::open(&group.addresses[0]).await;
    assert_eq!(value(&connection.ask(0).await), Some(1));

    let standing_still = group.apart.stand_still().await;
    until("another takes over", || group.serves(1) || group.serves(2)).await;
    let successor = group.client(1);
    successor.execute(1).await.unwrap();
    assert_eq!(successor.query(Read::Linearizable, ()).await, Ok(2));
    // Asked of the old primary after another has acknowledged more: they lie in its socket when it goes on.
    const ASKED: u64 = 100;
    for id in 1..=ASKED {
        connection.send(id).await;
    }
    assert!(group.serves(0), "it does not know yet: it stands still");
    drop(standing_still);
    for id in 1..=ASKED {
        let outcome = connection.next().await;
        assert_ne!(value(&outcome), Some(1), "read {id} shows the old state");
    }
    until("it follows", || !group.serves(0)).await;
    assert_eq!(group.client(0).query(Read::Linearizable, ()).await, Ok(2));
    group.stop().await;
}
