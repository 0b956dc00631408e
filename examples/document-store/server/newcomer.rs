//! A newcomer and its leader, before it is let in: whether each is where the other one looks for it, and what stands in the way.
//!
//! A store that is full gives a newcomer the place of a node that is away, which is then no node any more. For an address at which nobody is, or somebody
//! else, that would be a loss without a gain; so the leader asks there first, for a bounded time, and says what is wrong.

use super::place::Place;
use crate::document_store::cli::remote::ask;
use crate::document_store::wire::Response;
use serde_json::Value as Json;
use std::time::Duration;
use tokio::time::Instant;

/// Asks at this place for the node that is known by it.
///
/// # Errors
/// Why it is not there, in words for the operator who is to bring it there.
pub(super) async fn is_there(place: Place) -> Result<(), String> {
    let at = place.to_string();
    let why = match ask(&at, r#"["status"]"#, Instant::now() + THERE_WITHIN).await {
        Ok(Response::Ok(status)) => match serde_json::from_str::<Json>(&status) {
            Ok(status) if status["node"] == at.as_str() => return Ok(()),
            Ok(_) | Err(_) => "who answers there is not the node of that address".into(),
        },
        Ok(Response::Ko(why)) => why,
        Err(why) => why.to_string(),
    };
    Err(format!(
        "{at} {NOT_FOUND} ({why}), so nobody makes room for it: start the node first, and see to it that the others reach it there (--advertise HOST:PORT)"
    ))
}

/// What the node at `HOST:PORT`, of which this one is to be a follower, waits for itself, in words; nothing if it does not, or does not answer.
pub(super) async fn waits_there(leader: &str) -> Option<String> {
    let answer = ask(leader, r#"["status"]"#, Instant::now() + THERE_WITHIN).await;
    let Ok(Response::Ok(status)) = answer else {
        return None;
    };
    let status: Json = serde_json::from_str(&status).ok()?;
    if status["role"] == "leader" {
        return None;
    }
    match status["waiting_for"].as_str()? {
        "" => None,
        waits_for => Some(format!(
            "{leader} answers, and does not lead now. It says: {waits_for}"
        )),
    }
}

/// What a leader says of a newcomer that it does not find.
pub(super) const NOT_FOUND: &str = "is not found by the leader";
/// Much shorter than whoever asks waits.
const THERE_WITHIN: Duration = Duration::from_secs(2);
