//! Frames waiting to be written to one connection: bounded, filled without waiting, emptied in batches.
//!
//! A push takes a lock for a moment and wakes the writer only when the queue was empty; the writer takes everything at
//! once and so writes many frames with one system call. A queue that is not open takes nothing: what nobody can send
//! now is dropped, for the protocols send again what still matters.

use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
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

    /// Takes no more frames, ends the writer, and returns how many frames were waiting; they are dropped.
    pub(crate) fn close(&self) -> usize {
        let dropped = {
            let mut inner = self.inner();
            inner.open = false;
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

    /// Swaps everything that waits into `batch`, which must be empty; waits for something. Returns false when the
    /// queue was closed. Nothing is lost when the future is dropped.
    pub(crate) async fn take(&self, batch: &mut VecDeque<Bytes>) -> bool {
        loop {
            {
                let mut inner = self.inner();
                if !inner.open {
                    return false;
                }
                if !inner.frames.is_empty() {
                    inner.bytes = 0;
                    std::mem::swap(&mut inner.frames, batch);
                    return true;
                }
            }
            self.ready.notified().await;
            // Whoever else is about to push gets its turn: more frames for the same write.
            tokio::task::yield_now().await;
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

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
}
