//! Whatever comes to the port of a server of system 3: it goes on, its memory stays bounded, the others do not notice.

mod zk;

use kvrep_core::random::Rng;
use kvrep_examples::common::conversation::dial;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use zk::{Trio, WITHIN};

/// Writes, and waits until the other side has had enough.
async fn send(address: String, bytes: Vec<u8>) {
    let Ok(mut stream) = dial(&address, WITHIN).await else {
        return;
    };
    let _ = timeout(WITHIN, async {
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    })
    .await;
}

/// One byte now and then, of a message that never ends.
async fn trickle(address: String) {
    let Ok(mut stream) = dial(&address, WITHIN).await else {
        return;
    };
    let mut text = b"{\"tipo\":\"PUT\",\"key\":\"".to_vec();
    text.resize(10_000, b'x');
    for byte in text {
        if stream.write_all(&[byte]).await.is_err() {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

fn attacks(random: &mut Rng) -> Vec<Vec<u8>> {
    let noise = |random: &mut Rng, length: usize| -> Vec<u8> {
        (0..length)
            .map(|_| random.below(256).to_le_bytes()[0])
            .collect()
    };
    let mut attacks = vec![
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"KVRP".to_vec(),
        // Frames of the library's own wire: too long, of negative length, half.
        b"KVRP\x02\x02\0\0\xff\xff\xff\xff\0\0\0\0".to_vec(),
        b"KVRP\x02\x04\0\0\0\0\0\x08\0\0\0\0half".to_vec(),
        b"{\"tipo\":\"PUT\",\"key\":\"k\"".to_vec(),
        b"{\"tipo\":\"GET\",\"key\":\"k\",\"timestamp\":-99999999999999999999999}\n".to_vec(),
        b"{\"tipo\":\"GET\",\"key\":\"k\",\"timestamp\":1e999}\n".to_vec(),
        b"{\"tipo\":\"PUT\",\"key\":\"\\ud800\",\"value\":\"\xff\"}\n".to_vec(),
        b"{\"tipo\":\"REPLICATION\",\"key\":\"k\",\"value\":\"stolen\",\"timestamp\":99}\n".to_vec(),
        b"{\"tipo\":\"REPLICATION_OK\",\"key\":\"k\",\"timestamp\":99}\n".to_vec(),
        // What begins as a member's connection.
        b"{\"tipo\":\"JOIN\",\"grupo\":".to_vec(),
        b"{\"tipo\":\"JOIN\",\"grupo\":1,\"servidor\":null,\"saudacao\":{\"Peer\":{\"group\":1}}}\n".to_vec(),
        b"{\"tipo\":\"JOIN\",\"grupo\":1,\"servidor\":null,\"saudacao\":\"Ping\"}\n".to_vec(),
        [&b"{\"tipo\":"[..], &[b'['; 200_000]].concat(),
        [&b"{\"tipo\":\""[..], &[b'x'; 2 << 20]].concat(),
        [&b"{\"tipo\":\"JOIN\",\"grupo\":\""[..], &[b'x'; 2 << 20]].concat(),
    ];
    for _ in 0..40 {
        let length = usize::try_from(random.below(4_000)).unwrap();
        attacks.push(noise(random, length));
        let mut begun = b"{\"tipo\":\"JOIN\",\"grupo\":".to_vec();
        begun.extend(noise(random, length));
        attacks.push(begun);
    }
    attacks
}

/// A write and a read at each server, in a time that a person would wait.
async fn is_served(trio: &Trio, n: u64) -> Duration {
    let began = Instant::now();
    for server in 0..3 {
        let mut session = trio.session(&[server], n);
        let key = format!("healthy {n}");
        session.put(&key, "v").await.unwrap();
        assert!(session.get(&key).await.unwrap().timestamp > 0);
    }
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_clients_stop_no_server_take_no_memory_without_bound_and_block_nobody() {
    let mut trio = Trio::start(1, [&[], &[], &[]]).await;
    is_served(&trio, 0).await;
    let memory = |trio: &Trio| -> u64 {
        let used = trio
            .servers
            .iter()
            .filter_map(|server| server.resident_bytes());
        used.max().unwrap_or(0)
    };
    let before = memory(&trio);
    let mut random = Rng::new(11);
    let mut hostile = JoinSet::new();
    for address in &trio.addresses {
        for bytes in attacks(&mut random) {
            hostile.spawn(send(address.clone(), bytes));
        }
        for _ in 0..50 {
            hostile.spawn(trickle(address.clone()));
        }
    }
    // Thousands that say nothing, or half a word, and stay.
    let mut silent: Vec<TcpStream> = Vec::new();
    for n in 0..2_000 {
        let address = &trio.addresses[n % 3];
        if let Ok(mut stream) = dial(address, WITHIN).await {
            if n % 2 == 0 {
                let _ = stream.write_all(b"{\"tipo\":\"JO").await;
            }
            silent.push(stream);
        }
    }
    // A large message, complete but for its last byte, on many connections at once.
    for n in 0..300 {
        let address = &trio.addresses[n % 3];
        if let Ok(mut stream) = dial(address, WITHIN).await {
            let mut text = b"{\"tipo\":\"PUT\",\"key\":\"k\",\"value\":\"".to_vec();
            text.resize(200 << 10, b'x');
            hostile.spawn(async move {
                let _ = timeout(WITHIN, stream.write_all(&text)).await;
                sleep(Duration::from_secs(2)).await;
            });
        }
    }
    let mut slowest = Duration::ZERO;
    for n in 1..=10 {
        slowest = slowest.max(is_served(&trio, n).await);
    }
    let during = memory(&trio);
    println!(
        "{} silent; slowest of ten rounds of six requests {slowest:?}; {} MiB, then {} MiB",
        silent.len(),
        before >> 20,
        during >> 20
    );
    assert!(slowest < WITHIN / 2, "others were blocked for {slowest:?}");
    // 300 connections of 200 KiB each, over three servers, and what the system keeps of it.
    assert!(
        during < before + (128 << 20),
        "{before} bytes, then {during}"
    );
    drop(silent);
    hostile.shutdown().await;
    is_served(&trio, 99).await;
    // What looked like replication changed nothing.
    let said = trio
        .ask(0, b"{\"tipo\":\"GET\",\"key\":\"k\",\"timestamp\":0}\n")
        .await;
    assert_eq!(said["tipo"], "NULL", "{said}");
    for server in &mut trio.servers {
        server.interrupt().unwrap();
        assert!(server.ended(WITHIN).await.unwrap().success());
    }
    assert!(!trio.errors().contains("panicked"), "{}", trio.errors());
}
