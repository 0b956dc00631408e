//! A connection between two members after its handshake, from either end.
//!
//! The one that dialled sends its frames and signs of life; the one that accepted answers the signs. Both ends so
//! notice within the idle deadline when the other is gone without a word, whatever else is sent.

use crate::codec::MemberFrame;
use crate::greeting::{ADDRESS_BYTES_MAX, Greeting};
use crate::queue::SendQueue;
use crate::reader::{FrameReader, Patience, ReadError};
use crate::shared::{Peer, Shared};
use crate::writer::{SignOfLife, write_frames};
use bytes::BytesMut;
use kvrep_core::transport::InboxEvent;
use std::sync::Arc;
use tokio::io::AsyncRead;
use tokio::net::TcpStream;

/// Which end this is.
#[derive(Clone, Copy)]
pub(crate) enum End<'a> {
    /// That which dialled this peer.
    Dialled(&'a Peer),
    Accepted,
}

/// Carries frames both ways until the connection ends. The queue must be open; it is left to the caller to close it.
pub(crate) async fn carry(
    shared: &Shared,
    stream: TcpStream,
    read_already: BytesMut,
    queue: &SendQueue,
    end: End<'_>,
) -> ReadError {
    let idle = shared.config.timing.idle_after;
    let (from, to) = stream.into_split();
    let to = Arc::new(to);
    queue.attach(Arc::clone(&to));
    let patience = Patience { idle, frame: idle };
    let mut reader = FrameReader::new(from, read_already, CHUNK_BYTES, patience);
    let alive = match end {
        End::Dialled(_) => {
            let ping = shared.dialect().greeting(Greeting::Ping);
            Some(SignOfLife::new(ping, idle / 3))
        }
        End::Accepted => None,
    };
    tokio::select! {
        ended = read_frames(shared, &mut reader, queue, end) => ended,
        written = write_frames(&to, queue, alive) => match written {
            Ok(()) => ReadError::Ended,
            Err(error) => ReadError::Io(error),
        },
    }
}

async fn read_frames<R: AsyncRead + Unpin>(
    shared: &Shared,
    reader: &mut FrameReader<R>,
    queue: &SendQueue,
    end: End<'_>,
) -> ReadError {
    let frame_bytes_max = shared.config.limits.frame_bytes_max;
    let dialect = shared.dialect();
    loop {
        match reader.next_of_member(dialect, frame_bytes_max).await {
            Ok(MemberFrame::Message(body)) => {
                // A node that does not keep up makes the sender's queue fill: that is where frames are dropped.
                if !shared.deliver(InboxEvent::Peer(body)).await {
                    return ReadError::Ended;
                }
                shared.counters.received();
            }
            Ok(MemberFrame::Greeting(Greeting::Ping)) => {
                // No room for it means that the other end does not read: let it miss the answer.
                let _ = queue.push(dialect.greeting(Greeting::Pong));
            }
            Ok(MemberFrame::Greeting(Greeting::Pong)) => {}
            Ok(MemberFrame::Greeting(Greeting::Knows { replica, address })) => {
                shared.learn(replica, &address);
            }
            Ok(MemberFrame::Greeting(Greeting::Unreached { address, cause })) => {
                let End::Dialled(peer) = end else {
                    return ReadError::Unexpected;
                };
                if !is_plain(&address) {
                    return ReadError::Unexpected;
                }
                shared.unheard(peer, address, cause).await;
            }
            Ok(MemberFrame::Greeting(
                Greeting::Peer(_)
                | Greeting::Client { .. }
                | Greeting::Welcome { .. }
                | Greeting::Refused(_),
            )) => return ReadError::Unexpected,
            Err(error) => return error,
        }
    }
}

/// Whether this may be shown to an operator: an address is one word.
fn is_plain(address: &str) -> bool {
    address.len() <= ADDRESS_BYTES_MAX
        && !address.contains(|c: char| c.is_control() || c.is_whitespace())
}

const CHUNK_BYTES: usize = 64 << 10;
