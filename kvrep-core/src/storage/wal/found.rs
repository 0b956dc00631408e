//! Whether there is a log in a directory, before one is opened: opening makes one where there is none.

use super::identity::{self, Identity};
use super::segment::number_of;
use super::snapshots::place_of;
use crate::id::Incarnation;
use crate::storage::StorageError;
use crate::storage::fs::{Fs, OsFs};
use std::io::{self, ErrorKind};
use std::path::Path;

/// Whether there is a log in `dir`, in whatever state, whosever it is: nothing is locked, changed or judged. A damaged one is one; what is wrong with it is said
/// when it is [opened](super::Wal). None are a directory that is empty, what a log leaves beside itself (`lock`, `aside`, `damaged-1`), and one that was still being made when
/// its process ended or the disk was full.
///
/// For programs that must know whether they have lost what they had.
///
/// # Errors
/// There is something, and it cannot be read, or `dir` is no directory.
///
/// ```
/// use kvrep_core::storage::Storage;
/// use kvrep_core::storage::wal::{Wal, WalOptions, has_log};
/// use kvrep_core::{GroupId, ReplicaId};
///
/// let dir = tempfile::tempdir().unwrap();
/// assert!(!has_log(dir.path()).unwrap());
/// let options = WalOptions::new(GroupId::named("counter"), ReplicaId(1), 7);
/// Wal::open_dir(dir.path(), options).open().unwrap();
/// assert!(has_log(dir.path()).unwrap());
/// ```
pub fn has_log(dir: &Path) -> io::Result<bool> {
    is_in(&OsFs, dir)
}

fn is_in<F: Fs>(fs: &F, dir: &Path) -> io::Result<bool> {
    let names = match fs.list(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
        names => names?,
    };
    if !names.iter().any(|name| name == identity::NAME) {
        let is_part = |name: &String| number_of(name).is_some() || place_of(name).is_some();
        return Ok(names.iter().any(is_part));
    }
    match Identity::read(fs, dir) {
        // The first and the last thing that is made of a log is its identity.
        Ok(identity) => Ok(identity.incarnation != Incarnation::UNKNOWN),
        Err(StorageError::Io { source, .. }) => Err(source),
        Err(_) => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{GroupId, ReplicaId};
    use crate::storage::Storage as _;
    use crate::storage::wal::{Wal, WalOptions};
    use std::fs;

    #[test]
    fn a_log_is_what_was_made_of_one_and_nothing_that_it_leaves_beside_it() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().join("log");
        let is_there = || has_log(&dir).unwrap();
        assert!(!is_there(), "nothing is there");
        fs::create_dir(&dir).unwrap();
        assert!(!is_there(), "it is empty");
        for left in ["lock", "identity.tmp"] {
            fs::write(dir.join(left), "").unwrap();
        }
        for left in ["aside", "damaged-1", "lost+found"] {
            fs::create_dir(dir.join(left)).unwrap();
        }
        assert!(!is_there(), "no log");
        let options = WalOptions::new(GroupId::named("g"), ReplicaId(1), 7);
        Wal::open_dir(&dir, options).open().unwrap();
        assert!(is_there());

        // It is damaged in either way, which is said when it is opened.
        let path = dir.join(identity::NAME);
        let whole = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(is_there(), "a segment");
        fs::write(&path, &whole[..10]).unwrap();
        assert!(is_there(), "a torn identity");
        fs::write(&path, &whole).unwrap();
        let mut unborn = Identity::read(&OsFs, &dir).unwrap();
        unborn.incarnation = Incarnation::UNKNOWN;
        unborn.write(&OsFs, &dir).unwrap();
        assert!(!is_there(), "it was never finished");
    }

    #[test]
    fn what_cannot_be_read_is_not_taken_for_nothing() {
        let temporary = tempfile::tempdir().unwrap();
        let file = temporary.path().join("log");
        fs::write(&file, "").unwrap();
        let why = has_log(&file).unwrap_err();
        assert_eq!(why.kind(), ErrorKind::NotADirectory);
    }
}
