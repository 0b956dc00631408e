//! The forms of section 2 of the requirements, and that nothing read from outside does harm.

use super::*;
use crate::mqtt_kv::machine::{Command, Query, Response, Table};
use kvrep_core::config::Token;
use kvrep_core::protocol::active::{Call, Claim, Decision, Heartbeat, Life, Request, Stamp};
use kvrep_core::session::{Envelope, Machine};
use kvrep_core::state_machine::encode;
use kvrep_core::{GroupId, Incarnation, Index, Limits, RawStateMachine, Term, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};

fn member(replica: u32) -> StreamMember {
    StreamMember {
        group: GroupId::named("mqtt-kv"),
        replica: ReplicaId(replica),
        incarnation: Incarnation(1),
        members: [0, 1, 2].map(ReplicaId).to_vec(),
        config_hash: u64::MAX - 5,
        request_bytes_max: 1_000,
        state_bytes_max: 1 << 20,
    }
}

fn dialect(replica: u32) -> Json {
    let mut dialect = Json::new(Topics::default());
    dialect.open(&member(replica)).expect("sound topics");
    dialect
}

fn read(payload: &str) -> Item {
    let payload = Bytes::copy_from_slice(payload.as_bytes());
    let mut items = dialect(0).read_items(&payload);
    assert_eq!(items.len(), 1);
    items.remove(0).item
}

fn request(payload: &str) -> Request {
    match read(payload) {
        Item::Request(request) => request,
        other => panic!("{payload}: {other:?}"),
    }
}

enum Meant {
    Get(String),
    Insert(String, String),
    Wrong(String),
}

fn meant(request: &Request) -> Meant {
    match &request.call {
        Call::Read(query) => match decode(query).expect("a query") {
            Query::Get(key) => Meant::Get(key),
            Query::Wrong(why) => Meant::Wrong(why),
        },
        Call::Write(envelope) => match Envelope::decode(envelope.clone()).expect("an envelope") {
            Envelope::Plain(command) => {
                let Command::Insert { key, value } = decode(&command).expect("a command");
                Meant::Insert(key, value)
            }
            other => panic!("{other:?}"),
        },
    }
}

fn done(response: &Response) -> Outcome {
    let token = Token {
        term: Term::ZERO,
        index: Index(1),
    };
    Outcome::Done {
        response: encode(response),
        token,
    }
}

fn answer(dialect: &mut Json, request: &Request, response: &Response) -> Option<(String, Value)> {
    let (topic, payload) = dialect.answer(&request.reply_to, &done(response))?;
    Some((
        topic.to_string(),
        serde_json::from_slice(&payload).expect("JSON"),
    ))
}

#[test]
fn r0_5_r0_9_r0_10_a0_1_requests_are_queries_and_insertions_by_all_their_words_in_any_case() {
    let words = [
        "consulta", "consult", "query", "leitura", "search", "get", "C", "CONSULTA", "c",
    ];
    for word in words {
        let asked = request(&format!(
            r#"{{"tipomsg":"{word}","chave":"k","topico-resp":"r","idpedido":7,"mais":[1]}}"#
        ));
        assert!(
            matches!(meant(&asked), Meant::Get(key) if key == "k"),
            "{word}"
        );
    }
    let words = [
        "insercao",
        "inserção",
        "INSERÇÃO",
        "insere",
        "insert",
        "put",
        "I",
        "Put",
    ];
    for word in words {
        let asked = request(&format!(
            r#"{{"tipomsg":"{word}","chave":"k","novovalor":"v","topico-resp":"r","idpedido":"x"}}"#
        ));
        let right =
            matches!(meant(&asked), Meant::Insert(key, value) if key == "k" && value == "v");
        assert!(right, "{word}");
    }
}

#[test]
fn r0_9_what_we_write_is_what_the_text_says_and_what_we_read() {
    let written = request::query("k", "resp-c1", 7);
    assert_eq!(
        written,
        r#"{"tipomsg":"consulta","chave":"k","topico-resp":"resp-c1","idpedido":7}"#
    );
    assert!(matches!(meant(&request(&written)), Meant::Get(key) if key == "k"));
    let written = request::insertion("k", "v\n\"", "resp-c1", 8);
    let wanted = r#"{"tipomsg":"insercao","chave":"k","novovalor":"v\n\"","topico-resp":"resp-c1","idpedido":8}"#;
    assert_eq!(written, wanted);
    assert!(matches!(meant(&request(&written)), Meant::Insert(_, value) if value == "v\n\""));
}

