//! A log next to a model of it: after any crash, what is recovered must be a state that the model went through, and
//! none from before the last sync.

use crate::entry::{Entry, EntryKind};
use crate::id::{GroupId, Index, LogPoint, ReplicaId, Term};
use crate::random::Rng;
use crate::storage::mem_fs::MemFs;
use crate::storage::wal::{Wal, WalOptions};
use crate::storage::{Recovered, SnapshotMeta, Storage, StorageError, StorageOp, Tail};
use crate::time::Timestamp;
use bytes::Bytes;
use std::io::Write;

/// Something to do; numbers are reduced to what is possible in the state it meets.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// Append entries with payloads of this size.
    Append { count: u8, bytes: u16 },
    /// Cut off some entries.
    Cut { count: u8, tail: Tail },
    /// Forget some entries that the snapshot covers.
    Purge { count: u8 },
    /// Another hard state.
    Hard { bytes: u8 },
    /// Snapshot the state as of some entries before the last.
    Snapshot { behind: u8, bytes: u16 },
    /// Receive and install a snapshot of this history.
    InstallMatching { behind: u8 },
    /// Receive and install a snapshot of another history.
    InstallOther { index: u8 },
    /// Start anew.
    Reset { tail: Tail },
    /// Make everything durable.
    Sync,
}

/// What the storage should hold.
#[derive(Clone, Debug, Default)]
struct State {
    hard: Option<Bytes>,
    base: LogPoint,
    entries: Vec<Entry>,
    snapshot: Option<SnapshotMeta>,
    generation: u64,
}

impl State {
    fn end(&self) -> LogPoint {
        self.entries.last().map_or(self.base, Entry::point)
    }

    fn at(&self, index: Index) -> Option<LogPoint> {
        if index == self.base.index {
            return Some(self.base);
        }
        let found = self.entries.iter().find(|entry| entry.index == index);
        found.map(Entry::point)
    }

    fn snapshot_index(&self) -> Index {
        self.snapshot.map_or(Index::ZERO, |meta| meta.last.index)
    }
}

/// A log, its disk and its model.
pub(super) struct World {
    pub(super) disk: MemFs,
    pub(super) options: WalOptions,
    wal: Option<Wal<MemFs>>,
    /// The state after each step since the last start.
    states: Vec<State>,
    /// All states before this one are out of the question.
    synced: usize,
    /// Snapshots of this replica, with their generation: durable whenever finished.
    finished: Vec<(u64, SnapshotMeta)>,
    /// Those that may have been finished.
    perhaps: Vec<(u64, SnapshotMeta)>,
    term: u64,
    steps: u64,
}

impl World {
    pub(super) fn new(segment_bytes: u64) -> Self {
        Self {
            disk: MemFs::new(),
            options: WalOptions {
                segment_bytes,
                ..WalOptions::new(GroupId(1), ReplicaId(2), 3)
            },
            wal: None,
            states: vec![State::default()],
            synced: 0,
            finished: Vec::new(),
            perhaps: Vec::new(),
            term: 1,
            steps: 0,
        }
    }

    /// The same, on a disk of its own. The log is closed.
    pub(super) fn fork(&self) -> Self {
        Self {
            disk: self.disk.fork(),
            options: self.options.clone(),
            wal: None,
            states: self.states.clone(),
            finished: self.finished.clone(),
            perhaps: self.perhaps.clone(),
            ..*self
        }
    }

    /// Opens the log and compares what it recovers.
    pub(super) fn open(&mut self) -> Result<Recovered, StorageError> {
        self.wal = None;
        let mut wal = Wal::new(self.disk.clone(), "data", self.options.clone());
        let found = wal.open()?;
        self.wal = Some(wal);
        self.judge(&found);
        Ok(found)
    }

    fn judge(&mut self, found: &Recovered) {
        let allowed = &self.states[self.synced..];
        let Some(state) = allowed.iter().rev().find(|state| self.is(found, state)) else {
            panic!("recovered\n{found:#?}\nis none of\n{allowed:#?}");
        };
        self.finished.clear();
        self.perhaps.clear();
        self.states = vec![State {
            hard: found.hard_state.clone(),
            base: found.base,
            entries: found.entries.clone(),
            snapshot: found.snapshot,
            generation: state.generation,
        }];
        self.synced = 0;
        self.term += 1;
    }

