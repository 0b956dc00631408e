//! Other protocols on the same port.

use async_trait::async_trait;
use bytes::Bytes;
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// Serves connections whose first bytes are not kvrep's: an application's own clients on the replica's port.
///
/// Protocols in which the server speaks first cannot be told apart from silence and are not supported: a connection
/// that sends nothing is closed at the handshake's deadline.
#[async_trait]
pub trait ForeignService: Send + Sync + 'static {
    /// Serves one connection until it ends; dropping the stream closes it. `first` are the bytes read already, at
    /// least one, maybe only part of the client's first message. The future is dropped when the transport closes.
    /// The transport bounds how many are served; deadlines and sizes are the service's business.
    async fn serve(&self, stream: TcpStream, first: Bytes, peer: SocketAddr);
}
