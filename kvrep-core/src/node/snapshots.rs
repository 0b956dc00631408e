//! Snapshots on their way between state machine, storage and peers. Everything here may block.

use crate::protocol::SnapshotPiece;
use crate::state_machine::FrozenState;
use crate::storage::{SnapshotMeta, SnapshotReader, SnapshotStore, SnapshotWriter, StorageError};
use bytes::{Buf, Bytes};
use std::io::{self, BufWriter, Read, Write};
use std::sync::Arc;

/// Why a snapshot could not be written or read. The node ends: without snapshots its log grows without bound.
#[derive(Debug, thiserror::Error)]
pub(super) enum SnapshotError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("the state cannot be written as a snapshot: {0}")]
    State(io::Error),
}

/// Writes `state` into a snapshot that was created for it.
pub(super) fn write(
    created: Result<Box<dyn SnapshotWriter>, StorageError>,
    state: FrozenState,
) -> Result<SnapshotMeta, SnapshotError> {
    let mut out = BufWriter::with_capacity(PIECE_BYTES, created?);
    state(&mut out).map_err(SnapshotError::State)?;
    out.flush().map_err(SnapshotError::State)?;
    let writer = out
        .into_inner()
        .map_err(|e| SnapshotError::State(e.into_error()))?;
    Ok(writer.finish()?)
}

/// An open snapshot that a peer is being sent.
pub(super) type OpenSnapshot = Arc<dyn SnapshotReader>;

/// Reads a piece for a peer; at offset 0 from the snapshot that is current now, else from the one that is open.
pub(super) fn read_piece(
    store: &dyn SnapshotStore,
    open: Option<OpenSnapshot>,
    offset: u64,
    bytes_max: usize,
) -> Result<Option<(SnapshotPiece, OpenSnapshot)>, StorageError> {
    let reader = if offset == 0 {
        store.current()?.map(OpenSnapshot::from)
    } else {
        open
    };
    let Some(reader) = reader else {
        return Ok(None);
    };
    let meta = reader.meta();
    let data = reader.read(offset, bytes_max)?;
    Ok(Some((SnapshotPiece { meta, offset, data }, reader)))
}

/// Opens the current snapshot as a stream.
pub(super) fn open_current(
    store: &dyn SnapshotStore,
) -> Result<Option<(SnapshotMeta, SnapshotStream)>, StorageError> {
    Ok(store.current()?.map(|reader| {
        let meta = reader.meta();
        (meta, SnapshotStream::new(reader))
    }))
}

/// A snapshot as an [`io::Read`], a piece at a time.
pub(super) struct SnapshotStream {
    reader: Box<dyn SnapshotReader>,
    next: u64,
    piece: Bytes,
}

impl SnapshotStream {
    fn new(reader: Box<dyn SnapshotReader>) -> Self {
        Self {
            reader,
            next: 0,
            piece: Bytes::new(),
        }
    }
}

impl Read for SnapshotStream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() {
            self.piece = self
                .reader
                .read(self.next, PIECE_BYTES)
                .map_err(io::Error::other)?;
            self.next += self.piece.len() as u64;
        }
        let n = out.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut out[..n]);
        Ok(n)
    }
}

/// Written and read at once. As large as the chunks in which a snapshot is received, so that a storage that keeps those
/// reads them back without a copy.
const PIECE_BYTES: usize = 128 << 10;
