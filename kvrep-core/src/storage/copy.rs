//! A copy of a replica's state, to be kept elsewhere: a backup.
//!
//! ```text
//! directory/
//!   kvrep.copy   magic "KVRPCPY2" | length of the head u32
//!                | group u64 | replica u32 | last (28 bytes) | bytes u64 | digest u64 | hard state …
//!                | crc32 u32 | state …
//! ```
//!
//! The state is the one at an exact index, with the clients' sessions, so a copy is a prefix of the group's history and
//! knows which one. The head is written last, and the file gets its name when all of it is durable: a directory with a
//! file of that name holds a whole copy, or a damaged one, which its checksums tell.
//!
//! What a replica does that starts from a copy: it installs the state as a snapshot into a storage that is **new**, with
//! an identity of its own. To the group it is a member that knows nothing of what came after the copy, and counts only
//! when it has caught up. The head also keeps what the scheme must know then (its hard state: terms and configuration),
//! so that the replica takes neither the group for a new one nor an old term for a new one.

use super::fs::{Fs, FsFile, OsFs, io_error, put_in_place, tmp_path};
use super::{Recovered, SnapshotMeta, Storage, StorageError, StorageOp, Tail};
use crate::id::{GroupId, Index, LogPoint, ReplicaId, Term};
use crate::state_machine::FrozenState;
use bytes::{Buf, BufMut, Bytes};
use std::fmt;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

/// What a copy is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyInfo {
    /// The group.
    pub group: GroupId,
    /// The replica that wrote it.
    pub replica: ReplicaId,
    /// The last entry whose effect is in it.
    pub last: LogPoint,
    /// Size of the state in bytes.
    pub bytes: u64,
    /// XXH3-64 of the state's bytes.
    pub digest: u64,
}

impl CopyInfo {
    fn meta(&self) -> SnapshotMeta {
        SnapshotMeta {
            last: self.last,
            bytes: self.bytes,
            digest: self.digest,
        }
    }
}

/// Why there is no copy. The directory holds none then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// Something is there already; it was not touched.
    #[error("{path} is not empty (it holds {found:?}): name a new directory for each copy")]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// The first name in it.
        found: String,
    },
    /// This replica has carried out nothing yet, or is a witness.
    #[error("there is nothing to copy: this replica has applied no entry")]
    Nothing,
    /// Another copy is being written by this node. Retry when it is done.
    #[error("busy: this node is writing another copy")]
    Busy,
    /// The state machine cannot write its state.
    #[error("the state cannot be written: {0}")]
    State(io::Error),
    /// The file system refused.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The node has stopped.
    #[error("the node has stopped")]
    Stopped,
}

/// Why a replica does not start from a copy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FromCopyError {
    /// There is no copy.
    #[error(
        "{path} holds no copy ({NAME} is missing): name the directory that Node::copy_to wrote"
    )]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// It is not what was written.
    #[error("the copy in {path} is damaged: {what}. Take another one")]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// It is of another group.
    #[error(
        "the copy in {path} is of group {found:016x}, this is {wanted:016x}: check the group's name"
    )]
    OtherGroup {
        /// The directory.
        path: PathBuf,
        /// Number of the group that it is of.
        found: u64,
        /// Number of this group.
        wanted: u64,
    },
    /// The replica has data of its own, which were not touched.
    #[error(
        "this replica already holds data up to {last}: a copy is for an empty one. \
         Start without the copy, or with an empty directory"
    )]
    NotEmpty {
        /// The end of its log.
        last: Index,
    },
    /// The file system, or the replica's storage, refused.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Where a copy comes from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The group.
    pub group: GroupId,
    /// The replica that writes it.
    pub replica: ReplicaId,
    /// The last entry whose effect is in it.
    pub last: LogPoint,
    /// What the scheme has to know when it starts from it
    /// ([`Protocol::hard_state_for_copy`](crate::protocol::Protocol::hard_state_for_copy)).
    pub hard_state: Bytes,
}

/// Writes a copy into `dir`, which is made where there is none and must be empty.
///
/// # Errors
/// [`CopyError`]: the directory holds no copy.
pub fn write<F: Fs>(
    fs: &F,
    dir: &Path,
    origin: &Origin,
    state: FrozenState,
) -> Result<CopyInfo, CopyError> {
    fs.create_dir(dir).map_err(io_error("create", dir))?;
    let path = dir.join(NAME);
    let tmp = tmp_path(&path);
    let names = fs.list(dir).map_err(io_error("list", dir))?;
    // What an attempt left that ended with the process is nobody's.
    if let Some(found) = names.into_iter().find(|name| dir.join(name) != tmp) {
        let path = dir.into();
        return Err(CopyError::NotEmpty { path, found });
    }
    let file = fs.create(&tmp).map_err(io_error("create", &tmp))?;
    let written = write_file(&file, &tmp, origin, state);
    let placed = written.and_then(|info| {
        put_in_place(fs, &tmp, &path)?;
        Ok(info)
    });
    if placed.is_err() {
        // The first error is the one to tell.
        let _ = fs.remove(&tmp);
    }
    placed
}

