//! What anybody may send: it is counted and dropped, nothing grows, nobody is revived, and the group is heard all the same.

mod common;

use common::{PATIENCE, config, until};
use kvrep_core::client_wire::{Op, Request};
use kvrep_core::node::{Client, ClientLink, ClientOptions};
use kvrep_core::testing::mailbox::Mailbox;
use kvrep_core::transport::{Destination, Hint, InboxEvent, LocalPeer, Transport};
use kvrep_core::wire::{Envelope, FrameKind, encode_frame};
use kvrep_core::{Fold, GroupId, Incarnation, ReplicaId};
use kvrep_transport_multicast::{
    GroupSocket, MulticastConfig, MulticastGroupLink, MulticastTransport,
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

const GROUP: &str = "attacked";

struct Member {
    transport: MulticastTransport,
    mailbox: Mailbox,
}

async fn member(config: &MulticastConfig, replica: u32, incarnation: u64) -> Member {
    let me = LocalPeer {
        group: GroupId::named(GROUP),
        replica: ReplicaId(replica),
        incarnation: Incarnation(incarnation),
        config_hash: 7,
    };
    let member = Member {
        transport: MulticastTransport::new(config.clone()),
        mailbox: Mailbox::new(1_024),
    };
    let started = member.transport.start(me, member.mailbox.inbox()).await;
    started.expect("it starts");
    member
}

/// A datagram in the layout of `datagram.rs`.
fn datagram(
    kind: u8,
    from: u32,
    incarnation: u64,
    (number, whole, index, count): (u64, u32, u16, u16),
    piece: &[u8],
) -> Vec<u8> {
    let mut out = b"KVRU\x01".to_vec();
    out.push(kind);
    out.extend(GroupId::named(GROUP).0.to_be_bytes());
    out.extend(from.to_be_bytes());
    out.extend(incarnation.to_be_bytes());
    out.extend(7_u64.to_be_bytes());
    out.extend(ReplicaId::NOBODY.0.to_be_bytes());
    out.extend(number.to_be_bytes());
    out.extend(whole.to_be_bytes());
    out.extend(index.to_be_bytes());
    out.extend(count.to_be_bytes());
    let crc = crc32fast::hash(&out);
    out.extend(crc.to_be_bytes());
    out.extend(piece);
    out
}

/// What `from` says of a later life of another one.
fn later_life(from: u32, incarnation: u64, (of, later): (u32, u64)) -> Vec<u8> {
    let mut word = datagram(LATER, from, incarnation, (later, 0, 0, 0), b"");
    address_to(of, &mut word);
    word
}

fn address_to(to: u32, datagram: &mut [u8]) {
    datagram[34..38].copy_from_slice(&to.to_be_bytes());
    let crc = crc32fast::hash(&datagram[..54]);
    datagram[54..58].copy_from_slice(&crc.to_be_bytes());
}

const HELLO: u8 = 1;
const PIECE_FOR_ALL: u8 = 3;
const PIECE_FOR_ONE: u8 = 4;
const LATER: u8 = 5;
const NOBODY: u32 = ReplicaId::NOBODY.0;

fn frame(number: u64) -> bytes::Bytes {
    let mut body = bytes::BytesMut::new();
    let envelope = Envelope {
        group: GroupId::named(GROUP),
        from: ReplicaId(2),
        incarnation: Incarnation(1),
        to_incarnation: Incarnation(number),
    };
    envelope.encode(&mut body);
    encode_frame(FrameKind::Peer, &body)
}

async fn next_frame(member: &Member, patience: Duration) -> Option<bytes::Bytes> {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if let InboxEvent::Peer(body) = member.mailbox.next(left).await? {
            return Some(body);
        }
    }
}

