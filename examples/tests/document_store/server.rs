//! A node and its clients: the wire, the literal commands, what is said to whom.

use crate::{USERS, ko, ok};
use kvrep_examples::document_store::stage::{PATIENCE, Port, Stage, asked, at};
use kvrep_examples::document_store::wire::{Response, framed};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Everything that the server says to these bytes until it closes.
async fn said_to(port: Port, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(at(port)).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut said = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut said))
        .await
        .expect("the server closes")
        .unwrap();
    said
}

#[tokio::test]
async fn r2_10_and_r2_14_the_wire_byte_by_byte_and_then_the_server_closes() {
    let (_stage, [leader]) = Stage::with().await.unwrap();
    let said = said_to(leader, &framed(r#"["describe"]"#).unwrap()).await;
    assert_eq!(said, b"\x00\x0a[\"ok\", {}]");
    let create = r#"["create", "a\u00f1os", {"*a": "int"}]"#;
    assert_eq!(
        said_to(leader, &framed(create).unwrap()).await,
        b"\x00\x0c[\"ok\", null]"
    );
    let describe = said_to(leader, &framed("[\"describe\", \"años\"]").unwrap()).await;
    assert_eq!(
        &describe[2..],
        br#"["ok", {"a":{"type":"int","index":true}}]"#
    );
    // A second request on the same connection is not answered.
    let twice = framed(r#"["describe", "no"]"#).unwrap().repeat(2);
    let said = said_to(leader, &twice).await;
    assert_eq!(said, framed(r#"["ko", "no collection \"no\""]"#).unwrap());
}

#[tokio::test]
async fn c2_2_and_r2_13_what_is_no_request_gets_a_reason_and_the_server_goes_on() {
    let (_stage, [leader]) = Stage::with().await.unwrap();
    for request in [
        "{}",
        "[]",
        "[3]",
        "[\"insert\"]",
        "nonsense",
        "[\"fly\"]",
        "",
    ] {
        let refused = ko(leader, request).await;
        assert!(!refused.is_empty(), "{request}");
    }
    let not_utf8 = said_to(leader, b"\x00\x02\xff\xfe").await;
    assert!(not_utf8.starts_with(b"\x00") && not_utf8[2..].starts_with(b"[\"ko\""));
    ok(leader, r#"["describe"]"#).await;
}

#[tokio::test]
async fn r2_52_and_a2_12_any_node_reads_what_was_acknowledged_and_only_the_leader_writes() {
    let (_stage, [leader, one, other]) = Stage::with().await.unwrap();
    ok(leader, USERS).await;
    for age in 0..50 {
        let id = ok(leader, &format!(r#"["insert", "users", {{"age":{age}}}]"#)).await;
        // At once, without a wait for a heartbeat: a follower shows whatever was acknowledged.
        for reader in [leader, one, other] {
            let found = ok(reader, &format!(r#"["search", "users", {{"age":{age}}}]"#)).await;
            assert_eq!(found[0]["_id"], id, "at {reader}");
        }
    }
    let refused = ko(one, r#"["insert", "users", {"age":1}]"#).await;
    assert_eq!(refused, format!("not leader; leader is {}", at(leader)));
    assert_eq!(
        ok(other, r#"["describe"]"#).await,
        ok(leader, r#"["describe"]"#).await
    );
    let all = r#"["search", "users", {}]"#;
    assert_eq!(
        ok(one, all).await,
        ok(leader, all).await,
        "c2_3: in the same order"
    );
}

#[tokio::test]
async fn a2_13_a_result_that_does_not_fit_says_how_large_it_is() {
    let (_stage, [leader]) = Stage::with().await.unwrap();
    ok(leader, r#"["create", "texts", {"text":"str"}]"#).await;
    let text = "x".repeat(40_000);
    for _ in 0..2 {
        ok(
            leader,
            &format!(r#"["insert", "texts", {{"text":"{text}"}}]"#),
        )
        .await;
    }
    let refused = ko(leader, r#"["search", "texts", {}]"#).await;
    assert_eq!(refused, "response too large (80123 bytes)");
}

#[tokio::test]
async fn what_could_not_be_read_again_is_not_taken_to_the_byte() {
    let (_stage, [leader, follower]) = Stage::with().await.unwrap();
    ok(leader, r#"["create", "texts", {"text":"str"}]"#).await;
    let insert = |text: &str| format!(r#"["insert", "texts", {{"text":"{text}"}}]"#);
    let found = format!(r#"["ok", [{{"_id":"{}","text":""}}]]"#, "-".repeat(36));
    let room = 65_535 - found.len();
    let id = ok(leader, &insert(&"y".repeat(room))).await;
    let search = format!(r#"["search", "texts", {{"_id":{id}}}]"#);
    for node in [leader, follower] {
        let documents = ok(node, &search).await;
        assert_eq!(documents[0]["text"].as_str().map(str::len), Some(room));
    }
    let why = ko(leader, &insert(&"y".repeat(room + 1))).await;
    assert!(why.contains("would have 65536 bytes"), "{why}");
    // The largest request that there is.
    let largest = "y".repeat(65_535 - insert("").len());
    assert!(ko(leader, &insert(&largest)).await.contains("too large"));
    let why = ko(
        leader,
        &format!(
            r#"["update", "texts", {{}}, {{"text":"{}"}}]"#,
            "z".repeat(room + 1)
        ),
    )
    .await;
    assert!(why.contains("document too large"), "{why}");
    assert_eq!(ok(leader, &search).await.as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a2_19_and_c2_10_the_literal_commands_share_a_path_and_a_directory_is_used_once() {
    let (mut stage, [leader, follower]) = Stage::with().await.unwrap();
    for port in [leader, follower] {
        assert!(stage.directory().join("db").join(port.to_string()).is_dir());
    }
    // The same command again, while the first one runs.
    let mut second = stage.server(leader, None).unwrap().start().unwrap();
    assert!(!second.ended(PATIENCE).await.unwrap().success());
    let why = second.printed().join("\n");
    assert!(why.contains("docstore-server: "), "{why}");
    ok(leader, USERS).await;
    // r2_7
    let connected = stage.hears(leader, "connected").await.unwrap();
    assert_eq!(connected, "[Server] client connected!");
}

#[tokio::test]
async fn a_node_ends_when_it_is_told_to_and_goes_on_where_it_was() {
    let (mut stage, [leader]) = Stage::with().await.unwrap();
    ok(leader, USERS).await;
    ok(leader, r#"["insert", "users", {"age":1}]"#).await;
    stage.node(leader).unwrap().interrupt().unwrap();
    let ended = stage.node(leader).unwrap().ended(PATIENCE).await.unwrap();
    assert!(ended.success());
    let said = stage.node(leader).unwrap().printed();
    assert_eq!(said.last().map(String::as_str), Some("[Server] ending"));
    stage.enter(leader, None).await.unwrap();
    stage.leader(&[leader]).await.unwrap();
    assert_eq!(
        ok(leader, r#"["search", "users", {"age":1}]"#)
            .await
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn a_write_and_a_read_at_a_node_that_knows_no_leader_are_refused_with_the_reason() {
    let [port, nobody] = kvrep_examples::common::processes::free_ports().unwrap();
    let mut stage = Stage::empty().unwrap();
    stage.enter(port, Some(nobody)).await.unwrap();
    let refused = ko(port, USERS).await;
    assert_eq!(refused, "not leader; leader is unknown");
    let refused = asked(port, r#"["describe"]"#).await.unwrap();
    assert!(
        matches!(&refused, Response::Ko(why) if why.contains("reaches no leader")),
        "{refused:?}"
    );
}
