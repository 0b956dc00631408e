//! A server whose table is in memory, and whose directory takes nothing any more: the table would go with it, so it stays.

mod table_support;

use kvrep_examples::common::processes::Process;
use kvrep_examples::primary_backup_table::network_client::Patience;
use kvrep_examples::primary_backup_table::pair::{Pair, WITHIN};
use std::fs;
use table_support::{directory, get, kill, on_record_alone, prepare, put, seen, serves, updated};

/// In place of each directory there is nothing, or a file.
fn take_away(pair: &Pair, by_a_file: bool) {
    for seat in [&pair.first, &pair.second] {
        let directory = directory(pair, seat);
        // A write that is under way may make a file there meanwhile.
        while fs::remove_dir_all(&directory).is_err() {
            assert!(directory.exists(), "removed");
        }
        if by_a_file {
            fs::write(&directory, "").expect("written");
        }
    }
}

async fn goes_on(server: &mut Process) {
    let told = server.line("cannot write", WITHIN).await;
    let told = told.expect("it says so");
    for words in [
        "server.json",
        "This server goes on",
        "in memory only",
        "tries again",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
}

/// A1.6, R1.12, R1.20: neither the primary that loses its secondary ends for it, nor the secondary that takes over.
#[tokio::test]
async fn a_table_in_memory_is_served_on_though_no_directory_can_be_written() {
    for (primary_dies, by_a_file) in [(false, false), (false, true), (true, false), (true, true)] {
        let pair = prepare(&[]);
        let (mut first, mut second) = pair.start().await.expect("the pair");
        let mut client = pair.client(Patience::default());
        put(&mut client, "k", "before").await;
        take_away(&pair, by_a_file);
        let mut left = if primary_dies {
            kill(&mut first).await;
            second
        } else {
            kill(&mut second).await;
            first
        };
        assert_eq!(get(&mut client, "k").await.as_deref(), Some("before"));
        put(&mut client, "k", "after").await;
        goes_on(&mut left).await;
        for n in 0..20 {
            put(&mut client, "n", &n.to_string()).await;
        }
        let dump = seen(&mut left).await;
        assert!(dump.is_primary(), "{dump:?}");
        assert_eq!(get(&mut client, "k").await.as_deref(), Some("after"));
        let told = left.printed();
        let told = told.iter().filter(|line| line.contains("cannot write"));
        assert_eq!(told.count(), 1, "it says it once");
    }
}

/// What stood in the way is gone: it writes, says so, and a restart knows.
#[tokio::test]
async fn a_directory_that_can_be_written_again_is_written() {
    let pair = prepare(&[]);
    let (mut first, mut second) = pair.start().await.expect("the pair");
    take_away(&pair, true);
    kill(&mut second).await;
    let mut client = pair.client(Patience::default());
    put(&mut client, "k", "alone").await;
    goes_on(&mut first).await;
    let own = directory(&pair, &pair.first);
    fs::remove_file(&own).expect("removed");
    fs::create_dir(&own).expect("made");
    let again = first.line("is written again", WITHIN).await;
    again.expect("it says so");
    on_record_alone(&pair, &pair.first).await;
}

/// A1.6: the one with a log has an older table, and the other one could not write down that it went on alone. Nobody serves the older one unasked.
#[tokio::test]
async fn where_the_record_could_not_be_written_no_older_table_is_served_unasked() {
    let pair = prepare(&[]);
    let logged = pair.second.with(&["--durable"]);
    let mut first = pair.first.start().await.expect("the primary");
    let mut second = logged.start().await.expect("the secondary");
    updated(&mut second).await;
    let mut client = pair.client(Patience::default());
    put(&mut client, "k", "old").await;
    // Nothing can be made where the new record is to be: as on a full disk, what is there can get another name.
    let new = directory(&pair, &pair.first).join("server.json.new");
    fs::create_dir(&new).expect("made");
    kill(&mut second).await;
    put(&mut client, "k", "new").await;
    goes_on(&mut first).await;
    kill(&mut first).await;
    fs::remove_dir(&new).expect("removed");
    let mut second = logged.start().await.expect("again");
    // It may say so before it says that it listens.
    let mut first = pair.first.launch().expect("again");
    let told = first.line("could not be written", WITHIN).await;
    assert!(
        told.expect("it says so")
            .contains("may have an older table")
    );
    let mut hasty = pair.client(table_support::hasty());
    let served = hasty.get("k".to_owned().into()).await;
    assert!(served.is_err(), "{served:?}");
    // The operator chooses.
    kill(&mut second).await;
    let mut second = logged.with(&["--force"]).start().await.expect("forced");
    serves(&mut second).await;
    updated(&mut first).await;
    assert_eq!(get(&mut client, "k").await.as_deref(), Some("old"));
}
