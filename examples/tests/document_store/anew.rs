//! A node that is started on an empty directory, and without its leader's address, begins a store; which the others know not to be theirs.

use crate::{NUMBERS, ok};
use kvrep_examples::common::processes::free_ports;
use kvrep_examples::document_store::stage::{PATIENCE, Port, Stage, at, load};
use serde_json::json;
use std::fs;

/// Three nodes with documents; one of them is dead, and its directory is gone.
async fn without_its_directory(which: usize) -> (Stage, [Port; 3], Port) {
    let (mut stage, all) = Stage::with::<3>().await.unwrap();
    ok(all[0], NUMBERS).await;
    load(&[all[0]], "numbers", "n", 0..20).await.unwrap();
    stage.equal(&all).await.unwrap();
    let stray = all[which];
    stage.kill(stray).await.unwrap();
    let own = stage.directory().join("db").join(stray.to_string());
    fs::remove_dir_all(own).unwrap();
    (stage, all, stray)
}

#[tokio::test]
async fn a_node_that_is_started_without_its_directory_and_its_leader_leads_nothing_beside_the_others()
 {
    // The founder, and one that is not.
    for which in [0, 2] {
        let (mut stage, all, stray) = without_its_directory(which).await;
        stage.enter(stray, None).await.unwrap();
        stage.active(&all).await.unwrap();
        assert_eq!(stage.equal(&all).await.unwrap().0, 20);
        let others: Vec<Port> = all.into_iter().filter(|node| *node != stray).collect();
        let leader = stage.leader(&others).await.unwrap();
        let status = ok(stray, r#"["status"]"#).await;
        assert_eq!(status["leader"], json!(at(leader)));
        let why = stage.hears(stray, "began it anew").await.unwrap();
        assert!(why.contains("serves no more"), "{why}");
    }
}

#[tokio::test]
async fn the_documents_survive_though_the_node_without_them_is_started_first_and_without_its_leader()
 {
    for which in [0, 2] {
        let (mut stage, all, stray) = without_its_directory(which).await;
        let others: Vec<Port> = all.into_iter().filter(|node| *node != stray).collect();
        for other in &others {
            stage.kill(*other).await.unwrap();
        }
        stage.enter(stray, None).await.unwrap();
        stage.leader(&[stray]).await.unwrap();
        ok(stray, NUMBERS).await;
        ok(stray, r#"["insert", "numbers", {"n":1000}]"#).await;
        for other in &others {
            stage.enter(*other, None).await.unwrap();
        }
        stage.active(&all).await.unwrap();
        assert_eq!(stage.equal(&all).await.unwrap().0, 20);
        // What it took meanwhile is said to be lost, and set aside.
        let lost = stage.hears(stray, "ACKNOWLEDGED WRITES ARE LOST").await;
        assert!(lost.unwrap().contains("2 writes"));
        stage.hears(stray, "is set aside in").await.unwrap();
        let found = ok(stray, r#"["search", "numbers", {"n":1000}]"#).await;
        assert_eq!(found, json!([]));
    }
}

/// Its log is gone, and what `node.json` names is asked: it begins nothing beside them, and joins whoever leads.
#[tokio::test]
async fn a_node_whose_log_is_gone_waits_for_a_leader_and_obeys_force() {
    let (mut stage, [lost, other]) = Stage::with::<2>().await.unwrap();
    ok(lost, NUMBERS).await;
    load(&[lost], "numbers", "n", 0..20).await.unwrap();
    stage.equal(&[lost, other]).await.unwrap();
    for node in [lost, other] {
        stage.kill(node).await.unwrap();
    }
    let own = stage.directory().join("db").join(lost.to_string());
    fs::remove_dir_all(own.join("log")).unwrap();
    // A lock is no log.
    fs::create_dir(own.join("log")).unwrap();
    fs::write(own.join("log/lock"), "").unwrap();
    let mut waits = stage.server(lost, None).unwrap().start().unwrap();
    let told = waits.line("does not answer", PATIENCE).await.unwrap();
    for part in [at(other).as_str(), "serves nothing", "--force", "EMPTY"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    // The other one has something, and is not overruled.
    stage.enter(other, None).await.unwrap();
    let forced = stage.server(lost, None).unwrap().arg("--force");
    let mut refused = forced.start().unwrap();
    let told = refused.line("nothing is forced", PATIENCE).await.unwrap();
    assert!(told.contains(&at(other)), "{told}");
    assert_eq!(refused.ended(PATIENCE).await.unwrap().code(), Some(1));
    stage.kill(other).await.unwrap();
    let going_on = stage.server(other, None).unwrap().arg("--force");
    stage.enter_as(other, &going_on).await.unwrap();
    waits.line("it joins", PATIENCE).await.unwrap();
    stage.active(&[lost, other]).await.unwrap();
    assert_eq!(stage.equal(&[lost, other]).await.unwrap().0, 20);
    // Nobody else is there: it begins with nothing, and says so.
    waits.kill().await.unwrap();
    stage.kill(other).await.unwrap();
    fs::remove_dir_all(own.join("log")).unwrap();
    let mut alone = forced.start().unwrap();
    let told = alone.line("EMPTY", PATIENCE).await.unwrap();
    assert!(told.contains(&at(other)), "{told}");
    stage.leader(&[lost]).await.unwrap();
    // What the other one has was given up: it follows when it returns, by its usual command.
    ok(lost, NUMBERS).await;
    load(&[lost], "numbers", "n", 20..25).await.unwrap();
    stage.enter(other, Some(lost)).await.unwrap();
    stage
        .hears(other, "goes on without what this node has")
        .await
        .unwrap();
    stage.active(&[lost, other]).await.unwrap();
    assert_eq!(stage.equal(&[lost, other]).await.unwrap().0, 5);
    let told = alone.printed();
    let lost = told.iter().find(|line| line.contains("WRITES ARE LOST"));
    assert_eq!(lost, None, "what was acknowledged since is kept");
}

/// Both have a log, and both were forced, one after the other, each while the other one was away: the later one's word counts.
#[tokio::test]
async fn of_two_nodes_that_were_forced_the_later_one_leads() {
    let (mut stage, [first, second]) = Stage::with::<2>().await.unwrap();
    ok(first, NUMBERS).await;
    load(&[first], "numbers", "n", 0..5).await.unwrap();
    stage.equal(&[first, second]).await.unwrap();
    stage.kill(second).await.unwrap();
    load(&[first], "numbers", "n", 5..10).await.unwrap();
    stage.kill(first).await.unwrap();
    let forced = stage.server(second, None).unwrap().arg("--force");
    stage.enter_as(second, &forced).await.unwrap();
    stage.leader(&[second]).await.unwrap();
    load(&[second], "numbers", "n", 10..17).await.unwrap();
    stage.kill(second).await.unwrap();
    let forced = stage.server(first, None).unwrap().arg("--force");
    stage.enter_as(first, &forced).await.unwrap();
    stage.leader(&[first]).await.unwrap();
    load(&[first], "numbers", "n", 20..22).await.unwrap();
    stage.enter(second, None).await.unwrap();
    stage.hears(second, "LOST").await.unwrap();
    stage.active(&[first, second]).await.unwrap();
    assert_eq!(stage.leader(&[first, second]).await, Ok(first));
    assert_eq!(stage.equal(&[first, second]).await.unwrap().0, 12);
}

/// Nobody else had the store: whatever is left of the log, no empty one is served unasked.
#[tokio::test]
async fn a_lone_node_whose_log_is_gone_is_not_started_without_force() {
    for left in [None, Some(&[][..]), Some(&["lock"])] {
        let (mut stage, [lone]) = Stage::with::<1>().await.unwrap();
        ok(lone, NUMBERS).await;
        stage.kill(lone).await.unwrap();
        let own = stage.directory().join("db").join(lone.to_string());
        let log = own.join("log");
        fs::remove_dir_all(&log).unwrap();
        if let Some(left) = left {
            fs::create_dir(&log).unwrap();
            for name in left {
                fs::write(log.join(name), "").unwrap();
            }
        }
        let program = stage.server(lone, None).unwrap();
        let mut refused = program.start().unwrap();
        let told = refused.line("is gone", PATIENCE).await.unwrap();
        assert!(told.contains("no other node had that"), "{told}");
        assert_eq!(refused.ended(PATIENCE).await.unwrap().code(), Some(1));
        let mut forced = program.arg("--force").start().unwrap();
        forced.line("EMPTY", PATIENCE).await.unwrap();
        stage.leader(&[lone]).await.unwrap();
    }
}

#[tokio::test]
async fn a_file_in_place_of_the_log_is_refused_with_what_to_do() {
    let mut stage = Stage::empty().unwrap();
    let [port] = free_ports::<1>().unwrap();
    let own = stage.directory().join("db").join(port.to_string());
    fs::create_dir_all(&own).unwrap();
    fs::write(own.join("log"), "").unwrap();
    let mut refused = stage.server(port, None).unwrap().start().unwrap();
    let told = refused.line("cannot read the log", PATIENCE).await.unwrap();
    assert!(told.contains("move away what is there instead"), "{told}");
    assert_eq!(refused.ended(PATIENCE).await.unwrap().code(), Some(1));
    fs::remove_file(own.join("log")).unwrap();
    stage.enter(port, None).await.unwrap();
}
