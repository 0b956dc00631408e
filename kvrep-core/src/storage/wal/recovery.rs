//! What is on the disk when a directory is opened; read, judged, and not yet changed.

use super::identity::Identity;
use super::replay::{Damage, Place, Replay, Scanned, scan};
use super::segment::{Header, SEGMENT_BYTES_MAX, number_of};
use super::snapshots::{Snapshots, Verified, place_of};
use crate::id::{Index, LogPoint};
use crate::storage::StorageError;
use crate::storage::fs::{Fs, REMEDY, read_whole};
use bytes::Bytes;
use std::path::{Path, PathBuf};

/// A directory read and found sound.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) replay: Replay,
    /// Paths of the segments, in order; the last one is `tail`.
    pub(super) paths: Vec<PathBuf>,
    pub(super) tail: TailFound,
    pub(super) snapshot: Option<Verified>,
    /// The log is to be emptied, since it does not reach or contain the snapshot.
    pub(super) restart_at: Option<LogPoint>,
    /// Files that mean nothing any more.
    pub(super) void: Vec<PathBuf>,
    pub(super) notes: Vec<String>,
}

/// The last segment.
#[derive(Debug)]
pub(super) struct TailFound {
    pub(super) number: u64,
    pub(super) salt: u32,
    pub(super) scanned: Scanned,
    /// Its records that are not known to be durable.
    pub(super) unsynced: Bytes,
}

/// Reads the directory with these names in it.
pub(super) fn read<F: Fs>(
    fs: &F,
    dir: &Path,
    identity: &Identity,
    names: &[String],
    snapshots: &Snapshots<F>,
) -> Result<Found, StorageError> {
    let segments = numbered(dir, identity, names)?;
    let mut log = LogFound::default();
    for (i, (number, path)) in segments.iter().enumerate() {
        let place = if i + 1 == segments.len() {
            Place::Last
        } else {
            Place::Inner
        };
        log.segment(fs, identity, *number, path, place)?;
    }
    let (Some(mut replay), Some(tail)) = (log.replay, log.tail) else {
        return Err(corrupt(dir, 0, "there is no log"));
    };
    let mut notes = Vec::new();
    let torn = tail.scanned.garbage_end - tail.scanned.end;
    let paths: Vec<PathBuf> = segments.into_iter().map(|(_, path)| path).collect();
    if torn > 0 {
        let path = paths.last().map(|path| path.display().to_string());
        notes.push(format!(
            "{torn} bytes at {} of {} had not been written completely and are cut off",
            tail.scanned.end,
            path.unwrap_or_default()
        ));
    }
    let (snapshot, void) = choose(dir, identity, names, replay.generation, snapshots)?;
    let restart_at = reconcile(dir, &mut replay, snapshot.as_ref(), &mut notes)?;
    Ok(Found {
        replay,
        paths,
        tail,
        snapshot,
        restart_at,
        void,
        notes,
    })
}

/// The segments in order, none missing.
fn numbered(
    dir: &Path,
    identity: &Identity,
    names: &[String],
) -> Result<Vec<(u64, PathBuf)>, StorageError> {
    let mut segments: Vec<(u64, PathBuf)> = names
        .iter()
        .filter_map(|name| Some((number_of(name)?, dir.join(name))))
        .collect();
    segments.sort_unstable();
    for pair in segments.windows(2) {
        if pair[0].0.checked_add(1) != Some(pair[1].0) {
            let what = format!("log segment {} is missing", pair[0].0.wrapping_add(1));
            return Err(corrupt(dir, 0, &what));
        }
    }
    let newest = segments.last().map_or(0, |(number, _)| *number);
    if newest < identity.newest_segment {
        let what = format!("log segment {} is missing", identity.newest_segment);
        return Err(corrupt(dir, 0, &what));
    }
    Ok(segments)
}

#[derive(Default)]
struct LogFound {
    replay: Option<Replay>,
    tail: Option<TailFound>,
}

