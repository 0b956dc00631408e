//! Reads frames, many with one system call, and does not wait for ever for the next one.

use crate::codec::{Codec, Dialect, MemberFrame, NotAFrame};
use crate::greeting::{GREETING_BYTES_MAX, Greeting};
use bytes::{Bytes, BytesMut};
use kvrep_core::wire::{self, FrameError, FrameKind, Taken};
use std::io;
use std::pin::Pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, Sleep, sleep_until};

/// Why no frame comes any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("the other side closed the connection")]
    Ended,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Dialect(#[from] NotAFrame),
    #[error("nothing came for {0:?}")]
    Idle(Duration),
    #[error("a frame that has no place here")]
    Unexpected,
    #[error("half a frame came, the rest did not within {0:?}")]
    Half(Duration),
}

impl ReadError {
    /// Whether the other side sent what it must not.
    pub(crate) fn is_misconduct(&self) -> bool {
        match self {
            Self::Frame(_) | Self::Dialect(_) | Self::Unexpected => true,
            Self::Ended | Self::Io(_) | Self::Idle(_) | Self::Half(_) => false,
        }
    }
}

/// How long to wait.
#[derive(Clone, Copy)]
pub(crate) struct Patience {
    /// For the first byte of the next frame.
    pub(crate) idle: Duration,
    /// For the rest of it.
    pub(crate) frame: Duration,
}

/// Frames of one connection.
pub(crate) struct FrameReader<R> {
    from: R,
    buffer: BytesMut,
    chunk_bytes: usize,
    /// Room made at once: more while much comes, so that few frames lie across the end of a buffer and are moved.
    room_bytes: usize,
    patience: Patience,
    /// Since when the next frame is waited for, or the rest of it.
    since: Instant,
    /// Whether a frame came out since `since` was set.
    progressed: bool,
    alarm: Pin<Box<Sleep>>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Goes on after `buffer`, what was read already.
    pub(crate) fn new(from: R, buffer: BytesMut, chunk_bytes: usize, patience: Patience) -> Self {
        let since = Instant::now();
        Self {
            from,
            buffer,
            chunk_bytes,
            room_bytes: chunk_bytes,
            patience,
            since,
            progressed: false,
            alarm: Box::pin(sleep_until(since + patience.idle.min(patience.frame))),
        }
    }

    /// What was read and is not taken yet; drops the rest.
    pub(crate) fn into_parts(self) -> (R, BytesMut) {
        (self.from, self.buffer)
    }

    /// The next frame, with a body of at most `body_bytes_max(kind byte)`. Nothing is lost when the future is
    /// dropped.
    pub(crate) async fn next(
        &mut self,
        body_bytes_max: impl Fn(u8) -> usize,
    ) -> Result<(FrameKind, Bytes), ReadError> {
        loop {
            let bytes_max = self
                .buffer
                .get(KIND_AT)
                .map_or(usize::MAX, |kind| body_bytes_max(*kind));
            match wire::take_frame(&mut self.buffer, bytes_max)? {
                Taken::Frame(kind, body) => {
                    self.progressed = true;
                    return Ok((kind, body));
                }
                Taken::Missing(bytes) => self.fill(bytes).await?,
            }
        }
    }

    /// What a member says next, in a body of at most `body_bytes_max`. Nothing is lost when the future is dropped.
    pub(crate) async fn next_of_member(
        &mut self,
        dialect: Dialect<'_>,
        body_bytes_max: usize,
    ) -> Result<MemberFrame, ReadError> {
        let codec = match dialect {
            Dialect::Kvrep => {
                let (kind, body) = self.next(|kind| limit(kind, body_bytes_max)).await?;
                return match kind {
                    FrameKind::Peer => Ok(MemberFrame::Message(body)),
                    FrameKind::Handshake => Greeting::from_body(&body)
                        .map(MemberFrame::Greeting)
                        .ok_or(ReadError::Unexpected),
                    FrameKind::Request | FrameKind::Reply => Err(ReadError::Unexpected),
                };
            }
            Dialect::Own(codec) => codec,
        };
        self.next_encoded(codec, body_bytes_max).await
    }

