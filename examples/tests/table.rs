//! The table's pair as real processes: what clients get, from whichever server they ask.

mod table_support;

use kvrep_examples::primary_backup_table::client_stub::Outcome;
use kvrep_examples::primary_backup_table::message::{Content, Message, opcode};
use kvrep_examples::primary_backup_table::network_client::{NetworkClient, Patience, TIMEOUT};
use kvrep_examples::primary_backup_table::pair::WITHIN;
use kvrep_examples::primary_backup_table::policy::{
    ANSWER_BYTES_MAX, SUSPECT_AFTER, request_within,
};
use std::time::Duration;
use table_support::{
    Script, cput, del, get, hangs_up, kill, plain, prepare, put, script, seen, updated,
};
use tokio::time::{Instant, timeout};

/// R1.1, R1.2, R1.4, R1.5, R1.6, R1.7, R1.8, R1.10, R1.34, R1.35, R1.36, A1.3, A1.9.
#[tokio::test]
async fn both_servers_have_what_a_client_was_told() {
    let pair = prepare(&[]);
    let mut first = pair.first.start().await.expect("the first");
    let alone = seen(&mut first).await;
    assert_eq!(alone.role, "primário (outro servidor: DOWN)");
    assert_eq!(alone.entries, ["Nao existem keys!!"]);
    let mut second = pair.second.start().await.expect("the second");
    updated(&mut second).await;

    let script = Script {
        typed: "put two words k\ncput no k\ncput yes n\nget k\nget none\nsize\ngetkeys\ndel n\ndel n\nquit\n",
        arguments: &[],
    };
    let (printed, status) = script.run(&pair).await;
    assert!(status.success());
    assert_eq!(
        printed,
        "Operacao put bem sucedida!\nOperacao cput falhou!\nOperacao cput bem sucedida!\n\
         Operacao get bem sucedida! Os dados de \"k\" sao:\n - \"two words\"\nOperacao get falhou!\n\
         Operacao size bem sucedida! Tamanho = 2.\nOperacao getkeys bem sucedida! As keys sao:\n - \"k\"\n - \"n\"\n\
         Operacao del bem sucedida!\nOperacao del falhou!\n"
    );
    let (at_first, at_second) = (seen(&mut first).await, seen(&mut second).await);
    assert_eq!(at_first.role, "primário (outro servidor: UP)");
    assert_eq!(at_second.role, "secundário (outro servidor: UP)");
    assert_eq!(at_first.entries, ["k: two words"]);
    assert_eq!(at_second.entries, at_first.entries);
}

/// C1.1, C1.2: a write that fails marks nobody down.
#[tokio::test]
async fn writes_that_fail_change_neither_server_and_mark_nobody_down() {
    let pair = prepare(&[]);
    let (mut first, mut second) = pair.start().await.expect("the pair");
    let mut client = pair.client(Patience::default());
    put(&mut client, "k", "1").await;
    for _ in 0..20 {
        assert_eq!(cput(&mut client, "k", "2").await, Outcome::Failed);
        assert_eq!(del(&mut client, "none").await, Outcome::Failed);
    }
    for server in [&mut first, &mut second] {
        let dump = seen(server).await;
        assert!(dump.is_up(), "{dump:?}");
        assert_eq!(dump.entries, ["k: 1"]);
    }
}

/// C1.11: what a crash could undo is not read.
#[tokio::test]
async fn a_read_does_not_show_a_write_that_the_secondary_has_not_confirmed() {
    let pair = prepare(&[]);
    let (_first, second) = pair.start().await.expect("the pair");
    let (mut writer, mut reader) = (pair.client(plain()), pair.client(plain()));
    put(&mut writer, "k", "old").await;
    assert_eq!(get(&mut reader, "k").await.as_deref(), Some("old"));
    second.pause().expect("stopped");
    let began = Instant::now();
    let reading = async {
        let mut before = 0;
        while get(&mut reader, "k").await.as_deref() != Some("new") {
            before += 1;
        }
        (began.elapsed(), before)
    };
    let both = async { tokio::join!(put(&mut writer, "k", "new"), reading) };
    let ((), (shown, before)) = timeout(WITHIN, both)
        .await
        .expect("the secondary is dropped");
    // The secondary counts until it has been silent for a second: what was shown earlier would not be confirmed by it.
    assert!(shown > SUSPECT_AFTER * 7 / 10, "shown after {shown:?}");
    assert!(before > 0, "reads go on while a write waits");
    second.resume().expect("it goes on");
}

