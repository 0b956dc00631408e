//! Nodes that come and go (C2.6).

use crate::{NUMBERS, ok};
use kvrep_examples::common::processes::free_ports;
use kvrep_examples::document_store::stage::{Stage, at, load};
use serde_json::json;

#[tokio::test]
async fn c2_6_a_follower_may_start_before_its_leader_and_may_be_pointed_at_a_follower() {
    let mut stage = Stage::empty().unwrap();
    let [leader, early, late] = free_ports().unwrap();
    stage.enter(early, Some(leader)).await.unwrap();
    stage.enter(leader, None).await.unwrap();
    stage.active(&[leader, early]).await.unwrap();
    stage.enter(late, Some(early)).await.unwrap();
    stage.active(&[leader, early, late]).await.unwrap();
    let status = ok(late, r#"["status"]"#).await;
    assert_eq!(status["leader"], json!(at(leader)));
}

#[tokio::test]
async fn c2_6_one_entry_for_an_address_and_the_leader_is_no_follower_of_itself() {
    let (mut stage, [leader, follower]) = Stage::with().await.unwrap();
    ok(leader, NUMBERS).await;
    load(&[leader], "numbers", "n", 0..10).await.unwrap();
    // It comes again, without anything of its former life.
    stage.kill(follower).await.unwrap();
    let own = stage.directory().join("db").join(follower.to_string());
    std::fs::remove_dir_all(own).unwrap();
    stage.enter(follower, Some(leader)).await.unwrap();
    stage.active(&[leader, follower]).await.unwrap();
    stage.equal(&[leader, follower]).await.unwrap();
    let mut both = [at(leader), at(follower)];
    both.sort();
    let status = ok(leader, r#"["status"]"#).await;
    assert_eq!(status["nodes"], json!(both));
    stage
        .hears(leader, &format!("active followers: {}", at(follower)))
        .await
        .unwrap();

    let mut itself = stage.server(leader, Some(leader)).unwrap().start().unwrap();
    let patience = kvrep_examples::document_store::stage::PATIENCE;
    assert!(!itself.ended(patience).await.unwrap().success());
    assert!(itself.printed().join("\n").contains("cannot follow itself"));
}

#[tokio::test]
async fn r2_40_r2_41_and_r2_44_nodes_come_and_go_and_the_leader_knows_who_is_active() {
    let (mut stage, [leader, one]) = Stage::with().await.unwrap();
    ok(leader, NUMBERS).await;
    let [two] = free_ports().unwrap();
    stage.enter(two, Some(leader)).await.unwrap();
    stage.active(&[leader, one, two]).await.unwrap();
    stage.kill(one).await.unwrap();
    stage.active(&[leader, two]).await.unwrap();
    load(&[leader], "numbers", "n", 0..10).await.unwrap();
    // All that is left is restarted: each finds the others without being told of them.
    stage.kill(leader).await.unwrap();
    stage.kill(two).await.unwrap();
    stage.enter(two, None).await.unwrap();
    stage.enter(leader, None).await.unwrap();
    stage.enter(one, None).await.unwrap();
    stage.active(&[leader, one, two]).await.unwrap();
    assert_eq!(stage.equal(&[leader, one, two]).await.unwrap().0, 10);
}

#[tokio::test]
async fn a_store_of_its_own_does_not_become_a_follower_by_an_argument() {
    let (mut stage, [leader]) = Stage::with().await.unwrap();
    let [other] = free_ports().unwrap();
    stage.enter(other, None).await.unwrap();
    stage.leader(&[other]).await.unwrap();
    stage.kill(other).await.unwrap();
    let mut wrong = stage.server(other, Some(leader)).unwrap().start().unwrap();
    let patience = kvrep_examples::document_store::stage::PATIENCE;
    assert!(!wrong.ended(patience).await.unwrap().success());
    let why = wrong.printed().join("\n");
    assert!(
        why.contains("leads alone") && why.contains("another path"),
        "{why}"
    );
}

#[tokio::test]
async fn a_first_command_that_was_wrong_leaves_nothing_behind() {
    let mut stage = Stage::empty().unwrap();
    let [node, nobody] = free_ports().unwrap();
    let patience = kvrep_examples::document_store::stage::PATIENCE;
    // There is no witness at that address.
    let wrong = stage.server(node, None).unwrap();
    let mut wrong = wrong.args(["--witness", &at(nobody)]).start().unwrap();
    wrong.line("listening", patience).await.unwrap();
    wrong.kill().await.unwrap();
    let own = stage.directory().join("db").join(node.to_string());
    assert!(!own.join("node.json").exists(), "it belongs to no store");
    stage.enter(node, None).await.unwrap();
    stage.active(&[node]).await.unwrap();
    let kept = stage.until(node, "remembered", |_| own.join("node.json").exists());
    kept.await.unwrap();
}
