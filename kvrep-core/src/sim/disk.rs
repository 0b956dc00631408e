//! A replica's disk: a [`Storage`] on a simulated medium, with a shadow that knows what must have survived.

use super::cell::Medium;
use crate::entry::Entry;
use crate::id::{GroupId, Incarnation, Index, LogPoint, PersistToken, ReplicaId, StoreId, Term};
use crate::random::Rng;
use crate::storage::mem_fs::MemFs;
use crate::storage::memory::MemoryStorage;
use crate::storage::wal::{OnCorruption, Wal, WalOptions};
use crate::storage::{Recovered, SnapshotMeta, SnapshotStore, Storage, StorageError, StorageOp};
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::sync::Arc;

/// How a node ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Death {
    /// The process is killed: what it wrote is in the hands of the operating system.
    Killed,
    /// The power fails: what was not synced is kept, lost or torn.
    PowerLost,
}

/// Where a batch of operations is on its way to the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Idle,
    Asked,
    Written,
    Synced,
}

pub(super) struct Disk {
    medium: Medium,
    group: GroupId,
    replica: ReplicaId,
    segment_bytes: u64,
    fs: MemFs,
    storage: Option<Box<dyn Storage>>,
    waiting: Vec<(PersistToken, Vec<StorageOp>)>,
    under_way: PersistToken,
    stage: Stage,
    shadow: Shadow,
    store: StoreId,
    lives: u64,
    decayed: bool,
    rng: Rng,
}

impl Disk {
    pub(super) fn new(medium: Medium, group: GroupId, replica: ReplicaId, mut rng: Rng) -> Self {
        let segment_bytes = [600, 4 << 10, 64 << 10][rng.below(3) as usize];
        Self {
            medium,
            group,
            replica,
            segment_bytes,
            fs: MemFs::new(),
            storage: None,
            waiting: Vec::new(),
            under_way: PersistToken(0),
            stage: Stage::Idle,
            shadow: Shadow::default(),
            store: StoreId(0),
            lives: 0,
            decayed: false,
            rng,
        }
    }

    /// Opens it for a new life. A damaged log is set aside: the replica starts empty, as a new member.
    pub(super) fn open(&mut self) -> Result<Opened, StorageError> {
        self.lives += 1;
        self.waiting.clear();
        self.stage = Stage::Idle;
        let mut storage: Box<dyn Storage> = match self.medium {
            Medium::Memory => {
                self.shadow = Shadow::default();
                let store = StoreId(self.rng.next());
                Box::new(MemoryStorage::new(store, Incarnation(self.lives)))
            }
            Medium::Wal => {
                let mut options = WalOptions::new(self.group, self.replica, self.rng.next());
                options.segment_bytes = self.segment_bytes;
                options.incarnation_min = Incarnation(self.lives);
                if self.decayed {
                    options.on_corruption = OnCorruption::SetAside;
                }
                Box::new(Wal::new(self.fs.clone(), "data", options))
            }
        };
        let recovered = match storage.open() {
            // Decay may also make it look like somebody else's: the operator gives the replica another disk.
            Err(StorageError::Foreign { .. }) if self.decayed => {
                self.fs = MemFs::new();
                let options = WalOptions::new(self.group, self.replica, self.rng.next());
                let incarnation_min = Incarnation(self.lives);
                storage = Box::new(Wal::new(
                    self.fs.clone(),
                    "data",
                    WalOptions {
                        segment_bytes: self.segment_bytes,
                        incarnation_min,
                        ..options
                    },
                ));
                storage.open()?
            }
            other => other?,
        };
        let renewed = recovered.store != self.store;
        let lost = match self.medium {
            Medium::Memory => None,
            Medium::Wal if self.decayed => None,
            Medium::Wal => self.shadow.missing_in(&recovered),
        };
        self.decayed = false;
        self.shadow = Shadow::of(&recovered);
        self.store = recovered.store;
        self.storage = Some(storage);
        Ok(Opened {
            recovered,
            renewed,
            lost,
        })
    }

    /// Whether batches are carried out at once.
    pub(super) fn is_instant(&self) -> bool {
        self.medium == Medium::Memory
    }