/// Frames from 2 are heard at 1.
async fn is_heard(one: &Member, two: &Member) {
    while next_frame(one, Duration::ZERO).await.is_some() {}
    let deadline = Instant::now() + PATIENCE;
    for number in 1.. {
        two.transport.send(Destination::Group, frame(number));
        if next_frame(one, Duration::from_millis(50)).await.is_some() {
            return;
        }
        assert!(Instant::now() < deadline, "the group is not heard any more");
    }
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_counted_and_dropped_and_memory_stays_flat() {
    let config = config();
    let (one, two) = (member(&config, 1, 1).await, member(&config, 2, 1).await);
    is_heard(&one, &two).await;
    let attacker = GroupSocket::open(&config).unwrap();
    let mut noise = kvrep_core::random::Rng::new(7);
    let mut sent = 0_u64;
    let before = (one.transport.counters().refused, resident_kib());
    for round in 0..20_000_u64 {
        let garbage: Vec<u8> = match round % 5 {
            0 => Vec::new(),
            1 => vec![0xa5; 60_000],
            2 => (0..noise.below(300))
                .map(|_| noise.below(256) as u8)
                .collect(),
            // A piece of a frame that is too large, or that cannot be.
            3 => datagram(PIECE_FOR_ALL, 3, 1, (round, u32::MAX, 0, 8_000), &[0; 100]),
            // A piece of a frame that never completes.
            _ => datagram(PIECE_FOR_ALL, 3, 1, (round, 60_000, 0, 60), &[0; 1_000]),
        };
        let to = config.group;
        let _ = timeout(PATIENCE, attacker.own().send_to(&garbage, to)).await;
        sent += 1;
        if round % 64 == 0 {
            // Slowly enough to be read.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    until("the garbage is counted", || {
        let counters = one.transport.counters();
        counters.refused - before.0 + counters.frames_dropped > sent / 4
    })
    .await;
    is_heard(&one, &two).await;
    let grown = resident_kib().saturating_sub(before.1);
    assert!(grown < 64 << 10, "{grown} KiB more than before");
    one.transport.close().await;
    two.transport.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_revived_and_what_is_sent_again_is_not_heard_again() {
    let config = config();
    let spy = GroupSocket::open(&config).unwrap();
    let (one, two) = (member(&config, 1, 1).await, member(&config, 2, 5).await);
    is_heard(&one, &two).await;
    // What was heard on the way, and is sent again.
    let mut heard = Vec::new();
    let mut buffer = vec![0; 65_536];
    while let Ok(Ok((bytes, _))) = timeout(
        Duration::from_millis(100),
        spy.group().recv_from(&mut buffer),
    )
    .await
    {
        heard.push(buffer[..bytes].to_vec());
        if heard.len() > 100 {
            break;
        }
    }
    assert!(!heard.is_empty());
    while next_frame(&one, Duration::from_millis(50)).await.is_some() {}
    for datagram in &heard {
        spy.own().send_to(datagram, config.group).await.unwrap();
    }
    assert_eq!(next_frame(&one, Duration::from_millis(300)).await, None);
    // Its end is heard; after that its life is over, whoever says otherwise.
    two.transport.close().await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "its farewell is not heard");
        let event = one.mailbox.next(Duration::from_millis(100)).await;
        let gone = Hint::Gone;
        if matches!(event, Some(InboxEvent::Hint { hint, .. }) if hint == gone) {
            break;
        }
    }
    for incarnation in [1, 4, 5] {
        let hello = datagram(HELLO, 2, incarnation, (0, 0, 0, 0), b"");
        spy.own().send_to(&hello, config.group).await.unwrap();
    }
    for datagram in &heard {
        spy.own().send_to(datagram, config.group).await.unwrap();
    }
    let dropped = one.transport.counters().frames_dropped;
    assert!(one.mailbox.next(Duration::from_millis(300)).await.is_none());
    one.transport.send(Destination::One(ReplicaId(2)), frame(1));
    assert_eq!(one.transport.counters().frames_dropped, dropped + 1);
    one.transport.close().await;
}

