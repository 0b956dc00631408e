//! Writes queued frames, many with one system call.

use crate::queue::SendQueue;
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until};

/// Small frames are copied together up to this size.
const TOGETHER_BYTES: usize = 64 << 10;
/// Frames from this size on are written from where they are.
const LARGE_BYTES: usize = 16 << 10;

/// A frame to be written every so often, also while much else is.
pub(crate) struct SignOfLife {
    frame: Bytes,
    every: Duration,
    next: Instant,
}

impl SignOfLife {
    pub(crate) fn new(frame: Bytes, every: Duration) -> Self {
        Self {
            frame,
            every,
            next: Instant::now() + every,
        }
    }
}

/// Writes what comes through `queue` until it is closed.
pub(crate) async fn write_frames<W: AsyncWrite + Unpin>(
    to: W,
    queue: &SendQueue,
    alive: Option<SignOfLife>,
) -> io::Result<()> {
    let mut writer = Writer {
        to,
        together: Vec::new(),
        alive,
    };
    let mut batch = VecDeque::new();
    loop {
        tokio::select! {
            biased;
            () = due(&writer.alive) => writer.say_alive().await?,
            open = queue.take(&mut batch) => {
                if !open {
                    return Ok(());
                }
                writer.write(&mut batch).await?;
            }
        }
    }
}

struct Writer<W> {
    to: W,
    together: Vec<u8>,
    alive: Option<SignOfLife>,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    async fn write(&mut self, batch: &mut VecDeque<Bytes>) -> io::Result<()> {
        while let Some(frame) = batch.pop_front() {
            let alone = self.together.is_empty() && batch.is_empty();
            let large = frame.len() >= LARGE_BYTES;
            if large || self.together.len() + frame.len() > TOGETHER_BYTES {
                self.flush().await?;
            }
            if alone || large {
                self.to.write_all(&frame).await?;
                self.say_alive().await?;
            } else {
                self.together.extend_from_slice(&frame);
            }
        }
        self.flush().await
    }

    async fn flush(&mut self) -> io::Result<()> {
        if !self.together.is_empty() {
            self.to.write_all(&self.together).await?;
            self.together.clear();
            self.say_alive().await?;
        }
        Ok(())
    }

    /// Writes the sign of life if it is due. A long batch must not hold it up: its answer is what shows that the other
    /// side reads.
    async fn say_alive(&mut self) -> io::Result<()> {
        if let Some(alive) = &mut self.alive {
            let now = Instant::now();
            if now >= alive.next {
                alive.next = now + alive.every;
                self.to.write_all(&alive.frame).await?;
            }
        }
        Ok(())
    }
}

async fn due(alive: &Option<SignOfLife>) {
    match alive {
        Some(alive) => sleep_until(alive.next).await,
        None => std::future::pending().await,
    }
}
