//! The snapshot work of a node.

use super::disk::Death;
use super::invariants::Sight;
use super::node::Job;
use super::world::{World, broken};
use crate::protocol::SnapshotPiece;
use crate::state_machine::FrozenState;
use crate::storage::{SnapshotMeta, SnapshotStore, SnapshotWriter, StorageError};
use std::io;

const PIECE: usize = 1 << 16;

impl World {
    /// Carries out a piece of snapshot work.
    pub(super) fn work(&mut self, n: usize, job: Job) {
        let Some(store) = self.nodes[n].disk.snapshots() else {
            return;
        };
        let done = match job {
            Job::Write(created, state) => self.write(n, created, state),
            Job::Read {
                peer,
                offset,
                bytes_max,
            } => self.read_piece(n, (peer, offset, bytes_max), store.as_ref()),
            Job::Load(meta) => self.load(n, meta, store.as_ref()),
        };
        if let Err(e) = done {
            if self.cell.breaks_disks() {
                self.note(n, format!("ends: {e}"));
                self.kill(n, Death::Killed);
            } else {
                self.fail("the storage works", format!("node {n}: {e}"));
            }
        }
    }

    fn write(
        &mut self,
        n: usize,
        created: Result<Box<dyn SnapshotWriter>, StorageError>,
        state: FrozenState,
    ) -> Result<(), StorageError> {
        let mut writer = created?;
        state(&mut writer).map_err(|e| broken("write a snapshot to", e))?;
        match writer.finish() {
            Ok(meta) => {
                self.note(n, format!("wrote a snapshot at {:?}", meta.last));
                self.drive(n, |engine, now, host| {
                    engine.on_snapshot_written(now, meta, host);
                });
                Ok(())
            }
            Err(StorageError::Superseded) => {
                self.note(n, "drops a snapshot of a history that was replaced");
                self.drive(n, |engine, now, host| engine.on_snapshot_dropped(now, host));
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    fn read_piece(
        &mut self,
        n: usize,
        (peer, offset, bytes_max): (crate::ReplicaId, u64, usize),
        store: &dyn SnapshotStore,
    ) -> Result<(), StorageError> {
        let readers = &mut self.nodes[n].readers;
        if offset == 0 {
            readers.remove(&peer);
            if let Some(reader) = store.current()? {
                readers.insert(peer, reader);
            }
        }
        let piece = match readers.get(&peer) {
            None => None,
            Some(reader) => Some(SnapshotPiece {
                meta: reader.meta(),
                offset,
                data: reader.read(offset, bytes_max)?,
            }),
        };
        self.drive(n, |engine, now, host| {
            engine.on_snapshot_piece(now, peer, piece, host);
        });
        Ok(())
    }

    fn load(
        &mut self,
        n: usize,
        meta: SnapshotMeta,
        store: &dyn SnapshotStore,
    ) -> Result<(), StorageError> {
        let bytes = read_all(store, &meta)?;
        self.stats.transfers += 1;
        self.note(n, format!("loads the snapshot at {:?}", meta.last));
        let life = self.life(n);
        let point = meta.last;
        self.show(&Sight::Restored { life, point });
        self.agreed.note(point);
        self.drive(n, |engine, now, host| {
            engine.on_snapshot_loaded(now, meta, &mut bytes.as_slice(), host);
        });
        Ok(())
    }
}

/// The bytes of the current snapshot, which must be this one.
pub(super) fn read_all(
    store: &dyn SnapshotStore,
    meta: &SnapshotMeta,
) -> Result<Vec<u8>, StorageError> {
    let Some(reader) = store.current()? else {
        return Err(broken("find", io::ErrorKind::NotFound.into()));
    };
    if reader.meta() != *meta {
        return Err(StorageError::Misuse(format!(
            "the current snapshot is {:?}, not {meta:?}",
            reader.meta()
        )));
    }
    let mut bytes = Vec::new();
    loop {
        let piece = reader.read(bytes.len() as u64, PIECE)?;
        if piece.is_empty() {
            return Ok(bytes);
        }
        bytes.extend_from_slice(&piece);
    }
}
