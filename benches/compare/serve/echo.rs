//! The bare exchange: two round trips, and where asked for three parallel fdatasyncs, with nothing else.
//!
//! The client sends a message to the first process; that sends it to the two others and appends it to its own file;
//! when both have answered, having appended it to theirs, it answers the client. That is what every write with three
//! synchronous copies must do. Blocking calls and plain threads: no runtime is between it and the system.

use super::until_input_ends;
use crate::load::VALUE_BYTES;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;

pub(super) fn run(
    listen: SocketAddr,
    ask: &[SocketAddr],
    data: Option<PathBuf>,
) -> Result<(), String> {
    let listener = TcpListener::bind(listen).map_err(|e| format!("{listen}: {e}"))?;
    let ask = ask.to_vec();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // One at a time: there is one client. Its end is no error.
            let _ = answer(stream, &ask, data.as_ref());
        }
    });
    until_input_ends();
    Ok(())
}

fn answer(mut from: TcpStream, ask: &[SocketAddr], data: Option<&PathBuf>) -> io::Result<()> {
    from.set_nodelay(true)?;
    let mut others = Vec::new();
    for other in ask {
        let stream = TcpStream::connect(other)?;
        stream.set_nodelay(true)?;
        others.push(stream);
    }
    let mut file = data.map(Appended::create).transpose()?;
    let mut message = [0; VALUE_BYTES];
    loop {
        from.read_exact(&mut message)?;
        for other in &mut others {
            other.write_all(&message)?;
        }
        if let Some(file) = &mut file {
            file.append(&message)?;
        }
        for other in &mut others {
            other.read_exact(&mut message)?;
        }
        from.write_all(&message)?;
    }
}

/// A file whose blocks are written before they are needed, as a log's are: fdatasync then has no size and no extent
/// to write.
struct Appended {
    file: File,
    at: u64,
}

impl Appended {
    fn create(path: &PathBuf) -> io::Result<Self> {
        let mut file = File::create(path)?;
        file.write_all(&vec![0; FILE_BYTES as usize])?;
        file.sync_all()?;
        Ok(Self { file, at: 0 })
    }

    fn append(&mut self, message: &[u8]) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        self.file.write_all_at(message, self.at)?;
        self.at = (self.at + message.len() as u64) % FILE_BYTES;
        self.file.sync_data()
    }
}

const FILE_BYTES: u64 = 32 << 20;