    fn is(&self, found: &Recovered, state: &State) -> bool {
        let mine = |(generation, meta): &&(u64, SnapshotMeta)| {
            (*generation == state.generation).then_some(*meta)
        };
        let certain = self.finished.iter().filter_map(|s| mine(&s));
        let newest = certain
            .chain(state.snapshot)
            .max_by_key(|meta| meta.last.index);
        let perhaps = self.perhaps.iter().filter_map(|s| mine(&s));
        let newer = |meta: &SnapshotMeta| Some(meta.last.index) > newest.map(|n| n.last.index);
        let possible: Vec<_> = perhaps.filter(newer).map(Some).chain([newest]).collect();
        if !possible.contains(&found.snapshot) || found.hard_state != state.hard {
            return false;
        }
        let last = found.snapshot.map_or(LogPoint::ZERO, |meta| meta.last);
        let covered = last.index < state.base.index || state.at(last.index) == Some(last);
        if !covered {
            return found.base == last && found.entries.is_empty();
        }
        let kept: Vec<&Entry> = found
            .entries
            .iter()
            .filter(|entry| entry.index > state.base.index)
            .collect();
        found.base.index <= state.base.index && kept.iter().copied().eq(&state.entries)
    }

    /// Does it; an error ends this life of the log.
    pub(super) fn act(&mut self, act: &Act) -> Result<(), StorageError> {
        self.steps += 1;
        let now = self.states.last().cloned().unwrap_or_default();
        match act {
            Act::Append { count, bytes } => self.append(now, *count, *bytes),
            Act::Cut { count, tail } => {
                let most = now.end().index.0 - now.base.index.max(self.floor(&now)).0;
                let from = Index(now.end().index.0 + 1 - u64::from(*count).min(most));
                let mut next = now;
                next.entries.retain(|entry| entry.index < from);
                self.term += 1;
                self.write(StorageOp::TruncateSuffix { from, tail: *tail }, vec![next])
            }
            Act::Purge { count } => {
                let most = self.certain_floor(&now).0.min(now.end().index.0);
                let upto = Index((now.base.index.0 + u64::from(*count)).min(most));
                let mut next = now.clone();
                if let Some(base) = now.at(upto) {
                    next.base = base;
                    next.entries.retain(|entry| entry.index > upto);
                }
                self.write(StorageOp::PurgePrefix { upto }, vec![next])
            }
            Act::Hard { bytes } => {
                let hard = Bytes::from(vec![self.steps.to_le_bytes()[0]; usize::from(*bytes)]);
                let next = State {
                    hard: Some(hard.clone()),
                    ..now
                };
                self.write(StorageOp::HardState(hard), vec![next])
            }
            Act::Snapshot { behind, bytes } => self.snapshot(now, *behind, *bytes),
            Act::InstallMatching { behind } => {
                let index = now.end().index.0.saturating_sub(u64::from(*behind));
                let last = now.at(Index(index)).unwrap_or(now.end());
                self.install(now, last)
            }
            Act::InstallOther { index } => {
                let term = Term {
                    number: self.term,
                    replica: ReplicaId(9),
                };
                let last = LogPoint {
                    term,
                    index: Index(u64::from(*index) + 1),
                    hash: self.steps,
                };
                self.term += 1;
                self.install(now, last)
            }
            Act::Reset { tail } => {
                let next = State {
                    hard: now.hard,
                    generation: now.generation + 1,
                    ..State::default()
                };
                self.term += 1;
                self.write(StorageOp::Reset { tail: *tail }, vec![next])
            }
            Act::Sync => {
                let wal = self.wal.as_mut().expect("open");
                wal.sync()?;
                self.synced = self.states.len() - 1;
                Ok(())
            }
        }
    }

    /// Closes the log, as the end of the process does.
    pub(super) fn kill(&mut self) {
        self.wal = None;
        self.disk.kill();
    }

    /// The machine goes down.
    pub(super) fn crash(&mut self, seed: u64) {
        self.disk.crash(&mut Rng::new(seed));
        self.wal = None;
    }

    pub(super) fn is_open(&self) -> bool {
        self.wal.is_some()
    }

    /// From now on any earlier state will do: the disk is about to lose what was synced.
    pub(super) fn expect_any_prefix(&mut self) {
        self.synced = 0;
    }

    /// The highest snapshot that there is.
    fn certain_floor(&self, now: &State) -> Index {
        let mine = self
            .finished
            .iter()
            .filter(|(generation, _)| *generation == now.generation);
        let mine = mine.map(|(_, meta)| meta.last.index).max();
        mine.unwrap_or_default().max(now.snapshot_index())
    }

    /// The highest snapshot that there is or may be.
    fn floor(&self, now: &State) -> Index {
        let perhaps = self
            .perhaps
            .iter()
            .filter(|(generation, _)| *generation == now.generation);
        let perhaps = perhaps.map(|(_, meta)| meta.last.index).max();
        perhaps.unwrap_or_default().max(self.certain_floor(now))
    }

