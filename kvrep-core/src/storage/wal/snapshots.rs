//! Snapshot files: written beside the log, made current by a rename.
//!
//! ```text
//! magic "KVRPSNP1" | store u64 | generation u64 | last (28 bytes) | bytes u64 | digest u64 | crc32 u32 | state …
//! ```
//!
//! The header is written last and synced with the state before the file gets its name, so a file with a snapshot's
//! name is complete or damaged. Which files count is the log's decision: each names a *generation*, and the log says
//! which one is valid. A history that is replaced (a reset, a snapshot installed) starts a new generation with one log
//! record; every older file, and every snapshot still being written, is void from then on.

use super::record::{POINT_BYTES, get_point, put_point};
use crate::id::{Incarnation, Index, LogPoint, StoreId};
use crate::storage::fs::{Fs, FsFile, REMEDY, io_error, put_in_place};
use crate::storage::{SnapshotMeta, SnapshotReader, SnapshotStore, SnapshotWriter, StorageError};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use xxhash_rust::xxh3::Xxh3;

/// The snapshots of a directory, shared by the log and whoever reads and writes snapshots beside it.
#[derive(Debug)]
pub(super) struct Snapshots<F: Fs> {
    fs: F,
    dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) store: StoreId,
    pub(super) incarnation: Incarnation,
    pub(super) generation: u64,
    pub(super) current: Option<(SnapshotMeta, PathBuf)>,
    /// Temporary files made in this life.
    made: u64,
}

impl<F: Fs> Snapshots<F> {
    pub(super) fn new(fs: F, dir: PathBuf) -> Arc<Self> {
        Arc::new(Self {
            fs,
            dir,
            state: Mutex::default(),
        })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the current one ends; nothing below can be asked of the log.
    pub(super) fn index(&self) -> Index {
        let state = self.state();
        state
            .current
            .as_ref()
            .map_or(Index::ZERO, |(meta, _)| meta.last.index)
    }

    /// Starts a file.
    pub(super) fn begin(self: &Arc<Self>, last: LogPoint) -> Result<Draft<F>, StorageError> {
        let (path, generation) = {
            let mut state = self.state();
            if state.incarnation == Incarnation::UNKNOWN {
                return Err(StorageError::Misuse(
                    "a snapshot of a storage not open".into(),
                ));
            }
            state.made += 1;
            let name = format!("snap-{}-{}.tmp", state.incarnation.0, state.made);
            (self.dir.join(name), state.generation)
        };
        let file = self.fs.create(&path).map_err(io_error("create", &path))?;
        Ok(Draft {
            snapshots: Arc::clone(self),
            file: Some(file),
            path,
            generation,
            last,
            bytes: 0,
            hasher: Box::new(Xxh3::new()),
            buffer: Vec::new(),
        })
    }

    /// Reads and verifies the snapshot in a file of this directory.
    pub(super) fn verify(&self, name: &str) -> Result<Verified, StorageError> {
        let path = self.dir.join(name);
        let file = self.fs.open(&path).map_err(io_error("open", &path))?;
        let size = file.size().map_err(io_error("read the size of", &path))?;
        let corrupt = |offset, what: &str| StorageError::Corrupt {
            path: path.clone(),
            offset,
            what: what.into(),
            remedy: REMEDY.into(),
        };
        let mut head = vec![0; HEADER_BYTES];
        file.read_at(0, &mut head)
            .map_err(io_error("read", &path))?;
        let header = FileHeader::decode(&head)
            .ok_or_else(|| corrupt(0, "the snapshot's header does not match its checksum"))?;
        if size != header.meta.bytes.saturating_add(HEADER_BYTES as u64) {
            return Err(corrupt(
                size,
                "the snapshot is not as long as its header says",
            ));
        }
        let mut hasher = Xxh3::new();
        let mut piece = vec![0; PIECE_BYTES.min(usize::try_from(size).unwrap_or(PIECE_BYTES))];
        let mut offset = HEADER_BYTES as u64;
        while offset < size {
            let read = file
                .read_at(offset, &mut piece)
                .map_err(io_error("read", &path))?;
            if read == 0 {
                return Err(corrupt(offset, "the snapshot ends early"));
            }
            hasher.update(&piece[..read]);
            offset += read as u64;
        }
        if hasher.digest() != header.meta.digest {
            return Err(corrupt(
                HEADER_BYTES as u64,
                "the snapshot does not match its digest",
            ));
        }
        Ok(Verified {
            store: header.store,
            generation: header.generation,
            meta: header.meta,
            path,
        })
    }
}

/// A snapshot file found whole.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) store: StoreId,
    pub(super) generation: u64,
    pub(super) meta: SnapshotMeta,
    pub(super) path: PathBuf,
}

