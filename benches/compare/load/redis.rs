//! Clients of Redis: `SET` and `WAIT 2` leave with one write, as a pipelining client sends them.

use super::{Caller, Keys, Load, VALUE_BYTES};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The clients, each with a connection of its own.
pub(super) async fn connect(load: &Load) -> Result<Vec<Writer>, String> {
    let address = load.at.first().ok_or("where is Redis? (--at)")?;
    let mut writers = Vec::new();
    for n in 0..load.clients {
        writers.push(Writer {
            connection: Connection::open(address).await?,
            keys: Keys::of_client(n),
            value: [b'v'; VALUE_BYTES],
            request: Vec::new(),
        });
    }
    Ok(writers)
}

pub(super) struct Writer {
    connection: Connection,
    keys: Keys,
    value: [u8; VALUE_BYTES],
    request: Vec<u8>,
}

impl Caller for Writer {
    async fn call(&mut self) -> Result<(), String> {
        self.request.clear();
        command(&mut self.request, &[b"SET", &self.keys.next(), &self.value]);
        command(&mut self.request, &[b"WAIT", b"2", b"5000"]);
        let answer = self.connection.ask(&self.request, 2).await?;
        if answer == b"+OK\r\n:2\r\n" {
            Ok(())
        } else {
            Err(format!(
                "Redis answered {}",
                String::from_utf8_lossy(answer)
            ))
        }
    }
}

/// A connection that speaks RESP, as far as it is needed here.
pub(crate) struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: &str) -> Result<Self, String> {
        let stream = TcpStream::connect(address).await;
        let stream = stream.map_err(|e| format!("Redis at {address}: {e}"))?;
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        Ok(Self {
            stream,
            answer: Vec::with_capacity(4_096),
        })
    }

    /// What `INFO replication` says.
    pub(crate) async fn replication(&mut self) -> Result<String, String> {
        let mut request = Vec::new();
        command(&mut request, &[b"INFO", b"replication"]);
        // A bulk string: its length, then lines up to an empty one.
        self.send(&request).await?;
        while !self.answer.ends_with(b"\r\n\r\n") {
            self.read().await?;
        }
        Ok(String::from_utf8_lossy(&self.answer).into_owned())
    }

    /// Sends a request and reads as many lines as it is answered with.
    async fn ask(&mut self, request: &[u8], lines: usize) -> Result<&[u8], String> {
        self.send(request).await?;
        while self.answer.iter().filter(|byte| **byte == b'\n').count() < lines {
            self.read().await?;
        }
        Ok(&self.answer)
    }

    async fn send(&mut self, request: &[u8]) -> Result<(), String> {
        self.answer.clear();
        let sent = self.stream.write_all(request).await;
        sent.map_err(|e| format!("Redis: {e}"))
    }

    async fn read(&mut self) -> Result<(), String> {
        match self.stream.read_buf(&mut self.answer).await {
            Ok(0) => Err("Redis closed the connection".into()),
            Ok(_) if self.answer.len() > ANSWER_BYTES_MAX => Err("Redis answers too much".into()),
            Ok(_) => Ok(()),
            Err(error) => Err(format!("Redis: {error}")),
        }
    }
}

/// Appends a command in RESP.
fn command(out: &mut Vec<u8>, words: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

const ANSWER_BYTES_MAX: usize = 64 << 10;
