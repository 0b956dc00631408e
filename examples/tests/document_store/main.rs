//! The document store as its users run it: real processes on the loopback, the literal commands, the wire byte by byte.

mod anew;
mod failures;
mod hostile;
mod join;
mod membership;
mod server;
mod steps;
mod story;
mod transcript;

use kvrep_examples::document_store::stage::{Port, tell};
use serde_json::Value as Json;

/// The result of a request that must be done.
async fn ok(port: Port, request: &str) -> Json {
    tell(port, request)
        .await
        .unwrap_or_else(|why| panic!("{request} at {port}: {why}"))
}

/// The reason for one that must be refused.
async fn ko(port: Port, request: &str) -> String {
    match tell(port, request).await {
        Ok(result) => panic!("{request} at {port} was done: {result}"),
        Err(why) => why,
    }
}

/// The collection that the tests write to.
const USERS: &str = r#"["create", "users", {"*email":"str","name":"str","*age":"int"}]"#;
/// The collection of loaded numbers.
const NUMBERS: &str = r#"["create", "numbers", {"*n":"int"}]"#;
