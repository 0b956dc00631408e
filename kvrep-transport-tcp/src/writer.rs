//! Writes queued frames, many with one system call.

use crate::queue::SendQueue;
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::{MissedTickBehavior, interval};

/// Small frames are copied together up to this size.
const TOGETHER_BYTES: usize = 64 << 10;
/// Frames from this size on are written from where they are.
const LARGE_BYTES: usize = 16 << 10;

/// Writes what comes through `queue` until it is closed, and `alive` every so often.
pub(crate) async fn write_frames<W: AsyncWrite + Unpin>(
    mut to: W,
    queue: &SendQueue,
    alive: Option<(Duration, Bytes)>,
) -> io::Result<()> {
    let mut batch = VecDeque::new();
    let mut together = Vec::new();
    let (every, sign) = alive.unwrap_or((NEVER, Bytes::new()));
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await; // the first is at once
    loop {
        tokio::select! {
            biased;
            _ = ticks.tick() => to.write_all(&sign).await?,
            open = queue.take(&mut batch) => {
                if !open {
                    return Ok(());
                }
                write_batch(&mut to, &mut batch, &mut together).await?;
            }
        }
    }
}

async fn write_batch<W: AsyncWrite + Unpin>(
    to: &mut W,
    batch: &mut VecDeque<Bytes>,
    together: &mut Vec<u8>,
) -> io::Result<()> {
    while let Some(frame) = batch.pop_front() {
        let alone = together.is_empty() && batch.is_empty();
        if !together.is_empty() && together.len() + frame.len() > TOGETHER_BYTES {
            to.write_all(together).await?;
            together.clear();
        }
        if alone || frame.len() >= LARGE_BYTES {
            if !together.is_empty() {
                to.write_all(together).await?;
                together.clear();
            }
            to.write_all(&frame).await?;
        } else {
            together.extend_from_slice(&frame);
        }
    }
    if !together.is_empty() {
        to.write_all(together).await?;
        together.clear();
    }
    Ok(())
}

const NEVER: Duration = Duration::from_secs(3_600 * 24 * 365);