    async fn next_encoded(
        &mut self,
        codec: &dyn Codec,
        body_bytes_max: usize,
    ) -> Result<MemberFrame, ReadError> {
        let bytes_max = codec.encoded_bytes_max(body_bytes_max.max(GREETING_BYTES_MAX));
        loop {
            if !self.buffer.is_empty()
                && let Some(frame) = codec.decode(&mut self.buffer)?
            {
                self.progressed = true;
                return match frame {
                    MemberFrame::Message(body) if body.len() > body_bytes_max => {
                        let bytes = body.len();
                        let bytes_max = body_bytes_max;
                        Err(FrameError::TooLarge { bytes, bytes_max }.into())
                    }
                    MemberFrame::Message(_) | MemberFrame::Greeting(_) => Ok(frame),
                };
            }
            let bytes = self.buffer.len();
            if bytes >= bytes_max {
                return Err(FrameError::TooLarge { bytes, bytes_max }.into());
            }
            self.fill(1).await?;
        }
    }

    /// Reads once; `missing` bytes are needed before anything can be done.
    async fn fill(&mut self, missing: usize) -> Result<(), ReadError> {
        if self.progressed {
            self.progressed = false;
            self.since = Instant::now();
        }
        let spare = self.buffer.capacity() - self.buffer.len();
        if spare < missing.max(self.chunk_bytes / 4) {
            self.buffer.reserve(missing.max(self.room_bytes));
        }
        let room = self.buffer.capacity() - self.buffer.len();
        let begun = !self.buffer.is_empty();
        let patience = if begun {
            self.patience.frame
        } else {
            self.patience.idle
        };
        let deadline = self.since + patience;
        if deadline < self.alarm.deadline() {
            self.alarm.as_mut().reset(deadline);
        }
        loop {
            tokio::select! {
                biased;
                read = self.from.read_buf(&mut self.buffer) => {
                    let read = read?;
                    if read == 0 {
                        return Err(ReadError::Ended);
                    }
                    if read == room {
                        self.room_bytes = (2 * self.room_bytes).min(ROOM_CHUNKS_MAX * self.chunk_bytes);
                    } else if read < self.chunk_bytes / 4 {
                        self.room_bytes = self.chunk_bytes;
                    }
                    if !begun {
                        self.since = Instant::now();
                    }
                    return Ok(());
                }
                () = self.alarm.as_mut() => {
                    // It was set for an earlier frame: only now is it worth a timer for this one.
                    if Instant::now() < deadline {
                        self.alarm.as_mut().reset(deadline);
                    } else if begun {
                        return Err(ReadError::Half(patience));
                    } else {
                        return Err(ReadError::Idle(patience));
                    }
                }
            }
        }
    }
}

fn limit(kind: u8, body_bytes_max: usize) -> usize {
    if kind == FrameKind::Handshake as u8 {
        GREETING_BYTES_MAX
    } else {
        body_bytes_max
    }
}

/// Room made at once at most, in chunks.
const ROOM_CHUNKS_MAX: usize = 16;
/// Where a frame's header has its kind.
const KIND_AT: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    const PATIENCE: Patience = Patience {
        idle: Duration::from_secs(10),
        frame: Duration::from_secs(2),
    };

    #[tokio::test(start_paused = true)]
    async fn half_a_frame_is_waited_for_shorter_than_the_next_one() {
        let (mut theirs, ours) = tokio::io::duplex(1024);
        let mut reader = FrameReader::new(ours, BytesMut::new(), 1024, PATIENCE);
        let frame = wire::encode_frame(FrameKind::Peer, b"body");
        tokio::time::sleep(Duration::from_secs(8)).await;
        theirs.write_all(&frame).await.unwrap();
        assert_eq!(reader.next(|_| 10).await.unwrap().1, "body");

        theirs.write_all(&frame[..7]).await.unwrap();
        let began = Instant::now();
        assert!(matches!(reader.next(|_| 10).await, Err(ReadError::Half(_))));
        assert_eq!(began.elapsed().as_secs(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_does_not_keep_half_a_frame_alive() {
        let (mut theirs, ours) = tokio::io::duplex(1024);
        let mut reader = FrameReader::new(ours, BytesMut::new(), 1024, PATIENCE);
        let frame = wire::encode_frame(FrameKind::Peer, &[0; 100]);
        let trickle = tokio::spawn(async move {
            for byte in frame {
                theirs.write_all(&[byte]).await.unwrap();
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        });
        assert!(matches!(
            reader.next(|_| 100).await,
            Err(ReadError::Half(_))
        ));
        trickle.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_after_the_idle_time() {
        let (_theirs, ours) = tokio::io::duplex(1024);
        let mut reader = FrameReader::new(ours, BytesMut::new(), 1024, PATIENCE);
        let began = Instant::now();
        assert!(matches!(reader.next(|_| 10).await, Err(ReadError::Idle(_))));
        assert_eq!(began.elapsed().as_secs(), 10);
    }
}