/// A clock may be behind what it was at the last start, and the later life says nothing any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_starts_behind_its_last_life_is_told_and_who_lives_is_not() {
    let config = config();
    let one = member(&config, 1, 1).await;
    let later = member(&config, 2, 5).await;
    is_heard(&one, &later).await;
    // Another process shows an earlier life while this one runs.
    let spy = GroupSocket::open(&config).unwrap();
    let hello = datagram(HELLO, 2, 3, (0, 0, 0, 0), b"");
    spy.own().send_to(&hello, config.group).await.unwrap();
    let mut buffer = [0; 2_048];
    let told = timeout(PATIENCE, spy.own().recv_from(&mut buffer)).await;
    let (bytes, _) = told.unwrap().unwrap();
    assert_eq!(buffer[..bytes], later_life(1, 1, (2, 5))[..]);
    later.transport.close().await;

    let behind = member(&config, 2, 3).await;
    let told = async |member: &Member, patience: Duration| {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = member.mailbox.next(left).await?;
            if let InboxEvent::Hint { peer, hint } = event
                && hint == Hint::Superseded
            {
                return Some(peer);
            }
        }
    };
    assert_eq!(told(&behind, PATIENCE).await, Some(ReplicaId(1)));
    behind.transport.close().await;
    // Of this very life, of an earlier one, and of somebody else's.
    let newest = member(&config, 2, 6).await;
    for of in [(2, 6), (2, 5), (3, 9)] {
        let word = later_life(1, 1, of);
        spy.own().send_to(&word, config.group).await.unwrap();
    }
    assert_eq!(told(&newest, Duration::from_millis(300)).await, None);
    newest.transport.close().await;
    one.transport.close().await;
}

/// A number that is far ahead would make all later frames look like copies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_or_a_request_that_is_none_takes_no_number() {
    let config = config();
    let (one, two) = (member(&config, 1, 1).await, member(&config, 2, 1).await);
    is_heard(&one, &two).await;
    let attacker = GroupSocket::open(&config).unwrap();
    let refused = one.transport.counters().refused;
    let ahead = (1 << 62, 100, 0, 1);
    let whole = datagram(PIECE_FOR_ALL, 2, 1, ahead, &[0xa5; 100]);
    let half = |index| datagram(PIECE_FOR_ALL, 2, 1, (1 << 62, 100, index, 2), &[0xa5; 50]);
    // A frame, but none of a member.
    let request = encode_frame(FrameKind::Request, b"ask");
    let (bytes, number) = (request.len() as u32, 1 << 61);
    let of_another_kind = datagram(PIECE_FOR_ALL, 2, 1, (number, bytes, 0, 1), &request);
    for garbage in [whole, half(0), half(1), of_another_kind] {
        let sent = attacker.own().send_to(&garbage, config.group).await;
        assert_eq!(sent.unwrap(), garbage.len());
    }
    until("the garbage is counted", || {
        one.transport.counters().refused >= refused + 3
    })
    .await;
    two.transport.send(Destination::Group, frame(7));
    assert!(next_frame(&one, PATIENCE).await.is_some(), "it is cut off");

    // The same number twice: garbage, and then a request of the same client.
    let op = Op::Status;
    let asked = Request { id: 5, op }.to_frame();
    let garbage = vec![0xa5; asked.len()];
    for piece in [&garbage[..], &asked] {
        let whole = piece.len() as u32;
        let mut request = datagram(PIECE_FOR_ONE, NOBODY, 9, (5, whole, 0, 1), piece);
        address_to(1, &mut request);
        attacker
            .own()
            .send_to(&request, config.group)
            .await
            .unwrap();
    }
    loop {
        let event = one.mailbox.next(PATIENCE).await;
        if let InboxEvent::Client { .. } = event.expect("the request is not heard") {
            break;
        }
    }
    one.transport.close().await;
    two.transport.close().await;
}

