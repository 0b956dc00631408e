//! A stretch of the log that is not one run, encoded: peers that are equally far get the same bytes.

use super::log::Log;
use crate::entry::Entry;
use crate::id::{Index, LogPoint};
use bytes::BytesMut;

/// Entries from some index on, as they stand behind an append.
#[derive(Debug, Default)]
pub(super) struct EncodedStretch {
    /// Which run of which log: the point at its end stands for everything in it.
    of: Option<(Index, Index, LogPoint)>,
    last: Option<Index>,
    /// At most about half a frame; its memory is kept for the next run.
    bytes: BytesMut,
}

impl EncodedStretch {
    /// The entries of `log` from `from` up to `upto`, as many as fit in `bytes_max` but at least one (if there is one), and
    /// the index of the last.
    pub(super) fn run(
        &mut self,
        log: &Log,
        (from, upto): (Index, Index),
        bytes_max: usize,
    ) -> (&[u8], Option<Index>) {
        let of = Some((from, upto, log.last()));
        if self.of != of {
            self.of = of;
            self.last = None;
            self.bytes.clear();
            for run in log.runs(from, upto, bytes_max as u64) {
                self.last = run.last().map(|e| e.index);
                self.bytes
                    .reserve(run.iter().map(Entry::encoded_bytes).sum());
                for entry in &run {
                    entry.encode(&mut self.bytes);
                }
            }
        }
        (&self.bytes, self.last)
    }
}