    fn append(&mut self, now: State, count: u8, bytes: u16) -> Result<(), StorageError> {
        let mut entries = Vec::new();
        let mut states = Vec::new();
        let mut state = now;
        for i in 0..count {
            let filler = self.steps.to_le_bytes()[0].wrapping_add(i) % 3;
            let term = Term {
                number: self.term,
                replica: ReplicaId(2),
            };
            let payload = Bytes::from(vec![filler; usize::from(bytes)]);
            let entry = Entry::following(
                state.end(),
                term,
                Timestamp(self.steps),
                u64::from(i),
                EntryKind::Command,
                payload,
            );
            entries.push(entry.clone());
            state.entries.push(entry);
            states.push(state.clone());
        }
        self.write(StorageOp::Append(entries.into()), states)
    }

    fn snapshot(&mut self, now: State, behind: u8, bytes: u16) -> Result<(), StorageError> {
        let index = now.end().index.0.saturating_sub(u64::from(behind));
        let Some(last) = now
            .at(Index(index))
            .filter(|last| last.index > self.floor(&now))
        else {
            return Ok(());
        };
        let state = vec![self.steps.to_le_bytes()[0]; usize::from(bytes)];
        let meta = meta_of(last, &state);
        self.perhaps.push((now.generation, meta));
        let store = self.wal.as_ref().expect("open").snapshots();
        let written = store.create(last).and_then(|mut writer| {
            // An error shows at the end.
            let _ = writer.write_all(&state);
            writer.finish()
        });
        if let Ok(found) = written {
            assert_eq!(found, meta);
            self.perhaps.pop();
            self.finished.push((now.generation, meta));
        }
        Ok(())
    }

    fn install(&mut self, now: State, last: LogPoint) -> Result<(), StorageError> {
        if last.index == Index::ZERO {
            return Ok(());
        }
        let state = vec![7; 100];
        let meta = meta_of(last, &state);
        let mut next = State {
            snapshot: Some(meta),
            generation: now.generation + 1,
            ..now
        };
        if next.at(last.index) != Some(last) {
            next.base = last;
            next.entries.clear();
        }
        for (offset, piece) in [(0, 0..60), (60, 60..100)] {
            let data = Bytes::from(state[piece].to_vec());
            let chunk = StorageOp::SnapshotChunk { meta, offset, data };
            self.write(chunk, Vec::new())?;
        }
        self.write(
            StorageOp::InstallSnapshot {
                meta,
                tail: Tail::Drop,
            },
            vec![next],
        )
    }

    fn write(&mut self, op: StorageOp, states: Vec<State>) -> Result<(), StorageError> {
        self.states.extend(states);
        self.wal.as_mut().expect("open").write(vec![op])?;
        Ok(())
    }
}

fn meta_of(last: LogPoint, state: &[u8]) -> SnapshotMeta {
    SnapshotMeta {
        last,
        bytes: state.len() as u64,
        digest: xxhash_rust::xxh3::xxh3_64(state),
    }
}

/// `count` entries behind `prev`.
pub(super) fn entries(mut prev: LogPoint, count: u64) -> Vec<Entry> {
    let term = Term::ZERO.next_for(ReplicaId(2));
    let mut entries = Vec::new();
    for i in 0..count {
        let payload = Bytes::from(format!("command {i}"));
        let entry = Entry::following(prev, term, Timestamp(i), i, EntryKind::Command, payload);
        prev = entry.point();
        entries.push(entry);
    }
    entries
}

/// A script in which everything occurs.
pub(super) fn script() -> Vec<Act> {
    let drop = Tail::Drop;
    let save = Tail::SaveAside;
    vec![
        Act::Append {
            count: 3,
            bytes: 50,
        },
        Act::Hard { bytes: 20 },
        Act::Sync,
        Act::Append {
            count: 6,
            bytes: 100,
        },
        Act::Sync,
        Act::Cut {
            count: 2,
            tail: save,
        },
        Act::Append { count: 2, bytes: 0 },
        Act::Snapshot {
            behind: 4,
            bytes: 300,
        },
        Act::Sync,
        Act::Purge { count: 3 },
        Act::Hard { bytes: 0 },
        Act::Append {
            count: 5,
            bytes: 200,
        },
        Act::Snapshot {
            behind: 1,
            bytes: 100,
        },
        Act::Purge { count: 99 },
        Act::Sync,
        Act::InstallMatching { behind: 1 },
        Act::Append {
            count: 2,
            bytes: 30,
        },
        Act::Cut {
            count: 1,
            tail: drop,
        },
        Act::Sync,
        Act::InstallOther { index: 30 },
        Act::Append {
            count: 4,
            bytes: 150,
        },
        Act::Sync,
        Act::InstallOther { index: 10 },
        Act::Append {
            count: 2,
            bytes: 10,
        },
        Act::Hard { bytes: 30 },
        Act::Reset { tail: save },
        Act::Append {
            count: 3,
            bytes: 10,
        },
        Act::Snapshot {
            behind: 1,
            bytes: 10,
        },
        Act::Sync,
        Act::Append {
            count: 3,
            bytes: 100,
        },
    ]
}
