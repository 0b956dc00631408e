//! Clients of whoever answers at once: what their connections cost. The other end is in `serve`.

use super::{Caller, Load, VALUE_BYTES};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The clients, each with a connection of its own.
pub(super) async fn connect(load: &Load) -> Result<Vec<Asker>, String> {
    let address = load.at.first().ok_or("where is the other side? (--at)")?;
    let mut askers = Vec::new();
    for _ in 0..load.clients {
        let stream = TcpStream::connect(address).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        askers.push(Asker {
            stream,
            message: [b'v'; VALUE_BYTES],
        });
    }
    Ok(askers)
}

pub(super) struct Asker {
    stream: TcpStream,
    message: [u8; VALUE_BYTES],
}

impl Caller for Asker {
    async fn call(&mut self) -> Result<(), String> {
        self.stream.write_all(&self.message).await.map_err(failed)?;
        let answer = self.stream.read_exact(&mut self.message).await;
        answer.map_err(failed)?;
        Ok(())
    }
}

fn failed(error: std::io::Error) -> String {
    format!("sockets alone: {error}")
}
