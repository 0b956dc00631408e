//! The golden bytes, the dialects, and what is not a message.

use super::*;
use proptest::prelude::*;

fn hex(text: &str) -> Bytes {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).expect("ASCII");
        u8::from_str_radix(pair, 16).expect("two digits")
    };
    digits.chunks(2).map(byte).collect()
}

fn entry(timestamp: i64) -> Content {
    Content::Entry {
        timestamp,
        key: "abc".into(),
        data: "xyz\0".into(),
    }
}

/// R1.36, A1.1: every golden vector, both ways.
#[test]
fn messages_have_the_golden_bytes() {
    let key = || Content::Key("abc".into());
    let golden = [
        (
            opcode::PUT,
            entry(0),
            "000a0064 0000000000000000 00000003 616263 00000004 78797a00",
        ),
        (
            opcode::PUT,
            entry(100),
            "000a0064 0000000000000064 00000003 616263 00000004 78797a00",
        ),
        (
            opcode::COND_PUT,
            entry(0),
            "00140064 0000000000000000 00000003 616263 00000004 78797a00",
        ),
        (opcode::GET, key(), "001e00c8 00000003 616263"),
        (opcode::DEL, key(), "002800c8 00000003 616263"),
        (opcode::SIZE, Content::Result(1), "003201f4 00000001"),
        (opcode::GET_KEYS, Content::Result(1), "003c01f4 00000001"),
        (opcode::PUT + 1, Content::Result(0), "000b01f4 00000000"),
        (opcode::RT_ERROR, Content::Result(-1), "006301f4 ffffffff"),
        (
            opcode::GET + 1,
            Content::Value("xyz\0".into()),
            "001f0190 00000004 78797a00",
        ),
        (
            opcode::GET + 1,
            Content::Value(Bytes::new()),
            "001f0190 00000000",
        ),
        (
            opcode::GET_KEYS + 1,
            Content::Keys(vec!["abc".into(), "de".into()]),
            "003d012c 00000002 00000003 616263 00000002 6465",
        ),
        (
            opcode::GET_KEYS + 1,
            Content::Keys(vec![]),
            "003d012c 00000000",
        ),
    ];
    for (opcode, content, bytes) in golden {
        let message = Message::new(opcode, content);
        let mut encoded = BytesMut::new();
        message.encode(&mut encoded);
        assert_eq!(encoded.freeze(), hex(bytes), "{message:?}");
        assert_eq!(Message::decode(hex(bytes)), Ok(message));
    }
    let mut put = BytesMut::new();
    Message::new(opcode::PUT, entry(0)).encode(&mut put);
    assert_eq!(put.len(), 27);
    assert_eq!(Message::failure(), Message::new(99, Content::Result(-1)));
}

#[test]
fn our_own_operations_have_these_bytes() {
    let write = Message::new(opcode::DEL, Content::Key("k".into()));
    let once = Content::Once {
        session: 0xab,
        seq: 2,
        done_below: 1,
        write: Box::new(write),
    };
    let golden = "00780258 00000000000000ab 0000000000000002 0000000000000001 002800c8 00000001 6b";
    let message = Message::new(opcode::ONCE, once);
    let mut encoded = BytesMut::new();
    message.encode(&mut encoded);
    assert_eq!(encoded.freeze(), hex(golden));
    assert_eq!(Message::decode(hex(golden)), Ok(message.clone()));
    let nested = Content::Once {
        session: 1,
        seq: 1,
        done_below: 1,
        write: Box::new(message),
    };
    let mut encoded = BytesMut::new();
    Message::new(opcode::ONCE, nested).encode(&mut encoded);
    assert!(Message::decode(encoded.freeze()).is_err());
}

fn server() -> TableCodec {
    TableCodec::new(Side::Server, Dialect::Plain, 1_000)
}

fn get() -> Message {
    Message::new(opcode::GET, Content::Key("abc".into()))
}

const GET: &str = "0000000b 001e00c8 00000003 616263";

/// A1.1: the client's wire in all its forms.
#[test]
fn a_server_takes_requests_with_a_role_byte_with_the_word_that_a_client_is_here_and_plain_ones() {
    for form in [
        format!("{GET}{GET}"),
        format!("63{GET}63{GET}"),
        format!("73{GET}73{GET}"),
        format!("00000001{GET}{GET}"),
    ] {
        let bytes = hex(&form);
        // However the bytes arrive.
        for piece in [1, 3, bytes.len()] {
            let (mut codec, mut buffer, mut found) = (server(), BytesMut::new(), Vec::new());
            for part in bytes.chunks(piece) {
                buffer.extend_from_slice(part);
                while let Some(message) = codec.decode(&mut buffer).expect("frames") {
                    found.push(message.expect("a message"));
                }
            }
            assert_eq!(found, [get(), get()], "{form} in pieces of {piece}");
        }
    }
}