fn write_file<File: FsFile>(
    file: &File,
    path: &Path,
    origin: &Origin,
    state: FrozenState,
) -> Result<CopyInfo, CopyError> {
    let mut info = CopyInfo {
        group: origin.group,
        replica: origin.replica,
        last: origin.last,
        bytes: 0,
        digest: 0,
    };
    let start = encode(&info, &origin.hard_state).len() as u64;
    let output = Output {
        file,
        offset: start,
        hasher: Box::new(Xxh3::new()),
    };
    let mut output = BufWriter::with_capacity(PIECE_BYTES, output);
    state(&mut output).map_err(CopyError::State)?;
    let output = output
        .into_inner()
        .map_err(|e| CopyError::State(e.into_error()))?;
    info.bytes = output.offset - start;
    info.digest = output.hasher.digest();
    file.write_at(0, &encode(&info, &origin.hard_state))
        .and_then(|()| file.sync())
        .map_err(io_error("write", path))?;
    Ok(info)
}

/// Writes behind the head, and hashes.
struct Output<'a, File> {
    file: &'a File,
    offset: u64,
    hasher: Box<Xxh3>,
}

impl<File: FsFile> Write for Output<'_, File> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_at(self.offset, bytes)?;
        self.hasher.update(bytes);
        self.offset += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A copy found whole.
///
/// ```no_run
/// use kvrep_core::storage::copy::StateCopy;
///
/// let copy = StateCopy::open("/backup/orders-2026-11-21")?; // reads and checks all of it
/// println!("the state after entry {}, {} bytes", copy.info().last.index, copy.info().bytes);
/// # Ok::<(), kvrep_core::storage::copy::FromCopyError>(())
/// ```
pub struct StateCopy<F: Fs = OsFs> {
    dir: PathBuf,
    file: F::File,
    info: CopyInfo,
    hard_state: Bytes,
    start: u64,
}

impl StateCopy {
    /// The copy in a directory of the operating system's file system, read and checked from end to end.
    ///
    /// # Errors
    /// [`FromCopyError`]: it is not there, or not whole.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, FromCopyError> {
        Self::open_in(&OsFs, dir)
    }
}

impl<F: Fs> StateCopy<F> {
    /// The same in a directory of `fs`.
    ///
    /// # Errors
    /// [`FromCopyError`]: it is not there, or not whole.
    pub fn open_in(fs: &F, dir: impl Into<PathBuf>) -> Result<Self, FromCopyError> {
        let dir = dir.into();
        let path = dir.join(NAME);
        let file = match fs.open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(FromCopyError::Missing { path: dir });
            }
            Err(e) => return Err(io_error("open", &path)(e).into()),
        };
        let mut front = [0; FRONT_BYTES];
        read(&file, &path, 0, &mut front)?;
        let damaged = |what: &str| FromCopyError::Damaged {
            path: dir.clone(),
            what: what.into(),
        };
        let head_bytes = (&front[8..]).get_u32() as usize;
        if front[..7] == MAGIC[..7] && front[7] != MAGIC[7] {
            return Err(damaged(&format!(
                "version {} of the format, this is {}",
                front[7], MAGIC[7]
            )));
        }
        if front[..8] != MAGIC || !(HEAD_BYTES_MIN..=HEAD_BYTES_MAX).contains(&head_bytes) {
            return Err(damaged("its beginning is not that of a copy"));
        }
        let mut head = vec![0; head_bytes];
        read(&file, &path, 0, &mut head)?;
        let (info, hard_state) =
            decode(&head).ok_or_else(|| damaged("its head does not match its checksum"))?;
        let copy = Self {
            file,
            info,
            hard_state,
            start: head_bytes as u64,
            dir: dir.clone(),
        };
        let size = copy
            .file
            .size()
            .map_err(io_error("read the size of", &path))?;
        if size != info.bytes.saturating_add(copy.start) {
            return Err(damaged("it is not as long as its head says"));
        }
        let mut hasher = Xxh3::new();
        copy.for_each_piece(|_, piece| {
            hasher.update(&piece);
            Ok(())
        })?;
        if hasher.digest() != info.digest {
            return Err(damaged("the state does not match its digest"));
        }
        Ok(copy)
    }

    /// What it is a copy of.
    #[must_use]
    pub fn info(&self) -> &CopyInfo {
        &self.info
    }

    /// Installs it as the snapshot of a storage that was just opened and is empty, durably.
    ///
    /// # Errors
    /// [`FromCopyError`]: of another group, or the storage is not empty: nothing was changed. After an error of the storage
    /// it is as empty as before, or has the copy.
    pub fn install(
        &self,
        group: GroupId,
        storage: &mut dyn Storage,
        found: &mut Recovered,
    ) -> Result<(), FromCopyError> {
        if self.info.group != group {
            return Err(FromCopyError::OtherGroup {
                path: self.dir.clone(),
                found: self.info.group.0,
                wanted: group.0,
            });
        }
        let last = found.entries.last().map_or(found.base, crate::Entry::point);
        // An attempt that ended with the process may have left the hard state alone.
        let known = found.hard_state.as_ref();
        let strange = known.is_some_and(|known| *known != self.hard_state);
        if last.index > Index::ZERO || found.snapshot.is_some() || strange {
            let last = last.index;
            return Err(FromCopyError::NotEmpty { last });
        }
        let meta = self.info.meta();
        self.for_each_piece(|offset, data| {
            storage.write(vec![StorageOp::SnapshotChunk { meta, offset, data }])?;
            Ok(())
        })?;
        // In this order: who has the state without the hard state would take its group for a new one.
        let hard_state = StorageOp::HardState(self.hard_state.clone());
        let install = StorageOp::InstallSnapshot {
            meta,
            tail: Tail::Drop,
        };
        storage.write(vec![hard_state, install])?;
        storage.sync()?;
        found.hard_state = Some(self.hard_state.clone());
        found.snapshot = Some(meta);
        found.base = meta.last;
        Ok(())
    }

    /// Hands out the state piece by piece.
    fn for_each_piece(
        &self,
        mut take: impl FnMut(u64, Bytes) -> Result<(), StorageError>,
    ) -> Result<(), FromCopyError> {
        let path = self.dir.join(NAME);
        let mut offset = 0;
        while offset < self.info.bytes {
            let left = usize::try_from(self.info.bytes - offset).unwrap_or(usize::MAX);
            let mut piece = vec![0; left.min(PIECE_BYTES)];
            let got = read(&self.file, &path, self.start + offset, &mut piece)?;
            if got < piece.len() {
                return Err(FromCopyError::Damaged {
                    path: self.dir.clone(),
                    what: "it ends early".into(),
                });
            }
            take(offset, piece.into())?;
            offset += got as u64;
        }
        Ok(())
    }
}

