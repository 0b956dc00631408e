//! Writes queued frames, many with one system call.

use crate::queue::{LARGE_BYTES, SendQueue};
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::time::Duration;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::time::{Instant, Sleep, sleep_until};

/// Small frames are copied together up to this size.
const TOGETHER_BYTES: usize = 64 << 10;

/// A frame to be written every so often, also while much else is.
pub(crate) struct SignOfLife {
    frame: Bytes,
    every: Duration,
    next: Instant,
    /// Armed for `next` or earlier: it is only touched when it has rung.
    alarm: Pin<Box<Sleep>>,
}

impl SignOfLife {
    pub(crate) fn new(frame: Bytes, every: Duration) -> Self {
        let next = Instant::now() + every;
        Self {
            frame,
            every,
            next,
            alarm: Box::pin(sleep_until(next)),
        }
    }
}

/// Writes what comes through `queue` until it is closed.
pub(crate) async fn write_frames(
    to: &OwnedWriteHalf,
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
            alive = due(&mut writer.alive) => {
                // Through the queue: part of a frame may be in the socket, and the rest still there.
                let _ = queue.push(alive);
            }
            open = queue.take(&mut batch) => {
                if !open {
                    return Ok(());
                }
                writer.write(&mut batch).await?;
            }
        }
    }
}

struct Writer<'a> {
    to: &'a OwnedWriteHalf,
    together: Vec<u8>,
    alive: Option<SignOfLife>,
}

impl Writer<'_> {
    async fn write(&mut self, batch: &mut VecDeque<Bytes>) -> io::Result<()> {
        while let Some(frame) = batch.pop_front() {
            let alone = self.together.is_empty() && batch.is_empty();
            let large = frame.len() >= LARGE_BYTES;
            if large || self.together.len() + frame.len() > TOGETHER_BYTES {
                self.flush().await?;
            }
            if alone || large {
                write_all(self.to, &frame).await?;
                self.say_alive().await?;
            } else {
                self.together.extend_from_slice(&frame);
            }
        }
        self.flush().await
    }

    async fn flush(&mut self) -> io::Result<()> {
        if !self.together.is_empty() {
            write_all(self.to, &self.together).await?;
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
                write_all(self.to, &alive.frame).await?;
            }
        }
        Ok(())
    }
}

/// Waits until the sign of life is due, and takes it for said.
async fn due(alive: &mut Option<SignOfLife>) -> Bytes {
    let Some(alive) = alive else {
        return std::future::pending().await;
    };
    loop {
        alive.alarm.as_mut().await;
        let now = Instant::now();
        if now >= alive.next {
            alive.next = now + alive.every;
            return alive.frame.clone();
        }
        alive.alarm.as_mut().reset(alive.next);
    }
}

async fn write_all(to: &OwnedWriteHalf, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.try_write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => to.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
