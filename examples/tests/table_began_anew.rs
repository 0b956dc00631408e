//! A primary that is started as if for the first time, in another directory, while the secondary has the table: `--data` is relative, so
//! another working directory is enough.

mod table_support;

use kvrep_examples::common::processes::Process;
use kvrep_examples::primary_backup_table::client_stub::ClientStub;
use kvrep_examples::primary_backup_table::network_client::{NetworkClient, Patience};
use kvrep_examples::primary_backup_table::pair::{Dump, Pair, WITHIN, dump, dump_when};
use table_support::{get, prepare, put, serves};
use tempfile::TempDir;

/// A pair that has `k`; then its primary is dead.
async fn without_primary(both: &[&str]) -> (Pair, Process) {
    let pair = prepare(both);
    let (mut first, second) = pair.start().await.expect("the pair");
    put(&mut pair.client(Patience::default()), "k", "1").await;
    first.kill().await.expect("killed");
    (pair, second)
}

/// The command of the first server, in another directory.
async fn elsewhere(pair: &Pair, both: &[&str]) -> (Process, TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    let seat = pair.first.alone(directory.path(), both).expect("built");
    let mut process = seat.launch().expect("the first, elsewhere");
    let begun = process
        .line("begins a new table, which is EMPTY", WITHIN)
        .await;
    let begun = begun.expect("it says what it does");
    let there = directory.path().display().to_string();
    assert!(begun.contains(&there), "the whole path: {begun}");
    (process, directory)
}

/// A client that asks only this server.
fn only(address: String) -> ClientStub {
    let other = address.clone();
    ClientStub::new(NetworkClient::new(address, other, Patience::default()))
}

/// C1.7, A1.6, and more: nobody goes on with an empty table while the secondary has the data.
#[tokio::test]
async fn clients_go_on_with_the_secondarys_table_and_the_one_that_began_anew_becomes_its_secondary()
{
    for both in [&[][..], &["--durable"]] {
        // Whichever server is asked.
        for asks_first in [true, false] {
            let (pair, mut second) = without_primary(both).await;
            let (mut anew, _directory) = elsewhere(&pair, both).await;
            let why = anew
                .line("was started as if for the first time", WITHIN)
                .await;
            assert!(why.expect("it says why").contains("EMPTY"));
            let who = second.line("was started without the table", WITHIN).await;
            let who = who.expect("it says who");
            assert!(who.contains(&pair.first.address()), "{who}");
            assert!(who.contains("as soon as a client asks"), "{who}");
            for server in [&mut anew, &mut second] {
                let waits = dump(server).await.expect("a dump");
                assert!(!waits.is_primary(), "nobody serves before: {waits:?}");
            }

            let asked = if asks_first {
                &pair.first
            } else {
                &pair.second
            };
            let mut client = only(asked.address());
            assert_eq!(get(&mut client, "k").await.as_deref(), Some("1"));
            put(&mut client, "n", "2").await;
            let whole = |d: &Dump| d.is_up() && d.entries == ["k: 1", "n: 2"];
            let second = dump_when(&mut second, "both have it", whole).await;
            assert!(second.expect("a dump").is_primary());
            let anew_has = dump_when(&mut anew, "the copy", whole).await;
            assert!(!anew_has.expect("a dump").is_primary());
            // It had taken no writes.
            let told = anew.printed().join("\n");
            assert!(!told.contains("WRITES ARE LOST"), "{told}");
        }
    }
}

/// C1.7 and A1.6, however often it happens: the one that goes on has long dropped the other, and finds it all the same.
#[tokio::test]
async fn a_primary_that_is_started_elsewhere_again_and_again_never_keeps_an_empty_table() {
    for both in [&[][..], &["--durable"]] {
        let (pair, mut second) = without_primary(both).await;
        let mut client = pair.client(Patience::default());
        assert_eq!(get(&mut client, "k").await.as_deref(), Some("1"));
        for _ in 0..2 {
            let (mut anew, _directory) = elsewhere(&pair, both).await;
            let whole = |d: &Dump| d.is_up() && d.entries == ["k: 1"];
            let has = dump_when(&mut anew, "the copy", whole).await;
            assert!(!has.expect("a dump").is_primary());
            let has = dump_when(&mut second, "both have it", whole).await;
            assert!(has.expect("a dump").is_primary());
            assert_eq!(get(&mut client, "k").await.as_deref(), Some("1"));
            anew.kill().await.expect("killed");
            let alone = |d: &Dump| !d.is_up();
            dump_when(&mut second, "that it is alone", alone)
                .await
                .expect("a dump");
        }
    }
}

