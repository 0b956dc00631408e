//! What a server remembers of the pair besides its log: who it is, who the other one is, and what they had agreed on last.
//!
//! Arguments make a server primary only at its first start, that is with an empty directory; later this is what counts. One
//! small file, replaced as a whole, so that a crash leaves the old or the new one. With `--durable` the log is beside it.
//!
//! Where a later one cannot be written, it gets another name ([`StateDir::mark_outdated`]), which takes no room on a full disk.

use crate::common::log_dir;
use kvrep_core::storage::wal::has_log;
use kvrep_core::{Configuration, ReplicaId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A server's directory, which is this process's alone as long as it lives.
#[derive(Clone, Debug)]
pub struct StateDir {
    path: PathBuf,
    /// Held, not used: the lock goes with it.
    _lock: Arc<File>,
}

/// What is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The server's port; a directory is one server's.
    pub port: u16,
    /// Which replica it is.
    pub replica: u32,
    /// Whether its log is here.
    pub durable: bool,
    /// Which replica the other server is, once that is known.
    pub peer: Option<u32>,
    /// Where it listens.
    pub peer_address: Option<String>,
    /// The last term that was agreed on, for people.
    pub term: String,
    /// Who had everything then.
    pub in_sync: Vec<u32>,
    /// The pair's witness, since this server belongs to it.
    #[serde(default)]
    pub witness: Option<String>,
    /// The other servers that were heard of, the latest last: one that took a place in the pair, one that waits for one.
    #[serde(default)]
    pub others: Vec<Other>,
    /// A later one could not be written: who had everything last is not known, and it may have been this server alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub outdated: bool,
}

/// Another server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Other {
    /// Which replica it is.
    pub replica: u32,
    /// Where it listens.
    pub address: String,
}

/// What to do about a directory that the system refuses.
fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "make room on it, or move the directory as a whole (in another one, which is empty, this server would begin an EMPTY table)"
        }
        _ => "choose another directory with --data",
    }
}

/// Why a directory cannot be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateDirError {
    /// The system refused it.
    #[error("cannot use {}: {source}; {}", .path.display(), advice(source))]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Whether there is a log in it is not known.
    #[error("cannot read the log, {}: {source}; {}. This server was not started", .path.display(), log_dir::advice(source, "this server", "another directory with --data"))]
    Log {
        /// The log's directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has it.
    #[error("{} is in use: a table-server runs with it already. This one was not started, and changed nothing there. Stop the one that runs first, or choose another directory with --data", .path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// It is not what this program writes.
    #[error("{} is damaged ({why}); restore it, or join the other server anew: start with an empty directory and the other server's address as argument (without it this one would begin an empty table)", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How so.
        why: String,
    },
}

impl Record {
    /// Of a server that begins.
    #[must_use]
    pub fn new(port: u16, replica: ReplicaId, durable: Durability) -> Self {
        Self {
            port,
            replica: replica.0,
            durable: durable == Durability::Log,
            peer: None,
            peer_address: None,
            term: String::new(),
            in_sync: Vec::new(),
            witness: None,
            others: Vec::new(),
            outdated: false,
        }
    }

    /// Where its table is kept.
    #[must_use]
    pub fn durability(&self) -> Durability {
        if self.durable {
            Durability::Log
        } else {
            Durability::Memory
        }
    }

    /// The witness, when `said` is what the arguments say: what was said once need not be said again. `file` is where this is written, for people.
    ///
    /// # Errors
    /// Another one is said now: what to do.
    pub fn witness(&self, said: Option<&str>, file: &Path) -> Result<Option<String>, String> {
        match (&self.witness, said) {
            (Some(before), Some(now)) if before != now => Err(format!(
                "this server's table has had the witness at {before}, and now --witness {now} is said. Leave it out, or correct it; if the witness has moved, stop both servers and write its new address into {}, at both. This server was not started",
                file.display()
            )),
            (before, said) => Ok(before.clone().or(said.map(str::to_owned))),
        }
    }

    /// Every other server that is known, with its address.
    #[must_use]
    pub fn known(&self) -> BTreeMap<ReplicaId, String> {
        let others = self.others.iter();
        let others = others.map(|other| (ReplicaId(other.replica), other.address.clone()));
        let peer = self.peer.map(ReplicaId).zip(self.peer_address.clone());
        others.chain(peer).collect()
    }

    /// There is a server of this table there. Of many the oldest is forgotten.
    pub fn hear_of(&mut self, replica: ReplicaId, address: &str) {
        let known = |other: &Other| other.replica == replica.0 && other.address == address;
        if replica.0 == self.replica || self.others.iter().any(known) {
            return;
        }
        self.others.retain(|other| other.replica != replica.0);
        if self.others.len() >= OTHERS_MAX {
            self.others.remove(0);
        }
        self.others.push(Other {
            replica: replica.0,
            address: address.to_owned(),
        });
    }

    /// Takes over what the pair agrees on now; the other server's address where it is known. Whether anything is new.
    pub fn learn(
        &mut self,
        configuration: &Configuration,
        address_of: impl Fn(ReplicaId) -> Option<String>,
    ) -> bool {
        let before = self.clone();
        let other = configuration.members.keys().find(|id| id.0 != self.replica);
        if let Some(other) = other {
            // It may have taken the place of one that has more than it when it is heard of again.
            let mut known = self.known();
            if self.peer != Some(other.0) {
                for (former, address) in &known {
                    self.hear_of(*former, address);
                }
            }
            let known = known.remove(other);
            self.peer = Some(other.0);
            self.peer_address = address_of(*other).or(known);
        }
        self.term = configuration.term.to_string();
        self.in_sync = configuration.in_sync.keys().map(|id| id.0).collect();
        self.outdated = false;
        *self != before
    }
}