/// An address stays for a while; but what is new is said by the member itself.
#[tokio::test]
async fn what_is_for_a_member_goes_where_its_last_new_frame_came_from() {
    let mut config = config();
    config.timing.address_kept = Duration::from_secs(3_600);
    let one = member(&config, 1, 1).await;
    let (thief, two) = (
        GroupSocket::open(&config).unwrap(),
        GroupSocket::open(&config).unwrap(),
    );
    let hello = datagram(HELLO, 2, 1, (0, 0, 0, 0), b"");
    thief.own().send_to(&hello, config.group).await.unwrap();
    let met = one.mailbox.next(PATIENCE).await;
    assert!(
        matches!(met, Some(InboxEvent::Hint { hint, .. }) if hint == Hint::Connected),
        "{met:?}"
    );
    let frame_of_two = frame(1);
    let bytes = frame_of_two.len() as u32;
    let new = datagram(PIECE_FOR_ALL, 2, 1, (1, bytes, 0, 1), &frame_of_two);
    two.own().send_to(&new, config.group).await.unwrap();
    assert!(next_frame(&one, PATIENCE).await.is_some());
    one.transport.send(Destination::One(ReplicaId(2)), frame(7));
    let mut buffer = [0; 2_048];
    let heard = timeout(PATIENCE, two.own().recv_from(&mut buffer)).await;
    assert!(heard.is_ok(), "it is sent elsewhere");
    one.transport.close().await;
}

/// A client that asks for ever, and where it reads, as this replica hears it.
async fn asking_client(
    config: &MulticastConfig,
    replica: &GroupSocket,
) -> (Arc<MulticastGroupLink>, JoinHandle<()>, SocketAddr) {
    let link = Arc::new(MulticastGroupLink::new(GROUP, config.clone()));
    let asks = Arc::clone(&link);
    let asking = tokio::spawn(async move {
        drop(asks.call(0, Op::Status, Instant::now() + PATIENCE).await);
    });
    let mut buffer = [0; 2_048];
    let heard = timeout(PATIENCE, replica.group().recv_from(&mut buffer)).await;
    let (_, client) = heard.unwrap().unwrap();
    (link, asking, client)
}

/// Somebody sends on what a replica has said: a client goes on asking where the replica reads.
#[tokio::test]
async fn a_client_is_not_led_away_by_what_is_said_again_from_elsewhere() {
    let config = config();
    let (replica, thief) = (
        GroupSocket::open(&config).unwrap(),
        GroupSocket::open(&config).unwrap(),
    );
    let (_, asking, client) = asking_client(&config, &replica).await;
    let mut buffer = [0; 2_048];
    let hello = datagram(HELLO, 1, 5, (0, 0, 0, 0), b"");
    replica.own().send_to(&hello, client).await.unwrap();
    for _ in 0..5 {
        let asked = timeout(PATIENCE, replica.own().recv_from(&mut buffer)).await;
        assert_eq!(asked.unwrap().unwrap().1, client);
        thief.own().send_to(&hello, client).await.unwrap();
        replica.own().send_to(&hello, client).await.unwrap();
    }
    assert!(
        thief.own().try_recv_from(&mut buffer).is_err(),
        "it asks elsewhere"
    );
    asking.abort();
}

/// Such as members that were replaced one after the other, or that somebody has made up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_asks_nobody_who_is_silent_while_another_is_heard() {
    let config = config();
    let (replica, dead) = (
        GroupSocket::open(&config).unwrap(),
        GroupSocket::open(&config).unwrap(),
    );
    // It answers no request, so the client looks around.
    let (link, asking, client) = asking_client(&config, &replica).await;
    let mut buffer = [0; 2_048];
    let answering = tokio::spawn(async move {
        let hello = datagram(HELLO, 1, 5, (0, 0, 0, 0), b"");
        loop {
            replica.own().send_to(&hello, client).await.unwrap();
            let _ = replica.group().recv_from(&mut buffer).await;
        }
    });
    until("the one that lives is met", || {
        link.resolve(ReplicaId(1), None).is_some()
    })
    .await;
    for id in 4..64 {
        let hello = datagram(HELLO, id, 5, (0, 0, 0, 0), b"");
        dead.own().send_to(&hello, client).await.unwrap();
    }
    until("the others are met, and silent", || {
        (1..61).all(|target| link.is_silent(target))
    })
    .await;
    asking.abort();
    let mut options = ClientOptions::default();
    options.deadline = Duration::from_secs(2);
    let client = Client::<Fold<i64, i64>>::with_options(link, options);
    client.execute(1).await.expect_err("nobody answers");
    let asked = dead.own().try_recv_from(&mut [0; 2_048]);
    assert!(asked.is_err(), "a dead one is asked");
    answering.abort();
}