#[test]
fn the_role_byte_is_written_where_the_dialect_has_it() {
    for (side, dialect, prefix) in [
        (Side::Client, Dialect::Plain, ""),
        (Side::Client, Dialect::Prefixed, "63"),
        (Side::Server, Dialect::Prefixed, "73"),
    ] {
        let mut written = BytesMut::new();
        let mut codec = TableCodec::new(side, dialect, 1_000);
        codec.encode(get(), &mut written).expect("it fits");
        assert_eq!(written.freeze(), hex(&format!("{prefix}{GET}")));
    }
}

#[test]
fn bytes_that_are_no_message_cost_a_frame_and_bytes_that_are_no_frame_the_conversation() {
    let mut codec = server();
    let mut buffer = BytesMut::from(&hex(&format!("00000004 001e0007 {GET}"))[..]);
    assert!(
        codec
            .decode(&mut buffer)
            .expect("a frame")
            .expect("whole")
            .is_err()
    );
    assert_eq!(codec.decode(&mut buffer).expect("a frame"), Some(Ok(get())));
    for garbage in ["ffffffff", "80000000", "7fffffff", "000003e9", "47455420"] {
        let mut buffer = BytesMut::from(&hex(garbage)[..]);
        assert!(server().decode(&mut buffer).is_err(), "{garbage}");
    }
    for (message, why) in [
        ("001e", "it ends too early"),
        ("001e00c8 ffffffff 61", "a negative size"),
        ("001e00c8 00000002 61", "a size beyond the end"),
        ("001e00c8 00000001 6162", "bytes behind the end"),
        ("003d012c 7fffffff", "more keys than bytes"),
        ("003d012c ffffffff", "a negative number of keys"),
        ("00000000", "an unknown type of content"),
    ] {
        assert_eq!(
            Message::decode(hex(message)),
            Err(NotAMessage(why)),
            "{message}"
        );
    }
}

#[tokio::test]
async fn a_large_frame_takes_room_when_a_part_of_it_is_there_and_gives_it_up_to_newer_ones() {
    use std::time::Duration;
    use tokio::time::timeout;
    let room = Room::for_frames(1);
    let codec = || TableCodec::new(Side::Server, Dialect::Plain, 1 << 20).room(room.clone());
    let part = |bytes: usize| {
        let mut large = BytesMut::from(&hex("00080000 000a")[..]);
        large.resize(bytes, 0);
        large
    };
    let brief = Duration::from_millis(20);
    // What is only announced takes nothing, neither room nor memory.
    let mut announced = codec();
    let mut little = part(6);
    assert_eq!(announced.decode(&mut little).expect("waits"), None);
    assert!(little.capacity() < LARGE_BYTES);
    let mut first = codec();
    let given_up = first.given_up();
    assert_eq!(first.decode(&mut part(LARGE_BYTES)).expect("room"), None);
    let mut small = BytesMut::from(&hex(GET)[..]);
    assert_eq!(
        codec().decode(&mut small).expect("small ones need none"),
        Some(Ok(get()))
    );
    assert!(timeout(brief, given_up.notified()).await.is_err());
    let mut newest = codec();
    assert_eq!(newest.decode(&mut part(LARGE_BYTES)).expect("room"), None);
    assert!(timeout(brief, given_up.notified()).await.is_ok());
    assert!(timeout(brief, newest.given_up().notified()).await.is_err());
}

fn any_content() -> impl Strategy<Value = Content> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from);
    prop_oneof![
        (any::<i64>(), bytes(), bytes()).prop_map(|(timestamp, key, data)| Content::Entry {
            timestamp,
            key,
            data
        }),
        bytes().prop_map(Content::Key),
        proptest::collection::vec(bytes(), 0..4).prop_map(Content::Keys),
        bytes().prop_map(Content::Value),
        any::<i32>().prop_map(Content::Result),
    ]
}

proptest! {
    #[test]
    fn every_message_is_read_as_it_was_written(opcode in any::<i16>(), content in any_content()) {
        let message = Message::new(opcode, content);
        let mut bytes = BytesMut::new();
        message.encode(&mut bytes);
        prop_assert_eq!(Message::decode(bytes.freeze()), Ok(message));
    }

    #[test]
    fn no_bytes_make_the_codec_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let (mut codec, mut buffer) = (server(), BytesMut::from(&bytes[..]));
        while let Ok(Some(_)) = codec.decode(&mut buffer) {}
        let _ = Message::decode(bytes.into());
    }
}
