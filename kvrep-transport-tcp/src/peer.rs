//! A connection between two members after its handshake, from either end.
//!
//! The one that dialled sends its frames and signs of life; the one that accepted answers the signs. Both ends so
//! notice within the idle deadline when the other is gone without a word, whatever else is sent.

use crate::greeting::{GREETING_BYTES_MAX, Greeting};
use crate::queue::SendQueue;
use crate::reader::{FrameReader, Patience, ReadError};
use crate::shared::Shared;
use crate::writer::{SignOfLife, write_frames};
use bytes::BytesMut;
use kvrep_core::transport::InboxEvent;
use kvrep_core::wire::FrameKind;
use std::sync::Arc;
use tokio::io::AsyncRead;
use tokio::net::TcpStream;

/// Which end this is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    Dialled,
    Accepted,
}

/// Carries frames both ways until the connection ends. The queue must be open; it is left to the caller to close it.
pub(crate) async fn carry(
    shared: &Shared,
    stream: TcpStream,
    read_already: BytesMut,
    queue: &SendQueue,
    end: End,
) -> ReadError {
    let idle = shared.config.timing.idle_after;
    let (from, to) = stream.into_split();
    let to = Arc::new(to);
    queue.attach(Arc::clone(&to));
    let patience = Patience { idle, frame: idle };
    let mut reader = FrameReader::new(from, read_already, CHUNK_BYTES, patience);
    let alive = match end {
        End::Dialled => Some(SignOfLife::new(Greeting::Ping.to_frame(), idle / 3)),
        End::Accepted => None,
    };
    tokio::select! {
        ended = read_frames(shared, &mut reader, queue) => ended,
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
) -> ReadError {
    let frame_bytes_max = shared.config.limits.frame_bytes_max;
    loop {
        let (kind, body) = match reader.next(|kind| limit(kind, frame_bytes_max)).await {
            Ok(frame) => frame,
            Err(error) => return error,
        };
        match kind {
            FrameKind::Peer => {
                // A node that does not keep up makes the sender's queue fill: that is where frames are dropped.
                if !shared.deliver(InboxEvent::Peer(body)).await {
                    return ReadError::Ended;
                }
                shared.counters.received();
            }
            FrameKind::Handshake => match Greeting::from_body(&body) {
                Some(Greeting::Ping) => {
                    // No room for it means that the other end does not read: let it miss the answer.
                    let _ = queue.push(Greeting::Pong.to_frame());
                }
                Some(Greeting::Pong) => {}
                Some(Greeting::Knows { replica, address }) => {
                    shared.learn(replica, &address);
                }
                Some(
                    Greeting::Peer(_)
                    | Greeting::Client { .. }
                    | Greeting::Welcome { .. }
                    | Greeting::Refused(_),
                )
                | None => return ReadError::Unexpected,
            },
            FrameKind::Request | FrameKind::Reply => return ReadError::Unexpected,
        }
    }
}

fn limit(kind: u8, frame_bytes_max: usize) -> usize {
    if kind == FrameKind::Handshake as u8 {
        GREETING_BYTES_MAX
    } else {
        frame_bytes_max
    }
}

const CHUNK_BYTES: usize = 64 << 10;
