//! A new follower joins a store of 100,000 documents while clients write.

use crate::{NUMBERS, ok};
use kvrep_examples::common::processes::free_ports;
use kvrep_examples::document_store::stage::{Stage, load, tell};

const DOCUMENTS: i64 = 100_000;
const MORE: i64 = 20_000;

#[tokio::test(flavor = "multi_thread")]
async fn c2_6_and_r2_63_a_follower_that_joins_under_load_ends_equal() {
    // With a witness, so that nothing is lost either where a machine has so much else to do that nodes take each other for dead.
    let (mut stage, [leader, follower]) = Stage::with_witness().await.unwrap();
    ok(leader, NUMBERS).await;
    load(&[leader, follower], "numbers", "n", 0..DOCUMENTS)
        .await
        .unwrap();
    let [joiner] = free_ports().unwrap();
    let during =
        tokio::spawn(
            async move { load(&[leader], "numbers", "n", DOCUMENTS..DOCUMENTS + MORE).await },
        );
    stage.enter(joiner, Some(leader)).await.unwrap();
    // It says how far behind it is, until it is not.
    let status = tell(joiner, r#"["status"]"#).await.unwrap();
    assert!(
        status["behind"].is_u64() || status["behind"].is_null(),
        "{status}"
    );
    stage.active(&[leader, follower, joiner]).await.unwrap();
    during.await.unwrap().unwrap();
    let (documents, _) = stage.equal(&[leader, follower, joiner]).await.unwrap();
    let wanted = u64::try_from(DOCUMENTS + MORE).unwrap();
    assert_eq!(documents, wanted, "{}", stage.printed());
    // Indexes are there, and the order is the leader's.
    let last = r#"["search", "numbers", {"n":{">=":119990}}]"#;
    let found = ok(joiner, last).await;
    assert_eq!(found.as_array().unwrap().len(), 10);
    assert_eq!(found, ok(leader, last).await);
}
