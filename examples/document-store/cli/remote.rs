//! Asking a node: a connection for each operation.

use crate::common::conversation::{Conversation, Manners};
use crate::document_store::server::place::Place;
use crate::document_store::server::service::codec;
use crate::document_store::wire::{Response, TEXT_BYTES_MAX};
use bytes::Bytes;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// A node, as a client knows it.
#[derive(Clone, Debug)]
pub struct Remote {
    /// Where it is, in the user's words.
    pub node: String,
    /// What to do where it does not lead.
    pub redirect: Redirect,
    /// How long an operation may take.
    pub within: Duration,
}

/// What a client does that is told who leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Redirect {
    /// It asks there.
    Follow,
    /// It shows it.
    Show,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoAnswer {
    /// The request was not sent, so nothing was done.
    #[error("not sent: {0}")]
    NotSent(String),
    /// It was sent; what became of it is not known.
    #[error("no answer, so it is not known whether it was done: {0}")]
    Lost(String),
}

impl Remote {
    /// Sends a request (JSON) and returns the answer.
    ///
    /// # Errors
    /// [`NoAnswer`]: whether anything was done.
    pub async fn ask(&self, request: &str) -> Result<Response, NoAnswer> {
        let deadline = Instant::now() + self.within;
        let mut node = self.node.clone();
        for _ in 0..REDIRECTS_MAX {
            let answer = ask(&node, request, deadline).await?;
            match (&answer, self.redirect) {
                (Response::Ko(why), Redirect::Follow) => match leader_of(why) {
                    Some(leader) if leader != node => node = leader.to_owned(),
                    _ => return Ok(answer),
                },
                (Response::Ok(_), _) | (Response::Ko(_), Redirect::Show) => return Ok(answer),
            }
        }
        Err(NoAnswer::NotSent(
            "the nodes send each other's clients in a circle; retry".into(),
        ))
    }
}

/// Asks the node at `HOST:PORT` once.
///
/// # Errors
/// [`NoAnswer`]: whether anything was done.
pub async fn ask(node: &str, request: &str, deadline: Instant) -> Result<Response, NoAnswer> {
    if request.len() > TEXT_BYTES_MAX {
        let bytes = request.len();
        return Err(NoAnswer::NotSent(format!(
            "request too large ({bytes} bytes; at most {TEXT_BYTES_MAX})"
        )));
    }
    let connected = timeout_at(deadline, connect(node)).await;
    let stream = connected
        .map_err(|_| NoAnswer::NotSent(format!("{node} does not answer")))?
        .map_err(NoAnswer::NotSent)?;
    let mut talk = Conversation::new(stream, codec(), Manners::default());
    let text = timeout_at(deadline, async {
        talk.send(Bytes::copy_from_slice(request.as_bytes()))
            .await?;
        talk.next().await
    });
    let lost = |why: &dyn std::fmt::Display| NoAnswer::Lost(format!("{node}: {why}"));
    match text.await {
        Ok(Ok(Some(text))) => Response::from_text(&text).map_err(|why| lost(&why)),
        Ok(Ok(None)) => Err(lost(&"closed the connection")),
        Ok(Err(ended)) => Err(lost(&ended)),
        Err(_) => Err(lost(&"no answer in time")),
    }
}

async fn connect(node: &str) -> Result<TcpStream, String> {
    let found = node.to_owned();
    // Names are looked up by the system, which may take its time.
    let found = tokio::task::spawn_blocking(move || Place::find(&found)).await;
    let place = found.map_err(|e| e.to_string())??;
    let stream = TcpStream::connect(place.to_string()).await;
    let stream = stream.map_err(|e| format!("cannot connect to {node}: {e}"))?;
    stream.set_nodelay(true).map_err(|e| e.to_string())?;
    Ok(stream)
}

/// The leader that a refusal names.
#[must_use]
pub fn leader_of(why: &str) -> Option<&str> {
    let leader = why.strip_prefix("not leader; leader is ")?;
    (leader != "unknown").then_some(leader)
}

const REDIRECTS_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a2_13_a_request_that_is_too_large_is_refused_at_home() {
        let long = format!("[\"describe\", \"{}\"]", "x".repeat(65_535));
        let deadline = Instant::now() + Duration::from_secs(30);
        let refused = ask("localhost:1", &long, deadline)
            .await
            .expect_err("too large");
        assert!(
            matches!(&refused, NoAnswer::NotSent(why) if why.contains("65551 bytes")),
            "{refused}"
        );
    }

    #[test]
    fn a2_12_the_leader_is_found_in_the_refusal() {
        assert_eq!(
            leader_of("not leader; leader is 127.0.0.1:8000"),
            Some("127.0.0.1:8000")
        );
        assert_eq!(leader_of("not leader; leader is unknown"), None);
        assert_eq!(leader_of("no collection \"users\""), None);
    }
}
