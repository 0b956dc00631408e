//! Whose directory it is, and what becomes of a damaged one.

use super::model::{Act, World, script};
use crate::id::{GroupId, Incarnation, Index, LogPoint, ReplicaId};
use crate::random::Rng;
use crate::storage::fs::{Fs, OsFs};
use crate::storage::mem_fs::MemFs;
use crate::storage::wal::{OnCorruption, Wal, WalOptions, read_aside};
use crate::storage::{Recovered, Storage, StorageError, StorageEvent, StorageOp, Tail};
use std::path::Path;

fn options() -> WalOptions {
    WalOptions {
        segment_bytes: 4096,
        ..WalOptions::new(GroupId(1), ReplicaId(2), 3)
    }
}

fn open_on(disk: &MemFs, options: WalOptions) -> Result<Recovered, StorageError> {
    Wal::new(disk.clone(), "data", options).open()
}

#[test]
fn a_directory_in_use_is_refused_until_its_user_ends() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = Wal::open_dir(dir.path(), options());
    first.open().unwrap();
    let second = Wal::open_dir(dir.path(), options()).open();
    assert!(
        matches!(second, Err(StorageError::Locked { .. })),
        "{second:?}"
    );
    first
        .write(vec![StorageOp::HardState("still fine".into())])
        .unwrap();
    first.sync().unwrap();
    drop(first);
    Wal::open_dir(dir.path(), options()).open().unwrap();
}

#[test]
fn a_directory_of_something_else_is_refused_and_left_alone() {
    let disk = MemFs::new();
    disk.create_dir(Path::new("data")).unwrap();
    disk.create(Path::new("data/thesis.txt")).unwrap();
    let refused = open_on(&disk, options());
    assert!(
        matches!(&refused, Err(StorageError::Foreign { found, .. }) if found.contains("thesis"))
    );
    assert_eq!(disk.files().len(), 1, "something was put there");
    let set_aside = OnCorruption::SetAside;
    let on_corruption = WalOptions {
        on_corruption: set_aside,
        ..options()
    };
    assert!(
        open_on(&disk, on_corruption).is_err(),
        "it is not damage of ours"
    );
    assert_eq!(disk.files().len(), 1, "something was put there");
}

#[test]
fn a_directory_of_another_replica_or_group_is_refused() {
    let disk = MemFs::new();
    open_on(&disk, options()).unwrap();
    let others = [
        WalOptions {
            group: GroupId(9),
            ..options()
        },
        WalOptions {
            replica: ReplicaId(9),
            ..options()
        },
    ];
    for other in others {
        let refused = open_on(&disk, other);
        assert!(
            matches!(refused, Err(StorageError::Foreign { .. })),
            "{refused:?}"
        );
    }
    open_on(&disk, options()).unwrap();
}

#[test]
fn the_incarnation_grows_by_one_or_to_what_the_caller_asks() {
    let disk = MemFs::new();
    assert_eq!(
        open_on(&disk, options()).unwrap().incarnation,
        Incarnation(1)
    );
    assert_eq!(
        open_on(&disk, options()).unwrap().incarnation,
        Incarnation(2)
    );
    let asked = WalOptions {
        incarnation_min: Incarnation(50),
        ..options()
    };
    assert_eq!(
        open_on(&disk, asked.clone()).unwrap().incarnation,
        Incarnation(50)
    );
    assert_eq!(open_on(&disk, asked).unwrap().incarnation, Incarnation(51));
}

/// A closed log with damage in its first segment.
fn damaged() -> World {
    let mut world = World::new(512);
    world.open().unwrap();
    for act in script() {
        world.act(&act).unwrap();
    }
    world
        .act(&Act::Append {
            count: 20,
            bytes: 50,
        })
        .unwrap();
    world.act(&Act::Sync).unwrap();
    world.kill();
    world.open().unwrap();
    world.kill();
    let files = world.disk.files();
    let (path, _) = files
        .iter()
        .find(|(path, _)| path.starts_with("data") && path.to_string_lossy().contains("/log-"))
        .unwrap();
    world.disk.flip_bit(path, 300 * 8);
    assert!(matches!(world.open(), Err(StorageError::Corrupt { .. })));
    world.options.on_corruption = OnCorruption::SetAside;
    world
}

#[test]
fn a_damaged_directory_is_set_aside_whole_and_a_new_member_starts() {
    let world = damaged();
    let intact_store = {
        let identity = super::super::identity::Identity::read(&world.disk, Path::new("data"));
        identity.unwrap()
    };
    let before = world.disk.files();
    let found = open_on(&world.disk, world.options.clone()).unwrap();
    assert_ne!(
        found.store, intact_store.store,
        "the damaged store is another one"
    );
    assert!(
        found.incarnation > intact_store.incarnation,
        "its lives are not forgotten"
    );
    assert!(found.entries.is_empty() && found.snapshot.is_none() && found.hard_state.is_none());
    assert!(found.notes[0].contains("damaged-1"), "{:?}", found.notes);
    for (path, size) in before {
        let Ok(name) = path.strip_prefix("data") else {
            continue;
        };
        if name.starts_with("aside") {
            continue;
        }
        let moved = Path::new("data/damaged-1").join(name);
        let kept = world.disk.contents(&moved).map(|bytes| bytes.len() as u64);
        assert_eq!(kept, Some(size), "{moved:?}");
    }
    let again = open_on(&world.disk, world.options).unwrap();
    assert_eq!(again.store, found.store);
    assert!(again.notes.is_empty(), "{:?}", again.notes);
}

