//! A socket that gathers small writes: they leave when the other side is listened to next, all together.
//!
//! The MQTT library flushes after every acknowledgement that is given by hand: a system call for each, and a packet. Its event
//! loop reads whenever it has nothing more to say; so that is when to send what was said.
//!
//! Invariants: bytes leave in the order in which they were written; no more than a limit is held, and then the writer waits
//! for the socket; what is held when the socket is dropped is still handed to the system, as far as it takes it.

use bytes::{Buf, BytesMut};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

pub(super) struct Gathering {
    socket: TcpStream,
    held: BytesMut,
}

impl Gathering {
    pub(super) fn new(socket: TcpStream) -> Self {
        Self {
            socket,
            held: BytesMut::new(),
        }
    }

    /// Sends what is held.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let sent = ready!(Pin::new(&mut self.socket).poll_write(context, &self.held))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.held.advance(sent);
        }
        Poll::Ready(Ok(()))
    }

    /// A broker that does not switch Nagle's algorithm off holds a message back until the one before it is acknowledged, which the system
    /// delays by up to 40 ms. It forgets that it was asked not to, so it is asked after every read.
    #[cfg(target_os = "linux")]
    fn acknowledge_at_once(&self) {
        if let Err(error) = socket2::SockRef::from(&self.socket).set_tcp_quickack(true) {
            tracing::trace!(%error, "cannot ask for acknowledgements at once");
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn acknowledge_at_once(&self) {}
}

impl AsyncRead for Gathering {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Its error is told; a socket that takes no more now wakes us when it does.
        if let Poll::Ready(Err(error)) = self.poll_send(context) {
            return Poll::Ready(Err(error));
        }
        let read = Pin::new(&mut self.socket).poll_read(context, buffer);
        if let Poll::Ready(Ok(())) = read {
            self.acknowledge_at_once();
        }
        read
    }
}

impl AsyncWrite for Gathering {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.held.len() + bytes.len() > HELD_BYTES_MAX {
            ready!(self.poll_send(context))?;
        }
        if bytes.len() > HELD_BYTES_MAX {
            return Pin::new(&mut self.socket).poll_write(context, bytes);
        }
        self.held.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(context))?;
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

impl Drop for Gathering {
    fn drop(&mut self) {
        // The last words before the end, a planned one: there is nobody left to wait for the rest.
        let _ = self.socket.try_write(&self.held);
    }
}

const HELD_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn pair() -> (Gathering, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await;
        let (far, _) = listener.accept().await.unwrap();
        (Gathering::new(near.unwrap()), far)
    }

    #[tokio::test]
    async fn what_is_written_leaves_when_it_is_read_next_and_when_it_ends() {
        let (mut near, mut far) = pair().await;
        for part in [&b"one "[..], b"two "] {
            near.write_all(part).await.unwrap();
            near.flush().await.unwrap();
        }
        assert_eq!(near.held, "one two ");
        let mut told = [0; 8];
        let mut nothing = [0; 1];
        tokio::select! {
            _ = near.read(&mut nothing) => unreachable!("nothing was said"),
            read = far.read_exact(&mut told) => drop(read.unwrap()),
        }
        assert_eq!(&told, b"one two ");
        near.write_all(b"last").await.unwrap();
        drop(near);
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"last");
    }

    #[tokio::test]
    async fn large_and_small_writes_keep_their_order_and_no_more_than_the_limit_is_held() {
        let (mut near, mut far) = pair().await;
        let parts: Vec<Vec<u8>> = (1..60_u8)
            .map(|n| vec![n; usize::from(n % 7) * 20_000 + 1])
            .collect();
        let expected = parts.concat();
        let writing = tokio::spawn(async move {
            for part in parts {
                near.write_all(&part).await.unwrap();
                assert!(near.held.len() <= HELD_BYTES_MAX);
            }
            near.shutdown().await.unwrap();
            near
        });
        let mut read = Vec::new();
        far.read_to_end(&mut read).await.unwrap();
        assert!(read == expected, "in another order");
        drop(writing.await.unwrap());
    }
}