    /// Takes a batch; true if the disk was idle and a write is to be scheduled.
    pub(super) fn ask(&mut self, token: PersistToken, ops: Vec<StorageOp>) -> bool {
        self.waiting.push((token, ops));
        if self.stage == Stage::Idle {
            self.stage = Stage::Asked;
            return true;
        }
        false
    }

    /// Writes everything that waits.
    pub(super) fn write(&mut self) -> Result<(), StorageError> {
        self.stage = Stage::Written;
        let Some(storage) = &mut self.storage else {
            return Ok(());
        };
        for (token, ops) in self.waiting.drain(..) {
            self.under_way = token;
            for op in &ops {
                self.shadow.will(op);
            }
            storage.write(ops)?;
        }
        Ok(())
    }

    /// Makes durable what was written.
    pub(super) fn sync(&mut self) -> Result<(), StorageError> {
        if let Some(storage) = &mut self.storage {
            storage.sync()?;
            self.shadow.settle();
        }
        self.stage = Stage::Synced;
        Ok(())
    }

    /// What is durable now; and whether more waits.
    pub(super) fn told(&mut self) -> (PersistToken, bool) {
        let more = !self.waiting.is_empty();
        self.stage = if more { Stage::Asked } else { Stage::Idle };
        (self.under_way, more)
    }

    /// Whether everything handed to it is durable.
    pub(super) fn is_settled(&self) -> bool {
        self.stage == Stage::Idle
    }

    pub(super) fn snapshots(&self) -> Option<Arc<dyn SnapshotStore>> {
        self.storage.as_ref().map(|s| s.snapshots())
    }

    /// The node is gone.
    pub(super) fn die(&mut self, how: Death) {
        self.storage = None;
        self.waiting.clear();
        self.stage = Stage::Idle;
        match (self.medium, how) {
            (Medium::Memory, _) => {
                self.shadow = Shadow::default();
                self.store = StoreId(0);
            }
            (Medium::Wal, Death::Killed) => self.fs.kill(),
            (Medium::Wal, Death::PowerLost) => self.fs.crash(&mut self.rng),
        }
    }

    /// One of the next calls fails.
    pub(super) fn fail_soon(&mut self, within: u64, kind: ErrorKind) {
        let at = self.fs.ops() + self.rng.below(within.max(1));
        self.fs.fail_at(at, kind);
    }

    /// The disk becomes nearly full, or has room again.
    pub(super) fn fill(&mut self, room: Option<u64>) {
        let used: u64 = self.fs.files().iter().map(|(_, bytes)| bytes).sum();
        self.fs.set_capacity(room.map(|room| used + room));
    }

    /// Flips a bit of some file while nobody uses it. Says of which.
    pub(super) fn decay(&mut self) -> Option<String> {
        let files: Vec<_> = self
            .fs
            .files()
            .into_iter()
            .filter(|(_, n)| *n > 0)
            .collect();
        let (path, bytes) = files.get(self.rng.below(files.len() as u64) as usize)?;
        let bit = self.rng.below(bytes * 8);
        self.decayed = self.fs.flip_bit(path, bit);
        Some(format!("{} bit {bit}", path.display()))
    }

    /// Another, empty directory from now on. Nobody uses it.
    pub(super) fn replace(&mut self) {
        self.fs = MemFs::new();
        self.shadow = Shadow::default();
    }

    /// Whether it lay in memory, and its process died.
    pub(super) fn is_gone(&self) -> bool {
        self.store == StoreId::default()
    }

    /// What is certainly durable.
    pub(super) fn shadow(&self) -> &Shadow {
        &self.shadow
    }
}

/// What came of opening.
pub(super) struct Opened {
    pub(super) recovered: Recovered,
    /// The old content is gone (memory) or was set aside (damage): a new member.
    pub(super) renewed: bool,
    /// What had been synced and is not there: a bug of the storage.
    pub(super) lost: Option<String>,
}

/// The log that is certainly durable: what was written before the last sync that succeeded.
#[derive(Clone, Debug, Default)]
pub(super) struct Shadow {
    base: LogPoint,
    points: VecDeque<LogPoint>,
    written: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Append(LogPoint),
    Cut(Index),
    Purge(Index),
    Install(SnapshotMeta),
    Reset,
}

