//! Opening a directory: is it ours, is it sound, and then one durable step into a new life.
//!
//! Everything is read and judged before anything is changed. Then, in this order: the torn tail is cut and what
//! was not known to be durable is written again and synced (a failed sync of an earlier life may have left pages that
//! are seen but on no disk); void files go; the identity with the new incarnation is put in place, which also makes
//! every name in the directory durable.

use super::identity::{self, Identity};
use super::live::Live;
use super::recovery::{self, Found};
use super::segment::{Active, Header, Sealed, number_of};
use super::snapshots::{Snapshots, place_of};
use super::{OnCorruption, WalOptions, aside};
use crate::id::{Incarnation, Index, LogPoint, StoreId};
use crate::random::Rng;
use crate::storage::fs::{Fs, FsFile, REMEDY, io_error};
use crate::storage::points::Points;
use crate::storage::{Recovered, StorageError};
use bytes::BytesMut;
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Opens or creates the log in a directory.
pub(super) struct Setup<'a, F: Fs> {
    pub(super) fs: &'a F,
    pub(super) dir: &'a Path,
    pub(super) options: &'a WalOptions,
    pub(super) snapshots: &'a Arc<Snapshots<F>>,
}

impl<F: Fs> Setup<'_, F> {
    pub(super) fn open(&self) -> Result<(Live<F>, Recovered), StorageError> {
        let (fs, dir) = (self.fs, self.dir);
        fs.create_dir(dir).map_err(io_error("create", dir))?;
        // Before the lock: its file would be the first thing of ours in somebody else's directory.
        self.refuse_foreign(&self.names()?)?;
        let path = dir.join(LOCK);
        let Some(lock) = fs.lock(&path).map_err(io_error("lock", &path))? else {
            return Err(StorageError::Locked { path: dir.into() });
        };
        let step = match self.judge() {
            Err(error @ StorageError::Corrupt { .. })
                if self.options.on_corruption == OnCorruption::SetAside =>
            {
                let (identity, place) = self.begin_setting_aside()?;
                let note = format!(
                    "{error} — everything was set aside in {}, and this replica starts as a new, empty member",
                    place.display()
                );
                Step::SetUp(identity, vec![note])
            }
            other => other?,
        };
        match step {
            Step::SetUp(identity, notes) => self.set_up(identity, notes, lock),
            Step::GoOn(identity, found) => self.go_on(identity, *found, lock),
        }
    }

    fn names(&self) -> Result<Vec<String>, StorageError> {
        self.fs.list(self.dir).map_err(io_error("list", self.dir))
    }

    fn refuse_foreign(&self, names: &[String]) -> Result<(), StorageError> {
        let known = |name: &String| name == identity::NAME || number_of(name).is_some();
        let harmless = |name: &str| {
            let temporary = name.strip_prefix(identity::NAME) == Some(".tmp");
            temporary || [LOCK, LOST_AND_FOUND, aside::DIR].contains(&name) || is_damaged(name)
        };
        if names.iter().any(known) {
            return Ok(());
        }
        match names.iter().find(|name| !harmless(name)) {
            None => Ok(()),
            Some(name) => Err(StorageError::Foreign {
                path: self.dir.into(),
                found: format!("it holds {name:?} and no identity of a replica"),
            }),
        }
    }

    /// Reads everything; changes nothing.
    fn judge(&self) -> Result<Step, StorageError> {
        let names = self.names()?;
        self.refuse_foreign(&names)?;
        if names.iter().all(|name| name != identity::NAME) {
            if names.iter().any(|name| number_of(name).is_some()) {
                return Err(StorageError::Corrupt {
                    path: self.dir.join(identity::NAME),
                    offset: 0,
                    what: "it is missing, although there is a log".into(),
                    remedy: REMEDY.into(),
                });
            }
            let store = self.draw_store(None);
            return Ok(Step::SetUp(self.identity(store), Vec::new()));
        }
        let identity = Identity::read(self.fs, self.dir)?;
        let (group, replica) = (self.options.group, self.options.replica);
        if (identity.group, identity.replica) != (group, replica) {
            return Err(StorageError::Foreign {
                path: self.dir.into(),
                found: format!(
                    "it belongs to replica {} of group {:016x}; this is {replica} of group {:016x}",
                    identity.replica, identity.group.0, group.0
                ),
            });
        }
        if identity.incarnation == Incarnation::UNKNOWN {
            return Ok(Step::SetUp(identity, Vec::new()));
        }
        let found = recovery::read(self.fs, self.dir, &identity, &names, self.snapshots)?;
        Ok(Step::GoOn(identity, Box::new(found)))
    }

    fn draw_store(&self, not: Option<StoreId>) -> StoreId {
        let mut rng = Rng::new(self.options.seed);
        loop {
            let store = StoreId(rng.next());
            if Some(store) != not && store != StoreId::default() {
                return store;
            }
        }
    }

    fn identity(&self, store: StoreId) -> Identity {
        Identity {
            group: self.options.group,
            replica: self.options.replica,
            store,
            incarnation: Incarnation::UNKNOWN,
            earlier: Incarnation::UNKNOWN,
            aside: 0,
            newest_segment: 0,
        }
    }

    /// From the moment the new identity is durable, what else is in the directory belongs to nobody.
    fn begin_setting_aside(&self) -> Result<(Identity, PathBuf), StorageError> {
        let names = self.names()?;
        let old = match Identity::read(self.fs, self.dir) {
            Ok(old) => Some(old),
            // Damaged itself, or not there.
            Err(StorageError::Corrupt { .. }) => None,
            Err(StorageError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let number = (1..)
            .find(|n| !names.contains(&damaged_name(*n)))
            .unwrap_or(u64::MAX);
        let place = self.dir.join(damaged_name(number));
        self.fs
            .create_dir(&place)
            .map_err(io_error("create", &place))?;
        if names.iter().any(|name| name == identity::NAME) {
            let (from, to) = (self.dir.join(identity::NAME), place.join(identity::NAME));
            super::snapshots::copy(self.fs, &from, &to)?;
        }
        let identity = Identity {
            earlier: old.map_or(Incarnation::UNKNOWN, |old| old.incarnation.max(old.earlier)),
            aside: number,
            ..self.identity(self.draw_store(old.map(|old| old.store)))
        };
        Ok((identity, place))
    }

    /// Makes a new, empty log, or goes on making it.
    fn set_up(
        &self,
        mut identity: Identity,
        notes: Vec<String>,
        lock: F::Lock,
    ) -> Result<(Live<F>, Recovered), StorageError> {
        identity.write(self.fs, self.dir)?;
        self.clear(identity.aside)?;
        let header = Header {
            store: identity.store,
            number: 1,
            base: LogPoint::ZERO,
            generation: 0,
            hard_state: None,
        };
        let active = Active::create(self.fs, self.dir, &header, self.segment_bytes())?;
        identity.incarnation = identity.earlier.next().max(self.options.incarnation_min);
        identity.newest_segment = header.number;
        identity.write(self.fs, self.dir)?;
        let live = self.live(&identity, active, lock);
        let recovered = Recovered {
            store: identity.store,
            incarnation: identity.incarnation,
            hard_state: None,
            snapshot: None,
            entries: Vec::new(),
            base: LogPoint::ZERO,
            notes,
        };
        Ok((live, recovered))
    }

    /// Empties the directory of logs and snapshots: into `damaged-<aside>`, or for good when they are only what an
    /// earlier attempt to set it up left.
    fn clear(&self, aside: u64) -> Result<(), StorageError> {
        let place = self.dir.join(damaged_name(aside));
        let kept = if aside > 0 {
            self.fs.list(&place).map_err(io_error("list", &place))?
        } else {
            Vec::new()
        };
        for name in self.names()? {
            let ours =
                number_of(&name).is_some() || place_of(&name).is_some() || name.ends_with(".tmp");
            if !ours {
                continue;
            }
            let path = self.dir.join(&name);
            // A name that is there already was moved by an attempt before; this is then what that attempt made.
            if aside > 0 && !kept.contains(&name) {
                let to = place.join(&name);
                self.fs
                    .rename(&path, &to)
                    .map_err(io_error("rename to", &to))?;
            } else {
                self.fs.remove(&path).map_err(io_error("remove", &path))?;
            }
        }
        if aside > 0 {
            self.fs.sync_dir(&place).map_err(io_error("sync", &place))?;
        }
        self.fs
            .sync_dir(self.dir)
            .map_err(io_error("sync", self.dir))
    }

    /// Starts a new life of a log that was found sound.
    fn go_on(
        &self,
        mut identity: Identity,
        mut found: Found,
        lock: F::Lock,
    ) -> Result<(Live<F>, Recovered), StorageError> {
        let active = self.continue_tail(&mut found)?;
        // Only now is it durable that they are void.
        for path in &found.void {
            self.fs.remove(path).map_err(io_error("remove", path))?;
        }
        identity.incarnation = identity
            .incarnation
            .next()
            .max(self.options.incarnation_min);
        let mut live = self.live(&identity, active, lock);
        live.active_live = found.replay.last_live.pop().unwrap_or(Index::ZERO);
        let older = found.paths.into_iter().zip(found.replay.last_live);
        live.sealed = older
            .map(|(path, last_live)| Sealed { path, last_live })
            .collect();
        live.points = found.replay.points;
        live.generation = found.replay.generation;
        live.hard_state = found.replay.hard_state;
        if found.tail.scanned.sealed {
            live.next_segment()?;
        }
        if let Some(base) = found.restart_at {
            live.restart(base, live.generation);
            live.flush()?;
            live.active.sync()?;
        }
        identity.newest_segment = live.active.number;
        identity.write(self.fs, self.dir)?;
        live.mark()?;
        let snapshot = found.snapshot.map(|found| (found.meta, found.path));
        let mut state = self.snapshots.state();
        state.generation = live.generation;
        state.current = snapshot;
        let recovered = Recovered {
            store: identity.store,
            incarnation: identity.incarnation,
            hard_state: live.hard_state.clone(),
            snapshot: state.current.as_ref().map(|(meta, _)| *meta),
            entries: found.replay.entries,
            base: live.points.base(),
            notes: found.notes,
        };
        drop(state);
        Ok((live, recovered))
    }

    /// Opens the last segment for writing, and makes all its records durable.
    fn continue_tail(&self, found: &mut Found) -> Result<Active<F::File>, StorageError> {
        let path = found.paths.pop().unwrap_or_default();
        let file = self.fs.open(&path).map_err(io_error("open", &path))?;
        let scanned = found.tail.scanned;
        let end = scanned.end as u64;
        // What is behind the records goes, also when it is seen as zeros: the sync of an earlier such cut may have
        // failed, and a record of old garbage might fit behind a new one. Durable with the sync below, before anything
        // is written there.
        file.set_len(end).map_err(io_error("cut", &path))?;
        let identity = (found.tail.number, found.tail.salt);
        let mut active = Active::at((file, path), identity, end, self.segment_bytes());
        if !found.tail.unsynced.is_empty() {
            active
                .file
                .write_at(scanned.durable as u64, &found.tail.unsynced)
                .map_err(io_error("write", &active.path))?;
        }
        active
            .file
            .set_len(self.segment_bytes().max(end))
            .map_err(io_error("extend", &active.path))?;
        active.sync()?;
        Ok(active)
    }

    fn live(&self, identity: &Identity, active: Active<F::File>, lock: F::Lock) -> Live<F> {
        let mut state = self.snapshots.state();
        state.store = identity.store;
        state.incarnation = identity.incarnation;
        Live {
            fs: self.fs.clone(),
            dir: self.dir.into(),
            segment_bytes: self.segment_bytes(),
            store: identity.store,
            incarnation: identity.incarnation,
            snapshots: Arc::clone(self.snapshots),
            points: Points::new(LogPoint::ZERO),
            generation: 0,
            hard_state: None,
            sealed: VecDeque::new(),
            active,
            active_live: Index::ZERO,
            buffer: BytesMut::new(),
            receiving: None,
            void: Vec::new(),
            asides: 0,
            _lock: lock,
        }
    }

    fn segment_bytes(&self) -> u64 {
        self.options
            .segment_bytes
            .clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_LIMIT)
    }
}

/// What is to be done with a directory.
enum Step {
    /// Set up a new log of this identity.
    SetUp(Identity, Vec<String>),
    /// Go on with what was found.
    GoOn(Identity, Box<Found>),
}

fn damaged_name(number: u64) -> String {
    format!("{DAMAGED}{number}")
}

fn is_damaged(name: &str) -> bool {
    name.starts_with(DAMAGED)
}

const LOCK: &str = "lock";
/// Made by some file systems at the root of a volume.
const LOST_AND_FOUND: &str = "lost+found";
const DAMAGED: &str = "damaged-";
const SEGMENT_BYTES_MIN: u64 = 512;
const SEGMENT_BYTES_LIMIT: u64 = 1 << 30;
