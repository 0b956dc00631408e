//! Segments: the log in files of bounded size, each able to stand alone.
//!
//! ```text
//! magic "KVRPWAL1" | store u64 | number u64 | base (28 bytes) | generation u64
//!   | hard state: 0 u8, or 1 u8 + length u32 + bytes | crc32 u32 | records …
//! ```
//!
//! The header repeats what earlier segments said (where the log ended, the hard state, which snapshots are valid), so
//! those can be unlinked whenever no entry in them is needed. A segment gets its name only after its header and the
//! whole segment before it are durable; so only the last one can have a torn tail.

use super::record::{get_point, put_point};
use crate::id::{LogPoint, StoreId};
use crate::storage::StorageError;
use crate::storage::fs::{Fs, FsFile, io_error, put_in_place, tmp_path};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::path::{Path, PathBuf};

/// What a segment starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) store: StoreId,
    pub(super) number: u64,
    pub(super) base: LogPoint,
    pub(super) generation: u64,
    pub(super) hard_state: Option<Bytes>,
}

impl Header {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        let start = out.len();
        out.put_slice(&MAGIC);
        out.put_u64(self.store.0);
        out.put_u64(self.number);
        put_point(out, self.base);
        out.put_u64(self.generation);
        match &self.hard_state {
            None => out.put_u8(0),
            Some(bytes) => {
                out.put_u8(1);
                out.put_u32(u32::try_from(bytes.len()).expect("a hard state is small"));
                out.put_slice(bytes);
            }
        }
        let crc = crc32fast::hash(&out[start..]);
        out.put_u32(crc);
    }

    /// The header at the start of a segment and its length, or what is wrong.
    pub(super) fn decode(segment: &Bytes) -> Result<(Self, usize), &'static str> {
        let mut rest = segment.clone();
        let magic = rest.try_get_u64().map_err(|_| SHORT)?;
        if magic != u64::from_be_bytes(MAGIC) {
            return Err("it does not start as a segment of this version");
        }
        let store = StoreId(rest.try_get_u64().map_err(|_| SHORT)?);
        let number = rest.try_get_u64().map_err(|_| SHORT)?;
        let base = get_point(&mut rest).ok_or(SHORT)?;
        let generation = rest.try_get_u64().map_err(|_| SHORT)?;
        let hard_state = match rest.try_get_u8().map_err(|_| SHORT)? {
            0 => None,
            _ => {
                let length = rest.try_get_u32().map_err(|_| SHORT)? as usize;
                if rest.len() < length {
                    return Err(SHORT);
                }
                // A copy: the header must not keep a whole segment in memory.
                Some(Bytes::copy_from_slice(&rest.split_to(length)))
            }
        };
        let covered = segment.len() - rest.len();
        if rest.try_get_u32().map_err(|_| SHORT)? != crc32fast::hash(&segment[..covered]) {
            return Err("checksum mismatch in its header");
        }
        let header = Self {
            store,
            number,
            base,
            generation,
            hard_state,
        };
        Ok((header, covered + 4))
    }

    /// What the checksums of this segment's records start from.
    pub(super) fn salt(&self) -> u32 {
        salt(self.store, self.number)
    }

    /// The file's name.
    pub(super) fn name(&self) -> String {
        format!(
            "log-{:010}-{:020}.wal",
            self.number,
            self.base.index.0.saturating_add(1)
        )
    }
}

/// The number of the segment in a file of this name.
pub(super) fn number_of(name: &str) -> Option<u64> {
    let (number, _) = name
        .strip_prefix("log-")?
        .strip_suffix(".wal")?
        .split_once('-')?;
    number.parse().ok()
}

fn salt(store: StoreId, number: u64) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&store.0.to_be_bytes());
    crc.update(&number.to_be_bytes());
    crc.finalize()
}

/// The segment that is written to.
#[derive(Debug)]
pub(super) struct Active<File> {
    pub(super) file: File,
    pub(super) path: PathBuf,
    pub(super) number: u64,
    pub(super) salt: u32,
    /// Where the next record goes.
    pub(super) offset: u64,
    /// Whether something was written since the last sync.
    pub(super) dirty: bool,
    /// Up to here everything was written once, records or zeros.
    filled: u64,
    /// So much is written ahead.
    ahead_bytes: u64,
    /// Nothing is written ahead from here on.
    full_at: u64,
}

