//! A file system that counts the syncs of one replica, over all its lives, and strikes at one of them.
//!
//! The count is the length of a file, so it goes on where a killed life ended. A strike is real: the error goes to the
//! log as the system's would, or the whole process is killed before or after the sync.

use kvrep_core::storage::fs::{Fs, FsFile, OsFile, OsFs};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Which sync to strike, and where the count is kept.
#[derive(Clone, Debug)]
pub(crate) struct Sites {
    /// Its length is the number of syncs so far.
    pub(crate) count: PathBuf,
    /// Which one, from 1; 0 for none.
    pub(crate) at: u64,
    pub(crate) strike: Strike,
}

/// What happens there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Strike {
    /// The sync is refused with EIO and not carried out.
    Eio,
    /// SIGKILL instead of the sync.
    KillBefore,
    /// SIGKILL when the sync is done, before anybody knows.
    KillAfter,
}

/// The file system of the operating system, with one sync that goes wrong.
#[derive(Clone, Debug)]
pub(crate) struct SitesFs(Option<Arc<Trap>>);

#[derive(Debug)]
struct Trap {
    sites: Sites,
    count: Mutex<File>,
}

/// One of its files.
pub(crate) struct SitesFile {
    file: OsFile,
    trap: Option<Arc<Trap>>,
}

impl SitesFs {
    /// Strikes at `sites`, if any.
    ///
    /// # Panics
    /// When the count cannot be kept.
    pub(crate) fn new(sites: Option<Sites>) -> Self {
        Self(sites.map(|sites| {
            let count = File::options().create(true).append(true).open(&sites.count);
            let count = Mutex::new(count.expect("the count of syncs can be kept"));
            Arc::new(Trap { sites, count })
        }))
    }

    fn file(&self, file: OsFile) -> SitesFile {
        SitesFile {
            file,
            trap: self.0.clone(),
        }
    }
}

impl Trap {
    fn sync(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let number = {
            let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
            count.write_all(b".")?;
            count.metadata()?.len()
        };
        if number != self.sites.at {
            return sync();
        }
        match self.sites.strike {
            // EIO
            Strike::Eio => Err(io::Error::from_raw_os_error(5)),
            Strike::KillBefore => die(),
            Strike::KillAfter => {
                sync()?;
                die()
            }
        }
    }
}

/// SIGKILL.
fn die() -> ! {
    let own = rustix::process::getpid();
    let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
    std::process::abort()
}

impl Fs for SitesFs {
    type File = SitesFile;
    type Lock = File;

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        // Its own syncs are of the parent directory; seen as one site.
        match &self.0 {
            Some(trap) if !dir.exists() => trap.sync(|| OsFs.create_dir(dir)),
            Some(_) | None => OsFs.create_dir(dir),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        OsFs.list(dir)
    }

    fn create(&self, path: &Path) -> io::Result<SitesFile> {
        OsFs.create(path).map(|file| self.file(file))
    }

    fn open(&self, path: &Path) -> io::Result<SitesFile> {
        OsFs.open(path).map(|file| self.file(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsFs.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        OsFs.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        match &self.0 {
            Some(trap) => trap.sync(|| OsFs.sync_dir(dir)),
            None => OsFs.sync_dir(dir),
        }
    }

    fn lock(&self, path: &Path) -> io::Result<Option<File>> {
        OsFs.lock(path)
    }
}

impl FsFile for SitesFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        match &self.trap {
            Some(trap) => trap.sync(|| self.file.sync()),
            None => self.file.sync(),
        }
    }
}
