//! [`ask`]: one expression, one answer.
//!
//! Each request has a socket of its own, at an address that no request before had lately: a duplicate that comes late finds nobody, and is never taken
//! for the answer to another request. The first answer counts. What is not answered is sent again, which hides a takeover of two to three
//! seconds; for a server that is one more request.

use super::expression::TEXT_BYTES_MAX;
use kvrep_transport_multicast::{GroupSocket, MulticastConfig};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until, timeout_at};

/// For how long and how often a request is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Patience {
    /// Until then an answer is waited for.
    pub timeout: Duration,
    /// After so long without one the request is sent again.
    pub resend_every: Duration,
}

/// The answer that came first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Its text.
    pub text: String,
    /// Whose it is.
    pub from: SocketAddr,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// The text does not fit what servers read. Nothing was sent.
    #[error("the expression has {bytes} bytes; servers read at most {TEXT_BYTES_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// No server answered. It was sent this often.
    #[error(
        "no server answered within {within:?} ({sent} requests sent): is one running, in the same group and reachable from here?"
    )]
    NoAnswer {
        /// For how long it was waited.
        within: Duration,
        /// Requests that were sent.
        sent: u32,
    },
    /// The network refused until the end.
    #[error("cannot send to the group: {0}")]
    Network(String),
}

/// Sends an expression to the group and waits for the first answer.
///
/// # Errors
/// When none came.
pub async fn ask(
    expression: &str,
    group: &MulticastConfig,
    patience: Patience,
) -> Result<Answer, AskError> {
    let bytes = expression.len();
    if bytes > TEXT_BYTES_MAX {
        return Err(AskError::TooLong { bytes });
    }
    let refused = |error: io::Error| AskError::Network(super::server::explained(&error));
    let socket = GroupSocket::open_own(group).map_err(refused)?;
    let deadline = Instant::now() + patience.timeout;
    let (mut sent, mut refusal) = (0, None);
    while Instant::now() < deadline {
        match socket.send_to(expression.as_bytes(), group.group).await {
            Ok(_) => (sent, refusal) = (sent + 1, None),
            Err(error) => refusal = Some(error),
        }
        let resend_at = deadline.min(Instant::now() + patience.resend_every);
        if let Ok(answer) = timeout_at(resend_at, receive(&socket, group.group.port())).await {
            return Ok(answer);
        }
    }
    let within = patience.timeout;
    Err(match refusal {
        Some(error) => refused(error),
        None => AskError::NoAnswer { within, sent },
    })
}

/// The first answer: servers send it from their socket of the group, so it has the group's port.
async fn receive(socket: &UdpSocket, port: u16) -> Answer {
    let mut buffer = vec![0; ANSWER_BYTES_MAX];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((bytes, from)) if from.port() == port => {
                let text = String::from_utf8_lossy(&buffer[..bytes]).into_owned();
                return Answer { text, from };
            }
            Ok(_) => {}
            Err(_) => sleep_until(Instant::now() + RECEIVED_AGAIN_AFTER).await,
        }
    }
}

/// The longest datagram there is.
const ANSWER_BYTES_MAX: usize = 65_507;
const RECEIVED_AGAIN_AFTER: Duration = Duration::from_millis(10);
