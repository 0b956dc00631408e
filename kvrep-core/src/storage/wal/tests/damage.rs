//! Cuts and flipped bits at every place of every file.

use super::model::{Act, World, script};
use crate::storage::wal::segment::number_of;
use crate::storage::{Recovered, StorageError, Tail};
use proptest::prelude::*;
use std::path::{Path, PathBuf};

/// A closed log in which everything was synced.
fn synced(segment_bytes: u64, acts: &[Act]) -> World {
    let mut world = World::new(segment_bytes);
    world.open().unwrap();
    for act in acts {
        world.act(act).unwrap();
    }
    world.act(&Act::Sync).unwrap();
    world.kill();
    world
}

/// What it recovers, as text.
fn contents(found: &Recovered) -> String {
    let Recovered {
        store,
        hard_state,
        snapshot,
        entries,
        base,
        ..
    } = found;
    format!("{store:?} {hard_state:?} {snapshot:?} {entries:?} {base:?}")
}

fn last_segment(world: &World) -> (PathBuf, u64) {
    let mut files = world.disk.files().into_iter();
    let is_segment = |path: &Path| number_of(path.file_name()?.to_str()?);
    files.rfind(|(path, _)| is_segment(path).is_some()).unwrap()
}

#[test]
fn a_log_cut_at_any_byte_opens_with_a_prefix() {
    let acts = [
        Act::Append {
            count: 3,
            bytes: 20,
        },
        Act::Hard { bytes: 20 },
        Act::Sync,
        Act::Append {
            count: 5,
            bytes: 33,
        },
        Act::Cut {
            count: 2,
            tail: Tail::Drop,
        },
        Act::Append { count: 2, bytes: 0 },
    ];
    let world = synced(2048, &acts);
    let (path, size) = last_segment(&world);
    let mut lengths = std::collections::BTreeSet::new();
    let mut refused = 0;
    for cut in 0..size {
        let mut world = world.fork();
        world.expect_any_prefix();
        world.disk.cut_file(&path, cut);
        match world.open() {
            Ok(found) => {
                lengths.insert(found.entries.len());
                world.act(&Act::Append { count: 1, bytes: 9 }).unwrap();
                world.act(&Act::Sync).unwrap();
                world.crash(cut);
                world.open().unwrap();
            }
            Err(StorageError::Corrupt { .. }) => refused += 1,
            Err(other) => panic!("cut at {cut}: {other}"),
        }
    }
    // No file is ever shorter than its header by a crash: it gets its name when that is durable.
    assert!((1..100).contains(&refused), "{refused} cuts were refused");
    assert_eq!(lengths, (0..=8).collect());
}

#[test]
fn a_flipped_bit_anywhere_is_refused_or_changes_nothing() {
    for segment_bytes in [512, 1 << 12] {
        let world = synced(segment_bytes, &script());
        let intact = contents(&world.fork().open().unwrap());
        let (mut refused, mut harmless) = (0, 0);
        for (path, size) in world.disk.files() {
            for byte in 0..size {
                let mut world = world.fork();
                assert!(world.disk.flip_bit(&path, byte * 8 + byte % 8));
                match world.open() {
                    Ok(found) => {
                        harmless += 1;
                        assert_eq!(contents(&found), intact, "{path:?} at {byte}");
                    }
                    Err(StorageError::Corrupt { path, remedy, .. }) => {
                        refused += 1;
                        assert!(path.starts_with("data") && remedy.contains("SetAside"));
                    }
                    // The version in the identity.
                    Err(StorageError::Foreign { .. }) => assert_eq!(byte, 7),
                    Err(other) => panic!("{path:?} at {byte}: {other}"),
                }
            }
        }
        assert!(refused > 500 && harmless > 100, "{refused} {harmless}");
    }
}

#[test]
fn the_error_names_the_file_and_the_place_of_the_damage() {
    let world = synced(
        1 << 14,
        &[Act::Append {
            count: 9,
            bytes: 100,
        }],
    );
    let (path, _) = last_segment(&world);
    let mut damaged = world.fork();
    damaged.disk.flip_bit(&path, 700 * 8);
    let Err(StorageError::Corrupt {
        path: told, offset, ..
    }) = damaged.open()
    else {
        panic!("damage in the middle was not refused");
    };
    assert_eq!(told, path);
    assert!(
        (500..=700).contains(&offset),
        "the record with the damage starts at {offset}"
    );
    let files = damaged.disk.files();
    assert_eq!(files, world.disk.files(), "a refused directory was changed");
}

#[test]
fn bits_flipped_behind_the_records_are_cut_off_with_a_note() {
    let mut world = synced(
        1 << 14,
        &[Act::Append {
            count: 2,
            bytes: 10,
        }],
    );
    let (path, size) = last_segment(&world);
    world.disk.flip_bit(&path, (size - 1) * 8);
    let found = world.open().unwrap();
    assert_eq!(found.entries.len(), 2);
    assert!(found.notes[0].contains("cut off"), "{:?}", found.notes);
    world.kill();
    assert!(
        world.open().unwrap().notes.is_empty(),
        "the note is given once"
    );
}

#[test]
fn a_lost_segment_is_noticed_wherever_it_was() {
    let world = synced(
        512,
        &[Act::Append {
            count: 30,
            bytes: 60,
        }],
    );
    let mut reopened = world.fork();
    reopened.open().unwrap();
    reopened.kill();
    for (path, _) in world.disk.files() {
        use crate::storage::fs::Fs;
        if !path.to_string_lossy().ends_with(".wal") {
            continue;
        }
        let mut world = reopened.fork();
        world.disk.remove(&path).unwrap();
        let lost = world.open();
        assert!(
            matches!(lost, Err(StorageError::Corrupt { .. })),
            "{path:?}: {lost:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn nonsense_in_the_files_never_panics(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>()), 1..40),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>()), 0..3),
    ) {
        let world = synced(1024, &script());
        let files = world.disk.files();
        for (file, bit) in flips {
            let (path, size) = file.get(&files);
            world.disk.flip_bit(path, bit % (size * 8).max(1));
        }
        for (file, length) in cuts {
            let (path, size) = file.get(&files);
            world.disk.cut_file(path, length % (size + 1));
        }
        let mut wal = crate::storage::wal::Wal::new(world.disk.clone(), "data", world.options);
        let _ = crate::storage::Storage::open(&mut wal);
    }
}
