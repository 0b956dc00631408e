use super::*;
use crate::id::Incarnation;
use crate::transport::InboxSink;
use std::sync::Mutex;

/// An inbox with room for `room` events.
struct Kept {
    events: Mutex<Vec<InboxEvent>>,
    room: usize,
    takes_shipments: bool,
}

#[async_trait]
impl InboxSink for Kept {
    fn try_deliver(&self, event: InboxEvent) -> Result<(), InboxEvent> {
        let mut events = self.events.lock().unwrap();
        if events.len() == self.room {
            return Err(event);
        }
        events.push(event);
        Ok(())
    }

    async fn deliver(&self, event: InboxEvent) -> bool {
        self.try_deliver(event).is_ok()
    }

    fn takes_shipments(&self) -> bool {
        self.takes_shipments
    }
}

impl Kept {
    fn new(room: usize) -> Arc<Self> {
        Arc::new(Self {
            events: Mutex::default(),
            room,
            takes_shipments: room == SHIPMENTS,
        })
    }

    fn take(&self) -> Vec<String> {
        let events = std::mem::take(&mut *self.events.lock().unwrap());
        events.iter().map(|event| format!("{event:?}")).collect()
    }
}

/// Room of an inbox that takes shipments.
const SHIPMENTS: usize = 7;

fn peer(replica: u32, config_hash: u64) -> LocalPeer {
    LocalPeer {
        group: GroupId(1),
        replica: ReplicaId(replica),
        incarnation: Incarnation(1),
        config_hash,
    }
}

async fn started(
    network: &MemoryNetwork,
    me: LocalPeer,
    room: usize,
) -> (MemoryTransport, Arc<Kept>) {
    let (transport, inbox) = (network.transport(), Kept::new(room));
    transport
        .start(me, Inbox::new(inbox.clone()))
        .await
        .unwrap();
    (transport, inbox)
}

fn frame(body: &[u8]) -> Bytes {
    wire::encode_frame(FrameKind::Peer, body)
}

#[tokio::test]
async fn a_link_cut_one_way_carries_the_other_way_and_heals() {
    let network = MemoryNetwork::new();
    let (one, heard_by_one) = started(&network, peer(1, 7), 100).await;
    let (two, heard_by_two) = started(&network, peer(2, 7), 100).await;
    assert_eq!(heard_by_one.take(), ["Hint(n2, Connected)"]);
    assert_eq!(heard_by_two.take(), ["Hint(n1, Connected)"]);

    network.cut(ReplicaId(1), ReplicaId(2));
    one.send(Destination::One(ReplicaId(2)), frame(b"lost"));
    two.send(Destination::One(ReplicaId(1)), frame(b"heard"));
    assert_eq!(heard_by_two.take(), [""; 0]);
    assert_eq!(heard_by_one.take(), ["Peer(5 bytes)"]);
    assert_eq!(one.counters().frames_dropped, 1);

    network.heal(ReplicaId(1), ReplicaId(2));
    one.send(Destination::Group, frame(b"again"));
    assert_eq!(heard_by_two.take(), ["Peer(5 bytes)"]);
    assert_eq!(two.counters().frames_received, 1);
}

#[tokio::test]
async fn one_that_closes_is_reported_gone_unless_its_links_are_cut() {
    let network = MemoryNetwork::new();
    let (one, _) = started(&network, peer(1, 7), 100).await;
    let (_two, heard_by_two) = started(&network, peer(2, 7), 100).await;
    let (_three, heard_by_three) = started(&network, peer(3, 7), 100).await;
    heard_by_two.take();
    heard_by_three.take();
    network.cut(ReplicaId(1), ReplicaId(3));
    one.close().await;
    one.close().await;
    assert_eq!(heard_by_two.take(), ["Hint(n1, Gone)"]);
    assert_eq!(heard_by_three.take(), [""; 0]);
}

#[tokio::test]
async fn a_full_inbox_drops_the_newest_and_counts_it() {
    let network = MemoryNetwork::new();
    let (_two, heard_by_two) = started(&network, peer(2, 7), 1).await;
    let (one, _) = started(&network, peer(1, 7), 100).await;
    heard_by_two.take();
    for _ in 0..3 {
        one.send(Destination::One(ReplicaId(2)), frame(b"x"));
    }
    assert_eq!(heard_by_two.take(), ["Peer(1 bytes)"]);
    assert_eq!(one.counters().frames_sent, 1);
    assert_eq!(one.counters().frames_dropped, 2);
}

