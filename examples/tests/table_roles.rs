//! Who is primary and who is secondary, with real processes: taking over, returning, and strangers.

mod table_support;

use kvrep_examples::primary_backup_table::client_stub::Outcome;
use kvrep_examples::primary_backup_table::network_client::Patience;
use kvrep_examples::primary_backup_table::pair::{Dump, Pair, WITHIN, dump_when};
use table_support::{del, hasty, kill, prepare, put, seen, serves, speak_of_servers_only, updated};

/// R1.12, R1.13, R1.14, R1.16: a dead secondary is marked down, and up again when it is back.
#[tokio::test]
async fn the_primary_goes_on_without_a_dead_secondary_and_brings_it_up_to_date() {
    let pair = prepare(&[]);
    let (mut first, mut second) = pair.start().await.expect("the pair");
    let mut client = pair.client(Patience::default());
    put(&mut client, "a", "1").await;
    kill(&mut second).await;
    put(&mut client, "b", "2").await;
    assert_eq!(del(&mut client, "a").await, Outcome::Done(()));
    let alone = seen(&mut first).await;
    assert!(alone.is_primary() && !alone.is_up(), "{alone:?}");

    let mut second = pair.second.start().await.expect("again");
    updated(&mut second).await;
    let copied = seen(&mut second).await;
    assert_eq!(copied.role, "secundário (outro servidor: UP)");
    assert_eq!(copied.entries, ["b: 2"]);
    assert!(seen(&mut first).await.is_up());
}

/// C1.4: a secondary that takes connections and says nothing.
#[tokio::test]
async fn a_stopped_secondary_is_marked_down_and_its_late_answers_do_no_harm() {
    let pair = prepare(&[]);
    let (mut first, mut second) = pair.start().await.expect("the pair");
    let mut client = pair.client(Patience::default());
    put(&mut client, "k", "1").await;
    second.pause().expect("stopped");
    put(&mut client, "k", "2").await;
    let alone = seen(&mut first).await;
    assert!(alone.is_primary() && !alone.is_up(), "{alone:?}");
    put(&mut client, "k", "3").await;
    second.resume().expect("it goes on");
    dump_when(&mut first, "the other is UP", |d| d.is_up())
        .await
        .expect("UP");
    let same = |d: &Dump| d.entries == ["k: 3"] && d.is_up();
    let role = dump_when(&mut second, "the same table", same)
        .await
        .expect("a dump")
        .role;
    assert!(role.starts_with("secundário"), "{role}");
}

/// R1.20, R1.22, R1.23, R1.24, A1.6: takeover by a client, and the old primary's return.
#[tokio::test]
async fn the_secondary_takes_over_when_a_client_asks_and_the_old_primary_returns_as_secondary() {
    for both in [&[][..], &["--durable"]] {
        let pair = prepare(both);
        let (mut first, mut second) = pair.start().await.expect("the pair");
        let mut client = pair.client(Patience::default());
        put(&mut client, "k", "1").await;
        assert_eq!(seen(&mut second).await.entries, ["k: 1"]);
        kill(&mut first).await;
        let waits = |d: &Dump| !d.is_up();
        let waiting = dump_when(&mut second, "the primary is gone", waits)
            .await
            .expect("a dump");
        // Nobody asked yet.
        assert_eq!(waiting.role, "secundário (outro servidor: DOWN)");
        assert_eq!(waiting.entries, ["k: 1"]);
        put(&mut client, "k", "2").await;
        assert_eq!(client.network().primary(), pair.second.address());
        let alone = seen(&mut second).await;
        assert_eq!(alone.role, "primário (outro servidor: DOWN)");

        // Its arguments say primary; its directory knows better.
        let mut first = pair.first.start().await.expect("again");
        updated(&mut first).await;
        put(&mut client, "n", "3").await;
        let back = seen(&mut first).await;
        assert_eq!(back.role, "secundário (outro servidor: UP)");
        assert_eq!(back.entries, ["k: 2", "n: 3"]);
        assert_eq!(
            seen(&mut second).await.role,
            "primário (outro servidor: UP)"
        );
    }
}

/// R1.2, C1.5: a third server is not let in, and does no harm; in the place of a dead one it is.
#[tokio::test]
async fn there_is_exactly_one_secondary() {
    let pair = prepare(&[]);
    let (mut first, mut second) = pair.start().await.expect("the pair");
    let mut client = pair.client(Patience::default());
    put(&mut client, "k", "1").await;
    let third = Pair::prepare(&[]).expect("ports");
    let primary = pair.first.address();
    let third_seat = third.first.with(&[&primary]);
    let mut third = third_seat.start().await.expect("the third");
    third
        .line("does not let it in", WITHIN)
        .await
        .expect("it is told");
    put(&mut client, "k", "2").await;
    assert!(seen(&mut first).await.is_up());
    assert_eq!(seen(&mut second).await.entries, ["k: 2"]);
    assert!(!seen(&mut third).await.is_up());
    speak_of_servers_only(&[&first, &second, &third]);
    // Its place is free now.
    kill(&mut second).await;
    updated(&mut third).await;
    put(&mut client, "k", "3").await;
    assert_eq!(seen(&mut third).await.entries, ["k: 3"]);
    // And taken: the second one says so when it is back.
    let mut second = pair.second.start().await.expect("again");
    second
        .line("does not let it in", WITHIN)
        .await
        .expect("it is told");
    // Until it is free again.
    kill(&mut third).await;
    updated(&mut second).await;
    assert_eq!(seen(&mut second).await.entries, ["k: 3"]);
}

