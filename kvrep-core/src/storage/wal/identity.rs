//! Whose directory it is: one small file, replaced atomically at every start.
//!
//! ```text
//! magic "KVRPDIR2" | group u64 | replica u32 | store u64 | incarnation u64 | earlier u64 | aside u64
//!   | newest segment u64 | crc32 u32
//! ```
//!
//! It is the first thing made and the last thing made: with incarnation 0 it says that the directory is being set up
//! (and under which number an earlier, damaged content is being set aside), so a crash in between is simply gone on
//! with.

use crate::id::{GroupId, Incarnation, ReplicaId, StoreId};
use crate::storage::StorageError;
use crate::storage::fs::{Fs, REMEDY, read_whole, replace};
use bytes::{Buf, BufMut};
use std::path::Path;

/// The file's name.
pub(super) const NAME: &str = "identity";

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) group: GroupId,
    pub(super) replica: ReplicaId,
    pub(super) store: StoreId,
    /// This life; 0 while the directory is being set up.
    pub(super) incarnation: Incarnation,
    /// The last life of what was here before this store.
    pub(super) earlier: Incarnation,
    /// While being set up: earlier content goes to `damaged-<aside>`; 0 if there is none.
    pub(super) aside: u64,
    /// Number of the newest segment when this was written. A log that ends before it has lost segments.
    pub(super) newest_segment: u64,
}

impl Identity {
    /// Reads the file in `dir`.
    pub(super) fn read<F: Fs>(fs: &F, dir: &Path) -> Result<Self, StorageError> {
        let path = dir.join(NAME);
        let bytes = read_whole(fs, &path, 4096)?;
        if bytes.len() >= 8 && bytes[..7] == MAGIC[..7] && bytes[7] != MAGIC[7] {
            return Err(StorageError::Foreign {
                path: dir.into(),
                found: format!(
                    "version {} of the format, this is {}",
                    char::from(bytes[7]),
                    char::from(MAGIC[7])
                ),
            });
        }
        Self::decode(&bytes).ok_or_else(|| StorageError::Corrupt {
            path,
            offset: 0,
            what: "the identity of this replica does not match its checksum".into(),
            remedy: REMEDY.into(),
        })
    }

    /// Writes it to `dir`, atomically and durably.
    pub(super) fn write<F: Fs>(&self, fs: &F, dir: &Path) -> Result<(), StorageError> {
        replace(fs, &dir.join(NAME), &self.encode())
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BYTES);
        out.put_slice(&MAGIC);
        out.put_u64(self.group.0);
        out.put_u32(self.replica.0);
        out.put_u64(self.store.0);
        out.put_u64(self.incarnation.0);
        out.put_u64(self.earlier.0);
        out.put_u64(self.aside);
        out.put_u64(self.newest_segment);
        let crc = crc32fast::hash(&out);
        out.put_u32(crc);
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != BYTES || bytes[..8] != MAGIC {
            return None;
        }
        let (covered, mut crc) = bytes.split_at(BYTES - 4);
        if crc.get_u32() != crc32fast::hash(covered) {
            return None;
        }
        let mut rest = &covered[8..];
        Some(Self {
            group: GroupId(rest.get_u64()),
            replica: ReplicaId(rest.get_u32()),
            store: StoreId(rest.get_u64()),
            incarnation: Incarnation(rest.get_u64()),
            earlier: Incarnation(rest.get_u64()),
            aside: rest.get_u64(),
            newest_segment: rest.get_u64(),
        })
    }
}

const MAGIC: [u8; 8] = *b"KVRPDIR2";
const BYTES: usize = 8 + 8 + 4 + 8 + 8 + 8 + 8 + 8 + 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_comes_back_and_no_flipped_bit_changes_it() {
        let identity = Identity {
            group: GroupId(1),
            replica: ReplicaId(2),
            store: StoreId(3),
            incarnation: Incarnation(4),
            earlier: Incarnation(5),
            aside: 6,
            newest_segment: 7,
        };
        let bytes = identity.encode();
        assert_eq!(Identity::decode(&bytes), Some(identity));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Identity::decode(&bad), None, "bit {bit}");
        }
    }
}
