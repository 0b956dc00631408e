//! What the loopback can carry: a bare TCP copy between two processes, written and read in the pieces that a transfer uses.

use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Instant;

const PIECE_BYTES: usize = 512 << 10;

/// Bytes per second from this process to another, which answers when it has all.
pub(crate) fn bare(bytes: u64) -> io::Result<f64> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg("sink")
        .stdout(Stdio::piped())
        .stdin(Stdio::null())
        .spawn()?;
    let mut address = String::new();
    let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    BufReader::new(stdout).read_line(&mut address)?;
    let mut stream = TcpStream::connect(address.trim())?;
    stream.write_all(&bytes.to_be_bytes())?;
    let piece = vec![7; PIECE_BYTES];
    let began = Instant::now();
    let mut left = bytes;
    while left > 0 {
        let n = left.min(PIECE_BYTES as u64);
        stream.write_all(&piece[..usize::try_from(n).unwrap_or(PIECE_BYTES)])?;
        left -= n;
    }
    stream.read_exact(&mut [0])?;
    let rate = bytes as f64 / began.elapsed().as_secs_f64();
    child.wait()?;
    Ok(rate)
}

/// The other end.
pub(crate) fn sink() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    let (mut stream, _) = listener.accept()?;
    let mut length = [0; 8];
    stream.read_exact(&mut length)?;
    let mut left = u64::from_be_bytes(length);
    let mut piece = vec![0; PIECE_BYTES];
    while left > 0 {
        let read = stream.read(&mut piece)?;
        if read == 0 {
            return Err("the copy ended early".into());
        }
        left -= read as u64;
    }
    stream.write_all(&[1])?;
    Ok(())
}
