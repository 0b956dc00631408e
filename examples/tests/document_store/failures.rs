//! Nodes that are killed, stopped, cut off: who leads then, what is kept, what is said.

use crate::{NUMBERS, USERS, ko, ok};
use kvrep_examples::document_store::stage::{PATIENCE, Port, Stage, asked, at, load, stands, tell};
use kvrep_examples::document_store::wire::Response;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::{Instant, sleep};

async fn numbers(port: Port) -> usize {
    let found = ok(port, r#"["search", "numbers", {}]"#).await;
    found.as_array().unwrap().len()
}

#[tokio::test]
async fn r2_64_and_a2_18_when_the_leader_is_killed_the_lowest_of_equals_takes_over() {
    let (mut stage, [leader, one, other]) = Stage::with().await.unwrap();
    ok(leader, NUMBERS).await;
    load(&[leader], "numbers", "n", 0..50).await.unwrap();
    stage.equal(&[leader, one, other]).await.unwrap();
    stage.kill(leader).await.unwrap();
    assert_eq!(stage.leader(&[one, other]).await, Ok(one.min(other)));
    assert_eq!(numbers(one).await, 50);
    ok(one.min(other), r#"["insert", "numbers", {"n":50}]"#).await;

    // With its literal command, which once made it the leader, it follows now.
    stage.enter(leader, None).await.unwrap();
    stage.active(&[leader, one, other]).await.unwrap();
    let refused = ko(leader, r#"["insert", "numbers", {"n":51}]"#).await;
    assert_eq!(
        refused,
        format!("not leader; leader is {}", at(one.min(other)))
    );
    assert_eq!(numbers(leader).await, 51);
    stage.equal(&[leader, one, other]).await.unwrap();
}

#[tokio::test]
async fn c2_8_followers_that_time_out_at_the_same_time_end_with_one_leader_and_c2_7_the_old_one_is_fenced()
 {
    for _ in 0..2 {
        let (mut stage, [old, one, other]) = Stage::with().await.unwrap();
        ok(old, USERS).await;
        stage.equal(&[old, one, other]).await.unwrap();
        // Stopped, not gone: only its silence tells, to both at the same moment.
        stage.pause(old).unwrap();
        let new = stage.leader(&[one, other]).await.unwrap();
        stage.active(&[one, other]).await.unwrap();
        let leads = |status: &serde_json::Value| status["role"] == "leader";
        let rival = if new == one { other } else { one };
        let status = tell(rival, r#"["status"]"#).await.unwrap();
        assert!(!leads(&status), "{status}");
        ok(new, r#"["insert", "users", {"email":"new"}]"#).await;

        stage.resume(old).unwrap();
        // It believes that it leads, until it hears better.
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let read = asked(old, r#"["search", "users", {"email":"new"}]"#)
                .await
                .unwrap();
            if let Response::Ok(found) = read {
                assert_ne!(found, "[]", "c2_9: a stale read");
            }
            let write = asked(old, r#"["insert", "users", {"email":"old"}]"#)
                .await
                .unwrap();
            match write {
                Response::Ok(id) => panic!("a fenced leader has acknowledged {id}"),
                Response::Ko(why) if why == format!("not leader; leader is {}", at(new)) => break,
                Response::Ko(_) => assert!(Instant::now() < deadline, "it never follows"),
            }
        }
        stage.active(&[old, one, other]).await.unwrap();
        stage.equal(&[old, one, other]).await.unwrap();
        assert_eq!(
            ok(old, r#"["search", "users", {"email":"old"}]"#).await,
            serde_json::json!([])
        );
    }
}

#[tokio::test]
async fn c2_5_a_follower_with_a_gap_and_a_torn_last_record_is_brought_up_to_date() {
    let (mut stage, [leader, follower]) = Stage::with().await.unwrap();
    ok(leader, NUMBERS).await;
    load(&[leader], "numbers", "n", 0..20).await.unwrap();
    stage.equal(&[leader, follower]).await.unwrap();
    stage.kill(follower).await.unwrap();
    load(&[leader], "numbers", "n", 20..120).await.unwrap();

    let log = stage
        .directory()
        .join("db")
        .join(follower.to_string())
        .join("log");
    let mut segments: Vec<PathBuf> = std::fs::read_dir(&log)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "wal"))
        .collect();
    segments.sort();
    let segment = segments.last().expect("a segment");
    let mut bytes = std::fs::read(segment).unwrap();
    let last = bytes.iter().rposition(|byte| *byte != 0).expect("records");
    bytes[last] ^= 0xff;
    std::fs::write(segment, &bytes).unwrap();

    stage.enter(follower, Some(leader)).await.unwrap();
    stage.active(&[leader, follower]).await.unwrap();
    assert_eq!(stage.equal(&[leader, follower]).await.unwrap().0, 120);
}

#[tokio::test]
async fn c2_5_an_old_leaders_unacknowledged_tail_is_cut_off_set_aside_and_reported() {
    let (mut stage, [old, one, other]) = Stage::with_witness().await.unwrap();
    ok(old, USERS).await;
    ok(old, r#"["insert", "users", {"email":"kept"}]"#).await;
    stage.equal(&[old, one, other]).await.unwrap();
    let end = stands(old).await.unwrap().last.index;
    // A write that only its log has.
    for follower in [one, other] {
        stage.pause(follower).unwrap();
    }
    let write = tokio::spawn(asked(old, r#"["insert", "users", {"email":"tail"}]"#));
    while stands(old).await.unwrap().durable <= end {
        sleep(Duration::from_millis(2)).await;
    }
    stage.pause(old).unwrap();
    for follower in [one, other] {
        stage.kill(follower).await.unwrap();
        stage.enter(follower, Some(old)).await.unwrap();
    }
    let new = stage.leader(&[one, other]).await.unwrap();
    ok(new, r#"["insert", "users", {"email":"after"}]"#).await;

    stage.resume(old).unwrap();
    let reported = stage
        .hears(old, "not in the history that counts")
        .await
        .unwrap();
    assert!(reported.contains("so nothing is lost"), "{reported}");
    let aside = stage.hears(old, "is set aside in").await.unwrap();
    let file = aside.rsplit_once("set aside in ").expect("a file").1;
    assert!(stage.directory().join(file).exists(), "{aside}");
    stage.active(&[old, one, other]).await.unwrap();
    stage.equal(&[old, one, other]).await.unwrap();
    let found = ok(old, r#"["search", "users", {}]"#).await;
    let emails: Vec<&str> = found
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|d| d["email"].as_str())
        .collect();
    assert_eq!(emails, ["kept", "after"]);
    let told = write.await.unwrap();
    assert!(
        !matches!(told, Ok(Response::Ok(_))),
        "it was not acknowledged: {told:?}"
    );
}

#[tokio::test]
async fn c2_8_the_last_node_leads_if_it_was_active_and_else_says_why_not_and_obeys_force() {
    let (mut stage, [leader, follower]) = Stage::with().await.unwrap();
    ok(leader, USERS).await;
    stage.equal(&[leader, follower]).await.unwrap();
    // Active: it leads.
    stage.kill(leader).await.unwrap();
    assert_eq!(stage.leader(&[follower]).await, Ok(follower));
    ok(
        follower,
        r#"["insert", "users", {"email":"only the follower"}]"#,
    )
    .await;
    stage.kill(follower).await.unwrap();

    // Not active when it was last heard of: it does not, and names whom it waits for.
    stage.enter(leader, None).await.unwrap();
    let waits = stage.hears(leader, &at(follower)).await.unwrap();
    let refused = ko(leader, USERS).await;
    assert!(refused.starts_with("not leader"), "{refused}; {waits}");
    let refused = ko(leader, r#"["describe"]"#).await;
    assert!(refused.contains(&at(follower)), "{refused}");
    stage.kill(leader).await.unwrap();

    let forced = stage.server(leader, None).unwrap().arg("--force");
    stage.enter_as(leader, &forced).await.unwrap();
    let told = stage.hears(leader, "[Server] FORCED").await.unwrap();
    assert!(told.contains(&at(follower)), "{told}");
    assert_eq!(stage.leader(&[leader]).await, Ok(leader));
    ok(leader, r#"["insert", "users", {"email":"forced"}]"#).await;

    // The other returns: what only it had is reported there.
    stage.enter(follower, Some(leader)).await.unwrap();
    stage.hears(follower, "set aside").await.unwrap();
    stage.active(&[leader, follower]).await.unwrap();
    stage.equal(&[leader, follower]).await.unwrap();
}

#[tokio::test]
async fn c2_9_a_follower_that_was_stopped_is_dropped_shows_nothing_stale_and_returns() {
    let (mut stage, [leader, follower]) = Stage::with().await.unwrap();
    ok(leader, USERS).await;
    stage.equal(&[leader, follower]).await.unwrap();
    stage.pause(follower).unwrap();
    // r2_44: acknowledged without it, once it is dropped.
    ok(leader, r#"["insert", "users", {"email":"new"}]"#).await;
    let status = ok(leader, r#"["status"]"#).await;
    assert_eq!(status["active_nodes"], serde_json::json!([at(leader)]));
    stage.resume(follower).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match asked(follower, r#"["search", "users", {}]"#).await.unwrap() {
            Response::Ok(found) => {
                assert_ne!(found, "[]", "a stale read");
                break;
            }
            Response::Ko(why) => {
                assert!(Instant::now() < deadline, "it never returns: {why}");
            }
        }
    }
    stage.active(&[leader, follower]).await.unwrap();
    assert_eq!(ok(follower, r#"["status"]"#).await["behind"], 0);
}

/// Force is for a store that nobody serves: it takes nothing from a leader that answers, nor begins an empty store beside it.
#[tokio::test]
async fn force_is_refused_while_a_node_that_is_known_leads() {
    let (mut stage, [leader, follower]) = Stage::with().await.unwrap();
    ok(leader, NUMBERS).await;
    stage.equal(&[leader, follower]).await.unwrap();
    stage.kill(follower).await.unwrap();
    load(&[leader], "numbers", "n", 0..5).await.unwrap();
    // Told of the leader, and knowing it by itself; and with its directory gone.
    for (given, keeps) in [(None, true), (Some(leader), true), (Some(leader), false)] {
        if !keeps {
            let directory = stage.directory().join(format!("db/{follower}"));
            std::fs::remove_dir_all(directory).unwrap();
        }
        let forced = stage.server(follower, given).unwrap().arg("--force");
        let mut forced = forced.start().unwrap();
        let told = forced.line("nothing is forced", PATIENCE).await.unwrap();
        assert!(told.contains(&at(leader)), "{told}");
        assert_eq!(forced.ended(PATIENCE).await.unwrap().code(), Some(1));
    }
    let status = ok(leader, r#"["status"]"#).await;
    assert_eq!(
        (&status["role"], &status["term"]),
        (&"leader".into(), &1.into())
    );
    assert_eq!(numbers(leader).await, 5);
    stage.enter(follower, Some(leader)).await.unwrap();
    stage.equal(&[leader, follower]).await.unwrap();
}
