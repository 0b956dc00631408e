//! Hostile and broken clients on the table's port, while a healthy one works.

mod table_support;

use kvrep_examples::common::open_files::raise_open_files;
use kvrep_examples::common::processes::Program;
use kvrep_examples::primary_backup_table::client_stub::Outcome;
use kvrep_examples::primary_backup_table::network_client::Patience;
use kvrep_examples::primary_backup_table::pair::{WITHIN, dump};
use kvrep_examples::primary_backup_table::policy::LARGE_REQUESTS_MAX;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use table_support::{hasty, prepare, put};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// Must show 6, C1.10: random bytes, huge and negative lengths, half frames, slow senders, thousands of connections, and
/// clients that go before they have their answer. The server serves on, and its memory stays bounded.
#[tokio::test]
async fn hostile_clients_neither_stop_a_server_nor_grow_its_memory_nor_block_others() {
    raise_open_files(8_000);
    let pair = prepare(&[]);
    let (mut first, mut second) = pair.start().await.expect("the pair");
    let address = pair.first.address();
    let mut client = pair.client(Patience::default());
    put(&mut client, "k", "before").await;
    let before = first.resident_bytes();

    let done = Arc::new(AtomicBool::new(false));
    let healthy = {
        let done = Arc::clone(&done);
        tokio::spawn(async move {
            let (mut slowest, mut served) = (Duration::ZERO, 0_u32);
            while !done.load(Ordering::Relaxed) {
                let began = Instant::now();
                put(&mut client, "k", &served.to_string()).await;
                slowest = slowest.max(began.elapsed());
                served += 1;
            }
            (slowest, served)
        })
    };
    let mut attacks = JoinSet::new();
    for seed in 0..300_u64 {
        attacks.spawn(garbage(address.clone(), seed));
    }
    for length in [
        [0xff; 4],
        [0x80, 0, 0, 0],
        [0x7f, 0xff, 0xff, 0xff],
        [0, 0x10, 0, 1],
    ] {
        for _ in 0..25 {
            attacks.spawn(refused_length(address.clone(), length));
        }
    }
    for _ in 0..200 {
        attacks.spawn(early_close(address.clone()));
    }
    let mut held = Vec::new();
    // Slow ones: half a frame, and a byte now and then.
    for _ in 0..100 {
        held.push(sent(&address, &[0, 0, 0, 40, 0, 10]).await);
    }
    // Large ones: all but the last byte of a megabyte.
    let mut large = vec![0; 1 << 20];
    large[..4].copy_from_slice(&[0, 0x0f, 0xff, 0xfd]);
    let large = Arc::new(large[..(1 << 20) - 4].to_vec());
    for _ in 0..200 {
        let (address, large) = (address.clone(), Arc::clone(&large));
        attacks.spawn(async move {
            let mut stream = connect(&address).await;
            // Some are hung up on while they send.
            let _ = timeout(WITHIN, stream.write_all(&large)).await;
            sleep(Duration::from_secs(1)).await;
        });
    }
    // A crowd that says one byte, or nothing.
    for n in 0..2_000_usize {
        let mut stream = connect(&address).await;
        if n.is_multiple_of(2) {
            let _ = stream.write_all(&[0]).await;
        }
        held.push(stream);
    }
    for stream in held.iter_mut().take(100) {
        let _ = stream.write_all(&[0]).await;
    }
    while let Some(attack) = attacks.join_next().await {
        attack.expect("the attack goes to its end");
    }
    // Somebody new is served beside all of them.
    let mut newcomer = pair.client(hasty());
    assert_eq!(newcomer.size().await, Ok(Outcome::Done(1)));
    let after = first.resident_bytes();
    done.store(true, Ordering::Relaxed);
    let (slowest, served) = healthy.await.expect("no request failed");
    drop(held);
    assert!(
        served > 10 && slowest < Duration::from_secs(4),
        "{served} served, the slowest in {slowest:?}"
    );
    if let (Some(before), Some(after)) = (before, after) {
        let grown = after.saturating_sub(before) >> 20;
        assert!(grown < 200, "grown by {grown} MiB");
    }
    for server in [&mut first, &mut second] {
        assert!(dump(server).await.expect("a dump").is_up());
    }
}

