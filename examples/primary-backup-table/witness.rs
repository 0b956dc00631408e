//! Whether this server's witness is that of the primary which it is to join.
//!
//! Two witnesses for one table are found only when one of the servers wants to take over, which is too late. They are compared by what they remember and not by
//! their addresses, for one machine has several: a primary that serves has recorded its pair at its witness before, so a witness that knows nobody of it is another one.

use super::meeting::status_of;
use super::roll::Answer;
use kvrep_core::Configuration;
use kvrep_core::protocol::ProtocolStatus;

/// Compares the witness at `at` with what these servers say, if one of them serves. What the operator is to be told where that cannot be known.
///
/// # Errors
/// It is another one: what to do.
pub(super) async fn compare(at: &str, answers: &[Answer]) -> Result<Option<String>, String> {
    let said = answers.iter().filter_map(|a| Some((a, a.said.as_ref()?)));
    let Some((primary, status)) = said.into_iter().find(|(_, status)| status.serving) else {
        return Ok(None);
    };
    let primary = &primary.address;
    match status_of(at).await {
        Ok((_, register)) if is_anothers(register.configuration.as_ref(), status) => Err(format!(
            "the witness at {at} does not know the table that the server at {primary} serves: that one has another witness, or none; or this witness was started with another directory than before. Give both servers the same --witness. This server was not started"
        )),
        Ok(_) => Ok(None),
        Err(_) => Ok(Some(format!(
            "the witness at {at} does not answer, so whether it is that of the server at {primary} is not known: start it, or correct --witness; both servers need the same"
        ))),
    }
}

/// Whether what a witness remembers is not of this primary's pair.
fn is_anothers(register: Option<&Configuration>, primary: &ProtocolStatus) -> bool {
    let Some(pair) = &primary.configuration else {
        return false;
    };
    !register.is_some_and(|r| r.members.keys().any(|id| pair.members.contains_key(id)))
}
