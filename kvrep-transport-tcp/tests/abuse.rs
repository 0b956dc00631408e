//! Whatever comes from outside: it is closed, counted, and a healthy peer does not suffer.

mod common;

use async_trait::async_trait;
use bytes::Bytes;
use common::{Node, PATIENCE, me, reaches, two, until};
use kvrep_core::ReplicaId;
use kvrep_core::client_wire::{Op, Request};
use kvrep_core::wire::{self, FrameKind, HEADER_BYTES};
use kvrep_transport_tcp::{ForeignService, TcpConfig, TcpLimits, TcpTiming, TcpTransport};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Echoes what it reads, in capitals, and ends at a newline.
struct Shout;

#[async_trait]
impl ForeignService for Shout {
    async fn serve(&self, mut stream: TcpStream, first: Bytes, _: SocketAddr) {
        let mut line = first.to_vec();
        while !line.ends_with(b"\n") {
            if !matches!(stream.read_buf(&mut line).await, Ok(1..)) {
                break;
            }
        }
        line.make_ascii_uppercase();
        let _ = stream.write_all(&line).await;
    }
}

fn hasty() -> TcpTiming {
    let mut timing = TcpTiming::default();
    timing.handshake_within = Duration::from_millis(100);
    timing
}

async fn connect(node: &Node) -> TcpStream {
    TcpStream::connect(node.address()).await.unwrap()
}

/// Reads until the other side closes; what it said.
async fn until_closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    let ended = timeout(PATIENCE, stream.read_to_end(&mut said)).await;
    // A reset is an end too.
    let _ = ended.expect("the connection is never closed");
    said
}

#[tokio::test]
async fn garbage_is_closed_and_counted_while_peers_go_on() {
    let (one, two) = two(|config| config).await;
    reaches(&two, &one, 0).await;
    let before = one.counters().refused;
    let mut noise = kvrep_core::random::Rng::new(1);
    for round in 0..100_u64 {
        let mut stream = connect(&one).await;
        let garbage: Vec<u8> = (0..512).flat_map(|_| noise.next().to_be_bytes()).collect();
        let _ = stream.write_all(&garbage).await;
        until_closed(&mut stream).await;
        reaches(&two, &one, round).await;
    }
    assert_eq!(one.counters().refused, before + 100);
}

#[tokio::test]
async fn garbage_after_a_good_handshake_ends_that_connection_only() {
    let (one, two) = two(|config| config).await;
    let mut stream = connect(&one).await;
    let hello = Request {
        id: 1,
        op: Op::Status,
    }
    .to_frame();
    stream.write_all(&hello).await.unwrap();
    one.next_request().await;
    let mut changed = hello.to_vec();
    *changed.last_mut().unwrap() ^= 1;
    stream.write_all(&changed).await.unwrap();
    until_closed(&mut stream).await;
    until("counted", || one.counters().refused == 1).await;
    reaches(&two, &one, 1).await;
}

#[tokio::test]
async fn a_huge_length_is_refused_from_its_header() {
    let one = Node::alone(|config| config).await;
    for kind in [FrameKind::Handshake, FrameKind::Request, FrameKind::Peer] {
        let mut stream = connect(&one).await;
        let mut header = wire::encode_frame(kind, b"").to_vec();
        header[8..12].copy_from_slice(&u32::MAX.to_be_bytes());
        stream.write_all(&header).await.unwrap();
        until_closed(&mut stream).await;
    }
    assert_eq!(one.counters().refused, 3);
}

#[tokio::test]
async fn half_a_frame_and_silence_are_closed_at_the_deadline() {
    let one = Node::alone(|config| config.timing(hasty())).await;
    let frame = Request {
        id: 1,
        op: Op::Status,
    }
    .to_frame();
    for cut in [
        0,
        1,
        3,
        4,
        5,
        HEADER_BYTES - 1,
        HEADER_BYTES,
        frame.len() - 1,
    ] {
        let mut stream = connect(&one).await;
        stream.write_all(&frame[..cut]).await.unwrap();
        assert_eq!(until_closed(&mut stream).await, b"", "cut at {cut}");
    }
    until("counted", || one.counters().refused == 8).await;
}

#[tokio::test]
async fn a_client_that_stops_in_the_middle_of_a_later_frame_is_closed() {
    let mut timing = TcpTiming::default();
    timing.idle_after = Duration::from_millis(100);
    let one = Node::alone(|config| config.timing(timing)).await;
    let frame = Request {
        id: 1,
        op: Op::Status,
    }
    .to_frame();
    let mut stream = connect(&one).await;
    stream.write_all(&frame).await.unwrap();
    one.next_request().await;
    stream.write_all(&frame[..10]).await.unwrap();
    until_closed(&mut stream).await;
}

#[tokio::test]
async fn a_peer_of_another_wire_version_is_answered_in_ours() {
    let one = Node::alone(|config| config).await;
    let mut stream = connect(&one).await;
    let mut hello = wire::encode_frame(FrameKind::Handshake, b"from the future").to_vec();
    hello[4] = wire::VERSION + 1;
    stream.write_all(&hello).await.unwrap();
    let answer = until_closed(&mut stream).await;
    let mut answer = bytes::BytesMut::from(&answer[..]);
    let (kind, _) = wire::decode_frame(&mut answer, 1_024).unwrap().unwrap();
    assert_eq!(kind, FrameKind::Handshake);
    assert_eq!(one.counters().refused, 1);
}

