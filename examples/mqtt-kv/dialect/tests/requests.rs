//! Requests and their answers.

use super::*;

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
fn an_insertion_whose_answer_can_go_nowhere_is_carried_out_and_the_groups_own_topics_get_no_answers()
 {
    for topic in [
        "inf1406-reqs",
        "inf1406-monitor",
        "inf1406-rec-1",
        "a/+",
        "",
        "resp-\n",
        "resp-\u{ffff}",
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
