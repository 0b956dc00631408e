use super::*;
use crate::id::{Incarnation, StoreId};
use crate::storage::mem_fs::MemFs;
use crate::storage::memory::MemoryStorage;
use crate::storage::wal::{Wal, WalOptions};

const STATE: &[u8] = b"everything that was ever carried out";

fn origin() -> Origin {
    Origin {
        group: GroupId(7),
        replica: ReplicaId(2),
        last: LogPoint {
            term: Term::ZERO.next_for(ReplicaId(1)),
            index: Index(40),
            hash: 0xfeed,
        },
        hard_state: "terms".into(),
    }
}

fn state() -> FrozenState {
    Box::new(|out| out.write_all(STATE))
}

fn written(disk: &MemFs) -> CopyInfo {
    write(disk, Path::new("copy"), &origin(), state()).unwrap()
}

fn wal(disk: &MemFs, seed: u64) -> Wal<MemFs> {
    Wal::new(
        disk.clone(),
        "data",
        WalOptions::new(GroupId(7), ReplicaId(3), seed),
    )
}

#[test]
fn a_copy_says_what_it_is_of_and_becomes_the_snapshot_of_a_new_storage() {
    let disk = MemFs::new();
    let info = written(&disk);
    let copy = StateCopy::open_in(&disk, "copy").unwrap();
    assert_eq!(*copy.info(), info);
    assert_eq!((info.last, info.bytes), (origin().last, STATE.len() as u64));

    let mut storage = wal(&disk, 1);
    let mut found = storage.open().unwrap();
    copy.install(GroupId(7), &mut storage, &mut found).unwrap();
    drop(storage);
    let mut again = wal(&disk, 1);
    let recovered = again.open().unwrap();
    assert_eq!(recovered.snapshot, found.snapshot);
    assert_eq!(recovered.base, origin().last);
    assert_eq!(recovered.hard_state.as_deref(), Some(b"terms".as_slice()));
    let reader = again.snapshots().current().unwrap().unwrap();
    assert_eq!(reader.read(0, 1_000).unwrap(), STATE);
}

#[test]
fn every_flipped_bit_and_every_truncation_of_a_copy_is_found() {
    let disk = MemFs::new();
    written(&disk);
    let path = Path::new("copy").join(NAME);
    let whole = disk.contents(&path).unwrap();
    for bit in 0..whole.len() * 8 {
        let bad = disk.fork();
        let byte = [whole[bit / 8] ^ 1 << (bit % 8)];
        bad.open(&path)
            .unwrap()
            .write_at((bit / 8) as u64, &byte)
            .unwrap();
        let refused = StateCopy::open_in(&bad, "copy");
        assert!(
            matches!(refused, Err(FromCopyError::Damaged { .. })),
            "bit {bit}"
        );
    }
    for length in 0..whole.len() {
        let bad = disk.fork();
        bad.open(&path).unwrap().set_len(length as u64).unwrap();
        let refused = StateCopy::open_in(&bad, "copy");
        assert!(
            matches!(refused, Err(FromCopyError::Damaged { .. })),
            "{length}"
        );
    }
}

#[test]
fn a_directory_with_something_in_it_is_refused_and_left_alone() {
    let disk = MemFs::new();
    written(&disk);
    let before = disk.contents("copy/kvrep.copy").unwrap();
    let refused = write(&disk, Path::new("copy"), &origin(), state());
    assert!(matches!(refused, Err(CopyError::NotEmpty { .. })));
    assert_eq!(disk.contents("copy/kvrep.copy").unwrap(), before);
    let missing = StateCopy::open_in(&disk, "elsewhere");
    assert!(matches!(missing, Err(FromCopyError::Missing { .. })));
}

#[test]
fn whenever_the_power_goes_there_is_a_whole_copy_or_none() {
    let mut whole = 0;
    for op in 0.. {
        let disk = MemFs::new();
        disk.power_off_at(op);
        let done = write(&disk, Path::new("copy"), &origin(), state()).is_ok();
        for seed in 0..8 {
            let disk = disk.fork();
            disk.crash(&mut crate::random::Rng::new(seed));
            match StateCopy::open_in(&disk, "copy") {
                Ok(_) => whole += 1,
                Err(FromCopyError::Missing { .. }) => {
                    assert!(!done, "a copy that was confirmed is gone");
                    // And the next attempt is not in its way.
                    write(&disk, Path::new("copy"), &origin(), state()).unwrap();
                }
                Err(e) => panic!("power off at {op}, seed {seed}: {e}"),
            }
        }
        if done {
            break;
        }
    }
    assert!(whole >= 8);
}

#[test]
fn a_copy_of_another_group_or_for_a_replica_with_data_changes_nothing() {
    let disk = MemFs::new();
    written(&disk);
    let copy = StateCopy::open_in(&disk, "copy").unwrap();
    let mut storage = MemoryStorage::new(StoreId(1), Incarnation(1));
    let mut found = storage.open().unwrap();
    let other = copy.install(GroupId(8), &mut storage, &mut found);
    assert!(matches!(
        other,
        Err(FromCopyError::OtherGroup {
            found: 7,
            wanted: 8,
            ..
        })
    ));
    copy.install(GroupId(7), &mut storage, &mut found).unwrap();
    let twice = copy.install(GroupId(7), &mut storage, &mut found);
    assert!(matches!(
        twice,
        Err(FromCopyError::NotEmpty { last: Index(40) })
    ));
}

#[test]
fn whenever_an_installation_is_broken_off_the_next_one_succeeds_or_finds_it_done() {
    let disk = MemFs::new();
    written(&disk);
    let copy = StateCopy::open_in(&disk, "copy").unwrap();
    for op in 0.. {
        let disk = MemFs::new();
        let mut storage = wal(&disk, 1);
        let mut found = storage.open().unwrap();
        disk.power_off_at(disk.ops() + op);
        let done = copy.install(GroupId(7), &mut storage, &mut found).is_ok();
        drop(storage);
        disk.crash(&mut crate::random::Rng::new(op));
        let mut storage = wal(&disk, 1);
        let mut found = storage.open().unwrap();
        match copy.install(GroupId(7), &mut storage, &mut found) {
            Ok(()) => assert!(!done, "what was installed is gone"),
            Err(FromCopyError::NotEmpty { last: Index(40) }) => {
                assert_eq!(found.hard_state.as_deref(), Some(b"terms".as_slice()));
            }
            Err(e) => panic!("broken off at {op}: {e}"),
        }
        if done {
            break;
        }
    }
}
