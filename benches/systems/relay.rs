//! One more hop, and nothing else: what it costs that a server passes writes on, whatever its wire.
//!
//! Clients send commands of the library to a relay, which carries them out over one connection of the library's to the primary, and sends the answers
//! back. Length and bytes, both ways.

use bytes::Bytes;
use kvrep_core::Client;
use kvrep_examples::common::runtime;
use kvrep_examples::zk_like_kv::table::Table;
use std::io;
use std::net::SocketAddr;
use std::thread::JoinHandle;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// On a thread of its own, as a server's would be.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Either end of a connection.
pub(crate) struct Wire {
    from: BufReader<OwnedReadHalf>,
    to: OwnedWriteHalf,
}

impl Relay {
    /// Relays to the replica that this link reaches.
    pub(crate) fn start(link: impl FnOnce() -> Client<Table> + Send + 'static) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let relaying = async move {
            tokio::select! {
                _ = stopped => {}
                ended = accept(listener, link()) => if let Err(why) = ended {
                    eprintln!("the relay ended: {why}");
                },
            }
        };
        let thread = std::thread::spawn(move || {
            if let Err(why) = runtime::run(&mut Builder::new_current_thread(), relaying) {
                eprintln!("the relay was not started: {why}");
            }
        });
        Ok(Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: std::net::TcpListener, client: Client<Table>) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        let client = client.clone();
        connections.spawn(async move {
            let mut wire = Wire::over(stream)?;
            while let Some(command) = wire.next().await? {
                let answer = client.execute_raw_at_most_once(command).await;
                wire.send(&answer.map_err(io::Error::other)?).await?;
            }
            io::Result::Ok(())
        });
    }
}

impl Wire {
    pub(crate) async fn to(relay: SocketAddr) -> io::Result<Self> {
        Self::over(TcpStream::connect(relay).await?)
    }

    fn over(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let (from, to) = stream.into_split();
        let from = BufReader::new(from);
        Ok(Self { from, to })
    }

    /// Nothing: the other end has closed it.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let length = match self.from.read_u32().await {
            Ok(length) => length as usize,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        };
        if length > BYTES_MAX {
            return Err(io::Error::other(format!("{length} bytes are too many")));
        }
        let mut bytes = vec![0; length];
        self.from.read_exact(&mut bytes).await?;
        Ok(Some(bytes.into()))
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        let frame = [&length.to_be_bytes(), bytes].concat();
        self.to.write_all(&frame).await
    }
}

const BYTES_MAX: usize = 64 << 10;
