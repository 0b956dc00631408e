//! What a witness must not let happen: a stranger that ends a table, a pair with two witnesses, a table that is called lost and has not begun.

mod table_support;

use kvrep_examples::common::processes::Process;
use kvrep_examples::primary_backup_table::network_client::Patience;
use kvrep_examples::primary_backup_table::pair::{Dump, Pair, WITHIN, dump_when};
use std::time::Duration;
use table_support::{
    Witness, get, kill, last_words, prepare, put, seen, serves, updated, waits_for,
};
use tokio::time::{Instant, sleep};

async fn ends_with(server: &mut Process, why: &str) -> String {
    let told = server.line(why, WITHIN).await.expect("it says why");
    let status = server.ended(WITHIN).await.expect("it ends");
    assert_eq!(status.code(), Some(1), "{told}");
    told
}

/// A server that was never let in ends nothing: also where the primary alone has the table, in its memory.
#[tokio::test]
async fn a_server_that_is_to_begin_another_table_at_the_same_witness_does_not_end_the_first_one() {
    for both in [&[][..], &["--durable"]] {
        let witness = Witness::start().await;
        let both = [both, &["--witness", &witness.address]].concat();
        let pair = prepare(&both);
        let (mut first, mut second) = pair.start().await.expect("the pair");
        let mut client = pair.client(Patience::default());
        put(&mut client, "k", "1").await;
        kill(&mut second).await;
        put(&mut client, "k", "2").await;

        let stranger = prepare(&both);
        let mut forced = stranger.first.with(&["--force"]).launch().expect("started");
        ends_with(&mut forced, "has nothing to go on with").await;
        let mut other = stranger.first.start().await.expect("it waits");
        let told = other.line("knows one already", WITHIN).await;
        let told = told.expect("it says why");
        assert!(told.contains("a witness of its own"), "{told}");
        assert!(!seen(&mut other).await.is_primary());

        put(&mut client, "k", "3").await;
        assert_eq!(get(&mut client, "k").await.as_deref(), Some("3"));
        let mut second = pair.second.start().await.expect("again");
        updated(&mut second).await;
        kill(&mut first).await;
        assert_eq!(get(&mut client, "k").await.as_deref(), Some("3"));
        let told = first.printed().join("\n");
        assert!(!told.contains("later life"), "{told}");
    }
}

/// Nothing is lost of a table that has not begun, and nothing is to be forced.
#[tokio::test]
async fn while_the_primary_waits_for_its_witness_the_secondary_says_that_the_table_has_not_begun() {
    let nobody = prepare(&[]).first.address();
    let pair = prepare(&["--witness", &nobody]);
    let mut first = pair.first.start().await.expect("it waits");
    let mut second = pair.second.start().await.expect("it waits, too");
    let told = second.line("has not begun", WITHIN).await;
    let told = told.expect("it says why");
    assert!(told.contains(&pair.first.address()), "{told}");
    first.line(" witness ", WITHIN).await.expect("it says why");
    // After it has asked, which says no more.
    waits_for(&pair.second.address(), "to let it join").await;
    assert!(
        last_words(&second).contains("has not begun"),
        "{}",
        last_words(&second)
    );
    let told = second.printed().join("\n");
    for wrong in ["LOST", "has the table any more", "--force"] {
        assert!(!told.contains(wrong), "{wrong}: {told}");
    }
}

/// Waits until the second server has written down which witness its table has.
async fn remembers(pair: &Pair, witness: &str) {
    let file = format!("table-{}.d/server.json", pair.second.port);
    let file = pair.directory().join(file);
    let deadline = Instant::now() + WITHIN;
    while !std::fs::read_to_string(&file).is_ok_and(|text| text.contains(witness)) {
        assert!(Instant::now() < deadline, "{} says none", file.display());
        sleep(Duration::from_millis(20)).await;
    }
}

/// Two witnesses for one table are found before the second server is let in, and not when one of them is needed.
#[tokio::test]
async fn a_secondary_with_another_witness_than_its_primarys_is_not_started() {
    let (right, wrong) = (Witness::start().await, Witness::start().await);
    let nobody = prepare(&[]).first.address();
    let pair = prepare(&["--durable"]);
    let first = pair.first.with(&["--witness", &right.address]);
    let mut first = first.start().await.expect("the first");
    serves(&mut first).await;
    let with = |witness: &str| pair.second.with(&["--witness", witness]);
    let mut second = with(&wrong.address).launch().expect("started");
    ends_with(&mut second, "does not know the table").await;
    let mut second = with(&right.address).start().await.expect("the second");
    updated(&mut second).await;
    remembers(&pair, &right.address).await;
    kill(&mut second).await;
    // At a later start its own directory knows better, without anybody's answer; and it need not be told again.
    for other in [&wrong.address, &nobody] {
        let mut second = with(other).launch().expect("started");
        let told = ends_with(&mut second, "now --witness").await;
        assert!(told.contains(&right.address), "{told}");
    }
    kill(&mut first).await;
    let mut first = pair
        .first
        .with(&["--witness", &wrong.address])
        .launch()
        .expect("started");
    ends_with(&mut first, "now --witness").await;
    let mut first = pair.first.start().await.expect("the first");
    let mut second = pair.second.start().await.expect("the second");
    put(&mut pair.client(Patience::default()), "k", "1").await;
    for server in [&mut first, &mut second] {
        let both = dump_when(server, "the other one UP", Dump::is_up).await;
        both.expect("they are a pair");
    }
}

/// Where the witness does not answer, it cannot be compared.
#[tokio::test]
async fn a_secondary_whose_witness_is_silent_says_that_it_could_not_be_compared() {
    let witness = Witness::start().await;
    let nobody = prepare(&[]).first.address();
    let pair = prepare(&[]);
    let first = pair.first.with(&["--witness", &witness.address]);
    let mut first = first.start().await.expect("the first");
    serves(&mut first).await;
    let second = pair.second.with(&["--witness", &nobody]);
    let mut second = second.launch().expect("started");
    let told = second.line("is not known", WITHIN).await.expect("a doubt");
    assert!(told.contains(&nobody), "{told}");
}

/// A server without the table cannot know what its other one waits for; it asks, and that is the last thing it says.
#[tokio::test]
async fn where_a_witness_lost_its_register_a_server_that_comes_back_says_what_the_other_one_waits_for()
 {
    let witness = Witness::start().await;
    let pair = prepare(&["--witness", &witness.address]);
    let (mut first, mut second) = pair.start().await.expect("the pair");
    let mut client = pair.client(Patience::default());
    put(&mut client, "k", "1").await;
    let _witness = witness.forgets().await;
    kill(&mut first).await;
    let told = second
        .line("the witness has an empty register", WITHIN)
        .await;
    told.expect("it says why it does not serve");
    let mut first = pair.first.start().await.expect("again");
    let told = first.line("has the table: it waits there", WITHIN).await;
    let told = told.expect("it says for what");
    for words in [&*pair.second.address(), "empty register", "type print"] {
        assert!(told.contains(words), "{words}: {told}");
    }
    waits_for(&pair.first.address(), "to let it join").await;
    assert_eq!(last_words(&first), told);
}