#[test]
fn a0_2_the_topic_of_the_answer_has_three_spellings() {
    for name in ["topico-resp", "topico_resp", "topicoresp"] {
        let asked = request(&format!(
            r#"{{"tipomsg":"consulta","chave":"k","{name}":"resp-c1","idpedido":7}}"#
        ));
        let (topic, _) = answer(&mut dialect(0), &asked, &Response::Missing).expect("an answer");
        assert_eq!(topic, "resp-c1", "{name}");
    }
}

#[test]
fn r0_13_c0_1_the_hash_is_the_sum_of_the_bytes_of_the_key() {
    for (key, sum) in [("", 0), ("a", 97), ("ação", 928), ("ção", 831), ("𝄞", 687)] {
        let asked = request(&request::query(key, "r", 1));
        assert_eq!(asked.hash, sum, "{key}");
        assert_eq!(request(&request::insertion(key, "v", "r", 1)).hash, sum);
    }
    assert_eq!((928 % 3, 928 % 5), (1, 3));
    let long = "\u{7f}".repeat(1 << 20);
    assert_eq!(request::hash(&long), 127 << 20);
}

#[test]
fn r0_16_a0_6_a0_8_answers_have_the_fields_of_the_text_and_echo_idpedido_as_it_was_written() {
    let ask = |id: &str| {
        request(&format!(
            r#"{{"tipomsg":"consulta","chave":"k","topico-resp":"r","idpedido":{id}}}"#
        ))
    };
    let mut second = dialect(2);
    let value = Response::Value("v".into());
    let (_, payload) = second
        .answer(&ask("7").reply_to, &done(&value))
        .expect("an answer");
    assert_eq!(
        payload,
        r#"{"idpedido":7,"chave":"k","valor":"v","resposta":"v","status":"ok","idserv":2}"#
    );
    let missing = done(&Response::Missing);
    let (_, payload) = second
        .answer(&ask("7").reply_to, &missing)
        .expect("an answer");
    assert_eq!(
        payload,
        r#"{"idpedido":7,"chave":"k","valor":null,"resposta":"nao existe","status":"naoexiste","idserv":2}"#
    );
    for id in [
        "1.0",
        "-0",
        "12345678901234567890123",
        "\"7\"",
        "\"\\u0041\"",
        "1e400",
    ] {
        let (_, payload) = second
            .answer(&ask(id).reply_to, &missing)
            .expect("an answer");
        let wanted = format!("{{\"idpedido\":{id},");
        assert!(payload.starts_with(wanted.as_bytes()), "{id}: {payload:?}");
    }
}

#[test]
fn a0_6_with_resposta_crua_the_value_alone_is_the_answer() {
    let mut raw = dialect(0).form(Form::Raw);
    let asked = request(&request::query("k", "r", 1));
    let value = Response::Value("só o valor".into());
    let said = |raw: &mut Json, response| raw.answer(&asked.reply_to, &done(response)).map(|a| a.1);
    assert_eq!(said(&mut raw, &value), Some("só o valor".into()));
    assert_eq!(
        said(&mut raw, &Response::Missing),
        Some("nao existe".into())
    );
}

#[test]
fn a0_7_insertions_are_answered_with_their_value_unless_that_is_switched_off() {
    let inserted = request(&request::insertion("k", "v", "r", 1));
    let queried = request(&request::query("k", "r", 1));
    let value = Response::Value("v".into());
    let (_, said) = answer(&mut dialect(1), &inserted, &value).expect("an answer");
    assert_eq!(
        (&said["valor"], &said["status"]),
        (&json!("v"), &json!("ok"))
    );
    let mut silent = dialect(1).insertions(Insertions::Unanswered);
    assert_eq!(answer(&mut silent, &inserted, &value), None);
    assert!(answer(&mut silent, &queried, &value).is_some());
}