impl<File: FsFile> Active<File> {
    /// A segment that is open for writing, with records up to `offset`.
    pub(super) fn at(
        (file, path): (File, PathBuf),
        (number, salt): (u64, u32),
        offset: u64,
        segment_bytes: u64,
    ) -> Self {
        Self {
            file,
            path,
            number,
            salt,
            offset,
            dirty: false,
            filled: offset,
            ahead_bytes: (segment_bytes / 16).min(AHEAD_BYTES_MAX),
            full_at: segment_bytes,
        }
    }

    /// Makes a new segment, durable with its name.
    pub(super) fn create<F: Fs<File = File>>(
        fs: &F,
        dir: &Path,
        header: &Header,
        segment_bytes: u64,
    ) -> Result<Self, StorageError> {
        let path = dir.join(header.name());
        let tmp = tmp_path(&path);
        let mut bytes = BytesMut::new();
        header.encode(&mut bytes);
        let file = fs.create(&tmp).map_err(io_error("create", &tmp))?;
        file.set_len(segment_bytes.max(bytes.len() as u64))
            .map_err(io_error("extend", &tmp))?;
        file.write_at(0, &bytes).map_err(io_error("write", &tmp))?;
        file.sync().map_err(io_error("sync", &tmp))?;
        put_in_place(fs, &tmp, &path)?;
        let identity = (header.number, header.salt());
        let offset = bytes.len() as u64;
        Ok(Self::at((file, path), identity, offset, segment_bytes))
    }

    /// Writes records behind the last one.
    pub(super) fn append(&mut self, records: &[u8]) -> Result<(), StorageError> {
        self.file
            .write_at(self.offset, records)
            .map_err(io_error("write", &self.path))?;
        self.offset += records.len() as u64;
        self.dirty = true;
        self.fill_ahead()
    }

    /// Writes zeros behind the records now and then: a sync of what overwrites them has no block to allocate and no
    /// metadata to make durable, which costs it more than the records do.
    fn fill_ahead(&mut self) -> Result<(), StorageError> {
        if self.offset <= self.filled {
            return Ok(());
        }
        self.filled = self.offset;
        let upto = (self.offset + self.ahead_bytes).min(self.full_at);
        while self.filled < upto {
            let room = usize::try_from(upto - self.filled).unwrap_or(usize::MAX);
            let zeros = &ZEROS[..room.min(ZEROS.len())];
            self.file
                .write_at(self.filled, zeros)
                .map_err(io_error("write", &self.path))?;
            self.filled += zeros.len() as u64;
        }
        Ok(())
    }

    /// Makes what was written durable.
    pub(super) fn sync(&mut self) -> Result<(), StorageError> {
        self.file.sync().map_err(io_error("sync", &self.path))?;
        self.dirty = false;
        Ok(())
    }
}

/// A segment that is complete.
#[derive(Clone, Debug)]
pub(super) struct Sealed {
    pub(super) path: PathBuf,
    /// The highest index in it that is still part of the log; no entry above is in it.
    pub(super) last_live: crate::id::Index,
}

/// First bytes of a segment; the last is its version.
const MAGIC: [u8; 8] = *b"KVRPWAL1";
const SHORT: &str = "it ends within its header";
/// Zeros are written ahead in stretches of at most this: one sync of so many takes a little longer.
const AHEAD_BYTES_MAX: u64 = 1 << 20;
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
/// No segment is larger, whatever its options said.
pub(super) const SEGMENT_BYTES_MAX: u64 = 1 << 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Index, ReplicaId, Term};

    fn header(hard_state: Option<Bytes>) -> Header {
        Header {
            store: StoreId(1),
            number: 2,
            base: LogPoint {
                term: Term::ZERO.next_for(ReplicaId(3)),
                index: Index(4),
                hash: 5,
            },
            generation: 6,
            hard_state,
        }
    }

    #[test]
    fn a_header_comes_back_and_no_cut_or_flipped_bit_is_taken_for_one() {
        for hard_state in [None, Some(Bytes::from_static(b"hard"))] {
            let mut bytes = BytesMut::new();
            header(hard_state.clone()).encode(&mut bytes);
            let bytes = bytes.freeze();
            assert_eq!(
                Header::decode(&bytes),
                Ok((header(hard_state), bytes.len()))
            );
            for cut in 0..bytes.len() {
                assert!(Header::decode(&bytes.slice(..cut)).is_err());
            }
            for bit in 0..bytes.len() * 8 {
                let mut bad = BytesMut::from(&bytes[..]);
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(Header::decode(&bad.freeze()).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn a_name_tells_number_and_first_index() {
        let name = header(None).name();
        assert_eq!(name, "log-0000000002-00000000000000000005.wal");
        assert_eq!(number_of(&name), Some(2));
        assert_eq!(number_of("log-2.wal"), None);
    }
}
