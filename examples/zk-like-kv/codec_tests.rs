//! Every frame comes back; no line makes the decoder panic, and none that was damaged is believed.

use super::*;
use kvrep_core::protocol::passive::Message;
use kvrep_core::random::Rng;
use kvrep_core::{Configuration, Departed, LogPoint, MemberKind, Nonce, Origin, StoreId, Version};
use kvrep_transport_tcp::decoders::greetings;
use serde_json::Value;

fn envelope() -> Envelope {
    Envelope {
        group: GroupId(u64::MAX),
        from: ReplicaId(1),
        incarnation: Incarnation(3),
        to_incarnation: Incarnation(8),
    }
}

fn term() -> Term {
    Term::ZERO.next_for(ReplicaId(1))
}

fn body(message: &Message, raw: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    envelope().encode(&mut out);
    message.encode(&mut out);
    out.extend_from_slice(raw);
    out.freeze()
}

/// An append of these writes, the first of them at index 6.
fn append(puts: &[(&str, &str)]) -> Bytes {
    let prev = LogPoint {
        term: term(),
        index: Index(5),
        hash: u64::MAX,
    };
    let members = [1, 2, 3].map(ReplicaId);
    let message = Message::Append {
        term: term(),
        configuration: Arc::new(Configuration {
            origin: Origin(1),
            term: term(),
            version: Version(2),
            in_sync: members.map(|id| (id, StoreId(u64::MAX))).into(),
            members: members.map(|id| (id, MemberKind::Full)).into(),
            departed: Departed::default(),
        }),
        prev,
        last: Index(6),
        commit: Index(5),
        round: Nonce(9),
    };
    let (mut raw, mut at) = (BytesMut::new(), prev);
    for (key, value) in puts {
        let (key, value) = ((*key).to_owned(), (*value).to_owned());
        let payload = session::Envelope::Plain(encode(&Change::Put { key, value })).encode();
        let clock = Timestamp(1_700_000_000_000);
        let entry = Entry::following(at, term(), clock, 7, EntryKind::Command, payload);
        entry.encode(&mut raw);
        at = entry.point();
    }
    body(&message, &raw)
}

fn appended() -> Bytes {
    let message = Message::Appended {
        term: term(),
        durable: Index(6),
        matched: Index(6),
        round: Nonce(9),
    };
    body(&message, b"")
}

/// Knows of one write, at index 6.
fn codec() -> JsonLines {
    let recent = Recent::silent();
    recent.written(Index(6), "k", "v", 4);
    JsonLines::new(Arc::new(recent))
}

/// Every kind of message that the library has, with an envelope.
fn messages() -> Vec<Bytes> {
    let all = kvrep_core::decoders::all();
    let message = all.iter().find(|decoder| decoder.name == "message");
    let valid = (message.expect("messages have a decoder").valid)();
    let with_envelope = |message: Vec<u8>| {
        let mut out = BytesMut::new();
        envelope().encode(&mut out);
        out.extend_from_slice(&message);
        out.freeze()
    };
    let own = [append(&[("k", "v")]), append(&[]), appended(), Bytes::new()];
    valid.into_iter().map(with_envelope).chain(own).collect()
}

fn frames() -> Vec<MemberFrame> {
    let greetings = greetings().into_iter().map(MemberFrame::Greeting);
    greetings
        .chain(messages().into_iter().map(MemberFrame::Message))
        .collect()
}

fn encoded(frame: &MemberFrame) -> BytesMut {
    let mut out = BytesMut::new();
    codec().encode(frame, &mut out);
    out
}

fn line(frame: &MemberFrame) -> Value {
    let bytes = encoded(frame);
    assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 1);
    serde_json::from_slice(&bytes).unwrap()
}

#[test]
fn every_greeting_and_every_message_comes_back_as_it_was() {
    let mut all = BytesMut::new();
    for frame in frames() {
        codec().encode(&frame, &mut all);
    }
    for frame in frames() {
        assert_eq!(codec().decode(&mut all), Ok(Some(frame)));
    }
    assert!(all.is_empty());
}

#[test]
fn r3_15_a_write_is_a_replication_and_its_acknowledgement_a_replication_ok_with_their_fields() {
    let shown = line(&MemberFrame::Message(append(&[("k", "v")])));
    assert_eq!(shown["tipo"], "REPLICATION");
    assert_eq!((&shown["key"], &shown["value"]), (&"k".into(), &"v".into()));
    assert_eq!(shown["timestamp"], 4);
    assert_eq!(shown["entrada"]["index"], 6);
    assert_eq!(shown["entrada"]["term"]["number"], 1);
    assert!(shown["entrada"]["hash"].is_u64());
    assert_eq!(shown["mensagem"]["Append"]["commit"], 5);

    let shown = line(&MemberFrame::Message(appended()));
    assert_eq!(shown["tipo"], "REPLICATION_OK");
    assert_eq!(
        (&shown["key"], &shown["timestamp"]),
        (&"k".into(), &4.into())
    );

    let join = &greetings()[0];
    let bytes = encoded(&MemberFrame::Greeting(join.clone()));
    assert!(bytes.starts_with(codec().opening()));
    let shown = line(&MemberFrame::Greeting(join.clone()));
    assert_eq!(shown["tipo"], "JOIN");
    assert_eq!(shown["servidor"], "127.0.0.1:7001");
}