/// Whether the table outlives the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// It does not: it is in memory.
    #[default]
    Memory,
    /// It does: there is a log.
    Log,
}

impl StateDir {
    /// The directory at this path, made if need be.
    ///
    /// # Errors
    /// See [`StateDirError`].
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StateDirError> {
        let path = path.into();
        // As a whole, for what is said of it: a relative one is another one elsewhere.
        let path = std::path::absolute(&path).unwrap_or(path);
        if let Err(source) = fs::create_dir_all(&path) {
            return Err(StateDirError::Io { path, source });
        }
        let lock = path.join(LOCK);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = match options.open(&lock) {
            Ok(file) => file,
            Err(source) => return Err(StateDirError::Io { path: lock, source }),
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StateDirError::InUse { path }),
            Err(TryLockError::Error(source)) => {
                return Err(StateDirError::Io { path: lock, source });
            }
        }
        Ok(Self {
            path,
            _lock: Arc::new(file),
        })
    }

    /// Where the log is kept.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Whether there is a log, and not only a directory for one.
    ///
    /// # Errors
    /// See [`StateDirError`].
    pub fn has_log(&self) -> Result<bool, StateDirError> {
        let path = self.log();
        has_log(&path).map_err(|source| StateDirError::Log { path, source })
    }

    /// Where the record is kept.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.path.join(FILE)
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A table is about to begin here. Until something is [written](Self::write) nothing was served, and what a log holds counts for nothing: it may be
    /// what the witness of another table has told.
    ///
    /// # Errors
    /// See [`StateDirError`].
    pub fn mark_beginning(&self) -> Result<(), StateDirError> {
        let path = self.path.join(BEGINNING);
        match File::create(&path).and_then(|file| file.sync_all()) {
            Ok(()) => Ok(()),
            Err(source) => Err(StateDirError::Io { path, source }),
        }
    }

    /// Where a beginning came to nothing, its log is removed, so that it does not stand in the way of the next.
    ///
    /// # Errors
    /// See [`StateDirError`].
    pub fn forget_vain_beginning(&self) -> Result<(), StateDirError> {
        let mark = self.path.join(BEGINNING);
        if !mark.exists() || self.file().exists() || self.outdated_file().exists() {
            return Ok(());
        }
        for removed in [fs::remove_dir_all(self.log()), fs::remove_file(&mark)] {
            match removed {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(source) => return Err(StateDirError::Io { path: mark, source }),
            }
        }
        Ok(())
    }

    /// What was remembered; `None` at the first start.
    ///
    /// # Errors
    /// See [`StateDirError`].
    pub fn read(&self) -> Result<Option<Record>, StateDirError> {
        if let Some(record) = Self::read_file(self.file())? {
            return Ok(Some(record));
        }
        let mut found = Self::read_file(self.outdated_file())?;
        found.iter_mut().for_each(|record| record.outdated = true);
        Ok(found)
    }

    fn read_file(path: PathBuf) -> Result<Option<Record>, StateDirError> {
        let size = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StateDirError::Io { path, source }),
        };
        if size > FILE_BYTES_MAX {
            let why = format!("{size} bytes");
            return Err(StateDirError::Damaged { path, why });
        }
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(source) => return Err(StateDirError::Io { path, source }),
        };
        match serde_json::from_slice(&bytes) {
            Ok(record) => Ok(Some(record)),
            Err(e) => Err(StateDirError::Damaged {
                path,
                why: e.to_string(),
            }),
        }
    }

    /// Remembers this instead, durably.
    ///
    /// # Errors
    /// See [`StateDirError`].
    pub fn write(&self, record: &Record) -> Result<(), StateDirError> {
        let (path, new) = (self.file(), self.path.join(FILE_NEW));
        let written = (|| {
            let bytes = serde_json::to_vec_pretty(record)?;
            let mut file = File::create(&new)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            for gone in [self.path.join(BEGINNING), self.outdated_file()] {
                match fs::remove_file(gone) {
                    Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
                    Ok(()) | Err(_) => {}
                }
            }
            File::open(&self.path)?.sync_all()
        })();
        written.map_err(|source| StateDirError::Io { path, source })
    }

    /// Nothing newer can be written than what is remembered: whoever reads it hears so.
    ///
    /// # Errors
    /// See [`StateDirError`].
    pub fn mark_outdated(&self) -> Result<(), StateDirError> {
        let path = self.file();
        let marked = match fs::rename(&path, self.outdated_file()) {
            // It was marked before.
            Err(e) if e.kind() == ErrorKind::NotFound && self.outdated_file().exists() => Ok(()),
            marked => marked,
        };
        let marked = marked.and_then(|()| File::open(&self.path)?.sync_all());
        marked.map_err(|source| StateDirError::Io { path, source })
    }

    fn outdated_file(&self) -> PathBuf {
        self.path.join(FILE_OUTDATED)
    }
}

const FILE: &str = "server.json";
const LOCK: &str = "lock";
/// Is there from the first start until the table has begun.
const BEGINNING: &str = "beginning";
/// Other servers that are remembered.
pub const OTHERS_MAX: usize = 16;
const FILE_NEW: &str = "server.json.new";
const FILE_OUTDATED: &str = "server.json.outdated";
const FILE_BYTES_MAX: u64 = 64 << 10;

#[cfg(test)]
#[path = "state_dir_tests.rs"]
mod tests;
