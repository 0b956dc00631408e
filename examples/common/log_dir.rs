//! Whether the library's log is in a directory: a directory that is there is not enough.
//!
//! The names are those of kvrep-core's `storage::wal` (its module documentation lists them), which tells nobody before it opens a log, and opening makes one. Without an
//! `identity` and a segment it takes a directory for a new one. So what it leaves there besides (`lock`, `aside`, `damaged-1`) is no log, nor is one that was still being made
//! when the process ended or the disk was full.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::path::Path;

/// Whether there is a log in `dir`, in whatever state. A damaged one is one: the library says what is wrong with it.
///
/// # Errors
/// There is something, and it cannot be read, or is no directory.
pub fn has_log(dir: &Path) -> io::Result<bool> {
    let files = match fs::read_dir(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
        files => files?,
    };
    for file in files {
        if is_part(&file?.file_name().to_string_lossy()) {
            return Ok(!is_being_made(&dir.join(IDENTITY))?);
        }
    }
    Ok(false)
}

/// What to do where [`has_log`] fails; `who` has the log, and may choose something else by `elsewhere`.
#[must_use]
pub fn advice(error: &io::Error, who: &str, elsewhere: &str) -> String {
    match error.kind() {
        ErrorKind::NotADirectory => format!(
            "the log is kept in a directory of that name: move away what is there instead, and put the log back if {who} had one; or choose {elsewhere}"
        ),
        _ => format!("see to it that {who} may read that directory"),
    }
}

fn is_part(name: &str) -> bool {
    let numbered = |kind: &str, end: &str| name.starts_with(kind) && name.ends_with(end);
    name == IDENTITY || numbered("log-", ".wal") || numbered("snap-", ".snap")
}

/// The first and the last thing that is made of a log is its identity: at first without a number of its life.
fn is_being_made(identity: &Path) -> io::Result<bool> {
    let mut start = Vec::new();
    match File::open(identity) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
        file => file?.take(LIFE_ENDS).read_to_end(&mut start)?,
    };
    let life = start.strip_prefix(MAGIC).and_then(|rest| rest.get(20..));
    Ok(life == Some([0_u8; 8].as_slice()))
}

const IDENTITY: &str = "identity";
/// Behind it are the group (8 bytes), the replica (4), the storage (8) and the life (8).
const MAGIC: &[u8] = b"KVRPDIR2";
const LIFE_ENDS: u64 = 36;

#[cfg(test)]
mod tests {
    use super::*;
    use kvrep_core::storage::Storage as _;
    use kvrep_core::storage::wal::{Wal, WalOptions};
    use kvrep_core::{GroupId, ReplicaId};

    #[test]
    fn a_log_is_what_the_library_has_made_and_nothing_that_it_leaves_beside_it() {
        let temporary = tempfile::tempdir().expect("a directory");
        let dir = temporary.path().join("log");
        let is_there = || has_log(&dir).expect("readable");
        assert!(!is_there(), "nothing is there");
        fs::create_dir(&dir).expect("made");
        assert!(!is_there(), "it is empty");
        for left in ["lock", "identity.tmp"] {
            fs::write(dir.join(left), "").expect("written");
        }
        for left in ["aside", "damaged-1", "lost+found"] {
            fs::create_dir(dir.join(left)).expect("made");
        }
        assert!(!is_there(), "no log");
        let options = WalOptions::new(GroupId::named("g"), ReplicaId(1), 7);
        let mut log = Wal::open_dir(&dir, options);
        log.open().expect("a log");
        drop(log);
        assert!(is_there());

        // It is damaged in either way, which is the library's to say.
        let identity = dir.join(IDENTITY);
        let whole = fs::read(&identity).expect("an identity");
        fs::remove_file(&identity).expect("removed");
        assert!(is_there(), "a segment");
        fs::write(&identity, &whole[..10]).expect("written");
        assert!(is_there(), "a torn identity");
        let mut unborn = whole;
        unborn[28..36].fill(0);
        fs::write(&identity, unborn).expect("written");
        assert!(!is_there(), "it was never finished");
    }

    #[test]
    fn what_cannot_be_read_is_not_taken_for_nothing() {
        let temporary = tempfile::tempdir().expect("a directory");
        let file = temporary.path().join("log");
        fs::write(&file, "").expect("written");
        let why = has_log(&file).expect_err("a file");
        assert_eq!(why.kind(), ErrorKind::NotADirectory);
    }
}
