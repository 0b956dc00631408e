//! Frames waiting to be written to one connection: bounded, filled without waiting, emptied in batches.
//!
//! A push takes a lock for a moment. Where frames come one at a time, it writes its frame itself: waking the writer
//! would cost more than the system call, and a lone client waits for each of them. Where they come together, it only
//! queues: the writer takes everything at once, and so writes many frames with one system call. Which of the two it is, is
//! tried now and then. A queue that is not open takes nothing: what nobody can send now is dropped, for the protocols
//! send again what still matters.
//!
//! Invariant: bytes reach the socket in the order of the pushes. Past the queue is written only under its lock, while it is
//! empty and the writer holds no batch; what the socket did not take of such a frame is the first in the queue.

use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Notify;

pub(crate) struct SendQueue {
    inner: Mutex<Inner>,
    ready: Notify,
    frames_max: usize,
    bytes_max: usize,
}

#[derive(Default)]
struct Inner {
    frames: VecDeque<Bytes>,
    bytes: usize,
    open: bool,
    /// Where a push may write itself.
    socket: Option<Arc<OwnedWriteHalf>>,
    /// The writer holds a batch.
    writing: bool,
    /// Frames come together: standing back brought more of them, the last time it was tried.
    together: bool,
    pushes: u32,
}

/// What became of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Push {
    Queued,
    /// Dropped: the queue is full.
    Full,
    /// Dropped: nobody is connected.
    Closed,
}

impl SendQueue {
    /// A queue that is not open yet.
    pub(crate) fn new(frames_max: usize, bytes_max: usize) -> Self {
        Self {
            inner: Mutex::default(),
            ready: Notify::new(),
            frames_max,
            bytes_max,
        }
    }

    /// From now on frames are taken.
    pub(crate) fn open(&self) {
        self.inner().open = true;
    }

    /// Lets a push write to the socket of the connection, until the queue is closed.
    pub(crate) fn attach(&self, socket: Arc<OwnedWriteHalf>) {
        let mut inner = self.inner();
        inner.socket = Some(socket);
        inner.writing = false;
    }

    /// Takes no more frames, ends the writer, and returns how many frames were waiting; they are dropped.
    pub(crate) fn close(&self) -> usize {
        let dropped = {
            let mut inner = self.inner();
            inner.open = false;
            inner.socket = None;
            inner.bytes = 0;
            std::mem::take(&mut inner.frames).len()
        };
        self.ready.notify_one();
        dropped
    }

    /// Never waits. One frame is taken however large it is.
    pub(crate) fn push(&self, frame: Bytes) -> Push {
        let mut inner = self.inner();
        if !inner.open {
            return Push::Closed;
        }
        let Some(frame) = inner.write_now(frame) else {
            return Push::Queued;
        };
        let empty = inner.frames.is_empty();
        let bytes = inner.bytes.saturating_add(frame.len());
        if !empty && (inner.frames.len() >= self.frames_max || bytes > self.bytes_max) {
            return Push::Full;
        }
        inner.bytes = bytes;
        inner.frames.push_back(frame);
        drop(inner);
        if empty {
            self.ready.notify_one();
        }
        Push::Queued
    }

    /// Swaps everything that waits into `batch`, which must be empty and is taken to be written when this is called
    /// again; waits for something. Returns false when the queue was closed. Nothing is lost when the future is dropped.
    pub(crate) async fn take(&self, batch: &mut VecDeque<Bytes>) -> bool {
        loop {
            {
                let mut inner = self.inner();
                inner.writing = false;
                if !inner.open {
                    return false;
                }
                if !inner.frames.is_empty() {
                    inner.bytes = 0;
                    inner.writing = true;
                    std::mem::swap(&mut inner.frames, batch);
                    return true;
                }
            }
            self.ready.notified().await;
            // Whoever else is about to push gets its turn: more frames for the same write.
            let before = self.inner().frames.len();
            tokio::task::yield_now().await;
            let mut inner = self.inner();
            inner.together = inner.frames.len() > before;
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Writes a frame past the queue, if it may. Returns what is left of it.
    fn write_now(&mut self, mut frame: Bytes) -> Option<Bytes> {
        self.pushes = self.pushes.wrapping_add(1);
        let idle = self.frames.is_empty() && !self.writing;
        let alone = !self.together && !self.pushes.is_multiple_of(QUEUE_EVERY);
        if let Some(socket) = &self.socket
            && idle
            && alone
            && frame.len() < LARGE_BYTES
        {
            // Also after an error: the writer meets it again, and ends the connection.
            let written = socket.try_write(&frame).unwrap_or(0);
            frame.advance(written);
        }
        (!frame.is_empty()).then_some(frame)
    }
}

/// Every so many pushes, the writer is woken to see whether frames come together.
const QUEUE_EVERY: u32 = 32;
/// Frames from this size on are left to the writer.
pub(crate) const LARGE_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_queue_drops_the_newest_and_a_closed_one_everything() {
        let queue = SendQueue::new(2, 10);
        let frame = Bytes::from_static(b"12345");
        assert_eq!(queue.push(frame.clone()), Push::Closed);
        queue.open();
        assert_eq!(queue.push(frame.clone()), Push::Queued);
        assert_eq!(queue.push(frame.clone()), Push::Queued);
        assert_eq!(queue.push(frame.clone()), Push::Full);
        let mut batch = VecDeque::new();
        assert!(queue.take(&mut batch).await);
        assert_eq!(batch.len(), 2);
        assert_eq!(queue.push(Bytes::from(vec![0; 100])), Push::Queued);
        assert_eq!(queue.push(frame), Push::Full);
        assert_eq!(queue.close(), 1);
        assert!(!queue.take(&mut batch).await);
    }

    #[tokio::test]
    async fn frames_past_the_queue_and_through_it_keep_their_order() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = tokio::net::TcpStream::connect(listener.local_addr().unwrap());
        let (_, to) = near.await.unwrap().into_split();
        let (mut far, _) = listener.accept().await.unwrap();
        let (to, queue) = (Arc::new(to), SendQueue::new(usize::MAX, usize::MAX));
        queue.open();
        queue.attach(Arc::clone(&to));
        // More than the socket takes, so that a frame is cut in two.
        let frames = (0..4_000_u32).map(|n| Bytes::from(n.to_be_bytes().repeat(1_000)));
        let sent: Vec<Bytes> = frames.collect();
        for frame in &sent[..3_000] {
            assert_eq!(queue.push(frame.clone()), Push::Queued);
        }
        assert!(!queue.inner().frames.is_empty(), "the socket took it all");
        let writing = async {
            tokio::join!(crate::writer::write_frames(&to, &queue, None), async {
                for frame in &sent[3_000..] {
                    queue.push(frame.clone());
                    tokio::task::yield_now().await;
                }
            })
        };
        let mut received = vec![0; sent.iter().map(Bytes::len).sum()];
        tokio::select! {
            _ = writing => unreachable!("the queue stays open"),
            read = tokio::io::AsyncReadExt::read_exact(&mut far, &mut received) => drop(read.unwrap()),
        }
        assert!(received == sent.concat(), "in another order");
    }
}