#[tokio::test]
async fn five_hundred_silent_connections_do_not_keep_a_healthy_peer_out() {
    let one = TcpTransport::bind(TcpConfig::new("127.0.0.1:0"))
        .await
        .unwrap();
    let two = TcpTransport::bind(TcpConfig::new("127.0.0.1:0"))
        .await
        .unwrap();
    one.add_peer(ReplicaId(2), two.local_addr().unwrap().to_string());
    two.add_peer(ReplicaId(1), one.local_addr().unwrap().to_string());
    let one = Node::start(me(1), one).await;
    let mut silent = Vec::new();
    for _ in 0..500 {
        silent.push(connect(&one).await);
    }
    let two = Node::start(me(2), two).await;
    reaches(&two, &one, 1).await;
    reaches(&one, &two, 1).await;
    let evicted = 500 - TcpLimits::default().greetings_max as u64;
    until("the oldest made room", || one.counters().refused >= evicted).await;
    drop(silent);
}

#[tokio::test]
async fn another_protocol_is_served_on_the_same_port() {
    let one = Node::alone(|config| config.foreign(Arc::new(Shout))).await;
    for piece in [1, 2, 3, 4, 20] {
        let mut stream = connect(&one).await;
        stream.set_nodelay(true).unwrap();
        for part in b"keep it going, kvrep\n".chunks(piece) {
            stream.write_all(part).await.unwrap();
        }
        assert_eq!(until_closed(&mut stream).await, b"KEEP IT GOING, KVREP\n");
    }
    let mut client = connect(&one).await;
    client
        .write_all(
            &Request {
                id: 9,
                op: Op::Status,
            }
            .to_frame(),
        )
        .await
        .unwrap();
    assert_eq!(
        Request::from_body(&one.next_request().await.0).unwrap().id,
        9
    );
    assert_eq!(one.counters().refused, 0);
}

/// Says what came first, and ends.
struct Parrot;

#[async_trait]
impl ForeignService for Parrot {
    async fn serve(&self, mut stream: TcpStream, first: Bytes, _: SocketAddr) {
        let _ = stream.write_all(&first).await;
    }
}

#[tokio::test]
async fn another_protocol_that_begins_like_ours_is_served_after_the_deadline_or_its_end() {
    let one = Node::alone(|config| config.timing(hasty()).foreign(Arc::new(Parrot))).await;
    let mut waiting = connect(&one).await;
    waiting.write_all(b"KV").await.unwrap();
    assert_eq!(until_closed(&mut waiting).await, b"KV");

    let patient = Node::alone(|config| config.foreign(Arc::new(Parrot))).await;
    let mut ended = connect(&patient).await;
    ended.write_all(b"K").await.unwrap();
    ended.shutdown().await.unwrap();
    assert_eq!(until_closed(&mut ended).await, b"K");
}

#[tokio::test]
async fn a_foreign_client_may_think_before_it_says_anything_unless_too_many_do() {
    let mut limits = TcpLimits::default();
    limits.greetings_max = 3;
    let mut timing = hasty();
    timing.foreign_begins_within = Duration::from_secs(3_600);
    let config = |config: TcpConfig| config.timing(timing).limits(limits);
    let one = Node::alone(|all| config(all).foreign(Arc::new(Shout))).await;
    let mut thinks = connect(&one).await;
    // (Far behind the deadline for those who have to say who they are.)
    tokio::time::sleep(hasty().handshake_within * 5).await;
    thinks.write_all(b"well then\n").await.unwrap();
    assert_eq!(until_closed(&mut thinks).await, b"WELL THEN\n");

    let mut first = connect(&one).await;
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(connect(&one).await);
    }
    assert_eq!(until_closed(&mut first).await, b"");
}

#[tokio::test]
async fn foreign_clients_are_served_up_to_their_limit() {
    let mut limits = TcpLimits::default();
    limits.foreign_max = 1;
    let one = Node::alone(|config| config.limits(limits).foreign(Arc::new(Shout))).await;
    let mut first = connect(&one).await;
    let mut said = [0; 3];
    first.write_all(b"no newline yet").await.unwrap();
    // Only when the first has been taken is the second one too many.
    until("a second one is refused", || {
        let mut second = std::net::TcpStream::connect(one.address()).unwrap();
        std::io::Write::write_all(&mut second, b"me\n").unwrap();
        one.counters().refused > 0
    })
    .await;
    first.write_all(b"!\n").await.unwrap();
    timeout(PATIENCE, first.read_exact(&mut said))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&said, b"NO ");
}

#[tokio::test]
async fn closing_ends_foreign_and_idle_connections() {
    let one = Node::alone(|config| config.foreign(Arc::new(Shout))).await;
    let mut foreign = connect(&one).await;
    foreign.write_all(b"hm").await.unwrap();
    let mut idle = connect(&one).await;
    let mut client = connect(&one).await;
    client
        .write_all(
            &Request {
                id: 9,
                op: Op::Status,
            }
            .to_frame(),
        )
        .await
        .unwrap();
    one.next_request().await;
    timeout(
        PATIENCE,
        kvrep_core::transport::Transport::close(&one.transport),
    )
    .await
    .unwrap();
    for stream in [&mut foreign, &mut idle, &mut client] {
        until_closed(stream).await;
    }
}