/// Generation and index in the name of a snapshot file.
pub(super) fn place_of(name: &str) -> Option<(u64, Index)> {
    let (generation, index) = name
        .strip_prefix("snap-")?
        .strip_suffix(".snap")?
        .split_once('-')?;
    Some((generation.parse().ok()?, Index(index.parse().ok()?)))
}

/// A snapshot being written or received; dropped, it is discarded.
pub(super) struct Draft<F: Fs> {
    snapshots: Arc<Snapshots<F>>,
    /// Taken when the file has its name.
    file: Option<F::File>,
    path: PathBuf,
    generation: u64,
    last: LogPoint,
    bytes: u64,
    hasher: Box<Xxh3>,
    buffer: Vec<u8>,
}

impl<F: Fs> Draft<F> {
    /// How much it holds.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds to it.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_BYTES {
            self.write_out()?;
        }
        Ok(())
    }

    /// Which snapshot it is so far.
    pub(super) fn meta(&self) -> SnapshotMeta {
        SnapshotMeta {
            last: self.last,
            bytes: self.bytes,
            digest: self.hasher.digest(),
        }
    }

    /// Makes content and header durable; it has no name yet.
    fn seal(&mut self, generation: u64, store: StoreId) -> Result<(), StorageError> {
        self.write_out().map_err(io_error("write", &self.path))?;
        let header = FileHeader {
            store,
            generation,
            meta: self.meta(),
        };
        let Some(file) = &self.file else {
            return Ok(());
        };
        file.write_at(0, &header.encode())
            .and_then(|()| file.sync())
            .map_err(io_error("write", &self.path))
    }

    /// Gives it the name of a snapshot of `generation`. Which one is current is for the caller to say.
    pub(super) fn publish(
        mut self,
        generation: u64,
    ) -> Result<(SnapshotMeta, PathBuf), StorageError> {
        let store = self.snapshots.state().store;
        self.seal(generation, store)?;
        self.put_in_place(generation)
    }

    fn put_in_place(&mut self, generation: u64) -> Result<(SnapshotMeta, PathBuf), StorageError> {
        let name = format!("snap-{generation:010}-{:020}.snap", self.last.index.0);
        let path = self.snapshots.dir.join(name);
        put_in_place(&self.snapshots.fs, &self.path, &path)?;
        self.file = None;
        Ok((self.meta(), path))
    }

    fn write_out(&mut self) -> io::Result<()> {
        let offset = HEADER_BYTES as u64 + self.bytes - self.buffer.len() as u64;
        if let Some(file) = self.file.as_ref().filter(|_| !self.buffer.is_empty()) {
            file.write_at(offset, &self.buffer)?;
        }
        self.buffer.clear();
        Ok(())
    }
}

impl<F: Fs> Drop for Draft<F> {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // What cannot be removed is removed at the next start.
            let _ = self.snapshots.fs.remove(&self.path);
        }
    }
}