#[test]
fn a0_1_r0_17_a_wrong_request_with_a_topic_is_answered_with_an_error_that_says_why() {
    let large = "x".repeat(1_000);
    for (wrong, why) in [
        (
            r#""tipomsg":"apaga","chave":"k","idpedido":7"#,
            "desconhecido",
        ),
        (r#""chave":"k","idpedido":7"#, "tipomsg"),
        (r#""tipomsg":3,"chave":"k","idpedido":7"#, "tipomsg"),
        (r#""tipomsg":"consulta","idpedido":7"#, "chave"),
        (r#""tipomsg":"consulta","chave":1,"idpedido":7"#, "chave"),
        (
            r#""tipomsg":"insercao","chave":"k","idpedido":7"#,
            "novovalor",
        ),
        (
            r#""tipomsg":"insercao","chave":"k","novovalor":null,"idpedido":7"#,
            "novovalor",
        ),
        (r#""tipomsg":"consulta","chave":"k""#, "idpedido"),
        (
            r#""tipomsg":"consulta","chave":"k","idpedido":[7]"#,
            "idpedido",
        ),
        (
            &format!(r#""tipomsg":"consulta","chave":"{large}","idpedido":7"#),
            "bytes",
        ),
    ] {
        let asked = request(&format!(r#"{{{wrong},"topico-resp":"r"}}"#));
        let Meant::Wrong(said) = meant(&asked) else {
            panic!("{wrong}");
        };
        assert!(said.contains(why), "{wrong}: {said}");
        let (topic, said) = answer(&mut dialect(0), &asked, &Response::Wrong(said)).expect("told");
        assert_eq!((topic.as_str(), &said["status"]), ("r", &json!("erro")));
        assert!(
            said["resposta"]
                .as_str()
                .is_some_and(|text| text.contains(why))
        );
    }
}

#[test]
fn r0_17_what_nobody_can_be_told_of_is_no_item_and_is_counted() {
    for wrong in [
        "",
        "nada",
        "[]",
        "{}",
        r#"{"tipomsg":"consulta","chave":"k","idpedido":7}"#,
        r##"{"tipomsg":"consulta","chave":"k","idpedido":7,"topico-resp":"a/#"}"##,
        r#"{"tipomsg":"consulta","chave":"k","idpedido":7,"topico-resp":7}"#,
        r#"{"tipomsg":"apaga","idpedido":7,"topico-resp":"$SYS/x"}"#,
        r#"{"tipomsg":"novoserv","topico-resp":"inf1406-rec-0"}"#,
        r#"{"tipomsg":"servpronto","idserv":0}"#,
        r#"{"tipomsg":"falhaserv","idserv":"zero"}"#,
        r#"{"tipomsg":"marca","decisoes":0,"relogio":1}"#,
    ] {
        let mut dialect = dialect(0);
        let refused = dialect.refused();
        let items = dialect.read_items(&Bytes::copy_from_slice(wrong.as_bytes()));
        assert_eq!(items[0].item, Item::Unreadable, "{wrong}");
        assert_eq!(refused.take().map(|(times, _)| times), Some(1), "{wrong}");
        assert_eq!(refused.take(), None);
    }
}

#[test]
fn an_insertion_whose_answer_can_go_nowhere_is_carried_out_and_the_groups_own_topics_get_no_answers()
 {
    for topic in [
        "inf1406-reqs",
        "inf1406-monitor",
        "inf1406-rec-1",
        "a/+",
        "",
    ] {
        let mut dialect = dialect(0);
        let refused = dialect.refused();
        let payload = request::insertion("k", "v", topic, 1);
        let mut items = dialect.read_items(&payload.into());
        let Item::Request(asked) = items.remove(0).item else {
            panic!("{topic}");
        };
        assert!(matches!(meant(&asked), Meant::Insert(..)));
        assert_eq!(
            answer(&mut dialect, &asked, &Response::Value("v".into())),
            None
        );
        assert_eq!(refused.take().map(|(times, _)| times), Some(1), "{topic}");
    }
}

#[test]
fn every_outcome_has_an_answer() {
    let asked = request(&request::query("k", "r", 1));
    for outcome in [
        Outcome::Malformed("x".into()),
        Outcome::TooLarge {
            bytes: 2,
            bytes_max: 1,
        },
        Outcome::ResponseTooLarge { bytes: 2 },
        Outcome::Busy,
        Outcome::Unknown,
        Outcome::Behind,
        Outcome::Closed,
        Outcome::Refused("x".into()),
        Outcome::Done {
            response: Bytes::from_static(b"\xff"),
            token: Token {
                term: Term::ZERO,
                index: Index(1),
            },
        },
    ] {
        let (_, payload) = dialect(0)
            .answer(&asked.reply_to, &outcome)
            .expect("an answer");
        let said: Value = serde_json::from_slice(&payload).expect("JSON");
        assert_eq!(said["status"], "erro", "{outcome:?}");
    }
    assert!(
        dialect(0)
            .answer(&Bytes::from_static(b"\xff\xff"), &Outcome::Busy)
            .is_none()
    );
}

#[test]
fn r0_23_a0_3_a0_4_a_foreign_monitors_falhaserv_is_read_in_all_its_forms() {
    let million_seconds = 1_638_136_800_000_000;
    for (json, seen) in [
        (r#""idserv":0,"vistoem":1638136800000"#, million_seconds),
        (r#""idServ":"0","vistoem":"1638136800000""#, million_seconds),
        (r#""idserv":0,"vistoem":1638136800"#, million_seconds),
        (
            r#""idserv":0,"vistoem":1638136800.25"#,
            million_seconds + 250_000,
        ),
        (
            r#""idserv":"0","vistoem":"1638136800.25""#,
            million_seconds + 250_000,
        ),
        (r#""idserv":0,"vistoem":1.6381368e12"#, million_seconds),
        (r#""idserv":0"#, 0),
        (r#""idserv":0,"vistoem":"ontem""#, 0),
        (r#""idserv":0,"vistoem":-5"#, 0),
        (r#""idserv":0,"vistoem":1e999"#, 0),
    ] {
        let wanted = Item::Failed {
            replica: ReplicaId(0),
            life: None,
            seen_at: Timestamp(seen),
        };
        assert_eq!(
            read(&format!(r#"{{"tipomsg":"falhaserv",{json}}}"#)),
            wanted,
            "{json}"
        );
    }
}

#[test]
fn r0_23_r0_28_the_items_of_the_text_have_its_fields() {
    let life = Life {
        incarnation: Incarnation(5),
        attempt: 2,
    };
    let replica = ReplicaId(0);
    let seen_at = Timestamp(1_638_136_800_000_000);
    let written = |item| {
        let stamp = Some(Stamp {
            replica,
            incarnation: Incarnation(5),
            seq: 1,
        });
        let bytes = dialect(0).item(&Published { stamp, item });
        serde_json::from_slice::<Value>(&bytes).expect("JSON")
    };
    let failed = written(Item::Failed {
        replica,
        life: Some(life),
        seen_at,
    });
    assert_eq!(
        (&failed["tipomsg"], &failed["idserv"], &failed["vistoem"]),
        (
            &json!("falhaserv"),
            &json!(0),
            &json!(1_638_136_800_000_u64)
        )
    );
    let new = written(Item::Announce { replica, life });
    assert_eq!(
        (&new["tipomsg"], &new["topico-resp"], &new["idserv"]),
        (&json!("novoserv"), &json!("inf1406-rec-0"), &json!(0))
    );
    let ready = written(Item::Ready { replica, life });
    assert_eq!(
        (&ready["tipomsg"], &ready["idserv"]),
        (&json!("servpronto"), &json!(0))
    );
    assert_eq!(
        (&ready["encarnacao"], &ready["tentativa"]),
        (&json!(5), &json!(2))
    );
}

#[test]
fn a0_11_novoserv_without_an_id_is_of_the_server_that_its_topic_names() {
    let said = r#"{"tipomsg":"novoserv","topico-resp":"inf1406-rec-12","encarnacao":5,"tentativa":1,
                   "carimbo":{"idserv":12,"encarnacao":5,"numero":1},"acordo":18446744073709551610}"#;
    assert!(matches!(
        read(said),
        Item::Announce {
            replica: ReplicaId(12),
            ..
        }
    ));
}

#[test]
fn what_a_server_with_another_agreement_says_is_nothing() {
    let item = Item::Announce {
        replica: ReplicaId(1),
        life: sample_life(),
    };
    let stamp = Some(Stamp {
        replica: ReplicaId(1),
        incarnation: Incarnation(5),
        seq: 1,
    });
    let mut other = dialect(1);
    other.agreement = 1;
    let bytes = other.item(&Published { stamp, item });
    assert_eq!(dialect(0).read_items(&bytes)[0].item, Item::Unreadable);
}

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

fn sample_life() -> Life {
    Life {
        incarnation: Incarnation(5),
        attempt: 1,
    }
}

fn sample_heartbeat() -> Heartbeat {
    Heartbeat {
        replica: ReplicaId(2),
        life: sample_life(),
        serving: true,
        at: Index(4),
        chain: u64::MAX,
        answered: Index(3),
        confirmed: Index(2),
        holding: false,
        view: u64::MAX - 1,
        failed: vec![(ReplicaId(0), sample_life())],
        claims: vec![Claim {
            mark: Stamp {
                replica: ReplicaId(2),
                incarnation: Incarnation(5),
                seq: 3,
            },
            at: Index(4),
            chain: 1,
            digest: Some(u64::MAX),
        }],
    }
}

fn lives() -> impl Strategy<Value = Life> {
    (any::<u64>(), any::<u32>()).prop_map(|(incarnation, attempt)| Life {
        incarnation: Incarnation(incarnation),
        attempt,
    })
}

fn stamps() -> impl Strategy<Value = Stamp> {
    (any::<u32>(), any::<u64>(), any::<u64>()).prop_map(|(replica, incarnation, seq)| Stamp {
        replica: ReplicaId(replica),
        incarnation: Incarnation(incarnation),
        seq,
    })
}

fn own_items() -> impl Strategy<Value = Item> {
    let who = || (any::<u32>().prop_map(ReplicaId), lives());
    let listed = proptest::collection::vec(who(), 0..4);
    prop_oneof![
        who().prop_map(|(replica, life)| Item::Announce { replica, life }),
        who().prop_map(|(replica, life)| Item::Ready { replica, life }),
        (who(), any::<bool>(), any::<u64>()).prop_map(|((replica, life), known, seen)| {
            Item::Failed {
                replica,
                life: known.then_some(life),
                seen_at: Timestamp(seen),
            }
        }),
        (who(), any::<u64>()).prop_map(|((replica, life), from)| Item::Genesis {
            replica,
            life,
            from: Index(from)
        }),
        stamps().prop_map(|genesis| Item::Objection { genesis }),
        (any::<u64>(), any::<u64>()).prop_map(|(decisions, clock)| Item::Mark {
            decisions,
            clock: Timestamp(clock)
        }),
        (any::<[u64; 4]>(), stamps(), listed).prop_map(
            |([number, known, at, chain], mark, listed)| {
                Item::Decision(Decision {
                    number,
                    mark,
                    known,
                    at: Index(at),
                    chain,
                    listed,
                })
            }
        ),
    ]
}

fn valid_payloads() -> Vec<Bytes> {
    let mut samples: Vec<Bytes> = vec![
        request::query("k", "resp-c1", 7).into(),
        request::insertion("k", "v", "resp-c1", 8).into(),
        r#"{"tipomsg":"falhaserv","idserv":"0","vistoem":1638136800.5}"#.into(),
    ];
    let mut sender = dialect(1);
    let mut out = Vec::new();
    let heartbeat = Message::Heartbeat(sample_heartbeat());
    sender.message(Destination::Group, &heartbeat, &mut out);
    let piece = Message::Piece {
        life: sample_life(),
        from: ReplicaId(1),
        at: Index(9),
        chain: 3,
        offset: 0,
        whole: 20,
        data: Bytes::from_static(b"x\n[\"k\",\"v\"]\n[\"half"),
    };
    sender.message(Destination::One(ReplicaId(0)), &piece, &mut out);
    samples.extend(out.into_iter().map(|(_, payload)| payload));
    samples
}

proptest! {
    #[test]
    fn what_a_server_says_in_the_order_is_read_as_what_it_was(item in own_items(), stamp in stamps()) {
        let published = Published { stamp: Some(stamp), item };
        let bytes = dialect(1).item(&published);
        prop_assert_eq!(dialect(0).read_items(&bytes), vec![published]);
    }

    #[test]
    fn r0_2_keys_and_values_are_any_strings(key in any::<String>(), value in any::<String>()) {
        prop_assume!(key.len() + value.len() < 100);
        let asked = request(&request::insertion(&key, &value, "r", 1));
        let Meant::Insert(read_key, read_value) = meant(&asked) else { panic!() };
        prop_assert_eq!((&read_key, &read_value), (&key, &value));
        let (_, said) = answer(&mut dialect(0), &asked, &Response::Value(value.clone())).expect("told");
        prop_assert_eq!(said["chave"].as_str(), Some(key.as_str()));
        prop_assert_eq!(said["valor"].as_str(), Some(value.as_str()));
    }

    #[test]
    fn nothing_read_from_outside_panics(
        which in any::<proptest::sample::Index>(),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<proptest::sample::Index>(),
        random in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let samples = valid_payloads();
        let mut bytes = which.get(&samples).to_vec();
        for (at, to) in changes {
            let at = at.index(bytes.len());
            bytes[at] = to;
        }
        bytes.truncate(cut.index(bytes.len()) + 1);
        for payload in [Bytes::from(bytes), Bytes::from(random)] {
            let (mut dialect, mut other) = (dialect(0), dialect(2));
            let items = dialect.read_items(&payload);
            prop_assert_eq!(items.len(), 1);
            // A pure function of the bytes: another server reads the same.
            prop_assert_eq!(&items, &other.read_items(&payload));
            if let Item::Request(asked) = &items[0].item {
                let _ = dialect.answer(&asked.reply_to, &done(&Response::Missing));
            }
            for topic in ["inf1406-monitor", "inf1406-rec-0", "other"] {
                let _ = dialect.read_message(topic, &payload);
            }
            let _ = dialect.answer(&payload, &Outcome::Busy);
        }
    }
}
