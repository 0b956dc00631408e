//! A table that nobody has any more, or that the one has who does not answer: no empty one is served in its place.

mod table_support;

use kvrep_examples::primary_backup_table::network_client::{NoAnswer, Patience};
use kvrep_examples::primary_backup_table::pair::{Dump, WITHIN, dump_when};
use table_support::{
    get, hasty, kill, prepare, put, seen, speak_of_servers_only, updated, wait_for_record,
};

/// C1.7, A1.6: an empty table is not served while somebody has the data, nor without force when nobody has.
#[tokio::test]
async fn a_server_that_lost_its_table_serves_no_empty_one() {
    let pair = prepare(&[]);
    let (mut first, mut second) = pair.start().await.expect("the pair");
    let mut client = pair.client(hasty());
    put(&mut client, "k", "1").await;
    kill(&mut first).await;
    put(&mut client, "k", "2").await;
    second.pause().expect("stopped");
    // The secondary has the data and does not answer: the old primary is back, empty.
    let mut first = pair.first.start().await.expect("again");
    let refused = client.size().await.expect_err("nobody serves");
    assert!(matches!(refused, NoAnswer::GaveUp(_)), "{refused}");
    assert!(!seen(&mut first).await.is_primary());
    second.resume().expect("it goes on");
    assert_eq!(get(&mut client, "k").await.as_deref(), Some("2"));

    // Now both lose it.
    updated(&mut first).await;
    kill(&mut second).await;
    kill(&mut first).await;
    let mut first = pair.first.start().await.expect("again");
    let mut second = pair.second.start().await.expect("again");
    for server in [&mut first, &mut second] {
        let why = server.line("--force", WITHIN).await.expect("it says why");
        assert!(why.contains("nobody has the table"), "{why}");
    }
    client.size().await.expect_err("nobody serves");
    kill(&mut first).await;
    let forced = pair.first.with(&["--force"]);
    let first = forced.start().await.expect("by force");
    let told = first.printed().join("\n");
    assert!(told.contains("FORCED: the table starts EMPTY"), "{told}");
    put(&mut client, "k", "3").await;
    updated(&mut second).await;
    assert_eq!(seen(&mut second).await.entries, ["k: 3"]);
}

/// A1.6: who had the table alone in its memory, and ended, is told that it is lost and what there is to choose from.
#[tokio::test]
async fn the_last_one_that_had_the_table_says_that_it_is_lost() {
    let pair = prepare(&[]);
    let (mut first, mut second) = pair.start().await.expect("the pair");
    let mut client = pair.client(hasty());
    put(&mut client, "k", "1").await;
    kill(&mut second).await;
    put(&mut client, "k", "2").await;
    let alone = |d: &Dump| d.is_primary() && !d.is_up();
    dump_when(&mut first, "the other is DOWN", alone)
        .await
        .expect("DOWN");
    wait_for_record(&pair, &["1"]).await;
    kill(&mut first).await;
    let mut first = pair.first.start().await.expect("again");
    first
        .line("in its memory alone when it ended", WITHIN)
        .await
        .expect("it says what is lost");
    // The other one has nothing either.
    let second = pair.second.start().await.expect("again");
    let why = first.line("both servers were started again", WITHIN).await;
    assert!(why.expect("a choice").contains("--force"));
    client.size().await.expect_err("nobody serves");
    speak_of_servers_only(&[&first, &second]);
}

/// A1.6: a lone server in memory that ends has lost its table, and says so; force is refused while the other has it.
#[tokio::test]
async fn force_is_for_when_nobody_has_the_table() {
    let pair = prepare(&[]);
    let mut first = pair.first.start().await.expect("the first");
    kill(&mut first).await;
    let mut first = pair.first.launch().expect("again");
    first
        .line("nobody has the table any more", WITHIN)
        .await
        .expect("why");
    assert_eq!(first.ended(WITHIN).await.expect("it ends").code(), Some(1));
    let mut first = pair
        .first
        .with(&["--force"])
        .start()
        .await
        .expect("by force");
    let mut second = pair.second.start().await.expect("the second");
    updated(&mut second).await;
    let mut client = pair.client(Patience::default());
    put(&mut client, "k", "1").await;
    kill(&mut first).await;
    let mut first = pair.first.with(&["--force"]).launch().expect("again");
    first
        .line("start this one without --force", WITHIN)
        .await
        .expect("why");
    assert_eq!(first.ended(WITHIN).await.expect("it ends").code(), Some(1));
}
