use super::*;
use crate::document_store::wire::{self, Request, Response};
use kvrep_core::{Index, Timestamp};
use proptest::prelude::*;
use serde_json::json;

/// A store that is spoken to in its own wire.
#[derive(Default)]
struct Spoken {
    store: Store,
    entries: u64,
}

impl Spoken {
    fn users() -> Self {
        let mut spoken = Self::default();
        spoken.ok(r#"["create", "users", {"*email":"str","name":"str","*age":"int"}]"#);
        spoken
    }

    fn answer(&mut self, text: &str) -> Answer {
        match wire::parse(text.as_bytes()) {
            Ok(Request::Write(command)) => {
                self.entries += 1;
                let seed = self.entries.wrapping_mul(77);
                let at = Index(self.entries);
                let mut context = ApplyContext::new(at, Timestamp(0), seed);
                self.store.apply(&mut context, command)
            }
            Ok(Request::Read(look)) => self.store.query(look),
            Ok(Request::Status | Request::RemoveNode(_) | Request::MakeRoom(_)) => {
                panic!("a store has no status")
            }
            Err(why) => Answer::Refused(why),
        }
    }

    fn ok(&mut self, text: &str) -> Json {
        match Response::from(self.answer(text)) {
            Response::Ok(json) => serde_json::from_str(&json).expect("JSON"),
            Response::Ko(why) => panic!("{text}: {why}"),
        }
    }

    fn ko(&mut self, text: &str) -> String {
        match Response::from(self.answer(text)) {
            Response::Ok(json) => panic!("{text} was done: {json}"),
            Response::Ko(why) => why,
        }
    }

    fn looked_at(&mut self, text: &str) -> (usize, u64) {
        match self.answer(text) {
            Answer::Found { json, looked_at } => {
                let found: Vec<Json> = serde_json::from_str(&json).expect("a list");
                (found.len(), looked_at)
            }
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn r2_12_insert_gives_an_id_and_search_gives_documents_with_it() {
    let mut store = Spoken::users();
    let first = store.ok(r#"["insert", "users", {"email":"a", "name":"a", "age":18}]"#);
    let id = first.as_str().expect("a text").to_owned();
    assert_eq!(Uuid::try_parse(&id).expect("a UUID").get_version_num(), 4);
    let found = store.ok(r#"["search", "users", {"email":"a"}]"#);
    let expected = format!(r#"[{{"_id":"{id}","email":"a","name":"a","age":18}}]"#);
    assert_eq!(found.to_string(), expected);
    assert_eq!(
        found,
        store.ok(&format!(r#"["search", "users", {{"_id":"{id}"}}]"#))
    );
    store.ok(r#"["insert", "users", {"age":"19", "email":"b"}]"#);
    let all = store.ok(r#"["search", "users", {}]"#);
    let emails: Vec<&Json> = all
        .as_array()
        .expect("a list")
        .iter()
        .map(|d| &d["email"])
        .collect();
    assert_eq!(emails, ["a", "b"], "all, in the order of insertion");
    assert_eq!(all[1].get("name"), None, "what is missing is absent");
}

#[test]
fn r2_11_every_operation_of_the_table_answers_as_the_table_says() {
    let mut store = Spoken::users();
    let schema = r#"{"email":{"type":"str","index":true},"name":{"type":"str","index":false},"age":{"type":"int","index":true}}"#;
    assert_eq!(store.ok(r#"["describe", "users"]"#).to_string(), schema);
    assert_eq!(
        store.ok(r#"["describe"]"#).to_string(),
        format!("{{\"users\":{schema}}}")
    );
    for age in 10..20 {
        store.ok(&format!(r#"["insert", "users", {{"age":{age}}}]"#));
    }
    assert_eq!(
        store.ok(r#"["update", "users", {"age":{">=":15}}, {"name":"old"}]"#),
        5
    );
    assert_eq!(
        store.ok(r#"["update", "users", {"age":99}, {"name":"old"}]"#),
        0
    );
    assert_eq!(
        store
            .ok(r#"["search", "users", {"name":"old"}]"#)
            .as_array()
            .map(Vec::len),
        Some(5)
    );
    assert_eq!(store.ok(r#"["delete", "users", {"name":"old"}]"#), 5);
    assert_eq!(store.ok(r#"["destroy", "users"]"#), Json::Null);
    assert_eq!(store.ok(r#"["describe"]"#).to_string(), "{}");
}

#[test]
fn a2_9_and_a2_21_what_does_not_fit_is_refused_and_changes_nothing() {
    let mut store = Spoken::users();
    store.ok(r#"["insert", "users", {"age":1}]"#);
    let before = store.store.content_digest();
    for (text, why) in [
        (r#"["create", "users", {"a":"str"}]"#, "exists already"),
        (r#"["create", "", {"a":"str"}]"#, "needs a name"),
        (r#"["destroy", "cats"]"#, "no collection"),
        (r#"["describe", "cats"]"#, "no collection"),
        (r#"["insert", "cats", {}]"#, "no collection"),
        (r#"["insert", "users", {"weight":3}]"#, "no attribute"),
        (r#"["insert", "users", {"_id":"x"}]"#, "given by the store"),
        (r#"["insert", "users", {"age":"old"}]"#, "is no int"),
        (
            r#"["update", "users", {}, {"_id":"x"}]"#,
            "given by the store",
        ),
        (
            r#"["update", "users", {}, {"name":"n", "age":"old"}]"#,
            "is no int",
        ),
        (
            r#"["update", "users", {"weight":3}, {"age":2}]"#,
            "no attribute",
        ),
        (r#"["search", "users", {"age":"old"}]"#, "is no int"),
        (r#"["delete", "users", {"weight":3}]"#, "no attribute"),
    ] {
        let told = store.ko(text);
        assert!(told.contains(why), "{text}: {told}");
    }
    assert_eq!(store.store.content_digest(), before);
}

#[test]
fn a2_2_an_indexed_attribute_is_neither_unique_nor_required() {
    let mut store = Spoken::users();
    store.ok(r#"["insert", "users", {"email":"a", "age":18}]"#);
    store.ok(r#"["insert", "users", {"email":"b", "age":18}]"#);
    store.ok(r#"["insert", "users", {"name":"nobody"}]"#);
    assert_eq!(
        store.looked_at(r#"["search", "users", {"age":18}]"#),
        (2, 2)
    );
}

#[test]
fn c2_3_an_update_whose_query_tests_what_it_changes_updates_each_document_once() {
    let mut store = Spoken::users();
    for age in [1, 2, 3] {
        store.ok(&format!(r#"["insert", "users", {{"age":{age}}}]"#));
    }
    // In an index that is walked while it changes, the first would be met again and again.
    assert_eq!(
        store.ok(r#"["update", "users", {"age":{"<":3}}, {"age":2}]"#),
        2
    );
    assert_eq!(
        store.ok(r#"["update", "users", {"age":{">=":2}}, {"age":9}]"#),
        3
    );
    let found = store.ok(r#"["search", "users", {}]"#);
    assert!(
        found
            .as_array()
            .expect("a list")
            .iter()
            .all(|d| d["age"] == 9)
    );
}

#[test]
fn c2_3_equal_logs_give_equal_ids_and_equal_order() {
    let write = |store: &mut Spoken| {
        for age in 0..100 {
            store.ok(&format!(r#"["insert", "users", {{"age":{}}}]"#, age % 7));
        }
        store.ok(r#"["update", "users", {"age":3}, {"name":"three"}]"#);
        store
            .ok(r#"["search", "users", {"age":{">":2,"<":5}}]"#)
            .to_string()
    };
    let (mut here, mut there) = (Spoken::users(), Spoken::users());
    assert_eq!(write(&mut here), write(&mut there));
    assert_eq!(here.store.digest(), there.store.digest());
}

#[test]
fn an_indexed_search_does_not_scan() {
    let mut store = Spoken::users();
    for n in 0..1_000 {
        store.ok(&format!(
            r#"["insert", "users", {{"email":"e{n}", "name":"n{}", "age":{}}}]"#,
            n % 10,
            n % 100
        ));
    }
    let mut looked = |query: &str| store.looked_at(&format!(r#"["search", "users", {query}]"#));
    assert_eq!(looked(r#"{"email":"e7"}"#), (1, 1));
    assert_eq!(looked(r#"{"age":7}"#), (10, 10));
    assert_eq!(looked(r#"{"age":{">":7,"<":10}}"#), (20, 20));
    assert_eq!(looked(r#"{"age":{">=":98}}"#), (20, 20));
    assert_eq!(
        looked(r#"{"age":7,"email":"e7"}"#),
        (1, 1),
        "the narrower index"
    );
    assert_eq!(looked(r#"{"age":{">":7,"<":7}}"#), (0, 0));
    assert_eq!(looked(r#"{"age":{">":9,"<":3}}"#), (0, 0), "upside down");
    assert_eq!(looked(r#"{"age":7,"name":"n7"}"#), (10, 10));
    assert_eq!(looked(r#"{"_id":"none"}"#), (0, 0));
    assert_eq!(
        looked(r#"{"name":"n7"}"#),
        (100, 1_000),
        "without an index all are looked at"
    );
}

#[test]
fn c2_11_a_collection_made_anew_with_another_schema_and_its_indexes_survive_a_snapshot() {
    let mut store = Spoken::users();
    store.ok(r#"["insert", "users", {"age":1}]"#);
    store.ok(r#"["destroy", "users"]"#);
    store.ok(r#"["create", "users", {"*weight":"float"}]"#);
    assert!(
        store
            .ko(r#"["insert", "users", {"age":1}]"#)
            .contains("no attribute")
    );
    for weight in ["1.5", "\"2.5\"", "-0.0", "0"] {
        store.ok(&format!(r#"["insert", "users", {{"weight":{weight}}}]"#));
    }
    let mut copy = Spoken::default();
    copy.store.restore(store.store.snapshot());
    copy.entries = store.entries;
    assert_eq!(copy.store.digest(), store.store.digest());
    assert_eq!(
        copy.looked_at(r#"["search", "users", {"weight":0}]"#),
        (2, 2)
    );
    for both in [&mut store, &mut copy] {
        both.ok(r#"["insert", "users", {"weight":7}]"#);
    }
    assert_eq!(
        copy.store.digest(),
        store.store.digest(),
        "they go on alike"
    );
}

#[test]
fn a2_13_a_result_of_65535_bytes_is_sent_and_one_of_more_is_not() {
    let mut store = Spoken::default();
    store.ok(r#"["create", "texts", {"text":"str"}]"#);
    let insert = |store: &mut Spoken, bytes: usize| {
        store.ok(&format!(
            r#"["insert", "texts", {{"text":"{}"}}]"#,
            "x".repeat(bytes)
        ));
    };
    insert(&mut store, 0);
    let empty = store.ok(r#"["search", "texts", {}]"#).to_string();
    let one = empty.len() - 2;
    store.ok(r#"["delete", "texts", {}]"#);
    // Two documents and a comma fill the message to its last byte.
    let room = 65_535 - ok_bytes("[,]".len()) - 2 * one;
    insert(&mut store, room / 2);
    insert(&mut store, room - room / 2);
    let Answer::Found { json, .. } = store.answer(r#"["search", "texts", {}]"#) else {
        panic!("it fits");
    };
    assert_eq!(Response::Ok(json).to_text().len(), 65_535);
    store.ok(r#"["delete", "texts", {}]"#);
    insert(&mut store, room / 2);
    insert(&mut store, room - room / 2 + 1);
    assert_eq!(
        store.ko(r#"["search", "texts", {}]"#),
        "response too large (65536 bytes)"
    );
}

/// A value or its absence, as JSON of an attribute.
fn maybe(values: std::ops::Range<i64>) -> impl Strategy<Value = Option<i64>> {
    proptest::option::of(values)
}

fn document(age: Option<i64>, size: Option<i64>) -> String {
    let fields = [("age", age), ("size", size)];
    let fields = fields
        .iter()
        .filter_map(|(name, value)| Some(format!("{name:?}:{}", (*value)?)));
    format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
}

proptest! {
    /// With and without indexes the same documents are found, whatever was written before.
    #[test]
    fn indexes_change_no_result(
        documents in proptest::collection::vec((maybe(0..6), maybe(0..6)), 0..40),
        updates in proptest::collection::vec((0..6_i64, maybe(0..6), maybe(0..6)), 0..4),
        conditions in proptest::collection::vec((0..2_usize, 0..6_usize, 0..6_i64), 0..4),
    ) {
        let operators = ["=", "!=", "<", "<=", ">", ">="];
        let query = |conditions: &[(usize, usize, i64)]| {
            let mut fields = [Map::new(), Map::new()];
            for (attribute, operator, value) in conditions {
                fields[*attribute].insert(operators[*operator].into(), Json::from(*value));
            }
            let [age, size] = fields.map(Json::Object);
            serde_json::json!({"age": age, "size": size}).to_string()
        };
        let found = [r#"{"*age":"int","*size":"int"}"#, r#"{"age":"int","size":"int"}"#].map(|schema| {
            let mut store = Spoken::default();
            store.ok(&format!(r#"["create", "c", {schema}]"#));
            for (age, size) in &documents {
                store.ok(&format!(r#"["insert", "c", {}]"#, document(*age, *size)));
            }
            for (from, age, size) in &updates {
                store.ok(&format!(r#"["update", "c", {{"age":{from}}}, {}]"#, document(*age, *size)));
            }
            let found = store.ok(&format!(r#"["search", "c", {}]"#, query(&conditions))).to_string();
            store.ok(&format!(r#"["delete", "c", {}]"#, query(&conditions)));
            found + &store.ok(r#"["search", "c", {}]"#).to_string()
        });
        prop_assert_eq!(&found[0], &found[1]);
    }
}

#[test]
fn a_description_that_does_not_fit_says_how_large_it_is_without_being_made() {
    let mut spoken = Spoken::default();
    let (mut all, mut last) = (String::new(), Answer::Done);
    for n in 0..40 {
        let attributes: Vec<String> = (0..200).map(|a| format!("\"a{n}_{a}\":\"int\"")).collect();
        spoken.ok(&format!(
            "[\"create\", \"c{n}\", {{{}}}]",
            attributes.join(",")
        ));
        last = spoken.answer("[\"describe\"]");
        if let Answer::Found { json, .. } = &last {
            all.clone_from(json);
        }
    }
    let Answer::TooLarge { bytes } = last else {
        panic!("{last:?}");
    };
    let whole: Map<String, Json> = (spoken.store.collections.iter())
        .map(|(name, one)| (name.clone(), one.schema().to_json()))
        .collect();
    assert_eq!(
        bytes,
        ok_bytes(Json::Object(whole.clone()).to_string().len()) as u64
    );
    // What fits is what it was.
    let some: Map<String, Json> = serde_json::from_str(&all).expect("JSON");
    assert!(some.len() > 2 && all.len() <= TEXT_BYTES_MAX);
    assert!(
        some.iter()
            .all(|(name, schema)| whole.get(name) == Some(schema))
    );
}

#[test]
fn what_is_in_can_be_read_and_a_refusal_changes_nothing() {
    let mut spoken = Spoken::default();
    spoken.ok(r#"["create", "texts", {"text":"str","n":"int"}]"#);
    let found = format!(
        r#"["ok", [{{"_id":"{}","text":"","n":7}}]]"#,
        "-".repeat(36)
    );
    // Of each character as many as fit, and what they are in JSON.
    for (unit, bytes) in [("y", 1), ("\u{1}", 6), ("\"", 2), ("ñ", 2)] {
        let room = TEXT_BYTES_MAX - found.len();
        let text = unit.repeat(room / bytes) + &"y".repeat(room % bytes);
        let insert = |text: &str| json!(["insert", "texts", {"text": text, "n": 7}]).to_string();
        let id = spoken.ok(&insert(&text));
        let search = json!(["search", "texts", {"_id": id}]).to_string();
        let response = Response::from(spoken.answer(&search)).to_text();
        assert_eq!(response.len(), TEXT_BYTES_MAX);
        let before = spoken.store.content_digest();
        let why = spoken.ko(&insert(&format!("{text}y")));
        assert!(why.contains("would have 65536 bytes"), "{why}");
        // One of them would grow too much, so none is changed.
        spoken.ok(r#"["insert", "texts", {"n": 7}]"#);
        let with_small = spoken.store.content_digest();
        let update = |n: i64| json!(["update", "texts", {"n": 7}, {"n": n}]).to_string();
        assert!(spoken.ko(&update(10)).contains("document too large"));
        assert_eq!(spoken.store.content_digest(), with_small);
        assert_ne!(before, with_small);
        assert_eq!(spoken.ok(&update(8)), json!(2));
    }
}

#[test]
fn a_schema_that_could_not_be_described_is_not_taken() {
    let mut spoken = Spoken::default();
    let create = |attributes: usize| {
        let named = (0..attributes).map(|n| format!("\"a{n:05}\":\"int\""));
        let schema: Vec<String> = named.collect();
        format!(r#"["create", "wide", {{{}}}]"#, schema.join(","))
    };
    assert!(create(2_000).len() < TEXT_BYTES_MAX);
    let why = spoken.ko(&create(2_000));
    assert!(why.contains("schema too large"), "{why}");
    spoken.ok(&create(1_000));
    spoken.ok(r#"["describe", "wide"]"#);
}
