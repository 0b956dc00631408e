//! Up to where timestamps may have been given: a number in a file, so that none is given twice, whoever stops.
//!
//! The table is in memory, as the text has it; its counter must outlive it. Writing each timestamp down would make every write wait for a
//! disk. So the leader writes down a bound that lies well ahead, and a new one when it comes near. What a life of it did not use up to
//! its bound is left out by the next one.
//!
//! # Invariants
//!
//! * A timestamp is given, and so can be seen by anybody, only when the bound in the file is at least as high and durable.
//! * The bound never goes down. A file that cannot be read as a bound stops the start: guessing could repeat timestamps.
//!
//! Caveats: whoever deletes the file, or starts the leader in another directory, gives this up if all three servers were stopped. A disk
//! that fails later stops no writes, since the table does not need it; the operator is told what that means.

use super::failures::of_io;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// The bound of the leader at one address.
#[derive(Debug)]
pub struct Given {
    file: PathBuf,
    up_to: u64,
    /// What it had left.
    left: Left,
}

/// What an earlier life of the leader has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// A bound.
    Bound,
    /// No file: to this directory the leader is new.
    Nothing,
}

impl Given {
    /// What the leader at this address has left in this directory; 0 if nothing.
    ///
    /// # Errors
    /// What is wrong with directory or file, and what to do, in words for the operator.
    pub fn open(directory: &Path, leader: SocketAddr) -> Result<Self, String> {
        usable(directory)?;
        let name = format!("zk-kv-{}-{}.timestamps", leader.ip(), leader.port());
        let file = directory.join(name);
        let found = read(&file)?;
        let (up_to, left) = match found {
            Some(up_to) => (up_to, Left::Bound),
            None => (0, Left::Nothing),
        };
        let given = Self { file, up_to, left };
        // So that a directory that cannot be written is known now.
        given.write(up_to).map_err(|error| {
            let directory = directory.display();
            let error = of_io(&error);
            format!("não é possível escrever em {directory}: {error}; escolha outro diretório com --dados")
        })?;
        Ok(given)
    }

    /// No timestamp above this one has ever been given.
    #[must_use]
    pub fn up_to(&self) -> u64 {
        self.up_to
    }

    /// Where this leader's timestamps are noted and whether it found any there, for an operator who wonders why they are so low.
    #[must_use]
    pub fn origin(&self) -> String {
        let file = std::path::absolute(&self.file).unwrap_or_else(|_| self.file.clone());
        let file = file.display();
        match self.left {
            Left::Bound => format!("ele continua os que anotou em {file}"),
            Left::Nothing => format!(
                "ele começou uma tabela nova e vazia, sem timestamps anotados em {file}; se havia outra, pare os três servidores e \
                 inicie-os no diretório de antes (--dados)"
            ),
        }
    }

    /// This timestamp is about to be given.
    pub fn cover(&mut self, timestamp: u64) {
        if timestamp <= self.up_to {
            return;
        }
        let up_to = timestamp.saturating_add(AHEAD);
        if let Err(error) = self.write(up_to) {
            let error = of_io(&error);
            eprintln!(
                "{}: {error}; se os três servidores pararem, timestamps a partir de {timestamp} podem repetir-se",
                self.file.display()
            );
        }
        self.up_to = up_to;
    }

    fn write(&self, up_to: u64) -> io::Result<()> {
        let directory = self.file.parent().unwrap_or(Path::new("."));
        let mut new = NamedTempFile::new_in(directory)?;
        writeln!(new, "{up_to}")?;
        new.as_file().sync_all()?;
        new.persist(&self.file).map_err(|error| error.error)?;
        File::open(directory)?.sync_all()
    }
}

/// Whether this is a directory at all.
fn usable(directory: &Path) -> Result<(), String> {
    let why = match fs::metadata(directory) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => "não é um diretório".into(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => "não existe; crie-o".into(),
        Err(error) => of_io(&error),
    };
    let directory = directory.display();
    Err(format!(
        "{directory}: {why}; ou escolha outro diretório com --dados"
    ))
}

fn read(file: &Path) -> Result<Option<u64>, String> {
    let unreadable = |why: String| {
        let file = file.display();
        Err(format!(
            "{file}: {why}; apague-o só se nenhum cliente se lembra de timestamps deste líder"
        ))
    };
    if let Err(error) = fs::metadata(file)
        && error.kind() == io::ErrorKind::NotFound
    {
        return Ok(None);
    }
    let mut text = String::new();
    let read =
        File::open(file).and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text));
    match (read, text.trim_end().parse()) {
        (Ok(_), Ok(up_to)) => Ok(Some(up_to)),
        (Ok(_), Err(_)) => unreadable("não contém um timestamp".into()),
        (Err(error), _) => unreadable(of_io(&error)),
    }
}

/// How far ahead the bound lies: one sync for so many writes, and so many timestamps at most that a stop leaves out.
pub const AHEAD: u64 = 100_000;
const FILE_BYTES_MAX: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn leader() -> SocketAddr {
        "127.0.0.1:10097".parse().unwrap()
    }

    #[test]
    fn what_was_given_is_covered_before_it_is_given_and_by_every_later_life() {
        let directory = tempfile::tempdir().unwrap();
        let open = || Given::open(directory.path(), leader()).unwrap();
        assert_eq!(open().up_to(), 0);
        let mut given = open();
        for timestamp in [1, 2, AHEAD, AHEAD + 1, AHEAD + 2, 10 * AHEAD] {
            given.cover(timestamp);
            assert!(open().up_to() >= timestamp);
            assert_eq!(open().up_to(), given.up_to());
        }
        let before = given.up_to();
        given.cover(5);
        assert_eq!(open().up_to(), before);
        let continued = open().origin();
        assert!(continued.contains("continua"), "{continued}");
        // Another leader's is another one's.
        let other = Given::open(directory.path(), "[::1]:10097".parse().unwrap());
        let other = other.unwrap();
        assert_eq!(other.up_to(), 0);
        assert!(other.origin().contains("nova e vazia"));
    }

    #[test]
    fn a_file_or_directory_that_cannot_be_used_stops_the_start_with_a_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("zk-kv-127.0.0.1-10097.timestamps");
        for text in ["", "x\n", "-1\n", "1 2\n", "99999999999999999999\n"] {
            fs::write(&file, text).unwrap();
            let why = Given::open(directory.path(), leader()).unwrap_err();
            assert!(why.contains("apague-o só se"), "{text:?}: {why}");
        }
        fs::write(&file, "7\n").unwrap();
        assert_eq!(Given::open(directory.path(), leader()).unwrap().up_to(), 7);
        for (no_directory, what) in [
            (directory.path().join("missing"), "não existe"),
            (file.clone(), "não é um diretório"),
            (file.join("below"), "--dados"),
        ] {
            let why = Given::open(&no_directory, leader()).unwrap_err();
            assert!(why.contains("--dados") && why.contains(what), "{why}");
            // The advice about the file is for the file.
            assert!(!why.contains("apague"), "{why}");
        }
    }
}