impl<F: Fs> io::Write for Draft<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.append(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<F: Fs> SnapshotWriter for Draft<F> {
    fn finish(mut self: Box<Self>) -> Result<SnapshotMeta, StorageError> {
        let (generation, store) = (self.generation, self.snapshots.state().store);
        self.seal(generation, store)?;
        let snapshots = Arc::clone(&self.snapshots);
        // Held over the rename, so that no reset comes between.
        let mut state = snapshots.state();
        if state.generation != generation {
            return Err(StorageError::Superseded);
        }
        if state
            .current
            .as_ref()
            .is_some_and(|(c, _)| c.last.index >= self.last.index)
        {
            return Ok(self.meta());
        }
        let (meta, path) = self.put_in_place(generation)?;
        if let Some((_, old)) = state.current.replace((meta, path)) {
            // A leftover is removed at the next start.
            let _ = snapshots.fs.remove(&old);
        }
        Ok(meta)
    }
}

/// The [`SnapshotStore`] of a directory.
pub(super) struct WalSnapshots<F: Fs>(pub(super) Arc<Snapshots<F>>);

impl<F: Fs> SnapshotStore for WalSnapshots<F> {
    fn create(&self, last: LogPoint) -> Result<Box<dyn SnapshotWriter>, StorageError> {
        Ok(Box::new(self.0.begin(last)?))
    }

    fn current(&self) -> Result<Option<Box<dyn SnapshotReader>>, StorageError> {
        // Held until it is open, so that a newer one does not remove it in between.
        let state = self.0.state();
        let Some((meta, path)) = state.current.clone() else {
            return Ok(None);
        };
        let file = self.0.fs.open(&path).map_err(io_error("open", &path))?;
        Ok(Some(Box::new(Reader { meta, file, path })))
    }
}

struct Reader<File> {
    meta: SnapshotMeta,
    file: File,
    path: PathBuf,
}

impl<File: FsFile> SnapshotReader for Reader<File> {
    fn meta(&self) -> SnapshotMeta {
        self.meta
    }

    fn read(&self, offset: u64, bytes_max: usize) -> Result<Bytes, StorageError> {
        let left = usize::try_from(self.meta.bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut piece = vec![0; left.min(bytes_max)];
        let read = self
            .file
            .read_at(
                HEADER_BYTES as u64 + offset.min(self.meta.bytes),
                &mut piece,
            )
            .map_err(io_error("read", &self.path))?;
        if read < piece.len() {
            return Err(StorageError::Corrupt {
                path: self.path.clone(),
                offset: offset + read as u64,
                what: "the snapshot ends early".into(),
                remedy: REMEDY.into(),
            });
        }
        Ok(piece.into())
    }
}

/// Copies a whole file, durably.
pub(super) fn copy<F: Fs>(fs: &F, from: &Path, to: &Path) -> Result<(), StorageError> {
    let source = fs.open(from).map_err(io_error("open", from))?;
    let target = fs.create(to).map_err(io_error("create", to))?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut offset = 0;
    loop {
        let read = source
            .read_at(offset, &mut piece)
            .map_err(io_error("read", from))?;
        if read == 0 {
            break;
        }
        target
            .write_at(offset, &piece[..read])
            .map_err(io_error("write", to))?;
        offset += read as u64;
    }
    target.sync().map_err(io_error("sync", to))?;
    let dir = to.parent().unwrap_or(Path::new("."));
    fs.sync_dir(dir).map_err(io_error("sync", dir))
}

pub(super) struct FileHeader {
    store: StoreId,
    generation: u64,
    meta: SnapshotMeta,
}

impl FileHeader {
    /// One for the tests of decoders.
    #[cfg(feature = "testing")]
    pub(super) fn sample() -> Self {
        let meta = SnapshotMeta {
            last: LogPoint::ZERO,
            bytes: 3,
            digest: 4,
        };
        Self {
            store: StoreId(1),
            generation: 2,
            meta,
        }
    }

    pub(super) fn encode(&self) -> BytesMut {
        let mut out = BytesMut::with_capacity(HEADER_BYTES);
        out.put_slice(&MAGIC);
        out.put_u64(self.store.0);
        out.put_u64(self.generation);
        put_point(&mut out, self.meta.last);
        out.put_u64(self.meta.bytes);
        out.put_u64(self.meta.digest);
        let crc = crc32fast::hash(&out);
        out.put_u32(crc);
        out
    }

    pub(super) fn decode(head: &[u8]) -> Option<Self> {
        if head.len() != HEADER_BYTES {
            return None;
        }
        let (covered, mut crc) = head.split_at(HEADER_BYTES - 4);
        if covered[..8] != MAGIC || crc.get_u32() != crc32fast::hash(covered) {
            return None;
        }
        let mut rest = Bytes::copy_from_slice(&covered[8..]);
        Some(Self {
            store: StoreId(rest.get_u64()),
            generation: rest.get_u64(),
            meta: SnapshotMeta {
                last: get_point(&mut rest)?,
                bytes: rest.get_u64(),
                digest: rest.get_u64(),
            },
        })
    }
}

const MAGIC: [u8; 8] = *b"KVRPSNP1";
const HEADER_BYTES: usize = 8 + 8 + 8 + POINT_BYTES + 8 + 8 + 4;
/// Written at once.
const BUFFER_BYTES: usize = 64 << 10;
/// Read at once.
const PIECE_BYTES: usize = 1 << 20;
