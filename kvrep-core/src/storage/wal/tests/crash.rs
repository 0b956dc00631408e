//! Crashes, errors and full disks at every moment.

use super::model::{Act, World, script};
use crate::random::Rng;
use crate::storage::{StorageError, Tail};
use proptest::prelude::*;
use std::io::ErrorKind;

/// Runs the script on a fresh disk until something fails; says whether it did.
fn run(world: &mut World) -> Result<(), StorageError> {
    world.open()?;
    script().iter().try_for_each(|act| world.act(act))
}

/// How many calls the script makes on a healthy disk.
fn calls(segment_bytes: u64) -> u64 {
    let mut world = World::new(segment_bytes);
    run(&mut world).unwrap();
    world.kill();
    world.open().unwrap();
    world.disk.ops()
}

/// It opens, takes new entries, and still has them after the power went once more.
fn goes_on(world: &mut World, seed: u64) {
    world.open().unwrap();
    let more = Act::Append {
        count: 2,
        bytes: 40,
    };
    world.act(&more).unwrap();
    world.act(&Act::Sync).unwrap();
    world.crash(seed);
    world.open().unwrap();
}

#[test]
fn the_power_may_go_at_any_call() {
    for segment_bytes in [512, 1 << 14] {
        for call in 0..calls(segment_bytes) {
            for seed in 0..12 {
                let mut world = World::new(segment_bytes);
                world.disk.power_off_at(call);
                let ended = run(&mut world);
                if ended.is_ok() {
                    world.kill();
                }
                world.crash(seed * 1000 + call);
                goes_on(&mut world, seed);
            }
        }
    }
}

#[test]
fn a_call_may_fail_once_and_the_process_starts_again() {
    for segment_bytes in [512, 1 << 14] {
        for call in 0..calls(segment_bytes) {
            for kind in [ErrorKind::Other, ErrorKind::StorageFull] {
                let mut world = World::new(segment_bytes);
                world.disk.fail_at(call, kind);
                let _ = run(&mut world);
                let mut after_power_loss = world.fork();
                world.kill();
                // What is recovered from the page cache after a failed sync must be made durable by opening.
                world.open().unwrap();
                world.crash(call);
                goes_on(&mut world, call + 1);
                after_power_loss.crash(call);
                goes_on(&mut after_power_loss, call + 1);
            }
        }
    }
}

#[test]
fn the_power_may_go_at_any_call_of_a_recovery() {
    let mut before = World::new(512);
    run(&mut before).unwrap();
    before.crash(3);
    for call in 0..60 {
        for seed in 0..20 {
            let mut world = before.fork();
            let first = world.disk.ops();
            world.disk.power_off_at(first + call);
            let _ = world.open();
            world.crash(seed);
            goes_on(&mut world, seed);
        }
    }
}

#[test]
fn after_an_error_nothing_more_is_written() {
    let mut world = World::new(1 << 20);
    world.open().unwrap();
    world.act(&Act::Append { count: 1, bytes: 1 }).unwrap();
    world.disk.fail_at(world.disk.ops(), ErrorKind::Other);
    assert!(matches!(
        world.act(&Act::Sync),
        Err(StorageError::Io { .. })
    ));
    let calls = world.disk.ops();
    let error = world.act(&Act::Sync).unwrap_err().to_string();
    assert!(error.contains("after an error"), "{error}");
    assert!(world.act(&Act::Hard { bytes: 1 }).is_err());
    assert_eq!(world.disk.ops(), calls, "a failed sync was tried again");
}

#[test]
fn a_full_disk_is_an_error_and_what_was_synced_stays() {
    let mut refused = 0;
    for capacity in (200..4000).step_by(97) {
        let mut world = World::new(1024);
        world.disk.set_capacity(Some(capacity));
        match run(&mut world) {
            Ok(()) => {}
            Err(StorageError::Io { .. }) => refused += 1,
            Err(other) => panic!("{other}"),
        }
        world.disk.set_capacity(None);
        world.kill();
        goes_on(&mut world, capacity);
    }
    assert!(refused > 10, "the disk was full {refused} times only");
}