#[test]
fn setting_aside_may_be_interrupted_at_any_call() {
    let world = damaged();
    let logs = |disk: &MemFs, under: &str| {
        let files = disk.files();
        let of = |path: &Path| path.starts_with(under) && path.to_string_lossy().ends_with(".wal");
        files
            .iter()
            .filter(|(path, _)| of(path) && !path.starts_with("data/aside"))
            .count()
    };
    let damaged_logs = logs(&world.disk, "data");
    for call in 0..60 {
        for seed in 0..10 {
            let disk = world.disk.fork();
            disk.power_off_at(disk.ops() + call);
            let _ = open_on(&disk, world.options.clone());
            disk.crash(&mut Rng::new(seed));
            let found = open_on(&disk, world.options.clone()).unwrap();
            assert!(found.entries.is_empty());
            let place = if logs(&disk, "data/damaged-2") > 0 {
                "data/damaged-2"
            } else {
                "data/damaged-1"
            };
            // The empty segment of an interrupted attempt may be there too.
            let kept = damaged_logs..=damaged_logs + 1;
            assert!(
                kept.contains(&logs(&disk, place)),
                "call {call} seed {seed}"
            );
        }
    }
}

#[test]
fn a_log_without_its_identity_is_refused_or_set_aside() {
    let mut world = damaged();
    world.disk.remove(Path::new("data/identity")).unwrap();
    world.options.on_corruption = OnCorruption::Refuse;
    let refused = open_on(&world.disk, world.options.clone());
    assert!(
        matches!(refused, Err(StorageError::Corrupt { .. })),
        "{refused:?}"
    );
    world.options.on_corruption = OnCorruption::SetAside;
    assert!(
        open_on(&world.disk, world.options)
            .unwrap()
            .entries
            .is_empty()
    );
}

#[test]
fn a_tail_saved_aside_can_be_read_on_a_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut wal = Wal::open_dir(
        dir.path(),
        WalOptions {
            segment_bytes: 512,
            ..options()
        },
    );
    wal.open().unwrap();
    let entries = super::model::entries(LogPoint::ZERO, 40);
    wal.write(vec![StorageOp::Append(entries.clone().into())])
        .unwrap();
    let from = Index(11);
    let events = wal
        .write(vec![StorageOp::TruncateSuffix {
            from,
            tail: Tail::SaveAside,
        }])
        .unwrap();
    let [StorageEvent::TailSaved { path, .. }] = &events[..] else {
        panic!("{events:?}");
    };
    let (before, tail) = read_aside(&OsFs, path).unwrap();
    assert_eq!(before, entries[9].point());
    assert_eq!(tail, entries[10..]);
}

#[test]
fn segments_are_removed_when_a_snapshot_covers_them() {
    let disk = MemFs::new();
    let mut wal = Wal::new(
        disk.clone(),
        "data",
        WalOptions {
            segment_bytes: 512,
            ..options()
        },
    );
    wal.open().unwrap();
    let entries = super::model::entries(LogPoint::ZERO, 100);
    wal.write(vec![StorageOp::Append(entries.clone().into())])
        .unwrap();
    wal.sync().unwrap();
    let before = disk.files().len();
    let writer = wal.snapshots().create(entries[89].point()).unwrap();
    writer.finish().unwrap();
    wal.write(vec![StorageOp::PurgePrefix { upto: Index(90) }])
        .unwrap();
    assert_eq!(
        disk.files().len(),
        before + 1,
        "nothing is removed before a sync"
    );
    wal.sync().unwrap();
    assert!(disk.files().len() < before / 2, "{:?}", disk.files());
    drop(wal);
    let found = open_on(&disk, options()).unwrap();
    assert!(
        (Index(80)..=Index(90)).contains(&found.base.index),
        "{:?}",
        found.base
    );
    assert_eq!(found.entries.last(), entries.last());
}

#[test]
fn an_entry_larger_than_a_segment_has_one_for_itself() {
    let disk = MemFs::new();
    let mut wal = Wal::new(
        disk.clone(),
        "data",
        WalOptions {
            segment_bytes: 512,
            ..options()
        },
    );
    wal.open().unwrap();
    let payload = bytes::Bytes::from(vec![0; 100_000]);
    let first = super::model::entries(LogPoint::ZERO, 1).remove(0);
    let large = crate::Entry::following(
        first.point(),
        first.term,
        first.timestamp,
        0,
        first.kind,
        payload,
    );
    let ops = vec![StorageOp::Append(vec![first.clone(), large.clone()].into())];
    wal.write(ops).unwrap();
    wal.sync().unwrap();
    drop(wal);
    assert_eq!(open_on(&disk, options()).unwrap().entries, [first, large]);
}
