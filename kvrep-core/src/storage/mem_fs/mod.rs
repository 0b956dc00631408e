//! A disk in memory that loses, tears and refuses on purpose (features `sim` and `testing`).
//!
//! Every file has two contents: what a running process sees, and what is durable. Between them lie the writes since
//! the last sync, and at a [`crash`](MemFs::crash) each of them is, on its own, kept, lost, or torn: the order in which
//! a page cache is written back is nobody's promise. Names behave the same, except that they are journalled: a crash
//! keeps a prefix of the creations, renames and removals since the last [`Fs::sync_dir`].
//!
//! A sync that fails leaves what it should have written visible but never durable, as Linux does: whoever syncs again
//! and believes it loses data.
//!
//! Everything follows from the calls and the given random source; there is no clock and no thread. Directories
//! themselves are durable at once. Handles from before a crash are dead.

mod disk;

use super::fs::{Fs, FsFile};
use crate::random::Rng;
use disk::{Disk, FileState, NameOp};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A disk in memory. Clones are handles on the same disk, so it outlives the replica that uses it.
///
/// ```
/// # #[cfg(feature = "sim")] {
/// use kvrep_core::random::Rng;
/// use kvrep_core::storage::fs::{Fs, FsFile};
/// use kvrep_core::storage::mem_fs::MemFs;
///
/// let disk = MemFs::new();
/// let file = disk.create("a".as_ref()).unwrap();
/// file.write_at(0, b"synced").unwrap();
/// file.sync().unwrap();
/// disk.sync_dir("".as_ref()).unwrap();
/// disk.crash(&mut Rng::new(1));
/// assert_eq!(disk.contents("a").unwrap(), b"synced");
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct MemFs(Arc<Mutex<Disk>>);

impl MemFs {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Another disk with the same content, in the state it is in now; nothing done to one is seen on the other.
    #[must_use]
    pub fn fork(&self) -> Self {
        let mut disk = self.disk().clone();
        disk.locks.clear();
        Self(Arc::new(Mutex::new(disk)))
    }

    /// The power goes: what was not synced is kept, lost or torn as `rng` says; faults and locks are cleared and open
    /// files are dead.
    pub fn crash(&self, rng: &mut Rng) {
        let mut disk = self.disk();
        let kept = usize::try_from(rng.below(disk.journal.len() as u64 + 1)).unwrap_or(0);
        disk.commit_names(kept);
        disk.names = disk.durable_names.clone();
        disk.journal.clear();
        disk.forget_unnamed();
        for file in disk.files.values_mut() {
            for pending in std::mem::take(&mut file.pending) {
                file.durable.crash_with(&pending, rng);
            }
            file.seen = file.durable.clone();
        }
        disk.restart();
    }

    /// The process ends but the machine goes on: open files are dead and locks are free, nothing is lost.
    pub fn kill(&self) {
        self.disk().restart();
    }

    /// How many calls were made so far.
    #[must_use]
    pub fn ops(&self) -> u64 {
        self.disk().ops
    }

    /// The call number `op` (as [`ops`](Self::ops) counts, from 0) fails once.
    pub fn fail_at(&self, op: u64, kind: io::ErrorKind) {
        self.disk().fail_at = Some((op, kind));
    }

    /// From call number `op` on everything fails until [`crash`](Self::crash) or [`kill`](Self::kill).
    pub fn power_off_at(&self, op: u64) {
        self.disk().power_off_at = Some(op);
    }

