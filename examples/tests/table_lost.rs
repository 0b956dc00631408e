//! A table that nobody has any more, or that the one has who does not answer: no empty one is served in its place.

mod table_support;

use kvrep_examples::common::processes::Process;
use kvrep_examples::primary_backup_table::network_client::{NoAnswer, Patience};
use kvrep_examples::primary_backup_table::pair::{Dump, Pair, WITHIN, dump_when};
use std::fs;
use table_support::{
    EACH_WAY, Witness, directory, get, hasty, kill, last_words, lose_log, prepare, put, said, seen,
    serves, speak_of_servers_only, updated, wait_for_record, waits_for,
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
    for server in [&first, &second] {
        let why = said(server, "has the table any more").await;
        assert!(why.contains("--force"), "{why}");
    }
    // That nobody lets them in is nothing to act on then: what is to be done stays the last word.
    for (server, seat) in [(&first, &pair.first), (&second, &pair.second)] {
        waits_for(&seat.address(), "to let it join").await;
        let last = last_words(server);
        assert!(last.contains("has the table any more"), "{last}");
    }
    client.size().await.expect_err("nobody serves");
    kill(&mut first).await;
    let forced = pair.first.with(&["--force"]);
    let first = forced.start().await.expect("by force");
    said(&first, "FORCED: the table starts EMPTY").await;
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
    let why = first.line("so was the server at", WITHIN).await;
    assert!(why.expect("a choice").contains("--force"));
    client.size().await.expect_err("nobody serves");
    speak_of_servers_only(&[&first, &second]);
}