fn act() -> impl Strategy<Value = Act> {
    let tail = prop_oneof![Just(Tail::Drop), Just(Tail::SaveAside)];
    prop_oneof![
        6 => (1..6_u8, 0..300_u16).prop_map(|(count, bytes)| Act::Append { count, bytes }),
        2 => (1..8_u8, tail.clone()).prop_map(|(count, tail)| Act::Cut { count, tail }),
        2 => (0..12_u8).prop_map(|count| Act::Purge { count }),
        2 => (0..80_u8).prop_map(|bytes| Act::Hard { bytes }),
        2 => (0..6_u8, 0..900_u16).prop_map(|(behind, bytes)| Act::Snapshot { behind, bytes }),
        1 => (0..6_u8).prop_map(|behind| Act::InstallMatching { behind }),
        1 => (0..20_u8).prop_map(|index| Act::InstallOther { index }),
        1 => tail.prop_map(|tail| Act::Reset { tail }),
        4 => Just(Act::Sync),
    ]
}

#[derive(Clone, Debug)]
enum End {
    Crash(u64),
    PowerOff { after_calls: u64, seed: u64 },
    Fail { after_calls: u64 },
    Kill,
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        any::<u64>().prop_map(End::Crash),
        (0..60_u64, any::<u64>())
            .prop_map(|(after_calls, seed)| End::PowerOff { after_calls, seed }),
        (0..60_u64).prop_map(|after_calls| End::Fail { after_calls }),
        Just(End::Kill),
    ]
}

/// One life after the other; each ends as it says.
fn lives(segment_bytes: u64, lives: &[(Vec<Act>, End)]) {
    let mut world = World::new(segment_bytes);
    for (acts, end) in lives {
        let now = world.disk.ops();
        match end {
            End::PowerOff { after_calls, .. } => world.disk.power_off_at(now + after_calls),
            End::Fail { after_calls } => world.disk.fail_at(now + after_calls, ErrorKind::Other),
            End::Crash(_) | End::Kill => {}
        }
        let opened = world.open();
        if opened.is_ok() {
            let _ = acts.iter().try_for_each(|act| world.act(act));
        }
        match end {
            End::Crash(seed) | End::PowerOff { seed, .. } => world.crash(*seed),
            End::Fail { .. } | End::Kill => world.kill(),
        }
    }
    goes_on(&mut world, 1);
    assert!(world.is_open());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn any_lives_with_any_ends_recover_a_prefix_with_all_that_was_synced(
        segment_bytes in prop_oneof![Just(512_u64), Just(2048), Just(1 << 14)],
        all in prop::collection::vec((prop::collection::vec(act(), 0..20), end()), 1..6),
    ) {
        lives(segment_bytes, &all);
    }
}

#[test]
fn hundreds_of_lives_on_one_disk() {
    let mut world = World::new(1024);
    let mut rng = Rng::new(11);
    let acts = script();
    for life in 0..300 {
        world.open().unwrap();
        for _ in 0..rng.below(12) {
            let act = &acts[usize::try_from(rng.below(acts.len() as u64)).unwrap()];
            world.act(act).unwrap();
        }
        world.crash(life);
    }
}

#[test]
fn garbage_whose_cutting_failed_to_sync_does_not_come_back() {
    let append = Act::Append { count: 1, bytes: 0 };
    let reset = Act::Reset { tail: Tail::Drop };
    let first = vec![append.clone(), Act::Sync, reset, append];
    for seed in 0..50 {
        for after_calls in 10..25 {
            lives(
                1 << 14,
                &[
                    (first.clone(), End::Crash(seed)),
                    (Vec::new(), End::Fail { after_calls }),
                    (Vec::new(), End::Crash(seed + 1)),
                ],
            );
        }
    }
}