/// Large requests that are begun and not finished, more than there is room for, keep no other large one out.
#[tokio::test]
async fn large_requests_that_stall_make_room_for_those_that_do_not() {
    let pair = prepare(&[]);
    let _first = pair.first.start().await.expect("the first");
    let address = pair.first.address();
    let mut stalled = Vec::new();
    // More than half of a megabyte, and no more; and some that only announce one.
    let mut part = vec![0; 600 << 10];
    part[..4].copy_from_slice(&[0, 0x0f, 0xff, 0xfd]);
    for n in 0..2 * LARGE_REQUESTS_MAX {
        let bytes = if n.is_multiple_of(2) {
            &part[..]
        } else {
            &part[..4]
        };
        stalled.push(sent(&address, bytes).await);
    }
    let mut client = pair.client(Patience::default());
    let large = "x".repeat(500 << 10);
    for n in 0..4 {
        put(&mut client, &n.to_string(), &large).await;
    }
    assert_eq!(client.network().primary(), address, "none of them failed");
    drop(stalled);
}

/// A request that is too large is answered although the client is in the middle of it: it is not the primary that failed.
#[tokio::test]
async fn a_put_that_is_too_large_fails_and_blames_nobody() {
    let pair = prepare(&[]);
    let (mut first, _second) = pair.start().await.expect("the pair");
    let mut client = pair.client(Patience::default());
    for bytes in [(1_usize << 20) + 1, 5 << 20, 15 << 20] {
        let refused = client.put("k".into(), vec![b'x'; bytes].into()).await;
        assert_eq!(refused, Ok(Outcome::Failed), "{bytes}");
    }
    put(&mut client, "k", "small").await;
    assert_eq!(client.network().primary(), pair.first.address());
    // Typed to the program, it says why.
    let typed = format!("put {} k\nget k\n", "x".repeat(2 << 20));
    let program = Program::beside("the client", "table-client").expect("it is built");
    let mut program = program
        .args([pair.first.address(), pair.second.address()])
        .start()
        .expect("a client");
    program.type_bytes(typed.as_bytes()).await.expect("typed");
    program.close_input();
    assert!(program.ended(WITHIN).await.expect("it ends").success());
    let printed = program.printed().join("\n");
    for wanted in ["Operacao put falhou!", "takes 1048528 at most", "\"small\""] {
        assert!(printed.contains(wanted), "{wanted} in {printed}");
    }
    assert!(!printed.contains("O primario"), "{printed}");
    assert!(dump(&mut first).await.expect("a dump").is_up());
}

async fn connect(address: &str) -> TcpStream {
    let connected = timeout(WITHIN, TcpStream::connect(address)).await;
    connected.expect("in time").expect("a connection")
}

async fn sent(address: &str, bytes: &[u8]) -> TcpStream {
    let mut stream = connect(address).await;
    stream.write_all(bytes).await.expect("it is taken");
    stream
}

/// Bytes without sense; it ends when the server hangs up, or soon by itself.
async fn garbage(address: String, seed: u64) {
    let mut stream = connect(&address).await;
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for _ in 0..20 {
        let mut bytes = [0; 256];
        for byte in &mut bytes {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = state.to_be_bytes()[0];
        }
        if stream.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// A length that no frame has: answered with an error, and the connection closed.
async fn refused_length(address: String, length: [u8; 4]) {
    let mut stream = sent(&address, &length).await;
    let mut answer = Vec::new();
    let read = timeout(WITHIN, stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "the server hangs up");
    assert_eq!(answer, [0, 0, 0, 8, 0, 99, 1, 0xf4, 0xff, 0xff, 0xff, 0xff]);
}

/// A request whose answer nobody waits for.
async fn early_close(address: String) {
    let get = [0, 0, 0, 9, 0, 30, 0, 200, 0, 0, 0, 1, b'k'];
    let size = [0, 0, 0, 8, 0, 50, 1, 0xf4, 0, 0, 0, 0];
    let mut stream = connect(&address).await;
    for _ in 0..10 {
        let _ = stream.write_all(&get).await;
        let _ = stream.write_all(&size).await;
    }
}
