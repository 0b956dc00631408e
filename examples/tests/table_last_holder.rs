//! A server that had the table alone when it ended, and comes back without it, while the other one has an older one in its log: the older one is not
//! served in silence.

mod table_support;

use kvrep_examples::common::processes::Process;
use kvrep_examples::primary_backup_table::network_client::NoAnswer;
use kvrep_examples::primary_backup_table::pair::{Pair, Seat, WITHIN};
use table_support::{
    EACH_WAY, get, hangs_up, hasty, kill, lose_log, on_record_alone, prepare, put, said, seen,
    serves, speak_of_servers_only, updated, waits_for,
};

/// A pair whose second server has served alone when both have ended: `k` is 1 in the log of the first, and was 2.
async fn second_was_last(first: &Seat, second: &Seat, pair: &Pair) {
    let mut one = first.start().await.expect("the first");
    let mut two = second.start().await.expect("the second");
    updated(&mut two).await;
    let mut client = pair.client(hasty());
    put(&mut client, "k", "1").await;
    kill(&mut one).await;
    put(&mut client, "k", "2").await;
    on_record_alone(pair, second).await;
    kill(&mut two).await;
}

/// The first says that it waits, for whom, and why that one does not help though it runs; it does not serve when a client asks.
async fn serves_nobody(pair: &Pair, first: &mut Process) {
    let told = first.line("must be heard", WITHIN).await.expect("it waits");
    for part in [&pair.second.address(), "--force"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let lost = format!("the server at {} runs, and has lost", pair.second.address());
    first.line(&lost, WITHIN).await.expect("it says why");
    let refused = pair.client(hasty()).get("k".into()).await;
    let refused = refused.expect_err("nobody serves");
    assert!(matches!(refused, NoAnswer::GaveUp(_)), "{refused}");
    assert!(!seen(first).await.is_primary());
}

const ALONE: &str = "in its memory alone when it ended";

/// A1.6: one server with a log, the other one without; whichever is started first.
#[tokio::test]
async fn an_older_table_is_served_by_force_only_and_what_is_lost_is_said() {
    for second_comes_first in [false, true] {
        let pair = prepare(&[]);
        let durable = pair.first.with(&["--durable"]);
        second_was_last(&durable, &pair.second, &pair).await;
        let (mut first, mut second);
        if second_comes_first {
            second = pair.second.start().await.expect("again");
            let told = second.line(ALONE, WITHIN).await.expect("what is lost");
            let silent = format!("No answer comes from the server at {}", durable.address());
            assert!(told.contains(&silent), "{told}");
            first = durable.start().await.expect("again");
        } else {
            first = durable.start().await.expect("again");
            waits_for(&durable.address(), "must be heard").await;
            second = pair.second.start().await.expect("again");
        }
        let older = format!("The server at {} has an older table", durable.address());
        let told = second.line(&older, WITHIN).await.expect("it says who");
        for part in [ALONE, "--force"] {
            assert!(told.contains(part), "{part}: {told}");
        }
        serves_nobody(&pair, &mut first).await;
        assert!(!seen(&mut second).await.is_complete());

        kill(&mut first).await;
        let forced = durable.with(&["--force"]);
        let mut first = forced.start().await.expect("by force");
        serves(&mut first).await;
        second.line("is LOST", WITHIN).await.expect("what is lost");
        updated(&mut second).await;
        let mut client = pair.client(hasty());
        assert_eq!(get(&mut client, "k").await.as_deref(), Some("1"));
        assert_eq!(seen(&mut second).await.entries, ["k: 1"]);
        speak_of_servers_only(&[&first, &second]);
    }
}

/// A1.6: who waits ends when it is asked to, also without a keyboard; started with force it begins with nothing, but not while the other one has more.
#[tokio::test]
async fn a_last_holder_that_waits_can_be_ended_and_forced() {
    let pair = prepare(&["--timeout", "1"]);
    let durable = pair.first.with(&["--durable"]);
    second_was_last(&durable, &pair.second, &pair).await;
    let mut first = durable.start().await.expect("again");
    waits_for(&durable.address(), "must be heard").await;
    let mut second = pair.second.start().await.expect("again");
    second.line(ALONE, WITHIN).await.expect("what is lost");
    hangs_up(&pair.second.address()).await;
    assert!(!seen(&mut second).await.is_primary());
    second.close_input();
    second.interrupt().expect("asked");
    let ended = second.ended(WITHIN).await.expect("it ends");
    assert_eq!(ended.code(), Some(0));

    let forced = pair.second.with(&["--force"]);
    let mut second = forced.launch().expect("started");
    let why = second.line("nothing is forced", WITHIN).await.expect("why");
    assert!(why.contains("Start that one with --force"), "{why}");
    let ended = second.ended(WITHIN).await.expect("it ends");
    assert_eq!(ended.code(), Some(1));
    kill(&mut first).await;
    let mut second = forced.start().await.expect("by force");
    serves(&mut second).await;
    assert_eq!(seen(&mut second).await.entries, ["Nao existem keys!!"]);
}

/// The same fault with two logs, one of which is gone.
#[tokio::test]
async fn whoever_lost_its_log_with_what_it_alone_had_waits_as_well() {
    for how in EACH_WAY {
        let pair = prepare(&["--durable"]);
        second_was_last(&pair.first, &pair.second, &pair).await;
        lose_log(&pair, &pair.second, how);
        let mut second = pair.second.start().await.expect("again");
        let mut first = pair.first.start().await.expect("again");
        let older = "has an older table";
        let told = second.line(older, WITHIN).await.expect("it says so");
        assert!(told.contains("log, which is gone"), "{how:?}: {told}");
        serves_nobody(&pair, &mut first).await;

        // By force it begins with nothing, and does not promise more; but not while the other one has something.
        kill(&mut second).await;
        let forced = pair.second.with(&["--force"]);
        let mut refused = forced.launch().expect("started");
        let why = refused.line("nothing is forced", WITHIN).await;
        let why = why.expect("why");
        assert!(why.contains("has more of the table"), "{how:?}: {why}");
        let ended = refused.ended(WITHIN).await.expect("it ends");
        assert_eq!(ended.code(), Some(1));
        kill(&mut first).await;
        let mut second = forced.start().await.expect("by force");
        let told = said(&second, "FORCED: ").await;
        let empty = "the table starts EMPTY: it was in the log of this server";
        assert!(told.contains(empty), "{how:?}: {told}");
        for wrong in ["memory", "nothing that was acknowledged is lost"] {
            assert!(!told.contains(wrong), "{how:?}: {told}");
        }
        serves(&mut second).await;
        assert_eq!(seen(&mut second).await.entries, ["Nao existem keys!!"]);
        speak_of_servers_only(&[&first, &second]);
    }
}

/// A1.6: what a server was forced to begin is served on when the one that it was forced over returns, also before anything is written.
#[tokio::test]
async fn who_is_forced_is_not_overruled_by_the_older_table_that_it_was_forced_over() {
    for written in [false, true] {
        let pair = prepare(&[]);
        let durable = pair.first.with(&["--durable"]);
        second_was_last(&durable, &pair.second, &pair).await;
        let mut second = pair
            .second
            .with(&["--force"])
            .start()
            .await
            .expect("forced");
        serves(&mut second).await;
        let mut client = pair.client(hasty());
        if written {
            put(&mut client, "n", "3").await;
        }
        let mut first = durable.start().await.expect("again");
        updated(&mut first).await;
        let left: &[&str] = if written {
            &["n: 3"]
        } else {
            &["Nao existem keys!!"]
        };
        for server in [&mut first, &mut second] {
            assert_eq!(seen(server).await.entries, left);
        }
        assert!(seen(&mut second).await.is_primary());
        let without = "goes on without what this server has";
        assert!(first.printed().iter().any(|line| line.contains(without)));
        let lost = |line: &String| line.contains("WRITES ARE LOST");
        assert!(
            !second.printed().iter().any(lost),
            "what it acknowledged is kept"
        );
        speak_of_servers_only(&[&first, &second]);
    }
}