/// R1.3, A1.7, C1.9: a secondary that is asked passes on, and stays what it is.
#[tokio::test]
async fn a_secondary_that_is_asked_passes_requests_on_to_a_live_primary() {
    let pair = prepare(&[]);
    let (mut first, mut second) = pair.start().await.expect("the pair");
    let mut script = script("put 1 k\nget k\nsize\n");
    script.arguments = &["--plain"];
    let (printed, status) = script.run_at(&pair.second, &pair.first).await;
    assert!(status.success());
    assert!(
        printed.contains("\"1\"") && printed.contains("= 1."),
        "{printed}"
    );
    assert!(seen(&mut first).await.is_primary());
    let asked = seen(&mut second).await;
    assert_eq!(asked.role, "secundário (outro servidor: UP)");
    assert_eq!(asked.entries, ["k: 1"]);
    // R1.4: it has a copy, and says nothing of it while the primary cannot be asked.
    let (first_at, second_at) = (pair.first.address(), pair.second.address());
    let mut reader = NetworkClient::new(second_at, first_at, plain());
    let size = Message::new(opcode::SIZE, Content::Result(0));
    first.pause().expect("stopped");
    let brief = timeout(SUSPECT_AFTER / 3, reader.send_receive(&size)).await;
    first.resume().expect("it goes on");
    assert!(brief.is_err(), "{brief:?}");
}

/// A request that nobody can serve is given up by the server before its client gives up.
#[tokio::test]
async fn a_request_that_nobody_serves_is_hung_up_on_within_the_timeout_of_clients() {
    let pair = prepare(&["--timeout", "1"]);
    let (mut first, mut second) = pair.start().await.expect("the pair");
    kill(&mut first).await;
    kill(&mut second).await;
    let _first = pair.first.start().await.expect("again, without the table");
    let began = Instant::now();
    hangs_up(&pair.first.address()).await;
    let waited = began.elapsed();
    assert!(
        waited >= request_within(Duration::from_secs(1)),
        "{waited:?}"
    );
    // With some room for a machine that is busy; and less than without the option.
    assert!(waited < request_within(TIMEOUT), "{waited:?}");
}

/// A1.1: the dialect with role bytes, from a client to a server.
#[tokio::test]
async fn the_dialect_with_role_bytes_is_spoken() {
    let pair = prepare(&["--dialeto", "c-prefixo"]);
    let (_first, _second) = pair.start().await.expect("the pair");
    let mut script = script("put 1 k\nget k\n");
    script.arguments = &["--dialeto", "c-prefixo"];
    let (printed, status) = script.run(&pair).await;
    assert!(status.success());
    assert!(printed.contains(" - \"1\""), "{printed}");
}

/// A list that is longer than one answer may be: our client reads it in pieces; on the plain wire it is an error, and never an empty list.
#[tokio::test]
async fn all_keys_are_listed_though_they_are_more_than_one_answer_holds() {
    let pair = prepare(&[]);
    let (_first, _second) = pair.start().await.expect("the pair");
    let mut client = pair.client(Patience::default());
    let key = |number: usize| format!("{number:02}{}", "k".repeat(900_000));
    let keys: Vec<String> = (0..ANSWER_BYTES_MAX / 900_000 + 2).map(key).collect();
    for key in &keys {
        put(&mut client, key, "v").await;
    }
    assert!(keys.iter().map(String::len).sum::<usize>() > ANSWER_BYTES_MAX);
    let Ok(Outcome::Done(listed)) = client.get_keys().await else {
        panic!("a list");
    };
    assert!(
        listed
            .iter()
            .map(|key| &key[..])
            .eq(keys.iter().map(String::as_bytes))
    );
    let ask = Message::new(opcode::GET_KEYS, Content::Result(0));
    let (first, second) = (pair.first.address(), pair.second.address());
    let mut plain = NetworkClient::new(first, second, plain());
    assert_eq!(plain.send_receive(&ask).await, Ok(Message::failure()));
}