/// What it took while the secondary could not tell it is said to be lost, where that is known.
#[tokio::test]
async fn what_was_written_to_the_empty_table_is_reported_as_lost() {
    let (pair, second) = without_primary(&[]).await;
    second.pause().expect("stopped");
    let (mut anew, _directory) = elsewhere(&pair, &[]).await;
    serves(&mut anew).await;
    let mut client = only(pair.first.address());
    assert_eq!(get(&mut client, "k").await, None);
    put(&mut client, "n", "2").await;
    second.resume().expect("it goes on");
    anew.line("was started as if for the first time", WITHIN)
        .await
        .expect("it says why");
    assert_eq!(get(&mut client, "k").await.as_deref(), Some("1"));
    anew.line("ACKNOWLEDGED WRITES ARE LOST", WITHIN)
        .await
        .expect("it says so");
    assert_eq!(get(&mut client, "n").await, None);
}

/// A secondary that is restarted, too, says what it finds; with its log it goes on, and without nobody has the table.
#[tokio::test]
async fn a_secondary_that_comes_back_to_another_table_says_so_and_with_its_log_goes_on() {
    for (both, outcome) in [
        (
            &["--durable"][..],
            "goes on with it as soon as a client asks",
        ),
        (&[], "IS LOST"),
    ] {
        let (pair, mut second) = without_primary(both).await;
        second.kill().await.expect("killed");
        let (mut anew, _directory) = elsewhere(&pair, both).await;
        serves(&mut anew).await;
        let mut second = pair.second.launch().expect("again");
        let told = second.line("ANOTHER TABLE", WITHIN).await;
        let told = told.expect("it says what it finds");
        assert!(told.contains(outcome), "{told}");
        let mut client = pair.client(Patience::default());
        if both.is_empty() {
            second
                .line("tabela atualizada", WITHIN)
                .await
                .expect("the copy");
            assert_eq!(get(&mut client, "k").await, None);
        } else {
            let has = |d: &Dump| d.entries == ["k: 1"];
            let mut client = only(pair.second.address());
            assert_eq!(get(&mut client, "k").await.as_deref(), Some("1"));
            dump_when(&mut second, "its table", has).await.expect("it");
        }
    }
}

/// C1.7, A1.6: the *secondary* begun anew, beside the primary that has the table. The primary goes on with its log after a crash, and says who is to be stopped.
#[tokio::test]
async fn a_primary_with_its_log_goes_on_beside_a_secondary_that_began_a_table_of_its_own() {
    let both = ["--durable"];
    let pair = prepare(&both);
    let (mut first, mut second) = pair.start().await.expect("the pair");
    put(&mut pair.client(Patience::default()), "k", "1").await;
    second.kill().await.expect("killed");
    let mut client = only(pair.first.address());
    put(&mut client, "n", "2").await;
    let directory = tempfile::tempdir().expect("a directory");
    let seat = pair.second.alone(directory.path(), &both).expect("built");
    let mut stray = seat.launch().expect("the second, elsewhere");
    serves(&mut stray).await;

    first.kill().await.expect("killed");
    let mut first = pair.first.launch().expect("the first, again");
    let who = first.line("began ANOTHER TABLE", WITHIN).await;
    let who = who.expect("it says who");
    assert!(who.contains(&pair.second.address()), "{who}");
    assert_eq!(get(&mut client, "n").await.as_deref(), Some("2"));
    let whole = |d: &Dump| d.is_primary() && d.entries == ["k: 1", "n: 2"];
    dump_when(&mut first, "its own table", whole)
        .await
        .expect("a dump");
}
