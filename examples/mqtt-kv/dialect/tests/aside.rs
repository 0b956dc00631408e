//! Signs of life, and a state on its way.

use super::*;

#[test]
fn r0_21_a_sign_of_life_has_the_field_of_the_text_and_one_that_has_only_that_is_not_believed() {
    let mut out = Vec::new();
    let message = Message::Heartbeat(sample_heartbeat());
    dialect(2).message(Destination::Group, &message, &mut out);
    let [(topic, payload)] = &out[..] else {
        panic!("{out:?}");
    };
    assert_eq!(&**topic, "inf1406-monitor");
    let json: Value = serde_json::from_slice(payload).expect("JSON");
    assert_eq!(
        (&json["idServ"], &json["acordo"]),
        (&json!(2), &json!(u64::MAX - 5))
    );
    let mut other = dialect(0);
    assert!(matches!(other.read_message(topic, payload), Heard::Message(read) if read == message));
    other.agreement = 1;
    let heard = other.read_message(topic, payload);
    assert!(matches!(heard, Heard::ConfiguredOtherwise(ReplicaId(2))));
    for said in [r#"{"idServ":2}"#, r#"{"idserv":"2"}"#] {
        let alive = Sign::Alive {
            server: 2,
            life: None,
        };
        assert_eq!(beside::read_heartbeat(said.as_bytes()), Ok(alive));
        let heard = other.read_message(topic, &Bytes::from_static(said.as_bytes()));
        assert!(matches!(heard, Heard::Nothing(_)));
    }
}

#[test]
fn r0_29_c0_7_a_state_goes_over_as_pairs_in_bounded_messages_and_arrives_bit_for_bit() {
    let mut table = Table::default();
    let insert = |table: &mut Table, key: String, value: String| {
        let mut context = kvrep_core::ApplyContext::new(Index(1), Timestamp(0), 0);
        table
            .apply(&mut context, &encode(&Command::Insert { key, value }))
            .expect("a command");
    };
    for n in 0..3_000 {
        insert(
            &mut table,
            format!("chave \"{n}\"\n"),
            format!("valor {n} ção"),
        );
    }
    insert(
        &mut table,
        "larger than a piece".into(),
        "\u{1}é".repeat(PIECE_BYTES),
    );
    let machine = Machine::new(Box::new(table.clone()), &Limits::default()).expect("a state");
    let head = b"\n[\"not\",\"a pair\"]\n of the scheme";
    let mut state = (head.len() as u64).to_be_bytes().to_vec();
    state.extend_from_slice(head);
    machine.freeze()(&mut state).expect("memory");
    let (mut arrived, mut shown) = (Vec::new(), serde_json::Map::new());
    let (mut sender, mut receiver) = (dialect(1), dialect(0));
    let pieces = state.chunks(PIECE_BYTES).count();
    for (n, data) in state.chunks(PIECE_BYTES).enumerate() {
        let piece = Message::Piece {
            life: sample_life(),
            from: ReplicaId(1),
            at: Index(9),
            chain: u64::MAX,
            offset: (n * PIECE_BYTES) as u64,
            whole: state.len() as u64,
            data: Bytes::copy_from_slice(data),
        };
        let mut out = Vec::new();
        sender.message(Destination::One(ReplicaId(0)), &piece, &mut out);
        let [(topic, payload)] = &out[..] else {
            panic!("{out:?}");
        };
        assert_eq!(&**topic, "inf1406-rec-0");
        assert!(payload.len() < 2 * PIECE_BYTES, "{} bytes", payload.len());
        let json: Value = serde_json::from_slice(payload).expect("JSON");
        let named = (
            &json["tipomsg"],
            &json["idserv"],
            &json["parte"],
            &json["partes"],
        );
        assert_eq!(
            named,
            (&json!("estado"), &json!(0), &json!(n + 1), &json!(pieces))
        );
        shown.extend(json["conteudo"].as_object().expect("pairs").clone());
        match receiver.read_message(topic, payload) {
            Heard::Message(Message::Piece { data, .. }) => arrived.extend_from_slice(&data),
            other => panic!("{other:?}"),
        }
    }
    assert!(arrived == state, "the same bytes");
    // But for what is cut by the end of a piece, everything was shown as it is.
    assert!(shown.len() >= 3_000 - pieces, "{}", shown.len());
    let as_it_is =
        |(key, value): (&String, &Value)| table.pairs().get(key).is_some_and(|v| v == value);
    assert!(shown.iter().all(as_it_is));
}

#[test]
fn a0_12_other_words_for_a_state_are_understood_and_one_without_a_position_is_nothing() {
    let fields = r#""idserv":0,"seq":9,"encarnacao":5,"tentativa":1,"de":1,"cadeia":3,"desvio":0,"total":10"#;
    for said in [
        format!(r#"{{"tipomsg":"atualizacao","conteudo":{{"k":"v"}},{fields}}}"#),
        format!(r#"{{"payload":{{"k":"v"}},{fields}}}"#),
    ] {
        let read = beside::read_to(said.as_bytes(), 10).expect("a state");
        assert!(matches!(read, Message::Piece { data, .. } if data == "[\"k\",\"v\"]\n"));
        assert!(
            beside::read_to(said.as_bytes(), 9).is_err(),
            "larger than this server takes"
        );
    }
    for said in [
        r#"{"tipomsg":"estado","idserv":0,"conteudo":{"k":"v"},"seq":9}"#,
        r#"{"payload":{"k":"v"}}"#,
        r#"{"tipomsg":"estado"}"#,
        r#"{"tipomsg":"outra"}"#,
    ] {
        assert!(beside::read_to(said.as_bytes(), 10).is_err(), "{said}");
    }
}
