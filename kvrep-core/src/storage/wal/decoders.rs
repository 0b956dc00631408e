//! The log's decoders for whoever attacks them: single records and headers, and the recovery of a whole directory.

use super::identity::Identity;
use super::record::{self, Kind, get_point};
use super::segment::{Header, number_of};
use super::snapshots::FileHeader;
use super::{Wal, WalOptions, read_aside};
use crate::entry::{Entry, EntryKind};
use crate::id::{GroupId, Index, LogPoint, ReplicaId, StoreId, Term};
use crate::one_of_each;
use crate::storage::fs::{Fs, FsFile};
use crate::storage::mem_fs::MemFs;
use crate::storage::{Recovered, Storage, StorageError, StorageOp, Tail};
use crate::time::Timestamp;
use bytes::{BufMut, Bytes, BytesMut};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

const SALT: u32 = 7;
const DIR: &str = "data";

/// Records one after the other, as a segment is read, each with what its kind carries.
pub(crate) fn records(bytes: &[u8]) -> bool {
    let mut offset = 0;
    while let Some((kind, end)) = record::at(bytes, SALT, offset) {
        let mut payload = Bytes::copy_from_slice(&bytes[offset + record::HEAD_BYTES..end]);
        match kind {
            Kind::Entry => drop(Entry::decode(&mut payload, 0)),
            Kind::Truncate | Kind::Restart => drop(get_point(&mut payload)),
            Kind::HardState | Kind::Generation | Kind::Mark | Kind::End => {}
        }
        offset = end;
    }
    let _ = record::marked_durable(bytes, SALT, 0, 0);
    offset == bytes.len() && offset > 0
}

pub(crate) fn valid_records() -> Vec<Vec<u8>> {
    let mut out = BytesMut::new();
    for kind in one_of_each!(Kind:
        Entry {},
        Truncate {},
        HardState {},
        Restart {},
        Generation {},
        Mark {},
        End {},
    ) {
        let offset = out.len() as u64;
        record::put(&mut out, SALT, offset, kind, |out| match kind {
            Kind::Entry => entry(LogPoint::ZERO).encode(out),
            Kind::Truncate => record::put_point(out, LogPoint::ZERO),
            Kind::HardState => out.put_slice(b"term 1"),
            Kind::Restart => {
                record::put_point(out, LogPoint::ZERO);
                out.put_u64(1);
            }
            Kind::Generation | Kind::Mark => out.put_u64(7),
            Kind::End => {}
        });
    }
    vec![out.to_vec()]
}

pub(crate) fn segment_header(bytes: &[u8]) -> bool {
    let segment = Bytes::copy_from_slice(bytes);
    let Ok((header, length)) = Header::decode(&segment) else {
        return false;
    };
    let mut again = BytesMut::new();
    header.encode(&mut again);
    assert_eq!(again.len(), length, "a header comes back at its length");
    true
}

pub(crate) fn valid_segment_headers() -> Vec<Vec<u8>> {
    let of = |hard_state: Option<Bytes>| {
        let mut out = BytesMut::new();
        Header {
            store: StoreId(1),
            number: 2,
            base: LogPoint::ZERO,
            generation: 3,
            hard_state,
        }
        .encode(&mut out);
        out.to_vec()
    };
    vec![of(None), of(Some(Bytes::from_static(b"term 1")))]
}

pub(crate) fn identity(bytes: &[u8]) -> bool {
    let disk = MemFs::new();
    put(&disk, &Path::new(DIR).join(super::identity::NAME), bytes);
    Identity::read(&disk, Path::new(DIR)).is_ok()
}

pub(crate) fn valid_identities() -> Vec<Vec<u8>> {
    let path = Path::new(DIR).join(super::identity::NAME);
    vec![sample().0.contents(path).unwrap_or_default()]
}

pub(crate) fn snapshot_header(bytes: &[u8]) -> bool {
    FileHeader::decode(bytes).is_some()
}

pub(crate) fn valid_snapshot_headers() -> Vec<Vec<u8>> {
    vec![FileHeader::sample().encode().to_vec()]
}

/// A tail that was set aside.
pub(crate) fn aside(bytes: &[u8]) -> bool {
    let disk = MemFs::new();
    let path = Path::new("aside.wal");
    put(&disk, path, bytes);
    read_aside(&disk, path).is_ok()
}

pub(crate) fn valid_asides() -> Vec<Vec<u8>> {
    let disk = sample().0.fork();
    let mut wal = wal(&disk);
    let cut = StorageOp::TruncateSuffix {
        from: Index(2),
        tail: Tail::SaveAside,
    };
    let Ok(_) = wal.open() else { return Vec::new() };
    let Ok(events) = wal.write(vec![cut]) else {
        return Vec::new();
    };
    let crate::storage::StorageEvent::TailSaved { path, .. } = &events[0];
    disk.contents(path).into_iter().collect()
}

/// The whole recovery: the bytes stand where the last segment was.
pub(crate) fn recovery(bytes: &[u8]) -> bool {
    let (disk, segment) = sample();
    let disk = disk.fork();
    put(&disk, segment, bytes);
    opens(&disk)
}

