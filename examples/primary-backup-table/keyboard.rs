//! The lines that are typed to a server.

use tokio::io::{AsyncBufReadExt, BufReader, Stdin};

/// The lines that are typed. Its end neither ends the server nor keeps it busy.
pub(super) struct Keyboard {
    input: Option<BufReader<Stdin>>,
    line: Vec<u8>,
}

impl Keyboard {
    /// Of this process.
    #[must_use]
    pub(super) fn new() -> Self {
        Self {
            input: Some(BufReader::new(tokio::io::stdin())),
            line: Vec::new(),
        }
    }

    /// The next line; never, once there are no more. May be dropped at any await.
    pub(super) async fn line(&mut self) -> String {
        while let Some(input) = &mut self.input {
            let read = match input.fill_buf().await {
                Ok([]) | Err(_) => {
                    self.input = None;
                    break;
                }
                Ok(bytes) => bytes,
            };
            let end = read.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(read.len(), |end| end + 1);
            let room = LINE_BYTES_MAX.saturating_sub(self.line.len());
            self.line.extend_from_slice(&read[..taken.min(room)]);
            input.consume(taken);
            if end.is_some() {
                let line = String::from_utf8_lossy(&self.line).trim().to_owned();
                self.line.clear();
                return line;
            }
        }
        std::future::pending().await
    }
}

/// What is typed beyond this in one line is not kept.
const LINE_BYTES_MAX: usize = 4_096;