/// A1.6: a lone server in memory that ends has lost its table, and says so; force is refused while the other has it.
#[tokio::test]
async fn force_is_for_when_nobody_has_the_table() {
    let pair = prepare(&[]);
    let mut first = pair.first.start().await.expect("the first");
    serves(&mut first).await;
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

/// A1.6: what is left of a log is not taken for one.
#[tokio::test]
async fn a_lone_server_whose_log_is_gone_serves_no_empty_table_unasked() {
    for how in EACH_WAY {
        let pair = prepare(&["--durable"]);
        let mut first = pair.first.start().await.expect("the first");
        serves(&mut first).await;
        let mut client = pair.client(hasty());
        put(&mut client, "k", "1").await;
        kill(&mut first).await;
        lose_log(&pair, &pair.first, how);
        let mut first = pair.first.launch().expect("again");
        let why = ends_with(&mut first, "nobody else has the table").await;
        assert!(why.contains("is gone") && why.contains("--force"), "{why}");
        client.size().await.expect_err("nobody serves");
        let forced = pair.first.with(&["--force"]);
        let mut first = forced.start().await.expect("by force");
        let told = said(&first, "FORCED: ").await;
        let empty = "the table starts EMPTY: it was in the log of this server";
        assert!(told.contains(empty), "{how:?}: {told}");
        serves(&mut first).await;
        assert_eq!(get(&mut client, "k").await, None);
    }
}

/// A1.6: what was put into a directory, or taken from it, is refused with what to do, in words of two servers.
#[tokio::test]
async fn a_directory_that_is_not_as_it_was_left_is_refused_with_what_to_do() {
    let pair = prepare(&[]);
    let own = directory(&pair, &pair.first);
    let (log, file) = (own.join("log"), own.join("server.json"));
    fs::create_dir(&own).expect("made");
    fs::write(&log, "").expect("written");
    let durable = pair.first.with(&["--durable"]);
    let mut first = durable.launch().expect("started");
    ends_with(&mut first, "move away what is there instead").await;

    fs::remove_file(&log).expect("removed");
    let mut first = durable.start().await.expect("the first");
    serves(&mut first).await;
    let mut client = pair.client(hasty());
    put(&mut client, "k", "1").await;
    kill(&mut first).await;
    let record = fs::read_to_string(&file).expect("a record");
    let json: serde_json::Value = serde_json::from_str(&record).expect("a record");
    for (peer, at) in [(1, "127.0.0.1:1".into()), (2, pair.first.address())] {
        let mut wrong = json.clone();
        wrong["peer"] = peer.into();
        wrong["peer_address"] = at.into();
        fs::write(&file, wrong.to_string()).expect("written");
        for more in [&[][..], &["--force"]] {
            let mut first = durable.with(more).launch().expect("started");
            let why = ends_with(&mut first, "that is this server itself").await;
            assert!(why.contains("peer_address"), "{why}");
            speak_of_servers_only(&[&first]);
        }
    }
    // Without its record nothing empty begins beside the log, nor is that taken for the log of one that joins.
    fs::remove_file(&file).expect("removed");
    let mut first = pair.first.launch().expect("started");
    ends_with(&mut first, "add --durable to go on with the log").await;
    let stranger = pair.second.alone(pair.directory(), &[]).expect("built");
    let mut stranger = stranger.start().await.expect("another table");
    let joins = durable.with(&[&pair.second.address()]);
    let mut first = joins.launch().expect("started");
    let why = ends_with(&mut first, "not the data of this server: ").await;
    assert!(
        !why.contains('(') && !why.contains("choose another"),
        "{why}"
    );
    speak_of_servers_only(&[&first]);
    kill(&mut stranger).await;
    fs::write(&file, record).expect("written");
    let _first = durable.start().await.expect("as it was");
    assert_eq!(get(&mut client, "k").await.as_deref(), Some("1"));
}

/// A server that gives up, and what it said with this in it.
async fn ends_with(server: &mut Process, words: &str) -> String {
    let why = server.line(words, WITHIN).await.expect("why");
    assert_eq!(server.ended(WITHIN).await.expect("it ends").code(), Some(1));
    why
}

/// A1.6, with three servers: the second is dead while the third takes its place, and comes back without the table; then the first ends, too. The third has
/// everything.
#[tokio::test]
async fn nothing_is_said_to_be_lost_nor_forced_while_a_third_server_has_the_table() {
    let pair = prepare(&[]);
    let (mut first, mut second) = pair.start().await.expect("the pair");
    let seats = Pair::prepare(&[]).expect("ports");
    let third_seat = seats.first.with(&[&pair.first.address()]);
    let mut third = third_seat.start().await.expect("the third");
    third
        .line("does not let it in", WITHIN)
        .await
        .expect("told");
    let mut client = pair.client(hasty());
    put(&mut client, "k", "1").await;
    kill(&mut second).await;
    updated(&mut third).await;
    let mut second = pair.second.start().await.expect("again");
    second
        .line("does not let it in", WITHIN)
        .await
        .expect("told");
    kill(&mut first).await;
    let mut first = pair.first.start().await.expect("again");
    // Each finds the third, also the one that was replaced while it was dead.
    let has_it = format!("the server at {} has the table", third_seat.address());
    for server in [&mut first, &mut second] {
        server.line(&has_it, WITHIN).await.expect("it says who");
        let told = server.printed().join("\n");
        assert!(!told.contains("any more"), "{told}");
    }
    // Nobody is forced: neither who knows the third, nor who only knows whom to ask for it.
    kill(&mut second).await;
    let mut forced = pair.second.with(&["--force"]).launch().expect("started");
    ends_with(&mut forced, &format!("nothing is forced: {has_it}")).await;
    let seats_again = Pair::prepare(&[]).expect("ports");
    let fourth_seat = seats_again.first.with(&[&pair.first.address()]);
    let mut fourth = fourth_seat.start().await.expect("the fourth");
    fourth.line(&has_it, WITHIN).await.expect("it says who");
    kill(&mut fourth).await;
    let mut forced = fourth_seat.with(&["--force"]).launch().expect("started");
    ends_with(&mut forced, "nothing is forced").await;

    assert_eq!(get(&mut client, "k").await.as_deref(), Some("1"));
    updated(&mut first).await;
    speak_of_servers_only(&[&first, &second, &third, &fourth]);
    // While nobody answers it is allowed, and says what is not known.
    for server in [&mut first, &mut third] {
        kill(server).await;
    }
    let forced = pair.second.with(&["--force"]).start().await;
    let told = said(&forced.expect("by force"), "starts EMPTY").await;
    for words in [
        "No answer came from",
        &third_seat.address(),
        "of which this one was never told",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
}

/// A first start that came to nothing, because its witness was absent or another one, leaves nothing that stands in the way of the next.
#[tokio::test]
async fn a_first_start_with_another_witness_does_not_hinder_the_next_one_with_the_right_one() {
    for both in [&[][..], &["--durable"]] {
        let pair = prepare(both);
        let right = Witness::start().await;
        let nobody = Pair::prepare(&[]).expect("ports").first.address();
        let other = Witness::of("another-group").await;
        // One that knows another table.
        let taken = Witness::start().await;
        let elsewhere = prepare(both);
        let mut rival = elsewhere.first.with(&["--witness", &taken.address]);
        let mut other_table = rival.start().await.expect("another table");
        serves(&mut other_table).await;
        kill(&mut other_table).await;
        for wrong in [&nobody, &other.address, &taken.address] {
            let seat = pair.first.with(&["--witness", wrong]);
            let mut first = seat.start().await.expect("it waits");
            first.line(" witness ", WITHIN).await.expect("it says why");
            assert!(!seen(&mut first).await.is_primary());
            kill(&mut first).await;
        }
        rival = pair.first.with(&["--witness", &right.address]);
        let mut first = rival.start().await.expect("the right one");
        serves(&mut first).await;
        let mut client = pair.client(Patience::default());
        put(&mut client, "k", "1").await;
        // From here on it has begun.
        kill(&mut first).await;
        let mut first = rival.launch().expect("again");
        if both.is_empty() {
            ends_with(&mut first, "nobody has the table any more").await;
        } else {
            assert_eq!(get(&mut client, "k").await.as_deref(), Some("1"));
        }
    }
}

/// A second process in the directory, or at the port, of one that runs is told so, and nothing else.
#[tokio::test]
async fn a_second_process_is_told_that_the_first_one_runs() {
    let pair = prepare(&[]);
    let mut first = pair.first.start().await.expect("the first");
    serves(&mut first).await;
    let mut client = pair.client(hasty());
    put(&mut client, "k", "1").await;
    for more in [&[][..], &["--force"]] {
        let mut again = pair.first.with(more).launch().expect("started");
        let why = ends_with(&mut again, "runs with it already").await;
        assert!(!why.contains("nobody"), "{why}");
        assert!(!again.printed().join("\n").contains("EMPTY"));
    }
    let directory = tempfile::tempdir().expect("a directory");
    let elsewhere = pair.first.alone(directory.path(), &[]).expect("built");
    let mut elsewhere = elsewhere.launch().expect("started");
    let why = ends_with(&mut elsewhere, "listens there").await;
    assert!(!why.contains("port 0"), "{why}");
    assert!(!elsewhere.printed().join("\n").contains("EMPTY"));
    assert_eq!(get(&mut client, "k").await.as_deref(), Some("1"));
}
