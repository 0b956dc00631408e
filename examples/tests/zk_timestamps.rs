//! Timestamps of system 3 with real servers that are killed: none is given twice, nor one below what a client has seen.

mod zk;

use kvrep_examples::zk_like_kv::session::{Session, Value};
use std::time::Duration;
use zk::Trio;

#[tokio::test]
async fn timestamps_that_only_a_killed_leader_had_shown_are_never_given_again() {
    // What the leader sends is late: what it shows at once dies with it.
    let late: &[&str] = &["--atraso-replicacao", "1500"];
    let mut trio = Trio::start(1, [&[], late, &[]]).await;
    let (mut writer, mut reader) = (trio.session(&[1], 1), trio.session(&[1], 2));
    let first = writer.put("k", "acknowledged").await.unwrap().timestamp;
    let lost = tokio::spawn(async move { writer.put("k", "lost").await });
    let shown = loop {
        let found = reader.get("k").await.unwrap();
        if found.value == Value::Of("lost".into()) {
            break found.timestamp;
        }
    };
    assert_eq!(shown, first + 1);
    trio.servers[1].kill().await.unwrap();
    assert!(lost.await.unwrap().is_err());
    trio.servers[1] = trio.server(1, 1, &[]);
    let written = loop {
        match trio.session(&[1], 3).put("k", "another").await {
            Ok(written) => break written.timestamp,
            Err(why) if why.contains("nada foi feito") => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(why) => panic!("{why}"),
        }
    };
    assert!(written > shown, "{written} was shown for another value");
    for server in 0..3 {
        // Whoever saw the lost value is never shown it, nor an older one, under the same timestamp.
        let mut session = trio.session(&[server], 4);
        let found = session.get("k").await.unwrap();
        assert_eq!(
            (found.value, found.timestamp),
            (Value::Of("another".into()), written)
        );
    }
}

#[tokio::test]
async fn timestamps_go_on_although_all_three_were_killed_at_once() {
    let mut trio = Trio::start(1, [&[], &[], &[]]).await;
    let mut old = trio.session(&[0, 1, 2], 1);
    let before = old.put("k", "before").await.unwrap().timestamp;
    for server in &mut trio.servers {
        server.kill().await.unwrap();
    }
    for n in 0..3 {
        trio.servers[n] = trio.server(n, 1, &[]);
    }
    let mut writer = trio.session(&[0], 2);
    let after = loop {
        match writer.put("k", "after").await {
            Ok(written) => break written.timestamp,
            Err(why) if why.contains("nada foi feito") => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(why) => panic!("{why}"),
        }
    };
    assert!(
        after > before,
        "{after} was given before, or less than {before}"
    );
    // Whoever has seen the old value sees the new one as newer.
    assert_eq!(old.get("k").await.unwrap().value, Value::Of("after".into()));
}

/// Three servers with a table of which `old` has seen something, killed and started again in another directory.
async fn begun_anew(old: &mut Session, trio: &mut Trio, elsewhere: &tempfile::TempDir) -> u64 {
    let mut seen = 0;
    for n in 0..5 {
        seen = old.put("k", &n.to_string()).await.unwrap().timestamp;
    }
    for server in &mut trio.servers {
        server.kill().await.unwrap();
    }
    let directory = elsewhere.path().to_string_lossy();
    for n in 0..3 {
        trio.servers[n] = trio.server(n, 1, &["--dados", &directory]);
    }
    // The new table is a new one: it counts from the beginning, as long as nobody has seen another.
    assert_eq!(trio.writes(1, "other", "v").await, 1);
    seen
}

#[tokio::test]
async fn a_client_that_writes_gets_a_timestamp_above_what_it_has_seen_of_a_table_that_is_gone() {
    let mut trio = Trio::start(1, [&[], &[], &[]]).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let mut old = trio.session(&[0], 1);
    let seen = begun_anew(&mut old, &mut trio, &elsewhere).await;
    let written = old.put("k", "new").await.unwrap();
    assert!(written.timestamp > seen, "{written:?} after {seen}");
    assert_eq!(old.get("k").await.unwrap().value, Value::Of("new".into()));
    trio.said("começou uma tabela nova e vazia").await;
    let directory = elsewhere.path().to_string_lossy().into_owned();
    assert!(trio.errors().contains(&directory), "{}", trio.errors());
}

#[tokio::test]
async fn a_client_that_reads_at_a_follower_is_told_nothing_old_and_the_leader_hears_of_what_it_has_seen()
 {
    let mut trio = Trio::start(1, [&[], &[], &[]]).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let mut old = trio.session(&[0], 1);
    let seen = begun_anew(&mut old, &mut trio, &elsewhere).await;
    assert_eq!(old.get("k").await.unwrap().value, Value::Behind);
    let told = format!("um cliente já viu o timestamp {seen}");
    trio.said(&told).await;
    // Also for one that has seen nothing itself.
    let written = trio.session(&[2], 2).put("k", "new").await.unwrap();
    assert!(written.timestamp > seen, "{written:?} after {seen}");
    assert_eq!(old.get("k").await.unwrap().value, Value::Of("new".into()));
    // Nobody who lies uses them up.
    let lie = br#"{"tipo":"GET","key":"k","timestamp":18446744073709551615}"#;
    let said = trio.ask_until_end(1, lie).await;
    assert!(said.contains("TRY_OTHER"), "{said}");
    let next = trio.session(&[0], 2).put("k", "v").await.unwrap();
    assert_eq!(next.timestamp, written.timestamp + 1);
}
