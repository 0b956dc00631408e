//! Hostile and broken clients on a node's port: none stops it, fills its memory, or keeps the others out.

use crate::{USERS, ok};
use kvrep_examples::document_store::stage::{PATIENCE, Port, Stage, at, tell};
use kvrep_examples::document_store::wire::framed;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// More than the node serves at once.
const CROWD: usize = 700;
const MEMORY_BYTES_MAX: u64 = 128 << 20;

async fn connected(port: Port) -> Option<TcpStream> {
    // Whoever comes when too many wait already may be sent away.
    TcpStream::connect(at(port)).await.ok()
}

/// Waits until the server has ended the connection.
async fn closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let ended = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "it is never closed");
}

#[tokio::test]
async fn c2_1_half_a_frame_and_silence_are_timed_out_and_block_nobody() {
    let (_stage, [leader, _]) = Stage::with().await.unwrap();
    ok(leader, USERS).await;
    let mut half = connected(leader).await.unwrap();
    half.write_all(b"\x00\x40[\"ins").await.unwrap();
    let mut silent = connected(leader).await.unwrap();
    let mut slow = connected(leader).await.unwrap();
    let trickle = tokio::spawn(async move {
        let request = framed(&format!("[\"describe\"{}]", " ".repeat(1_000))).unwrap();
        let began = Instant::now();
        for byte in request {
            if slow.write_all(&[byte]).await.is_err() {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "a slow sender is never cut off");
            sleep(Duration::from_millis(50)).await;
        }
    });
    let began = Instant::now();
    for age in 0..20 {
        ok(leader, &format!(r#"["insert", "users", {{"age":{age}}}]"#)).await;
    }
    assert!(
        began.elapsed() < Duration::from_secs(30),
        "the others are served"
    );
    closed(&mut half).await;
    closed(&mut silent).await;
    trickle.await.unwrap();
}

#[tokio::test]
async fn random_bytes_and_wrong_lengths_end_only_their_connection() {
    let (_stage, [leader, follower]) = Stage::with().await.unwrap();
    ok(leader, USERS).await;
    let mut state = 7_u64;
    for round in 0..200_usize {
        let mut bytes: Vec<u8> = (0..round * 7 % 300 + 1)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 33) as u8
            })
            .collect();
        match round % 4 {
            0 => bytes.splice(0..0, *b"KVRP").for_each(drop),
            1 => bytes.splice(0..0, [0xff, 0xff]).for_each(drop),
            2 => bytes.splice(0..0, [0x00, 0x00]).for_each(drop),
            _ => {}
        }
        let mut stream = connected(leader).await.unwrap();
        // The server may hang up before everything is said.
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        closed(&mut stream).await;
    }
    ok(leader, r#"["insert", "users", {"email":"a"}]"#).await;
    assert_eq!(
        ok(follower, r#"["search", "users", {}]"#)
            .await
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_dawdling_connections_neither_stop_the_node_nor_keep_others_out() {
    let (mut stage, [leader, follower]) = Stage::with().await.unwrap();
    ok(leader, USERS).await;
    let before = ok(leader, r#"["status"]"#).await;
    let mut crowd = Vec::new();
    let mut served = 0;
    for round in 0..3 {
        for number in 0..CROWD {
            let Some(mut stream) = connected(leader).await else {
                continue;
            };
            let begun: &[u8] = match number % 3 {
                0 => b"",
                1 => b"\xff\xff[",
                _ => b"K",
            };
            let _ = stream.write_all(begun).await;
            crowd.push(stream);
        }
        // While all of them are there, a client is served.
        let insert = format!(r#"["insert", "users", {{"age":{round}}}]"#);
        let deadline = Instant::now() + PATIENCE;
        while let Err(why) = tell(leader, &insert).await {
            assert!(Instant::now() < deadline, "kept out: {why}");
        }
        served += 1;
        crowd.drain(..crowd.len() / 2);
    }
    assert_eq!(served, 3);
    if let Some(bytes) = stage.node(leader).unwrap().resident_bytes() {
        assert!(bytes < MEMORY_BYTES_MAX, "{bytes} bytes");
    }
    drop(crowd);
    stage.active(&[leader, follower]).await.unwrap();
    let after = ok(leader, r#"["status"]"#).await;
    assert_eq!(after["term"], before["term"], "it never lost its office");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_given_up() {
    let (_stage, [leader]) = Stage::with().await.unwrap();
    ok(leader, r#"["create", "texts", {"text":"str"}]"#).await;
    let text = "x".repeat(60_000);
    ok(
        leader,
        &format!(r#"["insert", "texts", {{"text":"{text}"}}]"#),
    )
    .await;
    let mut deaf = Vec::new();
    for _ in 0..100 {
        let mut stream = connected(leader).await.unwrap();
        let search = framed(r#"["search", "texts", {}]"#).unwrap();
        stream.write_all(&search).await.unwrap();
        deaf.push(stream);
    }
    let found = ok(leader, r#"["search", "texts", {}]"#).await;
    assert_eq!(found.as_array().unwrap().len(), 1);
}
