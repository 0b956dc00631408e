//! The state of a simulated disk: what is seen, what is durable, and what lies between.

use crate::random::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    pub(super) names: BTreeMap<PathBuf, u64>,
    pub(super) durable_names: BTreeMap<PathBuf, u64>,
    pub(super) journal: Vec<NameOp>,
    pub(super) files: BTreeMap<u64, FileState>,
    pub(super) dirs: BTreeSet<PathBuf>,
    pub(super) locks: BTreeSet<PathBuf>,
    pub(super) next_file: u64,
    /// Grows with each crash; handles of an earlier life are dead.
    pub(super) life: u64,
    pub(super) ops: u64,
    pub(super) fail_at: Option<(u64, io::ErrorKind)>,
    pub(super) power_off_at: Option<u64>,
    pub(super) capacity_bytes: Option<u64>,
}

#[derive(Clone, Debug)]
pub(super) enum NameOp {
    Link(PathBuf, u64),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

#[derive(Clone, Debug, Default)]
pub(super) struct FileState {
    pub(super) seen: Content,
    pub(super) durable: Content,
    pub(super) pending: Vec<Pending>,
}

#[derive(Clone, Debug)]
pub(super) enum Pending {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

/// Bytes followed by zeros up to the length, so that a preallocated file costs nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    pub(super) bytes: Vec<u8>,
    pub(super) len: u64,
}

impl Disk {
    /// Counts a call and decides whether it fails.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        let op = self.ops;
        self.ops += 1;
        if self.power_off_at.is_some_and(|at| at <= op) {
            return Err(io::Error::other("the power is off"));
        }
        match self.fail_at {
            Some((at, kind)) if at == op => {
                self.fail_at = None;
                Err(kind.into())
            }
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn restart(&mut self) {
        self.life += 1;
        self.locks.clear();
        self.fail_at = None;
        self.power_off_at = None;
    }

    pub(super) fn named(&mut self, path: &Path) -> Option<&mut FileState> {
        let id = self.names.get(path)?;
        self.files.get_mut(id)
    }

    pub(super) fn rename_in_view(&mut self, op: NameOp) {
        op.apply(&mut self.names);
        self.journal.push(op);
    }

    pub(super) fn commit_names(&mut self, ops: usize) {
        for op in self.journal.drain(..ops) {
            op.apply(&mut self.durable_names);
        }
    }

    pub(super) fn forget_unnamed(&mut self) {
        let named: BTreeSet<u64> = self.durable_names.values().copied().collect();
        self.files.retain(|id, _| named.contains(id));
    }

    pub(super) fn too_full_for(&self, id: u64, end: u64) -> bool {
        let Some(capacity) = self.capacity_bytes else {
            return false;
        };
        let grows = end.saturating_sub(self.files[&id].seen.bytes.len() as u64);
        let named = self.names.values();
        let used: u64 = named.map(|id| self.files[id].seen.bytes.len() as u64).sum();
        grows > 0 && used + grows > capacity
    }

    pub(super) fn write(&mut self, id: u64, offset: u64, bytes: &[u8]) {
        if let Some(file) = self.files.get_mut(&id) {
            file.seen.write(offset, bytes);
            file.pending.push(Pending::Write(offset, bytes.to_vec()));
        }
    }

    pub(super) fn set_len(&mut self, id: u64, bytes: u64) {
        if let Some(file) = self.files.get_mut(&id) {
            file.seen.set_len(bytes);
            file.pending.push(Pending::SetLen(bytes));
        }
    }
}

impl NameOp {
    pub(super) fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Self::Link(path, id) => {
                names.insert(path.clone(), *id);
            }
            Self::Rename(from, to) => {
                if let Some(id) = names.remove(from) {
                    names.insert(to.clone(), id);
                }
            }
            Self::Remove(path) => {
                names.remove(path);
            }
        }
    }

    pub(super) fn touches(&self, dir: &Path) -> bool {
        match self {
            Self::Link(path, _) | Self::Remove(path) => path.parent() == Some(dir),
            Self::Rename(from, to) => from.parent() == Some(dir) || to.parent() == Some(dir),
        }
    }
}

impl Content {
    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let count = left.min(buffer.len());
        let start = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(self.bytes.len());
        let held = &self.bytes[start..self.bytes.len().min(start + count)];
        buffer[..held.len()].copy_from_slice(held);
        buffer[held.len()..count].fill(0);
        count
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let start = usize::try_from(offset).expect("a simulated disk is small");
        let end = start + bytes.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[start..end].copy_from_slice(bytes);
        self.len = self.len.max(end as u64);
    }

    pub(super) fn set_len(&mut self, bytes: u64) {
        self.bytes
            .truncate(usize::try_from(bytes).unwrap_or(usize::MAX));
        self.len = bytes;
    }

    pub(super) fn apply(&mut self, pending: &Pending) {
        match pending {
            Pending::Write(offset, bytes) => self.write(*offset, bytes),
            Pending::SetLen(bytes) => self.set_len(*bytes),
        }
    }

    /// What becomes of a change that was not synced.
    pub(super) fn crash_with(&mut self, pending: &Pending, rng: &mut Rng) {
        let Pending::Write(offset, bytes) = pending else {
            if rng.one_in(2) {
                self.apply(pending);
            }
            return;
        };
        match rng.below(4) {
            0 => {}
            1 => self.write(*offset, bytes),
            2 => {
                let torn = usize::try_from(rng.below(bytes.len() as u64 + 1)).unwrap_or(0);
                self.write(*offset, &bytes[..torn]);
            }
            _ => self.write_some_sectors(*offset, bytes, rng),
        }
    }

    pub(super) fn write_some_sectors(&mut self, offset: u64, bytes: &[u8], rng: &mut Rng) {
        let mut at = 0;
        while at < bytes.len() {
            let here = offset + at as u64;
            let to_boundary = SECTOR_BYTES - here % SECTOR_BYTES;
            let take = usize::try_from(to_boundary)
                .unwrap_or(1)
                .min(bytes.len() - at);
            if rng.one_in(2) {
                self.write(here, &bytes[at..at + take]);
            }
            at += take;
        }
    }
}

/// What a disk writes atomically.
const SECTOR_BYTES: u64 = 512;