#[tokio::test]
async fn another_configuration_is_not_heard_but_the_witness_is() {
    let network = MemoryNetwork::new();
    let (one, _) = started(&network, peer(1, 7), 100).await;
    let (two, heard_by_two) = started(&network, peer(2, 8), 100).await;
    let (_witness, heard_by_witness) = started(&network, peer(ReplicaId::WITNESS.0, 0), 100).await;
    heard_by_two.take();
    heard_by_witness.take();
    one.send(Destination::One(ReplicaId(2)), frame(b"x"));
    one.send(Destination::One(ReplicaId::WITNESS), frame(b"x"));
    assert_eq!(heard_by_two.take(), [""; 0]);
    assert_eq!(two.counters().refused, 1);
    assert_eq!(heard_by_witness.take(), ["Peer(1 bytes)"]);
}

#[tokio::test]
async fn two_of_the_same_name_are_refused() {
    let network = MemoryNetwork::new();
    let (one, _) = started(&network, peer(1, 7), 100).await;
    let twin = network.transport();
    let refused = twin.start(peer(1, 7), Inbox::new(Kept::new(1))).await;
    assert!(matches!(refused, Err(TransportError::Config(text)) if text.contains("n1")));
    drop(twin);
    one.close().await;
    started(&network, peer(1, 7), 100).await;
}

#[cfg(feature = "testing")]
mod suite {
    use super::*;
    use crate::testing::transport_suite::TransportFactory;

    struct InMemory(MemoryNetwork);

    #[async_trait]
    impl TransportFactory for InMemory {
        async fn make(&self, replicas: &[ReplicaId]) -> BTreeMap<ReplicaId, Arc<dyn Transport>> {
            let made = |id: &ReplicaId| (*id, Arc::new(self.0.transport()) as Arc<dyn Transport>);
            replicas.iter().map(made).collect()
        }

        async fn remake(&self, _: ReplicaId) -> Arc<dyn Transport> {
            Arc::new(self.0.transport())
        }
    }

    crate::transport_suite!(InMemory(MemoryNetwork::new()));
}

#[tokio::test]
async fn entries_go_over_as_they_are_to_whom_takes_them_so_and_encoded_to_others() {
    let network = MemoryNetwork::with_frame_bytes_max(100);
    let (one, _) = started(&network, peer(1, 7), 100).await;
    let (_two, at_two) = started(&network, peer(2, 7), 100).await;
    let (_three, at_three) = started(&network, peer(3, 7), SHIPMENTS).await;
    assert!(one.shares_memory());
    at_two.take();
    at_three.take();
    let entry = |bytes| {
        let (term, kind) = (crate::Term::ZERO, crate::EntryKind::Command);
        let payload = vec![0; bytes].into();
        let (prev, time) = (crate::LogPoint::ZERO, crate::Timestamp(0));
        crate::Entry::following(prev, term, time, 0, kind, payload)
    };
    let shipment = Shipment::new("head".into(), vec![entry(1)].into());
    one.ship(ReplicaId(2), shipment.clone());
    one.ship(ReplicaId(3), shipment.clone());
    one.ship(ReplicaId(4), shipment.clone());
    one.ship(
        ReplicaId(3),
        Shipment::new("head".into(), vec![entry(100)].into()),
    );
    let InboxEvent::Peer(body) = at_two.events.lock().unwrap().pop().unwrap() else {
        panic!("it does not take shipments");
    };
    let framed = wire::own_body(&shipment.frame(), FrameKind::Peer);
    assert_eq!((&body, Some(&body)), (&shipment.body(), framed.as_ref()));
    let InboxEvent::Shipment(shipped) = at_three.events.lock().unwrap().pop().unwrap() else {
        panic!("it takes shipments");
    };
    assert!(
        shipped.entries().is_same(shipment.entries()),
        "the same memory"
    );
    let counters = one.counters();
    assert_eq!((counters.frames_sent, counters.frames_dropped), (2, 1));
    assert_eq!(counters.refused, 1, "what is too large is so either way");
}