#[test]
fn what_has_no_words_travels_in_base64_and_large_or_strange_writes_too() {
    let tipo = |body: Bytes| line(&MemberFrame::Message(body))["tipo"].clone();
    assert_eq!(tipo(append(&[])), "MENSAGEM");
    assert_eq!(tipo(append(&[("k", "v"), ("k", "w")])), "MENSAGEM");
    assert_eq!(tipo(append(&[("k", &"v".repeat(100_000))])), "MENSAGEM");
    // Words that only look like these bytes: one more behind them, another encoding of the same.
    let mut longer = BytesMut::from(&append(&[("k", "v")])[..]);
    longer.extend_from_slice(b"!");
    assert_eq!(tipo(longer.freeze()), "MENSAGEM");
    assert_eq!(tipo(Bytes::from_static(b"\xff\x00")), "MENSAGEM");
}

#[test]
fn the_largest_encoding_is_within_the_bound_that_the_codec_gives() {
    for size in [0, 1, 1_000, 60_000, 1 << 20] {
        // Every byte of the value takes six in JSON.
        let value = "\u{1}".repeat(size);
        for body in [
            append(&[("k", &value)]),
            append(&[("k", &value), ("k", "v")]),
        ] {
            let bytes_max = codec().encoded_bytes_max(body.len());
            let bytes = encoded(&MemberFrame::Message(body)).len();
            assert!(bytes <= bytes_max, "{bytes} of {bytes_max} for {size}");
        }
    }
}

#[test]
fn a_cut_line_is_waited_for_and_one_that_ends_early_is_refused() {
    for frame in frames() {
        let whole = encoded(&frame);
        for cut in 0..whole.len() {
            let mut part = BytesMut::from(&whole[..cut]);
            assert_eq!(codec().decode(&mut part), Ok(None));
            assert_eq!(part.len(), cut, "what is not complete is left");
            part.extend_from_slice(b"\n");
            // The whole line, and nothing shorter.
            let complete = cut == whole.len() - 1;
            assert_eq!(
                codec().decode(&mut part).is_ok(),
                complete,
                "{frame:?} at {cut}"
            );
        }
    }
}

#[test]
fn no_flipped_bit_makes_the_decoder_panic_or_believe_another_message() {
    for frame in frames() {
        let whole = encoded(&frame);
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(Some(MemberFrame::Message(body))) = codec().decode(&mut bytes) {
                assert_eq!(MemberFrame::Message(body), frame, "bit {bit}");
            }
        }
    }
}

#[test]
fn rubbish_is_refused_without_a_panic() {
    let mut random = Rng::new(7);
    let seeds: Vec<BytesMut> = frames().iter().map(encoded).collect();
    for round in 0..20_000 {
        let mut bytes = if round % 2 == 0 {
            let length = usize::try_from(random.below(200)).unwrap();
            (0..length)
                .map(|_| random.below(256).to_le_bytes()[0])
                .collect()
        } else {
            let seed = usize::try_from(random.below(seeds.len() as u64)).unwrap();
            seeds[seed].clone()
        };
        for _ in 0..random.below(8) {
            if !bytes.is_empty() {
                let at = usize::try_from(random.below(bytes.len() as u64)).unwrap();
                bytes[at] =
                    b"{}[]\":,0129eE-.\\n tu\xff"[usize::try_from(random.below(21)).unwrap()];
            }
        }
        bytes.extend_from_slice(b"\n");
        while matches!(codec().decode(&mut bytes), Ok(Some(_))) {}
    }
}

#[test]
fn a_configuration_of_too_many_members_is_refused_before_it_is_written_again() {
    let mut shown = line(&MemberFrame::Message(append(&[("k", "v")])));
    let members = &mut shown["mensagem"]["Append"]["configuration"]["members"];
    for id in 0..60_000 {
        members[id.to_string()] = "Full".into();
    }
    let mut bytes = BytesMut::from(format!("{shown}\n").as_bytes());
    assert!(codec().decode(&mut bytes).is_err());
    // Deeper than any message, too.
    let mut deep = BytesMut::from(&b"{\"tipo\":"[..]);
    deep.extend_from_slice(&[b'['; 100_000]);
    deep.extend_from_slice(b"\n");
    assert!(codec().decode(&mut deep).is_err());
}
