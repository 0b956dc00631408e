//! Other protocols on the same port.

use async_trait::async_trait;
use bytes::Bytes;
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// Serves connections whose first bytes are not kvrep's: an application's own clients on the replica's port.
///
/// Protocols in which the server speaks first cannot be told apart from silence and are not supported: a connection
/// that sends nothing is closed at the handshake's deadline.
///
/// ```
/// use async_trait::async_trait;
/// use bytes::Bytes;
/// use kvrep_core::{Fold, Node, ReplicaId};
/// use kvrep_transport_tcp::{ForeignService, TcpConfig, TcpTransport};
/// use std::{net::SocketAddr, sync::Arc};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
/// use tokio::net::TcpStream;
///
/// /// Answers whatever it is asked.
/// struct Polite;
///
/// #[async_trait]
/// impl ForeignService for Polite {
///     async fn serve(&self, mut stream: TcpStream, _first: Bytes, _peer: SocketAddr) {
///         let _ = stream.write_all(b"HELLO\n").await; // who does not listen misses it
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let config = TcpConfig::new("127.0.0.1:0").foreign(Arc::new(Polite));
/// let transport = TcpTransport::bind(config).await?;
/// let address = transport.local_addr().unwrap();
/// let node = Node::builder("counter", ReplicaId(1))
///     .transport(transport)
///     .state_machine(Fold::new(0_i64, |sum, by: i64| *sum += by))
///     .start()
///     .await?;
///
/// let mut stranger = TcpStream::connect(address).await?;
/// stranger.write_all(b"hello\n").await?;
/// let mut answer = String::new();
/// stranger.read_to_string(&mut answer).await?;
/// assert_eq!(answer, "HELLO\n");
/// node.shutdown().await?;
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait ForeignService: Send + Sync + 'static {
    /// Serves one connection until it ends; dropping the stream closes it. `first` are the bytes read already, at
    /// least one, maybe only part of the client's first message. The future is dropped when the transport closes.
    /// The transport bounds how many are served; deadlines and sizes are the service's business.
    async fn serve(&self, stream: TcpStream, first: Bytes, peer: SocketAddr);
}