/// A directory that was begun by mistake as a primary's says what to do, and one that was never begun is not there.
#[tokio::test]
async fn a_server_that_was_begun_as_another_primary_is_told_how_to_join() {
    let pair = prepare(&[]);
    let _first = pair.first.start().await.expect("the first");
    // It forgot the address of the primary.
    let directory = tempfile::tempdir().expect("a directory");
    let mistaken = pair.second.alone(directory.path(), &[]).expect("built");
    let mut mistaken = mistaken.launch().expect("started");
    serves(&mut mistaken).await;
    kill(&mut mistaken).await;
    let primary = pair.first.address();
    let again = pair.second.alone(directory.path(), &[&primary]);
    let mut again = again.expect("built").launch().expect("started");
    let status = again.ended(WITHIN).await.expect("it ends");
    assert!(!status.success());
    let told = again.printed().join("\n");
    assert!(told.contains("remove the directory"), "{told}");
    // A port in use leaves nothing behind.
    let nothing = tempfile::tempdir().expect("a directory");
    let taken = pair.first.alone(nothing.path(), &[]).expect("built");
    let mut taken = taken.launch().expect("started");
    assert!(!taken.ended(WITHIN).await.expect("it ends").success());
    let kept = std::fs::read_dir(nothing.path()).expect("a directory");
    let named = |e: std::fs::DirEntry| e.file_name().into_string().unwrap_or_default();
    let kept: Vec<String> = kept.flatten().map(named).collect();
    assert!(!kept.iter().any(|n| n == "server.json"), "{kept:?}");
}

/// C1.5: `hello` to oneself, and from one who is not of this pair.
#[tokio::test]
async fn hello_to_oneself_and_from_a_stranger_does_no_harm() {
    let pair = prepare(&[]);
    let mut first = pair.first.start().await.expect("the first");
    let elsewhere = prepare(&[]);
    let itself = elsewhere.second.address();
    let selfish = elsewhere.second.alone(elsewhere.directory(), &[&itself]);
    let mut other = selfish.expect("built").launch().expect("started");
    let status = other.ended(WITHIN).await.expect("it ends");
    assert!(!status.success());
    let told = other.printed().join("\n");
    assert!(told.contains("is this server itself"), "{told}");
    let wrong = pair.second.with(&["--witness", "127.0.0.1:1"]);
    let mut stranger = wrong.launch().expect("started");
    // Its witness is what differs, and it is told so.
    let why = stranger
        .line("and this one with", WITHIN)
        .await
        .expect("why");
    assert!(why.contains("--witness"), "{why}");
    speak_of_servers_only(&[&stranger]);
    let mut client = pair.client(Patience::default());
    put(&mut client, "k", "1").await;
    assert!(!seen(&mut first).await.is_up());
    assert!(!seen(&mut stranger).await.is_primary());
}

/// A1.9: what a secondary has acknowledged is not denied, whether or not it has heard that it is decided.
#[tokio::test]
async fn a_secondary_whose_primary_died_at_once_does_not_say_that_it_has_nothing() {
    let pair = prepare(&[]);
    let (mut first, mut second) = pair.start().await.expect("the pair");
    put(&mut pair.client(Patience::default()), "k", "1").await;
    kill(&mut first).await;
    let seen = seen(&mut second).await;
    let counted = |line: &String| line.starts_with("(mais 1 escrita") || line == "k: 1";
    assert!(seen.entries.iter().any(counted), "{seen:?}");
    assert!(
        !seen.entries.iter().any(|line| line == "Nao existem keys!!"),
        "{seen:?}"
    );
}

/// A primary that is silent, and answers again before anybody has asked for it, is said to do either.
#[tokio::test]
async fn a_secondary_takes_back_that_its_primary_does_not_answer() {
    let pair = prepare(&[]);
    let (mut first, mut second) = pair.start().await.expect("the pair");
    let at = pair.first.address();
    for _ in 0..2 {
        first.pause().expect("stopped");
        let silent = second.line("não responde", WITHIN).await;
        assert!(silent.expect("it says so").contains(&at));
        first.resume().expect("it goes on");
        let back = second.line("responde outra vez", WITHIN).await;
        assert!(back.expect("it says so").contains(&at));
    }
    put(&mut pair.client(Patience::default()), "k", "1").await;
    assert!(seen(&mut first).await.is_primary());
}

/// A primary that was stopped and deposed says so when it goes on.
#[tokio::test]
async fn each_change_of_role_is_told_on_the_console() {
    let pair = prepare(&[]);
    let (mut first, mut second) = pair.start().await.expect("the pair");
    let up = first.line("está UP", WITHIN).await.expect("it says so");
    assert!(up.contains(&pair.second.address()), "{up}");
    let mut client = pair.client(hasty());
    put(&mut client, "k", "1").await;
    first.pause().expect("stopped");
    put(&mut client, "k", "2").await;
    let took = second.line("é agora o primário", WITHIN).await;
    assert!(took.expect("it says so").contains("DOWN"));
    first.resume().expect("it goes on");
    let replaced = first.line("pois foi substituído", WITHIN).await;
    let replaced = replaced.expect("it says so");
    assert!(replaced.contains(&pair.second.address()), "{replaced}");
    second.line("está UP", WITHIN).await.expect("it says so");
}