impl Shadow {
    fn of(recovered: &Recovered) -> Self {
        let mut shadow = Self {
            base: recovered.base,
            points: recovered.entries.iter().map(Entry::point).collect(),
            written: Vec::new(),
        };
        if let Some(snapshot) = &recovered.snapshot
            && snapshot.last.index > shadow.end().index
        {
            shadow.base = snapshot.last;
            shadow.points.clear();
        }
        shadow
    }

    /// Whether the entry at `index` of `term` is in the log or in a snapshot.
    pub(super) fn holds(&self, index: Index, term: Term) -> bool {
        index <= self.base.index || self.at(index).is_some_and(|p| p.term == term)
    }

    /// What an operation would remove.
    pub(super) fn removed_by(&self, op: &StorageOp) -> impl Iterator<Item = &LogPoint> {
        let from = match op {
            StorageOp::TruncateSuffix { from, .. } => *from,
            StorageOp::Reset { .. } => Index(1),
            StorageOp::InstallSnapshot { meta, .. }
                if self.at(meta.last.index) != Some(&meta.last) =>
            {
                meta.last.index.next()
            }
            StorageOp::InstallSnapshot { .. }
            | StorageOp::Append(_)
            | StorageOp::PurgePrefix { .. }
            | StorageOp::HardState(_)
            | StorageOp::SnapshotChunk { .. } => Index(u64::MAX),
        };
        let skip = from.0.saturating_sub(self.base.index.0 + 1);
        self.points
            .iter()
            .skip(usize::try_from(skip).unwrap_or(usize::MAX))
    }

    /// The entry at `index`, if it is in the log.
    pub(super) fn at(&self, index: Index) -> Option<&LogPoint> {
        let offset = index.0.checked_sub(self.base.index.0 + 1)?;
        self.points.get(usize::try_from(offset).ok()?)
    }

    pub(super) fn end(&self) -> LogPoint {
        self.points.back().copied().unwrap_or(self.base)
    }

    fn will(&mut self, op: &StorageOp) {
        match op {
            StorageOp::Append(entries) => {
                let points = entries.iter().map(|e| Change::Append(e.point()));
                self.written.extend(points);
            }
            StorageOp::TruncateSuffix { from, .. } => self.written.push(Change::Cut(*from)),
            StorageOp::PurgePrefix { upto } => self.written.push(Change::Purge(*upto)),
            StorageOp::InstallSnapshot { meta, .. } => self.written.push(Change::Install(*meta)),
            StorageOp::Reset { .. } => self.written.push(Change::Reset),
            StorageOp::HardState(_) | StorageOp::SnapshotChunk { .. } => {}
        }
    }

    fn settle(&mut self) {
        for change in std::mem::take(&mut self.written) {
            match change {
                Change::Append(point) => self.points.push_back(point),
                Change::Cut(from) => {
                    let keep = from.0.saturating_sub(self.base.index.0 + 1);
                    self.points
                        .truncate(usize::try_from(keep).unwrap_or(usize::MAX));
                }
                Change::Purge(upto) => {
                    while self.base.index < upto
                        && let Some(first) = self.points.pop_front()
                    {
                        self.base = first;
                    }
                }
                Change::Install(meta) => {
                    if self.at(meta.last.index) != Some(&meta.last) && self.base != meta.last {
                        self.base = meta.last;
                        self.points.clear();
                    }
                }
                Change::Reset => {
                    self.base = LogPoint::ZERO;
                    self.points.clear();
                }
            }
        }
    }

    /// What must be there and is not. Says nothing when a removal was on its way: it may have happened.
    fn missing_in(&self, recovered: &Recovered) -> Option<String> {
        let only_appends = |c: &Change| matches!(c, Change::Append(_));
        if !self.written.iter().all(only_appends) {
            return None;
        }
        let found = Self::of(recovered);
        let lost = self
            .points
            .iter()
            .find(|p| p.index > found.base.index && found.at(p.index) != Some(p));
        lost.map(|p| {
            let end = found.end();
            format!("{p:?} was synced and is not recovered; the log ends at {end:?}")
        })
    }
}
