//! The file system as the write-ahead log needs it, small enough to be replaced by one that tears writes.
//!
//! Durability follows POSIX, read strictly: what was written is durable once the *file* was synced, and that a file
//! exists under a name is durable once its *directory* was synced. [`OsFs`] is the real one; `MemFs` (features `sim`
//! and `testing`) loses, tears and refuses on purpose.
//!
//! A sync that failed says nothing about what is on the disk: it is never to be tried again on the same data.

use super::StorageError;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// A file system. Clones are handles on the same one.
///
/// ```
/// use kvrep_core::storage::fs::{Fs, FsFile, OsFs};
///
/// # let temporary = tempfile::tempdir().unwrap();
/// # let dir = temporary.path().join("data");
/// OsFs.create_dir(&dir).unwrap();
/// let file = OsFs.create(&dir.join("a")).unwrap();
/// file.write_at(0, b"content").unwrap();
/// file.sync().unwrap(); // the content is durable
/// OsFs.sync_dir(&dir).unwrap(); // and so is its name
/// assert_eq!(OsFs.list(&dir).unwrap(), ["a"]);
/// ```
pub trait Fs: Clone + Send + Sync + 'static {
    /// An open file.
    type File: FsFile;
    /// Holds a lock until it is dropped.
    type Lock: Send + 'static;

    /// Makes a directory and its parents, durably; nothing happens when it exists.
    ///
    /// # Errors
    /// Whatever the system says.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// The names in a directory, in order.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when there is no such directory; whatever the system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Opens a file for reading and writing; makes it, or empties it.
    ///
    /// # Errors
    /// Whatever the system says.
    fn create(&self, path: &Path) -> io::Result<Self::File>;

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// Whatever the system says.
    fn open(&self, path: &Path) -> io::Result<Self::File>;

    /// Renames a file, over one of that name if there is one.
    ///
    /// # Errors
    /// Whatever the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file; who has it open can go on reading.
    ///
    /// # Errors
    /// Whatever the system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// Final, as every failed sync.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Locks a file (made if need be) against every other process; `None` when another one has it.
    ///
    /// # Errors
    /// Whatever the system says.
    fn lock(&self, path: &Path) -> io::Result<Option<Self::Lock>>;
}

/// An open file. All calls name the place: there is no cursor.
pub trait FsFile: Send + Sync + 'static {
    /// Its length in bytes.
    ///
    /// # Errors
    /// Whatever the system says.
    fn size(&self) -> io::Result<u64>;

    /// Reads into `buffer`; fewer bytes only at the end.
    ///
    /// # Errors
    /// Whatever the system says.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// Some of it may have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the file, or extends it by zeros.
    ///
    /// # Errors
    /// Whatever the system says.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// Makes content and length durable.
    ///
    /// # Errors
    /// Final: what was written since the last success may be lost, and a second try would not notice.
    fn sync(&self) -> io::Result<()>;
}

/// The file system of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsFs;

impl Fs for OsFs {
    type File = OsFile;
    type Lock = File;

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let missing: Vec<&Path> = dir
            .ancestors()
            .take_while(|p| !p.as_os_str().is_empty() && !p.exists())
            .collect();
        fs::create_dir_all(dir)?;
        for made in missing.into_iter().rev() {
            match made.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => self.sync_dir(parent)?,
                Some(_) | None => self.sync_dir(Path::new("."))?,
            }
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn create(&self, path: &Path) -> io::Result<OsFile> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
            .map(OsFile::new)
    }

    fn open(&self, path: &Path) -> io::Result<OsFile> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map(OsFile::new)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    #[cfg(unix)]
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    // Elsewhere a directory cannot be opened as a file; the file system orders its own metadata.
    #[cfg(not(unix))]
    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<File>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// An open file of the operating system.
#[derive(Debug)]
pub struct OsFile {
    #[cfg(unix)]
    file: File,
    // Reads and writes move the cursor there.
    #[cfg(not(unix))]
    file: std::sync::Mutex<File>,
}

#[cfg(unix)]
impl OsFile {
    fn new(file: File) -> Self {
        Self { file }
    }
}

#[cfg(unix)]
impl FsFile for OsFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        use std::os::unix::fs::FileExt;
        let mut done = 0;
        while done < buffer.len() {
            match self.file.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&self.file, bytes, offset)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[cfg(not(unix))]
impl OsFile {
    fn new(file: File) -> Self {
        Self {
            file: std::sync::Mutex::new(file),
        }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, File> {
        self.file
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(not(unix))]
impl FsFile for OsFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.locked().metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        use std::io::{Read, Seek, SeekFrom};
        let mut file = self.locked();
        file.seek(SeekFrom::Start(offset))?;
        let mut done = 0;
        while done < buffer.len() {
            match file.read(&mut buffer[done..]) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        use std::io::{Seek, SeekFrom, Write};
        let mut file = self.locked();
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(bytes)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.locked().set_len(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.locked().sync_data()
    }
}

/// Names what was tried on which file when the system refuses.
pub(crate) fn io_error(
    action: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(io::Error) -> StorageError {
    let path = path.into();
    move |source| StorageError::Io {
        action,
        path,
        source,
    }
}

/// Reads a whole file of at most `bytes_max`.
pub(crate) fn read_whole<F: Fs>(
    fs: &F,
    path: &Path,
    bytes_max: u64,
) -> Result<Vec<u8>, StorageError> {
    let file = fs.open(path).map_err(io_error("open", path))?;
    let size = file.size().map_err(io_error("read the size of", path))?;
    if size > bytes_max {
        return Err(StorageError::Corrupt {
            path: path.into(),
            offset: bytes_max,
            what: format!("{size} bytes; such a file has at most {bytes_max}"),
            remedy: REMEDY.into(),
        });
    }
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
    let read = file
        .read_at(0, &mut bytes)
        .map_err(io_error("read", path))?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Puts a file of these bytes at `path`, atomically and durably.
pub(crate) fn replace<F: Fs>(fs: &F, path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
    let tmp = tmp_path(path);
    let file = fs.create(&tmp).map_err(io_error("create", &tmp))?;
    file.write_at(0, bytes).map_err(io_error("write", &tmp))?;
    file.sync().map_err(io_error("sync", &tmp))?;
    put_in_place(fs, &tmp, path)
}

/// Renames a synced file to its name and makes that durable.
pub(crate) fn put_in_place<F: Fs>(fs: &F, tmp: &Path, path: &Path) -> Result<(), StorageError> {
    fs.rename(tmp, path).map_err(io_error("rename to", path))?;
    let dir = path.parent().unwrap_or(Path::new("."));
    fs.sync_dir(dir).map_err(io_error("sync", dir))
}

/// Where a file is written before it gets its name.
pub(crate) fn tmp_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    PathBuf::from(name)
}

/// What to do about damage.
pub(crate) const REMEDY: &str = "While the other replicas have the data, let this one set the damaged files aside \
     (OnCorruption::SetAside) or move the directory away; it then rejoins as a new member and fetches everything \
     from the group. Otherwise restore the directory from a copy";
