//! Members that speak another dialect: the conformance suite over it, and who else may come to the port.

mod common;

use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use common::{Node, me, reaches, two, until};
use kvrep_core::ReplicaId;
use kvrep_core::client_wire::{Op, Outcome};
use kvrep_core::{GroupId, wire};
use kvrep_transport_tcp::codec::{Codec, Greeting, MemberFrame, NotAFrame};
use kvrep_transport_tcp::testing::OverTcp;
use kvrep_transport_tcp::{ForeignService, LinkLimits, TcpConfig, TcpLink, TcpTransport};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// A frame is a line: a word and hexadecimal digits.
struct HexLines;

impl Codec for HexLines {
    fn opening(&self) -> &[u8] {
        b"member "
    }

    fn encode(&self, frame: &MemberFrame, out: &mut BytesMut) {
        let (word, body) = match frame {
            MemberFrame::Greeting(greeting) => (&b"member "[..], greeting.to_body()),
            MemberFrame::Message(body) => (&b"says "[..], body.clone()),
        };
        out.extend_from_slice(word);
        let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
        out.reserve(2 * body.len() + 1);
        for byte in body {
            out.extend_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
        }
        out.extend_from_slice(b"\n");
    }

    fn decode(&self, buffer: &mut BytesMut) -> Result<Option<MemberFrame>, NotAFrame> {
        let Some(end) = buffer.iter().position(|byte| *byte == b'\n') else {
            return Ok(None);
        };
        let line = buffer.split_to(end);
        buffer.advance(1);
        read_line(&line)
            .map(Some)
            .ok_or_else(|| NotAFrame("no line of hexadecimal digits".into()))
    }

    fn encoded_bytes_max(&self, body_bytes_max: usize) -> usize {
        2 * body_bytes_max + 8
    }
}

fn read_line(line: &[u8]) -> Option<MemberFrame> {
    let (word, hex) = line.split_at(line.iter().position(|byte| *byte == b' ')? + 1);
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |pair: &[u8]| match pair {
        [high, low] => u8::try_from(digit(*high)? * 16 + digit(*low)?).ok(),
        _ => None,
    };
    let body: Option<Vec<u8>> = hex.chunks(2).map(byte).collect();
    match word {
        b"member " => Greeting::from_body(&body?).map(MemberFrame::Greeting),
        b"says " => Some(MemberFrame::Message(body?.into())),
        _ => None,
    }
}

/// Says what it was given first.
struct Echo;

#[async_trait]
impl ForeignService for Echo {
    async fn serve(&self, mut stream: TcpStream, first: Bytes, _peer: SocketAddr) {
        let _ = stream.write_all(&first).await;
    }
}

fn in_hex(config: TcpConfig) -> TcpConfig {
    config.codec(Arc::new(HexLines)).foreign(Arc::new(Echo))
}

kvrep_core::transport_suite!(OverTcp::configured(in_hex));

#[tokio::test]
async fn clients_of_kvrep_and_strangers_are_served_beside_members_of_another_dialect() {
    let (one, two) = two(in_hex).await;
    reaches(&one, &two, 1).await;
    let address = one.address();
    let asking = tokio::spawn({
        let address = address.clone();
        async move {
            let deadline = Instant::now() + common::PATIENCE;
            let group = GroupId::named(common::GROUP);
            let link = TcpLink::connect(&address, group, LinkLimits::default(), deadline).await;
            link.unwrap().call(Op::Status, deadline).await
        }
    });
    let (body, reply) = one.next_request().await;
    let request = kvrep_core::client_wire::Request::from_body(&body).unwrap();
    let outcome = Outcome::Busy;
    let id = request.id;
    reply.send(kvrep_core::client_wire::Reply { id, outcome }.to_frame());
    assert!(matches!(asking.await.unwrap(), Ok(Outcome::Busy)));

    // "mem" could still have become a member's greeting.
    for words in ["hello", "mem"] {
        let mut stranger = TcpStream::connect(&address).await.unwrap();
        stranger.write_all(words.as_bytes()).await.unwrap();
        stranger.shutdown().await.unwrap();
        let mut answer = String::new();
        stranger.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, words);
    }
}