pub(crate) fn valid_segments() -> Vec<Vec<u8>> {
    let (disk, segment) = sample();
    let whole = disk.contents(segment).unwrap_or_default();
    let used = whole.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
    vec![whole[..used].to_vec()]
}

/// The recovery of records that are all sound, whatever they say: each input byte pair is a kind and a length, the
/// payload follows. What no checksum finds must not do harm either.
pub(crate) fn recovery_of_sound_records(bytes: &[u8]) -> bool {
    let (disk, segment) = sample();
    let whole = Bytes::from(disk.contents(segment).unwrap_or_default());
    let Ok((header, start)) = Header::decode(&whole) else {
        return false;
    };
    let mut out = BytesMut::from(&whole[..start]);
    let mut end = header.base;
    let mut rest = bytes;
    while let [kind, length, tail @ ..] = rest {
        let (payload, behind) = tail.split_at(tail.len().min(usize::from(*length)));
        rest = behind;
        let offset = out.len() as u64;
        match Kind::of(kind & 7) {
            // An entry that follows, else none would ever be taken.
            None => {
                let next = Entry::following(
                    end,
                    Term::ZERO.next_for(ReplicaId(1)),
                    Timestamp(0),
                    0,
                    EntryKind::Command,
                    Bytes::copy_from_slice(payload),
                );
                record::put_entry(&mut out, header.salt(), offset, &next);
                end = next.point();
            }
            Some(Kind::Truncate) if kind & 8 != 0 => {
                record::put(&mut out, header.salt(), offset, Kind::Truncate, |out| {
                    record::put_point(out, LogPoint::ZERO);
                });
                end = LogPoint::ZERO;
            }
            Some(kind) => record::put(&mut out, header.salt(), offset, kind, |out| {
                out.put_slice(payload);
            }),
        }
    }
    let disk = disk.fork();
    put(&disk, segment, &out);
    opens(&disk)
}

pub(crate) fn sound_record_scripts() -> Vec<Vec<u8>> {
    vec![
        b"\x00\x03abc\x00\x01x\x0a\x00\x00\x02yz\x03\x04hard".to_vec(),
        b"\x00\x03abc\x06\x08\0\0\0\0\0\0\0\x09\x07\x00".to_vec(),
        b"\x05\x08\0\0\0\0\0\0\0\x01".to_vec(),
    ]
}

/// Opens, and if that goes well, goes on writing and opens again: then it must find what was there and what was added.
fn opens(disk: &MemFs) -> bool {
    let mut first = wal(disk);
    let found = match first.open() {
        Ok(found) => found,
        Err(StorageError::Misuse(why)) => panic!("bytes on a disk are no misuse: {why}"),
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return false;
        }
    };
    let end = end_of(&found);
    if end.index.0 < u64::MAX - 1 {
        let next = entry(end);
        let written = first.write(vec![StorageOp::Append(vec![next.clone()].into())]);
        written
            .and_then(|_| first.sync())
            .expect("what opened can be written to");
        disk.kill();
        let again = wal(disk).open().expect("what was written can be opened");
        assert_eq!(
            end_of(&again),
            next.point(),
            "the log goes on where it ended"
        );
    }
    true
}

fn end_of(found: &Recovered) -> LogPoint {
    found.entries.last().map_or(found.base, Entry::point)
}

/// A small log in a directory, and the path of its only segment.
fn sample() -> &'static (MemFs, PathBuf) {
    static SAMPLE: OnceLock<(MemFs, PathBuf)> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let disk = MemFs::new();
        let mut wal = wal(&disk);
        wal.open().expect("an empty directory can be opened");
        let one = entry(LogPoint::ZERO);
        let two = entry(one.point());
        let ops = vec![
            StorageOp::Append(vec![one, two].into()),
            StorageOp::HardState(Bytes::from_static(b"term 1")),
        ];
        wal.write(ops)
            .and_then(|_| wal.sync())
            .expect("a new log can be written to");
        drop(wal);
        disk.kill();
        let is_segment = |path: &Path| number_of(path.file_name()?.to_str()?);
        let mut files = disk.files().into_iter().map(|(path, _)| path);
        let segment = files.find(|path| is_segment(path).is_some());
        (disk, segment.expect("a log has a segment"))
    })
}

fn wal(disk: &MemFs) -> Wal<MemFs> {
    let mut options = WalOptions::new(GroupId::named("decoders"), ReplicaId(1), 7);
    options.segment_bytes = 4_096;
    Wal::new(disk.clone(), DIR, options)
}

fn entry(prev: LogPoint) -> Entry {
    let term = prev.term.max(Term::ZERO.next_for(ReplicaId(1)));
    let payload = Bytes::from_static(b"payload");
    Entry::following(prev, term, Timestamp(3), 4, EntryKind::Command, payload)
}

fn put(disk: &MemFs, path: &Path, bytes: &[u8]) {
    let written = || -> io::Result<()> {
        let dir = path.parent().unwrap_or(Path::new(""));
        disk.create_dir(dir)?;
        let file = disk.create(path)?;
        file.write_at(0, bytes)?;
        file.sync()?;
        disk.sync_dir(dir)
    };
    written().expect("a disk in memory takes everything");
}