    /// Writes beyond this many bytes in all files together are refused ([`io::ErrorKind::StorageFull`]).
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.disk().capacity_bytes = bytes;
    }

    /// The files that a process sees, with their lengths.
    #[must_use]
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let disk = self.disk();
        let sized = |(path, id): (&PathBuf, &u64)| (path.clone(), disk.files[id].seen.len);
        disk.names.iter().map(sized).collect()
    }

    /// What a process sees in a file.
    #[must_use]
    pub fn contents(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let disk = self.disk();
        let content = &disk.files[disk.names.get(path.as_ref())?].seen;
        let mut bytes = content.bytes.clone();
        bytes.resize(usize::try_from(content.len).ok()?, 0);
        Some(bytes)
    }

    /// The medium decays: flips a bit, in what is seen and in what is durable. Says whether there was such a bit.
    pub fn flip_bit(&self, path: impl AsRef<Path>, bit: u64) -> bool {
        self.damage(path.as_ref(), bit / 8, |byte| byte ^ (1 << (bit % 8)))
    }

    /// Cuts a file off, durably. Says whether there was one.
    pub fn cut_file(&self, path: impl AsRef<Path>, bytes: u64) -> bool {
        let mut disk = self.disk();
        let Some(file) = disk.named(path.as_ref()) else {
            return false;
        };
        file.seen.set_len(bytes);
        file.durable.set_len(bytes);
        file.pending.clear();
        true
    }

    fn damage(&self, path: &Path, offset: u64, change: impl Fn(u8) -> u8) -> bool {
        let mut disk = self.disk();
        let Some(file) = disk.named(path) else {
            return false;
        };
        let mut hit = false;
        for content in [&mut file.seen, &mut file.durable] {
            if offset < content.len {
                let mut byte = [0];
                content.read(offset, &mut byte);
                content.write(offset, &[change(byte[0])]);
                hit = true;
            }
        }
        hit
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fs for MemFs {
    type File = MemFile;
    type Lock = MemLock;

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.begin()?;
        disk.dirs.extend(dir.ancestors().map(Path::to_path_buf));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut disk = self.disk();
        disk.begin()?;
        if !dir.as_os_str().is_empty() && !disk.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let all = disk.names.keys().chain(&disk.dirs);
        let here = all.filter(|p| p.parent() == Some(dir));
        let names: BTreeSet<String> = here
            .filter_map(|p| Some(p.file_name()?.to_string_lossy().into_owned()))
            .collect();
        Ok(names.into_iter().collect())
    }

    fn create(&self, path: &Path) -> io::Result<MemFile> {
        let mut disk = self.disk();
        disk.begin()?;
        let id = if let Some(&id) = disk.names.get(path) {
            disk.set_len(id, 0);
            id
        } else {
            let id = disk.next_file;
            disk.next_file += 1;
            disk.files.insert(id, FileState::default());
            disk.rename_in_view(NameOp::Link(path.into(), id));
            id
        };
        Ok(self.handle(id, disk.life))
    }

    fn open(&self, path: &Path) -> io::Result<MemFile> {
        let mut disk = self.disk();
        disk.begin()?;
        let id = *disk.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.handle(id, disk.life))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.begin()?;
        if !disk.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        disk.rename_in_view(NameOp::Rename(from.into(), to.into()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.begin()?;
        if !disk.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        disk.rename_in_view(NameOp::Remove(path.into()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.begin()?;
        // The journal is one: what came before an operation in this directory is durable with it.
        let upto = disk.journal.iter().rposition(|op| op.touches(dir));
        disk.commit_names(upto.map_or(0, |i| i + 1));
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<MemLock>> {
        let mut disk = self.disk();
        disk.begin()?;
        if !disk.locks.insert(path.into()) {
            return Ok(None);
        }
        Ok(Some(MemLock {
            disk: self.clone(),
            path: path.into(),
            life: disk.life,
        }))
    }
}

impl MemFs {
    fn handle(&self, id: u64, life: u64) -> MemFile {
        MemFile {
            disk: self.clone(),
            id,
            life,
        }
    }
}

/// A lock on a [`MemFs`].
#[derive(Debug)]
pub struct MemLock {
    disk: MemFs,
    path: PathBuf,
    life: u64,
}

impl Drop for MemLock {
    fn drop(&mut self) {
        let mut disk = self.disk.disk();
        if disk.life == self.life {
            disk.locks.remove(&self.path);
        }
    }
}

/// A file open on a [`MemFs`].
#[derive(Debug)]
pub struct MemFile {
    disk: MemFs,
    id: u64,
    life: u64,
}

impl MemFile {
    fn begin(&self) -> (MutexGuard<'_, Disk>, io::Result<()>) {
        let mut disk = self.disk.disk();
        let begun = if disk.life == self.life {
            disk.begin()
        } else {
            Err(io::Error::other("opened before the crash"))
        };
        (disk, begun)
    }
}

impl FsFile for MemFile {
    fn size(&self) -> io::Result<u64> {
        let (disk, begun) = self.begin();
        begun?;
        Ok(disk.files[&self.id].seen.len)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let (disk, begun) = self.begin();
        begun?;
        Ok(disk.files[&self.id].seen.read(offset, buffer))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let (mut disk, mut result) = self.begin();
        if disk.life != self.life {
            return result;
        }
        if result.is_ok() && disk.too_full_for(self.id, offset + bytes.len() as u64) {
            result = Err(io::ErrorKind::StorageFull.into());
        }
        // A write that fails has done some of its work.
        let done = match result {
            Ok(()) => bytes.len(),
            Err(_) => bytes.len() / 2,
        };
        disk.write(self.id, offset, &bytes[..done]);
        result
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let (mut disk, begun) = self.begin();
        begun?;
        disk.set_len(self.id, bytes);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let (mut disk, begun) = self.begin();
        if disk.life != self.life {
            return begun;
        }
        let Some(file) = disk.files.get_mut(&self.id) else {
            return begun;
        };
        for pending in std::mem::take(&mut file.pending) {
            // After a failure the pages count as clean: seen, and never written.
            if begun.is_ok() {
                file.durable.apply(&pending);
            }
        }
        begun
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_synced_survives_every_crash_and_nothing_else_must() {
        let mut seen = BTreeSet::new();
        for seed in 0..64 {
            let disk = MemFs::new();
            let file = disk.create(Path::new("a")).unwrap();
            file.write_at(0, b"1234").unwrap();
            file.sync().unwrap();
            disk.sync_dir(Path::new("")).unwrap();
            file.write_at(4, b"56").unwrap();
            disk.crash(&mut Rng::new(seed));
            seen.insert(disk.contents("a").unwrap());
            assert!(file.write_at(0, b"x").is_err(), "a handle outlived a crash");
        }
        let all: [&[u8]; 3] = [b"1234", b"12345", b"123456"];
        assert_eq!(seen, all.iter().map(|b| b.to_vec()).collect());
    }

    #[test]
    fn a_name_that_was_not_synced_may_go_and_a_removed_file_may_come_back() {
        let outcomes: BTreeSet<Vec<PathBuf>> = (0..64)
            .map(|seed| {
                let disk = MemFs::new();
                disk.create(Path::new("a")).unwrap();
                disk.sync_dir(Path::new("")).unwrap();
                disk.rename(Path::new("a"), Path::new("b")).unwrap();
                disk.remove(Path::new("b")).unwrap();
                disk.crash(&mut Rng::new(seed));
                disk.files().into_iter().map(|(path, _)| path).collect()
            })
            .collect();
        assert_eq!(outcomes.len(), 3);
    }

    #[test]
    fn a_second_sync_after_a_failed_one_saves_nothing() {
        let disk = MemFs::new();
        let file = disk.create(Path::new("a")).unwrap();
        disk.sync_dir(Path::new("")).unwrap();
        file.write_at(0, b"gone").unwrap();
        disk.fail_at(disk.ops(), io::ErrorKind::Other);
        assert!(file.sync().is_err());
        file.sync().unwrap();
        assert_eq!(disk.contents("a").unwrap(), b"gone");
        disk.crash(&mut Rng::new(1));
        assert_eq!(disk.contents("a").unwrap(), b"");
    }

    #[test]
    fn a_full_disk_refuses_and_says_so() {
        let disk = MemFs::new();
        disk.set_capacity(Some(3));
        let file = disk.create(Path::new("a")).unwrap();
        let error = file.write_at(0, b"1234").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