impl LogFound {
    fn segment<F: Fs>(
        &mut self,
        fs: &F,
        identity: &Identity,
        number: u64,
        path: &Path,
        place: Place,
    ) -> Result<(), StorageError> {
        let loaded = load(fs, path, place, REMEDY)?;
        let header = loaded.header;
        if header.store != identity.store || header.number != number {
            return Err(corrupt(
                path,
                0,
                "it is a segment of another log, or misnamed",
            ));
        }
        let replay = match &mut self.replay {
            Some(replay) => {
                let agrees = header.base == replay.points.end()
                    && header.generation == replay.generation
                    && header.hard_state == replay.hard_state;
                if !agrees {
                    return Err(corrupt(
                        path,
                        0,
                        "it does not continue the segment before it",
                    ));
                }
                replay
            }
            none => none.insert(Replay::new(
                header.base,
                header.generation,
                header.hard_state.clone(),
            )),
        };
        replay
            .segment(&loaded.records, loaded.start)
            .map_err(|damage| corrupt(path, damage.offset, damage.what))?;
        self.tail = Some(TailFound {
            number,
            salt: header.salt(),
            scanned: loaded.scanned,
            unsynced: loaded.records.slice(loaded.scanned.durable..),
        });
        Ok(())
    }
}

/// A segment read and scanned.
pub(super) struct Loaded {
    pub(super) header: Header,
    /// Everything up to the last record.
    pub(super) records: Bytes,
    /// Where in it the records start.
    pub(super) start: usize,
    scanned: Scanned,
}

/// Reads a segment; `remedy` is what to do when it is damaged.
pub(super) fn load<F: Fs>(
    fs: &F,
    path: &Path,
    place: Place,
    remedy: &str,
) -> Result<Loaded, StorageError> {
    let damaged = |damage: Damage| StorageError::Corrupt {
        path: path.into(),
        offset: damage.offset,
        what: damage.what.into(),
        remedy: remedy.into(),
    };
    let bytes = Bytes::from(read_whole(fs, path, SEGMENT_BYTES_MAX)?);
    let (header, start) =
        Header::decode(&bytes).map_err(|what| damaged(Damage { offset: 0, what }))?;
    let scanned = scan(&bytes, start, header.salt(), place).map_err(damaged)?;
    Ok(Loaded {
        header,
        records: trimmed(bytes, scanned.end),
        start,
        scanned,
    })
}

/// The first `end` bytes, not keeping a large rest in memory.
fn trimmed(bytes: Bytes, end: usize) -> Bytes {
    if bytes.len() > 2 * end {
        Bytes::copy_from_slice(&bytes[..end])
    } else {
        bytes.slice(..end)
    }
}

fn corrupt(path: &Path, offset: u64, what: &str) -> StorageError {
    StorageError::Corrupt {
        path: path.into(),
        offset,
        what: what.into(),
        remedy: REMEDY.into(),
    }
}

/// The valid snapshot, and the files that are void.
fn choose<F: Fs>(
    dir: &Path,
    identity: &Identity,
    names: &[String],
    generation: u64,
    snapshots: &Snapshots<F>,
) -> Result<(Option<Verified>, Vec<PathBuf>), StorageError> {
    let mut void = Vec::new();
    let mut valid: Option<(Index, &String)> = None;
    for name in names {
        if name.ends_with(".tmp") {
            void.push(dir.join(name));
        }
        let Some((of, index)) = place_of(name) else {
            continue;
        };
        let newer = valid.is_none_or(|(newest, _)| newest < index);
        let lost = if of == generation && newer {
            valid.replace((index, name)).map(|(_, old)| old)
        } else {
            Some(name)
        };
        void.extend(lost.map(|name| dir.join(name)));
    }
    let Some((index, name)) = valid else {
        return Ok((None, void));
    };
    let found = snapshots.verify(name)?;
    let same = found.store == identity.store
        && found.generation == generation
        && found.meta.last.index == index;
    if !same {
        let what = "it is a snapshot of another log, or misnamed";
        return Err(corrupt(&dir.join(name), 0, what));
    }
    Ok((Some(found), void))
}

/// Makes log and snapshot fit: a snapshot may be ahead of a log whose last entries had not been synced.
fn reconcile(
    dir: &Path,
    replay: &mut Replay,
    snapshot: Option<&Verified>,
    notes: &mut Vec<String>,
) -> Result<Option<LogPoint>, StorageError> {
    let base = replay.points.base();
    let last = snapshot.map_or(LogPoint::ZERO, |found| found.meta.last);
    if last.index < base.index {
        let what = format!(
            "the log starts behind {} and no snapshot reaches that far",
            base.index
        );
        return Err(corrupt(dir, 0, &what));
    }
    if replay.points.at(last.index) == Some(last) {
        return Ok(None);
    }
    if replay.points.end() != last && !replay.entries.is_empty() {
        notes.push(format!(
            "the log {:?}..{:?} ends before the snapshot at {last:?} or contradicts it; it is emptied, and the \
             snapshot stands",
            base,
            replay.points.end()
        ));
    }
    replay.restart(last);
    Ok(Some(last))
}
