//! Serves one connected client: its requests go to the node, replies come back as the node makes them.
//!
//! Requests wait for room in the node's inbox, so a client that asks too fast is slowed down by TCP itself. Replies
//! never wait: a client that does not read them is disconnected when too many have piled up.

use crate::queue::{Push, SendQueue};
use crate::reader::{FrameReader, Patience, ReadError};
use crate::shared::{Counters, OpenQueue, Shared};
use crate::writer::write_frames;
use bytes::{Bytes, BytesMut};
use kvrep_core::transport::{InboxEvent, ReplyTo};
use kvrep_core::wire::FrameKind;
use std::sync::Arc;
use tokio::io::AsyncRead;
use tokio::net::TcpStream;
use tokio::runtime::{Handle, RuntimeFlavor};
use tracing::debug;

/// Serves until the connection ends.
pub(crate) async fn serve_client(
    shared: &Shared,
    stream: TcpStream,
    read_already: BytesMut,
    first: Option<Bytes>,
) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let (limits, timing) = (&shared.config.limits, &shared.config.timing);
    let queue = Arc::new(SendQueue::new(
        limits.queue_frames_max,
        limits.reply_bytes_max,
    ));
    let _open = OpenQueue::new(&queue, &shared.counters);
    let reply = reply_over(Arc::clone(&queue), Arc::clone(&shared.counters));
    let patience = Patience {
        idle: timing.client_idle_after,
        frame: timing.idle_after,
    };
    let (from, to) = stream.into_split();
    let to = Arc::new(to);
    // The node replies from its own task. With one thread that loses nothing; with several, its system calls are better made by
    // those of the connections, all at once.
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        queue.attach(Arc::clone(&to));
    }
    let mut reader = FrameReader::new(from, read_already, CHUNK_BYTES, patience);
    let why = tokio::select! {
        why = read_requests(shared, &mut reader, first, &reply) => why,
        written = write_frames(&to, &queue, None) => match written {
            Ok(()) => ReadError::Ended,
            Err(error) => error.into(),
        },
    };
    if why.is_misconduct() {
        shared.counters.refused();
    }
    debug!(me = %shared.me.replica, %why, "client connection ended");
}

fn reply_over(queue: Arc<SendQueue>, counters: Arc<Counters>) -> ReplyTo {
    ReplyTo::new(move |frame| match queue.push(frame) {
        Push::Queued => counters.sent(1),
        Push::Closed => counters.dropped(1),
        Push::Full => {
            counters.dropped(1);
            counters.unsent(queue.close());
        }
    })
}

async fn read_requests<R: AsyncRead + Unpin>(
    shared: &Shared,
    reader: &mut FrameReader<R>,
    first: Option<Bytes>,
    reply: &ReplyTo,
) -> ReadError {
    let request_bytes_max = shared.config.limits.request_bytes_max;
    let mut next = first;
    loop {
        if let Some(request) = next.take() {
            let reply = reply.clone();
            if !shared.deliver(InboxEvent::Client { request, reply }).await {
                return ReadError::Ended;
            }
            shared.counters.received();
        }
        match reader.next(|_| request_bytes_max).await {
            Ok((FrameKind::Request, request)) => next = Some(request),
            Ok((FrameKind::Peer | FrameKind::Reply | FrameKind::Handshake, _)) => {
                return ReadError::Unexpected;
            }
            Err(error) => return error,
        }
    }
}

const CHUNK_BYTES: usize = 8 << 10;
