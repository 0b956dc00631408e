//! One process of the group: serves, and answers the demo.

use super::member::Served;
use super::questions::answer_all;

/// Serves until standard input ends, and tells the operator what must not be missed.
///
/// # Errors
/// Why the node could not start or go on, in words for the operator.
pub async fn serve(served: Served) -> Result<(), String> {
    let id = served.id;
    let member = served.start().await?;
    let ended = tokio::select! {
        () = answer_all(&member) => None,
        ended = member.attend(id) => Some(ended),
    };
    match ended {
        None => member.shutdown().await,
        Some(ended) => ended,
    }
    .map_err(|e| e.to_string())
}