impl<F: Fs> fmt::Debug for StateCopy<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StateCopy({}, {:?})", self.dir.display(), self.info)
    }
}

fn read<File: FsFile>(
    file: &File,
    path: &Path,
    offset: u64,
    into: &mut [u8],
) -> Result<usize, StorageError> {
    file.read_at(offset, into).map_err(io_error("read", path))
}

fn encode(info: &CopyInfo, hard_state: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD_BYTES_MIN + hard_state.len());
    let length = HEAD_BYTES_MIN + hard_state.len();
    out.put_slice(&MAGIC);
    out.put_u32(u32::try_from(length).expect("a hard state is small"));
    out.put_u64(info.group.0);
    out.put_u32(info.replica.0);
    out.put_u64(info.last.term.number);
    out.put_u32(info.last.term.replica.0);
    out.put_u64(info.last.index.0);
    out.put_u64(info.last.hash);
    out.put_u64(info.bytes);
    out.put_u64(info.digest);
    out.put_slice(hard_state);
    let crc = crc32fast::hash(&out);
    out.put_u32(crc);
    out
}

fn decode(head: &[u8]) -> Option<(CopyInfo, Bytes)> {
    let (covered, mut crc) = head.split_at_checked(head.len().checked_sub(4)?)?;
    if head.len() < HEAD_BYTES_MIN || crc.get_u32() != crc32fast::hash(covered) {
        return None;
    }
    let mut rest = &covered[FRONT_BYTES..];
    let info = CopyInfo {
        group: GroupId(rest.get_u64()),
        replica: ReplicaId(rest.get_u32()),
        last: LogPoint {
            term: Term {
                number: rest.get_u64(),
                replica: ReplicaId(rest.get_u32()),
            },
            index: Index(rest.get_u64()),
            hash: rest.get_u64(),
        },
        bytes: rest.get_u64(),
        digest: rest.get_u64(),
    };
    Some((info, Bytes::copy_from_slice(rest)))
}

/// The file's name.
const NAME: &str = "kvrep.copy";
const MAGIC: [u8; 8] = *b"KVRPCPY2";
const FRONT_BYTES: usize = 8 + 4;
/// A head with an empty hard state.
const HEAD_BYTES_MIN: usize = FRONT_BYTES + 8 + 4 + (8 + 4 + 8 + 8) + 8 + 8 + 4;
/// Far above every hard state.
const HEAD_BYTES_MAX: usize = 1 << 20;
/// Read and written at once.
const PIECE_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests;
