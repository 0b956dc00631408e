//! The embedded broker, met with bytes of MQTT 3.1.1.

use super::*;
use std::io::{Read as _, Write as _};

fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap();
    [&length.to_be_bytes()[..], text.as_bytes()].concat()
}

fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind, u8::try_from(body.len()).unwrap()], body].concat()
}

/// Connects with MQTT 3.1.1, with a last will on this topic, and returns the connection when it is taken.
fn connect(broker: &EmbeddedBroker, will: Option<&str>) -> Option<TcpStream> {
    connect_as(broker, "c", will)
}

fn connect_as(broker: &EmbeddedBroker, name: &str, will: Option<&str>) -> Option<TcpStream> {
    let mut client = TcpStream::connect(broker.address()).unwrap();
    client.set_read_timeout(Some(START_WITHIN)).unwrap();
    let flags = if will.is_some() { 0b110 } else { 0b10 };
    let will = will.map(|topic| [text(topic), text("x")].concat());
    let head = [&text("MQTT")[..], &[4, flags, 0, 60], &text(name)].concat();
    let connect = [head, will.unwrap_or_default()].concat();
    client.write_all(&packet(0x10, &connect)).unwrap();
    client.read_exact(&mut [0; 4]).ok().map(|()| client)
}

fn publish(client: &mut TcpStream, topic: &str) -> io::Result<()> {
    let body = [&text(topic)[..], &[0, 1], b"x"].concat();
    client.write_all(&packet(0x32, &body))?;
    client.read_exact(&mut [0; 4])
}

#[test]
fn what_goes_to_a_topic_that_the_router_would_end_over_is_acknowledged_and_dropped() {
    let broker = EmbeddedBroker::start("127.0.0.1:0").unwrap();
    let mut listener = connect(&broker, None).unwrap();
    let subscribe = [&[0, 1][..], &text("#"), &[1]].concat();
    listener.write_all(&packet(0x82, &subscribe)).unwrap();
    listener.read_exact(&mut [0; 5]).unwrap();
    let mut client = connect_as(&broker, "d", None).unwrap();
    for (at, topic) in ["é/x", "日本", "\u{10348}"].into_iter().enumerate() {
        // Left without a farewell: its last will is published.
        drop(connect_as(&broker, &at.to_string(), Some(topic)).expect("it is taken"));
        publish(&mut client, topic).unwrap();
    }
    publish(&mut client, "a/é").unwrap();
    // The first that comes is the last that was published.
    let mut head = [0; 8];
    listener.read_exact(&mut head).unwrap();
    assert_eq!(&head[2..], text("a/é"));
}

#[tokio::test]
async fn a_broker_whose_router_has_ended_says_so() {
    let probe = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = probe.local_addr().unwrap();
    drop(probe);
    let broker = EmbeddedBroker::serve(address, HashMap::new(), 100_000, Ok).unwrap();
    let waiting = tokio::time::timeout(3 * LOOKED_EVERY, broker.ended());
    assert!(waiting.await.is_err(), "it lives");
    let mut client = connect(&broker, None).unwrap();
    // A pattern that names are compared with.
    let subscribe = [&[0, 1][..], &text("a"), &[1]].concat();
    client.write_all(&packet(0x82, &subscribe)).unwrap();
    client.read_exact(&mut [0; 5]).unwrap();
    assert!(publish(&mut client, "é/x").is_err());
    let ended = tokio::time::timeout(START_WITHIN, broker.ended());
    let why = ended.await.expect("it says so").unwrap_err();
    assert!(why.to_string().contains("router"), "{why}");
}

#[test]
fn the_version_is_told_from_the_first_packet_and_half_of_it_waits() {
    let connect = |level| [&[0x10, 0x80, 0x01, 0, 4][..], b"MQTT", &[level, 0, 0]].concat();
    assert!(matches!(version_of(&connect(4)), Ok(Version::V4)));
    assert!(matches!(version_of(&connect(5)), Ok(Version::V5)));
    for cut in 0..10 {
        let cut = &connect(5)[..cut];
        assert!(
            matches!(version_of(cut), Err(protocol::Error::InsufficientBytes(_))),
            "{cut:?}"
        );
    }
    for garbage in [&b"GET / HTTP/1.1\r\n"[..], &[0x10, 255, 255, 255, 255, 255]] {
        let error = version_of(garbage).err().unwrap();
        assert!(
            !matches!(error, protocol::Error::InsufficientBytes(_)),
            "{garbage:?}"
        );
    }
}