#[tokio::test]
async fn a_member_that_speaks_kvreps_own_wire_is_told_so() {
    let theirs = Node::alone(in_hex).await;
    let config = TcpConfig::new("127.0.0.1:0").peer(ReplicaId(1), theirs.address());
    let transport = TcpTransport::bind(config).await.unwrap();
    let ours = Node::start(me(2), transport).await;
    until("it is refused", || theirs.counters().refused > 0).await;
    ours.send(ReplicaId(1), 1);
    until("nothing is sent", || ours.counters().frames_dropped > 0).await;
    assert_eq!(theirs.counters().frames_received, 0);
}

#[tokio::test]
async fn what_begins_as_a_member_and_goes_on_as_rubbish_is_closed_at_once_and_within_its_bound() {
    let node = Node::alone(in_hex).await;
    for rubbish in [b"zz\n".to_vec(), b"00\n".to_vec(), vec![b'a'; 1 << 20]] {
        let mut stream = TcpStream::connect(node.address()).await.unwrap();
        stream.write_all(b"member ").await.unwrap();
        // The other end may close while this is still being written.
        let _ = stream.write_all(&rubbish).await;
        let mut answer = Vec::new();
        let ended = timeout(common::PATIENCE, stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "still open");
        assert_eq!(answer, b"");
    }
    until("they are counted", || node.counters().refused == 3).await;
}

#[tokio::test]
async fn a_line_that_never_ends_ends_a_members_connection_at_the_largest_frame() {
    let limits = kvrep_core::Limits {
        command_bytes_max: 1_024,
        frame_bytes_max: 8_192,
        ..Default::default()
    };
    let limits = kvrep_transport_tcp::TcpLimits::for_group(&limits);
    let node = Node::alone(|config| in_hex(config).limits(limits)).await;
    let mut hello = BytesMut::new();
    let mut greeting = kvrep_transport_tcp::decoders::greetings().swap_remove(0);
    let Greeting::Peer(peer) = &mut greeting else {
        panic!("a peer's is the first");
    };
    let here = me(2);
    (peer.group, peer.from, peer.to) = (here.group, here.replica, ReplicaId(1));
    peer.config_hash = here.config_hash;
    HexLines.encode(&MemberFrame::Greeting(greeting), &mut hello);
    let mut stream = TcpStream::connect(node.address()).await.unwrap();
    stream.write_all(&hello).await.unwrap();
    stream.write_all(b"says ").await.unwrap();
    let mut sent = 0;
    let ended = timeout(common::PATIENCE, async {
        while stream.write_all(&[b'0'; 4_096]).await.is_ok() {
            sent += 4_096;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    assert!(ended.await.is_ok(), "it was read on and on");
    assert!(sent < 1 << 20, "{sent} bytes");
}

#[tokio::test]
async fn a_codec_that_could_not_work_is_refused_at_the_start() {
    struct Opens(&'static [u8]);
    impl Codec for Opens {
        fn opening(&self) -> &[u8] {
            self.0
        }
        fn encode(&self, frame: &MemberFrame, out: &mut BytesMut) {
            HexLines.encode(frame, out);
        }
        fn decode(&self, buffer: &mut BytesMut) -> Result<Option<MemberFrame>, NotAFrame> {
            HexLines.decode(buffer)
        }
        fn encoded_bytes_max(&self, body_bytes_max: usize) -> usize {
            HexLines.encoded_bytes_max(body_bytes_max)
        }
    }
    let check = |opening: &'static [u8]| {
        let config = TcpConfig::new("127.0.0.1:0").codec(Arc::new(Opens(opening)));
        config.validate()
    };
    assert_eq!(check(b"member "), Ok(()));
    assert!(check(b"").unwrap_err().contains("1 to 64"));
    assert!(check(b"KV").unwrap_err().contains("own frames"));
    assert!(check(&wire::MAGIC).unwrap_err().contains("own frames"));
    assert!(check(b"guest ").unwrap_err().contains("its opening"));
}
